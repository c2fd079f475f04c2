use anomaly_core::{ConfigError, MethodConfig};
use serde::{Deserialize, Serialize};

use crate::generator::{AttentionKind, HeadLayout};
use crate::sizes::{check_image, check_sizes, patches_of};

/// `AnoTrans`' settings. The default is the published one, with the reference's faults put right; [`Config::reference`]
/// has them all.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Height and width in pixels that images are resized to: a power of two from 16 on; 32.
    pub image_size: usize,
    /// Side of a patch in pixels: even, and at most an eighth of the image. 2, which the paper's figure shows; the
    /// reference's command line has 4 as its default.
    pub patch_size: usize,
    /// Channels of the generator's first level: a multiple of 4 from 8 on; 64.
    pub dim: usize,
    /// Windowed attention (`swintf`, the default) or global (`tf`).
    pub attention: AttentionKind,
    /// Skips from all levels, as the paper's text has them and the released code does not; off.
    pub skip_fusion: bool,
    /// Where the generator's last numbers go: each to its pixel (`pixels`, the default), or as the reference has it
    /// (`scrambled`), which is the same for patches of 2.
    pub head: HeadLayout,
    /// Channels of the discriminator's first convolution; 64.
    pub discriminator_width: usize,
    /// Numbers of the discriminator's feature vector; 100.
    pub feature_size: usize,
    /// Passes over the training images; 25.
    pub epochs: usize,
    /// Images a training step, a short last batch being left out; 128. All of them, if there are fewer.
    pub batch_size: usize,
    /// Adam's learning rate; 2e-4.
    pub learning_rate: f64,
    /// How slowly Adam's mean of the gradient forgets, in `[0, 1)`; 0.5.
    pub beta1: f64,
    /// How slowly Adam's mean of its square forgets, in `[0, 1)`; 0.999.
    pub beta2: f64,
    /// How the learning rate moves; constant, as it is in effect in the reference, which never steps its schedule.
    pub policy: RatePolicy,
    /// Weight of the adversarial loss of the generator; 1.
    pub adversarial_weight: f64,
    /// Weight of the mean absolute difference of image and reconstruction; 50.
    pub reconstruction_weight: f64,
    /// Weight of the mean squared difference of both feature vectors; 1. 0 leaves it out.
    pub latent_weight: f64,
    /// How often the latent loss reaches the generator in a step: `once` (the default), or `twice` as in the reference,
    /// whose discriminator's backward pass adds it again.
    pub latent_gradient: LatentGradient,
    /// Whether the discriminator too is trained to bring both feature vectors together, as in the reference; no.
    pub discriminator_latent: bool,
    /// How often a step moves the discriminator's running statistics: `two` times (the default) or, as in the
    /// reference, `five` times.
    pub running_updates: RunningUpdates,
    /// What is added to training images; nothing.
    pub noise: Noise,
    /// By what the discriminator normalises when it scores: `running` statistics, so that an image's score does not
    /// depend on others (the default), or those of the `batch`, as the reference has it.
    pub scoring: Scoring,
    /// Weight of the pixel error in the score; 0.9.
    pub pixel_score_weight: f64,
    /// Weight of the feature error in the score; 0.1.
    pub feature_score_weight: f64,
    /// What maps show: the pixels' squared `error` (the default), or a `gradient` map in the manner of Grad-CAM++, of
    /// what in the image the feature error comes from.
    pub map: MapKind,
    /// Standard deviation in pixels of the Gaussian that maps are blurred with; 0, none.
    pub map_blur: f64,
    /// Mean of the pixels of each channel, in `[0, 1]`; 0.5.
    pub mean: f32,
    /// Their standard deviation; 0.5.
    pub std: f32,
    /// Resize the shorter side and cut the middle out (the reference's folders), or both sides (all else); off.
    pub crop: bool,
    /// The networks are offered for selection after every so many epochs; 1.
    pub eval_every: usize,
    /// After so many steps in a row in which the discriminator gives no gradient the training has failed; 100.
    pub collapse_after: usize,
}

