use anomaly_core::{ConfigError, MethodConfig};
use density_heads::Likelihood;
use serde::{Deserialize, Serialize};

use crate::architecture::{Architecture, Norms, RegisterKind, Tap, filters};
use crate::optimizer::OptimizerKind;

/// VT-ADL with registers: its settings. The default is the reference's command line, but for what makes that useless:
/// its one epoch (which never leaves the warm-up) and its registers that are noise.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Side of the square that images are resized to, or `[height, width]`; 512. Multiples of the patch.
    pub image_size: ImageSize,
    /// Side of a patch in pixels, a power of two from 2 on; 16.
    pub patch_size: usize,
    /// Width D of a token; 512.
    pub embed_dim: usize,
    /// Attention heads; 4.
    pub num_heads: usize,
    /// Width of a head; as wide as a token if left out.
    pub key_dim: Option<usize>,
    /// Hidden width of each block's MLP, one entry a block; `[32, 32, 32]`.
    pub hidden_units: Vec<usize>,
    /// Dropout rate after attention and within the MLP, in `[0, 1)`; 0.2.
    pub dropout: f64,
    /// Register tokens, 0 for none; 4.
    pub registers: usize,
    /// What they are: `learned`, or `random` as in the reference.
    pub register_kind: RegisterKind,
    /// From which seed random registers are drawn in evaluation; 0.
    pub register_seed: u64,
    /// Gaussians of the density head, 0 for none (as in the reference); 0.
    pub gaussians: usize,
    /// Which density: the `mixture`, or what `vtadl` computes.
    pub density: DensityForm,
    /// Added to the variances of the `mixture`; 1e-3.
    pub variance_floor: f64,
    /// Where the density head takes its features: the `encoder`'s output, or after the `latent` norm.
    pub tap: Tap,
    /// Standard deviation of the noise added to those features in training; 0.2.
    pub density_noise: f64,
    /// Weight of the density in the loss; if left out, 1 for `vtadl` and 1/D for the `mixture`.
    pub lambda_gmdn: Option<f64>,
    /// Weight of the mean squared error; 5.
    pub lambda_mse: f64,
    /// Weight of one minus the structural similarity; 0.5.
    pub lambda_ssim: f64,
    /// The gradient of the variance in every norm: `true`, or `detached_mean` as the reference's Keras has it.
    pub variance_gradient: VarianceGradient,
    /// `adam`, `adamw`, `adadelta`, `adagrad`, `sgd` or `rmsprop`, as Keras defines them.
    pub optimizer: OptimizerKind,
    /// The learning rate after the warm-up; 1e-3.
    pub learning_rate: f64,
    /// The decoupled decay of `adamw`; 0.004.
    pub weight_decay: f64,
    /// The learning rate of the first step; 1e-5.
    pub warmup_learning_rate: f64,
    /// Steps of the warm-up; if this and the next are left out, a tenth of all steps, at most 1000. The reference has 1000.
    pub warmup_steps: Option<usize>,
    /// The share of all steps, in `[0, 1]`, that the warm-up takes, in place of a number.
    pub warmup_share: Option<f64>,
    /// Passes over the training images; 200. The reference's command line has 1.
    pub epochs: usize,
    /// Images a training step; 32.
    pub batch_size: usize,
    /// The share of the training images, in `[0, 1)`, that is not trained on: thresholds and the scales of fused maps are
    /// taken from it; 0, as in the reference. Without any they are taken from the training images, which reconstruct
    /// better than others.
    pub val_split: f64,
    /// Whether the moving statistics of batch norm are computed anew at the end, in one pass over the training images.
    /// With 0.99 of the old value kept, they need hundreds of steps to settle.
    pub bn_recalibrate: bool,
    /// A detector is offered for selection after every so many epochs; 10.
    pub offer_every: usize,
    /// What the map shows.
    pub map: MapKind,
    /// Which maps are added up in `fused`.
    pub fuse: Vec<MapKind>,
    /// Standard deviation in pixels of the Gaussian that smooths maps; 4, 0 for none.
    pub map_sigma: f64,
    /// Above which value of the map a pixel is in the mask.
    pub threshold: Threshold,
}

