use anomaly_core::{ConfigError, MethodConfig};
use serde::{Deserialize, Serialize};

use crate::INFO;

/// What imitates the teacher.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum StudentKind {
    /// A small Vision Transformer over all patches of an image.
    #[default]
    Vit,
    /// Two layers on each patch by itself; it does not know where the patch lies.
    Mlp,
}

/// KDAD's settings; the default is that of the reference's job file.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Height and width in pixels that images are resized to, a multiple of the backbone's patch; if left out, the
    /// backbone's own (518 for `DINOv2`).
    pub image_size: Option<usize>,
    /// What imitates the teacher; `vit`.
    pub student: StudentKind,
    /// Width of the hidden layer of the student's feed-forward parts; 512.
    pub hidden_dim: usize,
    /// Blocks of a `vit` student; 4.
    pub layers: usize,
    /// Attention heads of a `vit` student, a divisor of the backbone's width; 8.
    pub heads: usize,
    /// Dropout rate in training, in `[0, 1)`; 0.2.
    pub dropout: f64,
    /// Passes over the training images; 10.
    pub epochs: usize,
    /// Images a training step, or all of them if there are fewer; 16. What fills no whole batch is left out of an epoch.
    pub batch_size: usize,
    /// Draw this many images anew for each epoch instead of going through all: 250 in the reference for CIFAR,
    /// Fashion-MNIST, the scenes and cats vs dogs, none for the others.
    pub images_per_epoch: Option<usize>,
    /// `AdamW`'s learning rate; 1e-3.
    pub learning_rate: f64,
    /// `AdamW`'s decoupled weight decay; 0.01, which the reference does not set.
    pub weight_decay: f64,
    /// Epochs at which the learning rate is multiplied by `gamma`; 10 and 20, which ten epochs never reach.
    pub milestones: Vec<u64>,
    /// See `milestones`; 0.5.
    pub gamma: f64,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            image_size: None,
            student: StudentKind::default(),
            hidden_dim: 512,
            layers: 4,
            heads: 8,
            dropout: 0.2,
            epochs: 10,
            batch_size: 16,
            images_per_epoch: None,
            learning_rate: 1e-3,
            weight_decay: 0.01,
            milestones: vec![10, 20],
            gamma: 0.5,
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
            ("layers", self.layers),
            ("heads", self.heads),
            ("epochs", self.epochs),
            ("batch_size", self.batch_size),
            ("images_per_epoch", self.images_per_epoch.unwrap_or(1)),
        ] {
            if value == 0 {
                return refuse(field, "at least 1", &value);
            }
        }
        // Written so that NaN is refused too.
        if !(0.0..1.0).contains(&self.dropout) {
            return refuse("dropout", "a rate in [0, 1)", &self.dropout);
        }
        for (field, value) in [("learning_rate", self.learning_rate), ("gamma", self.gamma)] {
            if !(value.is_finite() && value > 0.0) {
                return refuse(field, "a positive number", &value);
            }
        }
        if !(self.weight_decay.is_finite() && self.weight_decay >= 0.0) {
            return refuse("weight_decay", "a number from 0 on", &self.weight_decay);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use anomaly_core::parse_config;
    use serde_json::json;

    use super::{Config, StudentKind};

    #[test]
    fn the_default_is_the_job_file() {
        let config: Config = parse_config(&json!({})).unwrap();
        assert_eq!(config, Config::default());
        assert_eq!((config.epochs, config.batch_size, config.student), (10, 16, StudentKind::Vit));
        assert_eq!((config.hidden_dim, config.heads, config.layers), (512, 8, 4));
        assert_eq!((config.learning_rate, config.weight_decay, config.dropout), (1e-3, 0.01, 0.2));
        assert_eq!((config.milestones.as_slice(), config.gamma), ([10, 20].as_slice(), 0.5));
    }

    #[test]
    fn every_refusal_names_its_field() {
        for (field, value) in [
            ("image_size", json!(0)),
            ("hidden_dim", json!(0)),
            ("layers", json!(0)),
            ("heads", json!(0)),
            ("epochs", json!(0)),
            ("batch_size", json!(0)),
            ("images_per_epoch", json!(0)),
            ("dropout", json!(1.0)),
            ("learning_rate", json!(0.0)),
            ("weight_decay", json!(-0.1)),
            ("gamma", json!(0.0)),
            ("milestones", json!([-1])),
            ("student", json!("cnn")),
        ] {
            let error = parse_config::<Config>(&json!({ field: value })).unwrap_err();
            assert_eq!(error.field_name(), Some(field), "{error}");
        }
    }
}