/// How the learning rate moves from epoch to epoch.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum RatePolicy {
    /// It stays.
    #[default]
    Constant,
    /// It stays for `constant` epochs, then falls in a straight line that would reach 0 `decay + 1` epochs later.
    Lambda {
        /// Epochs before it falls.
        constant: u64,
        /// Epochs of the fall, 100 in the reference.
        decay: u64,
    },
    /// A tenth of it after every so many epochs.
    Step {
        /// Epochs, 50 in the reference.
        every: u64,
    },
    /// A fifth of it whenever the mean reconstruction loss of an epoch has not fallen by a hundredth for more than so
    /// many epochs.
    Plateau {
        /// Epochs, 5 in the reference.
        patience: u64,
    },
}

/// How often the latent loss reaches the generator.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LatentGradient {
    /// As the loss has it.
    #[default]
    Once,
    /// Twice as strong: it is not cut off from the generator in the discriminator's backward pass.
    Twice,
}

/// How often a step moves the discriminator's running statistics.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RunningUpdates {
    /// For the images and their reconstructions.
    #[default]
    Two,
    /// Images, reconstructions, images, reconstructions, reconstructions: one for each of the reference's passes.
    Five,
}

/// What is added to training images, standard normal; never to those that are scored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Noise {
    /// Nothing. (The reference adds memory that nobody has written to.)
    #[default]
    None,
    /// The same numbers to every batch, as the reference has it when noise is asked for.
    Fixed,
    /// New numbers for each batch.
    Redrawn,
}

/// By what the discriminator normalises when it scores.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Scoring {
    /// Running statistics: each image by itself.
    #[default]
    Running,
    /// The reference's way: the statistics of the images scored together, up to `batch_size` of them, so that a score
    /// depends on what else is scored.
    Batch,
}

/// What maps show.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MapKind {
    /// The mean over the channels of the squared difference of image and reconstruction.
    #[default]
    Error,
    /// Where in the discriminator's first stage the feature error comes from, in the manner of Grad-CAM++.
    Gradient,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            image_size: 32,
            patch_size: 2,
            dim: 64,
            attention: AttentionKind::default(),
            skip_fusion: false,
            head: HeadLayout::default(),
            discriminator_width: 64,
            feature_size: 100,
            epochs: 25,
            batch_size: 128,
            learning_rate: 2e-4,
            beta1: 0.5,
            beta2: 0.999,
            policy: RatePolicy::default(),
            adversarial_weight: 1.0,
            reconstruction_weight: 50.0,
            latent_weight: 1.0,
            latent_gradient: LatentGradient::default(),
            discriminator_latent: false,
            running_updates: RunningUpdates::default(),
            noise: Noise::default(),
            scoring: Scoring::default(),
            pixel_score_weight: 0.9,
            feature_score_weight: 0.1,
            map: MapKind::default(),
            map_blur: 0.0,
            mean: 0.5,
            std: 0.5,
            crop: false,
            eval_every: 1,
            collapse_after: 100,
        }
    }
}

impl Config {
    /// What the reference does with the options of its CIFAR-10 script, faults included.
    pub fn reference() -> Self {
        Self {
            patch_size: 4,
            head: HeadLayout::Scrambled,
            latent_gradient: LatentGradient::Twice,
            discriminator_latent: true,
            running_updates: RunningUpdates::Five,
            scoring: Scoring::Batch,
            ..Self::default()
        }
    }
}

impl MethodConfig for Config {
    const METHOD: &'static str = "anogan-trans";