/// The size of images.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum ImageSize {
    /// Height and width.
    Square(usize),
    /// Height, then width.
    Sides([usize; 2]),
}

impl ImageSize {
    /// `(height, width)`.
    pub fn sides(self) -> (usize, usize) {
        match self {
            Self::Square(side) => (side, side),
            Self::Sides([height, width]) => (height, width),
        }
    }
}

/// Which density the head has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DensityForm {
    /// The mixture's negative log-likelihood, with a floor under the variances.
    #[default]
    Mixture,
    /// What VT-ADL's code computes.
    Vtadl,
}

/// The gradient of a norm's variance.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum VarianceGradient {
    /// Calculus.
    #[default]
    True,
    /// As if the mean in the variance were a constant: what the reference's Keras ships.
    DetachedMean,
}

impl From<VarianceGradient> for vit_ops::VarianceGradient {
    fn from(gradient: VarianceGradient) -> Self {
        match gradient {
            VarianceGradient::True => Self::True,
            VarianceGradient::DetachedMean => Self::DetachedMean,
        }
    }
}

/// What a map shows; higher = more anomalous.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MapKind {
    /// The absolute difference of image and reconstruction.
    L1,
    /// One minus their local structural similarity.
    #[default]
    Ssim,
    /// The density head's negative log-likelihood of the patches.
    Gmdn,
    /// The sum of several, each after its mean is subtracted and its standard deviation divided by.
    Fused,
}

impl MapKind {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::L1 => "l1",
            Self::Ssim => "ssim",
            Self::Gmdn => "gmdn",
            Self::Fused => "fused",
        }
    }
}

/// Above which value a pixel is in the mask.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Threshold {
    /// This value.
    Fixed(f64),
    /// This quantile, in `(0, 1]`, of the map's values on held-out normal images.
    Quantile(f64),
}

impl Default for Config {
    fn default() -> Self {
        Self {
            image_size: ImageSize::Square(512),
            patch_size: 16,
            embed_dim: 512,
            num_heads: 4,
            key_dim: None,
            hidden_units: vec![32, 32, 32],
            dropout: 0.2,
            registers: 4,
            register_kind: RegisterKind::Learned,
            register_seed: 0,
            gaussians: 0,
            density: DensityForm::Mixture,
            variance_floor: 1e-3,
            tap: Tap::Latent,
            density_noise: 0.2,
            lambda_gmdn: None,
            lambda_mse: 5.0,
            lambda_ssim: 0.5,
            variance_gradient: VarianceGradient::True,
            optimizer: OptimizerKind::Adam,
            learning_rate: 1e-3,
            weight_decay: 0.004,
            warmup_learning_rate: 1e-5,
            warmup_steps: None,
            warmup_share: None,
            epochs: 200,
            batch_size: 32,
            val_split: 0.0,
            bn_recalibrate: false,
            offer_every: 10,
            map: MapKind::Ssim,
            fuse: vec![MapKind::L1, MapKind::Ssim],
            map_sigma: 4.0,
            threshold: Threshold::Quantile(0.995),
        }
    }
}

impl Config {
    pub(crate) fn architecture(&self) -> Architecture {
        let (height, width) = self.image_size.sides();
        Architecture {
            grid: (height / self.patch_size, width / self.patch_size),
            patch: self.patch_size,
            dim: self.embed_dim,
            heads: self.num_heads,
            key_dim: self.key_dim.unwrap_or(self.embed_dim),
            hidden: self.hidden_units.clone(),
            registers: self.registers,
            register_kind: self.register_kind,
            filters: filters(self.patch_size),
            kernel: 2,
            stride: 2,
            norms: Norms { gradient: self.variance_gradient.into(), ..Norms::default() },
            gaussians: self.gaussians,
            tap: self.tap,
        }
    }

    pub(crate) fn likelihood(&self) -> Likelihood {
        match self.density {
            DensityForm::Mixture => Likelihood::Mixture { floor: self.variance_floor },
            DensityForm::Vtadl => Likelihood::Reference,
        }
    }

