//! Settings.

use anomaly_core::{ConfigError, MethodConfig};
use serde::{Deserialize, Serialize};

use crate::INFO;

/// What an image's vector is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Features {
    /// Its preprocessed pixels, `3 * image_size^2` numbers.
    #[default]
    Pixels,
    /// The mean of its patch tokens (class and register tokens left out), D numbers. Needs a backbone.
    Tokens,
}

/// How far apart two vectors are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Metric {
    /// The Euclidean distance.
    #[default]
    L2,
    /// One minus the cosine of the angle between them, 0 to 2; a vector of zeros is at 0.5 from any other.
    Cosine,
}

/// The settings of [`crate::PixelKnn`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// What an image's vector is made of.
    pub features: Features,
    /// Which block's output the tokens are taken from, from 0; the final norm's if left out. Pixels take none.
    pub block: Option<usize>,
    /// Side of the square that images are resized to (Pillow, bilinear); if left out, 32 for pixels and the backbone's
    /// own size for tokens.
    pub image_size: Option<usize>,
    /// How many neighbours a score is the mean distance to; at least 1, at most the number of training images.
    pub k: usize,
    /// How far apart two vectors are.
    pub metric: Metric,
    /// Images that go through the backbone together; at least 1.
    pub batch: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            features: Features::default(),
            block: None,
            image_size: None,
            k: 2,
            metric: Metric::default(),
            batch: 32,
        }
    }
}

impl Config {
    /// Whether these settings need a backbone.
    pub fn needs_backbone(&self) -> bool {
        self.features == Features::Tokens
    }
}

impl MethodConfig for Config {
    const METHOD: &'static str = INFO.name;

    fn validate(&self) -> Result<(), ConfigError> {
        for (field, value) in
            [("k", self.k), ("batch", self.batch), ("image_size", self.image_size.unwrap_or(1))]
        {
            if value == 0 {
                return Err(ConfigError::field(Self::METHOD, field, "expected at least 1, found 0"));
            }
        }
        if let (Features::Pixels, Some(block)) = (self.features, self.block) {
            let problem = format!("expected none, for `features` is \"pixels\"; found {block}");
            return Err(ConfigError::field(Self::METHOD, "block", problem));
        }
        Ok(())
    }
}
