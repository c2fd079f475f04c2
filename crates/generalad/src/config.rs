use anomaly_core::{ConfigError, MethodConfig, TestMetric};
use serde::{Deserialize, Serialize};

use crate::{Amount, FakeFeatures};

/// `GeneralAD`'s settings; the default is the published one for `MVTec` AD, `VisA` and MPDD.
///
/// What the reference's jobs change for other data: `MVTec` LOCO `fake_features = "shuffle_and_random"`; CIFAR-10,
/// CIFAR-100, Fashion-MNIST, View: `fake_features = "base"`, `top_k = "all"`, `epochs = 20`, `images_per_epoch = 250`;
/// FGVC-Aircraft and Stanford Cars: `fake_features = "base"`, `top_k = "all"`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Height and width in pixels that images are resized to (Lanczos), at least one patch; 518.
    pub image_size: usize,
    /// Blocks of the backbone whose outputs are the features, counted from 1; their order says nothing but that
    /// attention is taken from the last one written. Empty, as published: the backbone's last block.
    pub layers: Vec<usize>,
    /// Which anomalies are made besides noise on every patch; `random`.
    pub fake_features: FakeFeatures,
    /// At most how many patches `copy_out`, `shuffle` and `randshuffle` move; all.
    pub most_fake_patches: Amount,
    /// Standard deviation of the noise, in the units of the features; 0.25.
    pub noise_std: f64,
    /// An image's score is the mean of so many of its highest logits; 10.
    pub top_k: Amount,
    /// Passes over the training images; 160.
    pub epochs: usize,
    /// Images a training step; 16. Of fewer training images all are one step.
    pub batch_size: usize,
    /// Images drawn for an epoch; all. What fills no whole batch is left out.
    pub images_per_epoch: Amount,
    /// The first epoch's learning rate; 5e-4.
    pub learning_rate: f64,
    /// Share of the learning rate that the cosine goes down to, in `[0, 1]`; 0.2.
    pub lr_decay_factor: f64,
    /// Decoupled weight decay of every parameter; 1e-5.
    pub weight_decay: f64,
    /// Blocks of the discriminator; 1.
    pub dsc_layers: usize,
    /// Its heads; divides the width of the features. 4.
    pub dsc_heads: usize,
    /// Its dropout rate in training, in `[0, 1)`; 0.1.
    pub dsc_dropout: f64,
    /// Its hidden width; 2048.
    pub hidden_dim: usize,
    /// Standard deviation in pixels of the Gaussian over maps; 16.
    pub smoothing_sigma: f64,
    /// Where it is cut off, in pixels; 18.
    pub smoothing_radius: usize,
    /// The detector is offered for selection after every so many epochs; 1.
    pub eval_every: usize,
    /// By which figure on the test set the reference's choice is made; `image_auroc`.
    pub monitor: Monitor,
    /// How the honest choice is made; `last`.
    pub honest: Honest,
}

/// A figure over the test set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Monitor {
    /// Image-level AUROC: the published image-level tables.
    ImageAuroc,
    /// Pixel-level AUROC: the published pixel-level table, from runs of its own.
    PixelAuroc,
}

impl Monitor {
    pub(crate) fn metric(self) -> TestMetric {
        match self {
            Self::ImageAuroc => TestMetric::ImageAuroc,
            Self::PixelAuroc => TestMetric::PixelAuroc,
        }
    }
}

/// A choice among epochs that looks at no test image.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Honest {
    /// The last epoch.
    Last,
    /// The lowest loss on held-out normal images and anomalies made of them, the same draws every time.
    HeldOut,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            image_size: 518,
            layers: Vec::new(),
            fake_features: FakeFeatures::Random,
            most_fake_patches: Amount::All,
            noise_std: 0.25,
            top_k: Amount::Of(10),
            epochs: 160,
            batch_size: 16,
            images_per_epoch: Amount::All,
            learning_rate: 5e-4,
            lr_decay_factor: 0.2,
            weight_decay: 1e-5,
            dsc_layers: 1,
            dsc_heads: 4,
            dsc_dropout: 0.1,
            hidden_dim: 2048,
            smoothing_sigma: 16.0,
            smoothing_radius: 18,
            eval_every: 1,
            monitor: Monitor::ImageAuroc,
            honest: Honest::Last,
        }
    }
}

impl MethodConfig for Config {
    const METHOD: &'static str = "generalad";