    pub(crate) fn density_weight(&self) -> f64 {
        self.lambda_gmdn.unwrap_or(match self.density {
            DensityForm::Vtadl => 1.0,
            DensityForm::Mixture => 1.0 / self.embed_dim as f64,
        })
    }

    /// Steps of the warm-up in a run of `total` steps.
    pub(crate) fn warm_up_steps(&self, total: usize) -> usize {
        match (self.warmup_steps, self.warmup_share) {
            (Some(steps), _) => steps,
            (None, Some(share)) => (share * total as f64).round() as usize,
            (None, None) => (total / 10).min(1000),
        }
    }

    /// The maps that the chosen one is made of.
    pub(crate) fn parts(&self) -> &[MapKind] {
        if self.map == MapKind::Fused { &self.fuse } else { std::slice::from_ref(&self.map) }
    }

    fn check_sizes(&self) -> Result<(), ConfigError> {
        let refuse = |field: &str, problem: String| Err(ConfigError::field(Self::METHOD, field, problem));
        for (field, value) in [
            ("embed_dim", self.embed_dim),
            ("num_heads", self.num_heads),
            ("key_dim", self.key_dim.unwrap_or(1)),
            ("epochs", self.epochs),
            ("batch_size", self.batch_size),
            ("offer_every", self.offer_every),
        ] {
            if value == 0 {
                return refuse(field, "expected at least 1, found 0".to_owned());
            }
        }
        if self.hidden_units.is_empty() || self.hidden_units.contains(&0) {
            let found = &self.hidden_units;
            return refuse(
                "hidden_units",
                format!("expected widths of at least 1, one a block, found {found:?}"),
            );
        }
        let patch = self.patch_size;
        if patch < 2 || !patch.is_power_of_two() {
            return refuse("patch_size", format!("expected a power of two from 2 on, found {patch}"));
        }
        let (height, width) = self.image_size.sides();
        if height < 11 || width < 11 || height % patch != 0 || width % patch != 0 {
            return refuse(
                "image_size",
                format!(
                    "expected sides of at least 11 that are multiples of {patch}, found {height} x {width}"
                ),
            );
        }
        Ok(())
    }

    fn check_maps(&self) -> Result<(), ConfigError> {
        let refuse = |field: &str, problem: String| Err(ConfigError::field(Self::METHOD, field, problem));
        if self.fuse.is_empty() || self.fuse.contains(&MapKind::Fused) {
            return refuse("fuse", "expected some of `l1`, `ssim`, `gmdn`".to_owned());
        }
        let field = if self.map == MapKind::Fused { "fuse" } else { "map" };
        if self.gaussians == 0 && self.parts().contains(&MapKind::Gmdn) {
            return refuse(field, "expected another map than `gmdn`, for `gaussians` is 0".to_owned());
        }
        let in_range = match self.threshold {
            Threshold::Fixed(value) => value.is_finite(),
            Threshold::Quantile(share) => share > 0.0 && share <= 1.0,
        };
        if !in_range {
            let found = self.threshold;
            return refuse(
                "threshold",
                format!("expected a number or a quantile in (0, 1], found {found:?}"),
            );
        }
        Ok(())
    }
}

impl MethodConfig for Config {
    const METHOD: &'static str = "vtadl-registers";

