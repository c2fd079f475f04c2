use anomaly_core::{ConfigError, MethodConfig};
use serde::{Deserialize, Serialize};

use crate::INFO;

/// By which figure on the test set the reference keeps an epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Monitor {
    /// Image AUROC.
    #[default]
    ImageAuroc,
    /// Pixel AUROC.
    PixelAuroc,
}

/// `SimpleNet`'s settings; the default is that of the job file in `GeneralAD`'s repository.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Height and width in pixels that images are resized to; if left out, 224 for a residual network and the
    /// backbone's own for a Vision Transformer.
    pub image_size: Option<usize>,
    /// The stages of a residual network (1 to 4), or the blocks of a Vision Transformer counted from 1, whose outputs
    /// are joined in ascending order; if left out, stages 2 and 3, or the last block. The maps of a residual network are
    /// brought to the size of the stage named first.
    pub layers: Option<Vec<usize>>,
    /// Side of the neighbourhood that a residual network's maps are averaged over, odd; 3. Vision Transformers' tokens
    /// are taken as they are.
    pub pool_size: usize,
    /// Whether a residual network normalises training batches by their own statistics and lets its running ones drift,
    /// as the reference does by mistake; no. Features then can't be kept and are computed in every epoch.
    pub batch_statistics: bool,
    /// Width of the discriminator's hidden layers; 1024.
    pub hidden_dim: usize,
    /// Layers of the discriminator, the last included, at least 2; 2.
    pub discriminator_layers: usize,
    /// Standard deviation of the noise before it is multiplied by 1.1; 0.015.
    pub noise_std: f64,
    /// Passes over the training images; 160.
    pub epochs: usize,
    /// Images a training step, or all of them if there are fewer; 8. What fills no whole batch is left out of an epoch.
    pub batch_size: usize,
    /// Draw this many images anew for each epoch instead of going through all: 250 in the reference for CIFAR,
    /// Fashion-MNIST, the scenes and cats vs dogs, none for the others.
    pub images_per_epoch: Option<usize>,
    /// The discriminator's learning rate in the first epoch; 2e-4.
    pub learning_rate: f64,
    /// The rate that half a cosine over the epochs leads to, as a share of `learning_rate`; 0.4.
    pub lowest_rate: f64,
    /// The discriminator's decoupled weight decay; 1e-5.
    pub weight_decay: f64,
    /// The adaptor's learning rate, which stays; 1e-4.
    pub adaptor_learning_rate: f64,
    /// The adaptor's decoupled weight decay; 0.01, which the reference does not set.
    pub adaptor_weight_decay: f64,
    /// Standard deviation in pixels of the Gaussian that smooths the maps; 4.
    pub smoothing_sigma: f64,
    /// Where that Gaussian is cut off, in pixels; 9.
    pub smoothing_radius: usize,
    /// By which figure on the test set the faithful choice is made.
    pub monitor: Monitor,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            image_size: None,
            layers: None,
            pool_size: 3,
            batch_statistics: false,
            hidden_dim: 1024,
            discriminator_layers: 2,
            noise_std: 0.015,
            epochs: 160,
            batch_size: 8,
            images_per_epoch: None,
            learning_rate: 2e-4,
            lowest_rate: 0.4,
            weight_decay: 1e-5,
            adaptor_learning_rate: 1e-4,
            adaptor_weight_decay: 0.01,
            smoothing_sigma: 4.0,
            smoothing_radius: 9,
            monitor: Monitor::default(),
        }
    }
}

impl MethodConfig for Config {
    const METHOD: &'static str = INFO.name;

    fn validate(&self) -> Result<(), ConfigError> {
        let refuse = |field: &str, expected: &str, found: &dyn std::fmt::Display| {
            Err(ConfigError::field(Self::METHOD, field, format!("expected {expected}, found {found}")))
        };
        for (field, value) in [
            ("image_size", self.image_size.unwrap_or(1)),
            ("hidden_dim", self.hidden_dim),
            ("epochs", self.epochs),
            ("batch_size", self.batch_size),
            ("images_per_epoch", self.images_per_epoch.unwrap_or(1)),
        ] {
            if value == 0 {
                return refuse(field, "at least 1", &value);
            }
        }
        if let Some(layers) = &self.layers {
            let repeated = layers.iter().enumerate().any(|(index, layer)| layers[..index].contains(layer));
            if layers.is_empty() || repeated || layers.contains(&0) {
                return refuse("layers", "some numbers from 1 on, none twice", &format!("{layers:?}"));
            }
        }
        if self.pool_size.is_multiple_of(2) {
            return refuse("pool_size", "an odd number", &self.pool_size);
        }
        if self.discriminator_layers < 2 {
            return refuse("discriminator_layers", "at least 2", &self.discriminator_layers);
        }
        // Written so that NaN is refused too.
        for (field, value) in [
            ("noise_std", self.noise_std),
            ("learning_rate", self.learning_rate),
            ("adaptor_learning_rate", self.adaptor_learning_rate),
            ("smoothing_sigma", self.smoothing_sigma),
        ] {
            if !(value.is_finite() && value > 0.0) {
                return refuse(field, "a positive number", &value);
            }
        }
        for (field, value) in
            [("weight_decay", self.weight_decay), ("adaptor_weight_decay", self.adaptor_weight_decay)]
        {
            if !(value.is_finite() && value >= 0.0) {
                return refuse(field, "a number from 0 on", &value);
            }
        }
        if !(0.0..=1.0).contains(&self.lowest_rate) {
            return refuse("lowest_rate", "a share in [0, 1]", &self.lowest_rate);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use anomaly_core::parse_config;
    use serde_json::json;

    use super::{Config, Monitor};

    #[test]
    fn the_default_is_the_job_file() {
        let config: Config = parse_config(&json!({})).unwrap();
        assert_eq!(config, Config::default());
        assert_eq!((config.epochs, config.batch_size, config.hidden_dim), (160, 8, 1024));
        assert_eq!((config.learning_rate, config.adaptor_learning_rate), (2e-4, 1e-4));
        assert_eq!((config.noise_std, config.pool_size, config.discriminator_layers), (0.015, 3, 2));
        assert_eq!((config.smoothing_sigma, config.smoothing_radius), (4.0, 9));
        assert!(!config.batch_statistics && config.monitor == Monitor::ImageAuroc);
    }

    #[test]
    fn every_refusal_names_its_field() {
        for (field, value) in [
            ("image_size", json!(0)),
            ("layers", json!([])),
            ("layers", json!([2, 2])),
            ("layers", json!([0])),
            ("pool_size", json!(2)),
            ("pool_size", json!(0)),
            ("hidden_dim", json!(0)),
            ("discriminator_layers", json!(1)),
            ("noise_std", json!(0.0)),
            ("epochs", json!(0)),
            ("batch_size", json!(0)),
            ("images_per_epoch", json!(0)),
            ("learning_rate", json!(-1.0)),
            ("lowest_rate", json!(1.5)),
            ("weight_decay", json!(-1.0)),
            ("adaptor_learning_rate", json!(0)),
            ("adaptor_weight_decay", json!(-0.5)),
            ("smoothing_sigma", json!(0)),
            ("monitor", json!("loss")),
        ] {
            let error = parse_config::<Config>(&json!({ field: value })).unwrap_err();
            assert_eq!(error.field_name(), Some(field), "{error}");
        }
    }
}