    fn validate(&self) -> Result<(), ConfigError> {
        let refuse = |field: &str, expected: &str, found: &dyn std::fmt::Display| {
            Err(ConfigError::field(Self::METHOD, field, format!("expected {expected}, found {found}")))
        };
        for (field, value) in [
            ("image_size", self.image_size),
            ("epochs", self.epochs),
            ("batch_size", self.batch_size),
            ("dsc_layers", self.dsc_layers),
            ("dsc_heads", self.dsc_heads),
            ("hidden_dim", self.hidden_dim),
            ("eval_every", self.eval_every),
        ] {
            if value == 0 {
                return refuse(field, "at least 1", &value);
            }
        }
        for (field, amount) in [
            ("most_fake_patches", self.most_fake_patches),
            ("top_k", self.top_k),
            ("images_per_epoch", self.images_per_epoch),
        ] {
            if amount == Amount::Of(0) {
                return refuse(field, "\"all\" or at least 1", &amount);
            }
        }
        if self.layers.contains(&0) {
            return refuse("layers", "blocks counted from 1", &0);
        }
        // Written so that NaN is refused too.
        for (field, value) in [
            ("noise_std", self.noise_std),
            ("learning_rate", self.learning_rate),
            ("smoothing_sigma", self.smoothing_sigma),
        ] {
            if !(value.is_finite() && value > 0.0) {
                return refuse(field, "a positive number", &value);
            }
        }
        if !(self.weight_decay.is_finite() && self.weight_decay >= 0.0) {
            return refuse("weight_decay", "a number from 0 on", &self.weight_decay);
        }
        if !(0.0..=1.0).contains(&self.lr_decay_factor) {
            return refuse("lr_decay_factor", "a share in [0, 1]", &self.lr_decay_factor);
        }
        if !(0.0..1.0).contains(&self.dsc_dropout) {
            return refuse("dsc_dropout", "a rate in [0, 1)", &self.dsc_dropout);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use anomaly_core::parse_config;
    use serde_json::json;

    use super::{Config, Honest, Monitor};
    use crate::{Amount, FakeFeatures};

    #[test]
    fn the_default_is_the_published_job() {
        let config: Config = parse_config(&json!({})).unwrap();
        assert_eq!(config, Config::default());
        assert_eq!(
            (config.image_size, config.epochs, config.batch_size, config.hidden_dim),
            (518, 160, 16, 2048)
        );
        assert_eq!((config.learning_rate, config.lr_decay_factor, config.weight_decay), (5e-4, 0.2, 1e-5));
        assert_eq!((config.noise_std, config.top_k), (0.25, Amount::Of(10)));
        assert_eq!((config.dsc_layers, config.dsc_heads, config.dsc_dropout), (1, 4, 0.1));
        assert_eq!((config.smoothing_sigma, config.smoothing_radius), (16.0, 18));
    }

    #[test]
    fn words_are_the_reference_s() {
        let config: Config = parse_config(&json!({
            "fake_features": "shuffle_and_random", "top_k": "all", "images_per_epoch": 250, "monitor": "pixel_auroc",
            "honest": "held_out", "layers": [12, 3],
        }))
        .unwrap();
        assert_eq!(config.fake_features, FakeFeatures::ShuffleAndRandom);
        assert_eq!((config.top_k, config.images_per_epoch), (Amount::All, Amount::Of(250)));
        assert_eq!((config.monitor, config.honest), (Monitor::PixelAuroc, Honest::HeldOut));
    }

    #[test]
    fn every_refusal_names_its_field() {
        for (field, value) in [
            ("image_size", json!(0)),
            ("layers", json!([1, 0])),
            ("fake_features", json!("blobs")),
            ("most_fake_patches", json!(0)),
            ("noise_std", json!(0.0)),
            ("top_k", json!(0)),
            ("epochs", json!(0)),
            ("batch_size", json!(0)),
            ("images_per_epoch", json!("some")),
            ("learning_rate", json!(-1.0)),
            ("lr_decay_factor", json!(1.5)),
            ("weight_decay", json!(-0.1)),
            ("dsc_layers", json!(0)),
            ("dsc_heads", json!(0)),
            ("dsc_dropout", json!(1.0)),
            ("hidden_dim", json!(0)),
            ("smoothing_sigma", json!(0.0)),
            ("eval_every", json!(0)),
            ("monitor", json!("f1")),
        ] {
            let error = parse_config::<Config>(&json!({ field: value })).unwrap_err();
            assert_eq!(error.field_name(), Some(field), "{error}");
        }
        let typo = parse_config::<Config>(&json!({"topk": 2})).unwrap_err().to_string();
        assert!(typo.contains("did you mean `top_k`?"), "{typo}");
    }
}