    fn validate(&self) -> Result<(), ConfigError> {
        self.check_sizes()?;
        self.check_maps()?;
        let refuse = |field: &str, expected: &str, found: f64| {
            Err(ConfigError::field(Self::METHOD, field, format!("expected {expected}, found {found}")))
        };
        // Written so that NaN is refused too.
        for (field, value) in [("dropout", self.dropout), ("val_split", self.val_split)] {
            if !(0.0..1.0).contains(&value) {
                return refuse(field, "a share in [0, 1)", value);
            }
        }
        for (field, value) in [
            ("density_noise", self.density_noise),
            ("lambda_gmdn", self.lambda_gmdn.unwrap_or(1.0)),
            ("lambda_mse", self.lambda_mse),
            ("lambda_ssim", self.lambda_ssim),
            ("weight_decay", self.weight_decay),
            ("warmup_learning_rate", self.warmup_learning_rate),
            ("map_sigma", self.map_sigma),
        ] {
            if !(value.is_finite() && value >= 0.0) {
                return refuse(field, "a number from 0 on", value);
            }
        }
        for (field, value) in [
            ("learning_rate", self.learning_rate),
            ("variance_floor", self.variance_floor),
            ("lambda_mse", self.lambda_mse + self.lambda_ssim),
        ] {
            if !(value.is_finite() && value > 0.0) {
                return refuse(field, "a positive number", value);
            }
        }
        match (self.warmup_share, self.warmup_steps) {
            (Some(share), None) if !(0.0..=1.0).contains(&share) => {
                return refuse("warmup_share", "a share in [0, 1]", share);
            }
            (Some(share), Some(_)) => {
                return refuse("warmup_share", "none beside `warmup_steps`", share);
            }
            _ => {}
        }
        if self.lambda_gmdn == Some(0.0) && self.gaussians > 0 {
            return refuse("lambda_gmdn", "a positive number, for `gaussians` is not 0", 0.0);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::{Config, ImageSize, MapKind, Threshold};
    use anomaly_core::parse_config;
    use serde_json::json;

    #[test]
    fn the_default_is_the_reference_s_network() {
        let config: Config = parse_config(&json!({})).unwrap();
        assert_eq!(config, Config::default());
        let shape = config.architecture();
        assert_eq!((shape.grid, shape.key_dim, shape.filters), ((32, 32), 512, vec![10, 6, 4, 3]));
        assert_eq!((config.warm_up_steps(7), config.warm_up_steps(1_000_000)), (0, 1000));
    }

    #[test]
    fn everything_that_the_reference_s_command_line_ignored_works() {
        let config: Config = parse_config(&json!({
            "image_size": [64, 96], "patch_size": 8, "registers": 0, "warmup_steps": 12,
            "threshold": {"fixed": 0.2}, "map": "l1", "optimizer": "adamw",
        }))
        .unwrap();
        assert_eq!(config.image_size, ImageSize::Sides([64, 96]));
        assert_eq!((config.architecture().grid, config.warm_up_steps(5)), ((8, 12), 12));
        let share: Config = parse_config(&json!({"warmup_share": 0.15})).unwrap();
        assert_eq!((share.warm_up_steps(10), share.warm_up_steps(100_000)), (2, 15_000));
        assert_eq!((config.threshold, config.map), (Threshold::Fixed(0.2), MapKind::L1));
    }

    #[test]
    fn what_does_not_fit_together_is_refused_by_its_field() {
        for (overrides, field) in [
            (json!({"image_size": 500}), "image_size"),
            (json!({"image_size": [512, 8]}), "image_size"),
            (json!({"patch_size": 12}), "patch_size"),
            (json!({"patch_size": 1}), "patch_size"),
            (json!({"hidden_units": []}), "hidden_units"),
            (json!({"key_dim": 0}), "key_dim"),
            (json!({"dropout": 1.0}), "dropout"),
            (json!({"val_split": 1.0}), "val_split"),
            (json!({"map": "gmdn"}), "map"),
            (json!({"map": "fused", "fuse": ["l1", "gmdn"]}), "fuse"),
            (json!({"fuse": ["fused"]}), "fuse"),
            (json!({"threshold": {"quantile": 1.5}}), "threshold"),
            (json!({"learning_rate": 0}), "learning_rate"),
            (json!({"optimizer": "lion"}), "optimizer"),
            (json!({"gaussians": 3, "lambda_gmdn": 0}), "lambda_gmdn"),
            (json!({"warmup_share": 1.5}), "warmup_share"),
            (json!({"warmup_share": 0.1, "warmup_steps": 5}), "warmup_share"),
            (json!({"lambda_mse": 0, "lambda_ssim": 0}), "lambda_mse"),
        ] {
            let error = parse_config::<Config>(&overrides).unwrap_err();
            assert_eq!(error.field_name(), Some(field), "{error}");
        }
    }
}
