use anomaly_core::{ConfigError, MethodConfig};
use serde::{Deserialize, Serialize};

/// Transformaly's settings; the default is the paper's.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Height and width in pixels that images are resized to, at least one patch; 384.
    pub image_size: usize,
    /// Passes over the training images; 30.
    pub epochs: usize,
    /// Images a training step; 32.
    pub batch_size: usize,
    /// Adam's learning rate; 1e-4.
    pub learning_rate: f64,
    /// The student is offered for selection after epochs 1, 1 + this, 1 + twice this, …; 5.
    pub eval_every: usize,
    /// The smallest improvement of the validation loss that counts; 0.001.
    pub min_delta: f64,
    /// Dropout rate in training, in `[0, 1)`; 0.1.
    pub dropout: f64,
    /// Whether dropout is on in the teacher too while the student is trained. It is in the reference, so that the
    /// student imitates a noisy target; off gives a clean one.
    pub teacher_dropout: bool,
    /// Whitening keeps the directions whose cumulative share of the variance is at most this, in `(0, 1]`; 0.9.
    pub whitening_threshold: f64,
    /// How many of the first blocks are trained but not scored; 2.
    pub skip_blocks: usize,
    /// Added to the diagonals of both Gaussians' covariances; 1e-6.
    pub covariance_regularisation: f64,
    /// Also report the reference's logged baseline, the sum of the two smallest squared distances to the training
    /// images' descriptors, as the term `knn2`. The detector then keeps all of those descriptors.
    pub knn2: bool,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            image_size: 384,
            epochs: 30,
            batch_size: 32,
            learning_rate: 1e-4,
            eval_every: 5,
            min_delta: 0.001,
            dropout: 0.1,
            teacher_dropout: true,
            whitening_threshold: 0.9,
            skip_blocks: 2,
            covariance_regularisation: 1e-6,
            knn2: false,
        }
    }
}

impl MethodConfig for Config {
    const METHOD: &'static str = "transformaly";

    fn validate(&self) -> Result<(), ConfigError> {
        let refuse = |field: &str, expected: &str, found: &dyn std::fmt::Display| {
            Err(ConfigError::field(Self::METHOD, field, format!("expected {expected}, found {found}")))
        };
        for (field, value) in [
            ("image_size", self.image_size),
            ("epochs", self.epochs),
            ("batch_size", self.batch_size),
            ("eval_every", self.eval_every),
        ] {
            if value == 0 {
                return refuse(field, "at least 1", &value);
            }
        }
        // Written so that NaN is refused too.
        if !(self.learning_rate.is_finite() && self.learning_rate > 0.0) {
            return refuse("learning_rate", "a positive number", &self.learning_rate);
        }
        if !(self.min_delta.is_finite() && self.min_delta >= 0.0) {
            return refuse("min_delta", "a number from 0 on", &self.min_delta);
        }
        if !(0.0..1.0).contains(&self.dropout) {
            return refuse("dropout", "a rate in [0, 1)", &self.dropout);
        }
        if !(self.whitening_threshold > 0.0 && self.whitening_threshold <= 1.0) {
            return refuse("whitening_threshold", "a share in (0, 1]", &self.whitening_threshold);
        }
        if !(self.covariance_regularisation.is_finite() && self.covariance_regularisation > 0.0) {
            return refuse("covariance_regularisation", "a positive number", &self.covariance_regularisation);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::Config;
    use anomaly_core::parse_config;
    use serde_json::json;

    #[test]
    fn the_default_is_the_paper() {
        let config: Config = parse_config(&json!({})).unwrap();
        assert_eq!(config, Config::default());
        assert_eq!(
            (config.epochs, config.batch_size, config.eval_every, config.image_size),
            (30, 32, 5, 384)
        );
        assert_eq!((config.learning_rate, config.whitening_threshold), (1e-4, 0.9));
        assert!(config.teacher_dropout);
    }

    #[test]
    fn every_refusal_names_its_field() {
        for (field, value) in [
            ("image_size", json!(0)),
            ("epochs", json!(0)),
            ("batch_size", json!(0)),
            ("eval_every", json!(0)),
            ("learning_rate", json!(0.0)),
            ("min_delta", json!(-0.1)),
            ("dropout", json!(1.0)),
            ("whitening_threshold", json!(0.0)),
            ("whitening_threshold", json!(1.1)),
            ("covariance_regularisation", json!(0.0)),
            ("teacher_dropout", json!("yes")),
        ] {
            let error = parse_config::<Config>(&json!({ field: value })).unwrap_err();
            assert_eq!(error.field_name(), Some(field), "{error}");
        }
        let typo = parse_config::<Config>(&json!({"epoch": 2})).unwrap_err().to_string();
        assert!(typo.contains("did you mean `epochs`?"), "{typo}");
    }
}