    fn validate(&self) -> Result<(), ConfigError> {
        let refuse = |field: &str, expected: &str, found: &dyn std::fmt::Display| {
            Err(ConfigError::field(Self::METHOD, field, format!("expected {expected}, found {found}")))
        };
        if let Err(error) = check_image(self.image_size) {
            return Err(ConfigError::field(Self::METHOD, "image_size", error.to_string()));
        }
        if let Err(error) = check_sizes(self.image_size, self.patch_size) {
            // Where the default meets smaller images, it is the images that were chosen.
            let fits = patches_of(self.image_size);
            let field = if fits.is_empty() { "image_size" } else { "patch_size" };
            return Err(ConfigError::field(Self::METHOD, field, error.to_string()));
        }
        if self.dim < 8 || !self.dim.is_multiple_of(4) {
            let below = (self.dim / 4 * 4).max(8);
            let nearest = if self.dim < 8 { "8".to_owned() } else { format!("{below} or {}", below + 4) };
            return refuse("dim", &format!("a multiple of 4 from 8 on (the nearest: {nearest})"), &self.dim);
        }
        for (field, value) in [
            ("discriminator_width", self.discriminator_width),
            ("feature_size", self.feature_size),
            ("epochs", self.epochs),
            ("batch_size", self.batch_size),
            ("eval_every", self.eval_every),
            ("collapse_after", self.collapse_after),
        ] {
            if value == 0 {
                return refuse(field, "at least 1", &value);
            }
        }
        // Written so that NaN is refused too.
        if !(self.learning_rate.is_finite() && self.learning_rate > 0.0) {
            return refuse("learning_rate", "a positive number", &self.learning_rate);
        }
        for (field, value) in [("beta1", self.beta1), ("beta2", self.beta2)] {
            if !(0.0..1.0).contains(&value) {
                return refuse(field, "a number in [0, 1)", &value);
            }
        }
        for (field, value) in [
            ("adversarial_weight", self.adversarial_weight),
            ("reconstruction_weight", self.reconstruction_weight),
            ("latent_weight", self.latent_weight),
            ("pixel_score_weight", self.pixel_score_weight),
            ("feature_score_weight", self.feature_score_weight),
            ("map_blur", self.map_blur),
        ] {
            if !(value.is_finite() && value >= 0.0) {
                return refuse(field, "a number from 0 on", &value);
            }
        }
        if !(0.0..=1.0).contains(&self.mean) {
            return refuse("mean", "a number in [0, 1]", &self.mean);
        }
        if !(self.std.is_finite() && self.std > 0.0) {
            return refuse("std", "a positive number", &self.std);
        }
        if self.policy == (RatePolicy::Step { every: 0 }) {
            return refuse("policy", "at least 1 epoch in `step.every`", &0);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::{Config, RatePolicy};
    use anomaly_core::parse_config;
    use serde_json::json;

    #[test]
    fn the_default_is_the_script_s_but_for_the_patch() {
        let config: Config = parse_config(&json!({})).unwrap();
        assert_eq!(config, Config::default());
        assert_eq!((config.image_size, config.dim, config.batch_size, config.epochs), (32, 64, 128, 25));
        assert_eq!((config.learning_rate, config.beta1, config.reconstruction_weight), (2e-4, 0.5, 50.0));
        assert_eq!(Config::reference().patch_size, 4);
    }

    #[test]
    fn every_refusal_names_its_field() {
        for (field, value) in [
            ("image_size", json!(96)),
            ("image_size", json!(0)),
            ("patch_size", json!(3)),
            ("patch_size", json!(8)),
            ("dim", json!(4)),
            ("dim", json!(18)),
            ("discriminator_width", json!(0)),
            ("feature_size", json!(0)),
            ("epochs", json!(0)),
            ("batch_size", json!(0)),
            ("eval_every", json!(0)),
            ("collapse_after", json!(0)),
            ("learning_rate", json!(0.0)),
            ("beta1", json!(1.0)),
            ("beta2", json!(-0.1)),
            ("latent_weight", json!(-1.0)),
            ("map_blur", json!(-1.0)),
            ("mean", json!(1.5)),
            ("std", json!(0.0)),
            ("policy", json!({"step": {"every": 0}})),
            ("policy", json!("cosine")),
            ("noise", json!("some")),
            ("scoring", json!(true)),
        ] {
            let error = parse_config::<Config>(&json!({ field: value })).unwrap_err();
            assert_eq!(error.field_name(), Some(field), "{error}");
        }
        let size = parse_config::<Config>(&json!({"image_size": 96})).unwrap_err().to_string();
        assert!(size.contains("64 or 128"), "{size}");
        let typo = parse_config::<Config>(&json!({"epoch": 2})).unwrap_err().to_string();
        assert!(typo.contains("did you mean `epochs`?"), "{typo}");
    }

    #[test]
    fn policies_are_read_by_their_names() {
        let config: Config =
            parse_config(&json!({"policy": {"lambda": {"constant": 5, "decay": 10}}})).unwrap();
        assert_eq!(config.policy, RatePolicy::Lambda { constant: 5, decay: 10 });
        let config: Config = parse_config(&json!({"policy": {"plateau": {"patience": 3}}})).unwrap();
        assert_eq!(config.policy, RatePolicy::Plateau { patience: 3 });
    }
}
