use anomaly_core::{ConfigError, MethodConfig};
use density_heads::Likelihood;
use serde::{Deserialize, Serialize};

use crate::architecture::{Architecture, AttentionScale};
use crate::association::Distance;
use crate::trainer::ZeroGrad;

/// `ADViT`'s settings; the default is the public code's, with the association discrepancy that the paper claims.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Height and width in pixels that images are cropped to, a multiple of the patch; 512.
    pub image_size: usize,
    /// Height and width that images are resized to before the crop; if left out, 550/512 of `image_size`.
    pub resize: Option<usize>,
    /// Side of a patch in pixels; 64. There must be more than 16 patches.
    pub patch_size: usize,
    /// Width D of a token, a multiple of `heads` and of `capsule_dim`; 512.
    pub dim: usize,
    /// Blocks; 6.
    pub depth: usize,
    /// Attention heads; 8.
    pub heads: usize,
    /// Hidden width of a block's feed-forward part; 1024.
    pub mlp_dim: usize,
    /// What attention's products are divided by: the root of `dim` (public code) or of a `head`'s width.
    pub attention_scale: AttentionScale,
    /// Gaussians of the density network; 10 in the code, although its authors' ablation favours 150.
    pub gaussians: usize,
    /// Which likelihood is trained and scored.
    pub likelihood: DensityForm,
    /// Features a capsule; 8.
    pub capsule_dim: usize,
    /// Channels, height and width of the reconstruction vector; `[8, 8, 8]`.
    pub latent: [usize; 3],
    /// The decoder's transposed convolutions: `[channels in, channels out, kernel, stride, padding]` each. From the
    /// reconstruction vector they must lead to 3 channels of `image_size`.
    pub decoder: Vec<[usize; 5]>,
    /// The association discrepancy.
    pub association: AssociationConfig,
    /// Standard deviation of the noise added to the tokens in training; 0.2, 0 for none.
    pub noise: f64,
    /// Weight of the mean squared error; 5.
    pub mse_weight: f64,
    /// Weight of minus the structural similarity; 0.5.
    pub ssim_weight: f64,
    /// Weight of the negative log-likelihood, which is summed over the patches; 1.
    pub nll_weight: f64,
    /// Passes over the training images; 400.
    pub epochs: usize,
    /// Images a training step; 8.
    pub batch_size: usize,
    /// Adam's learning rate; 1e-4.
    pub learning_rate: f64,
    /// L2 decay, added to the gradients; 1e-4.
    pub weight_decay: f64,
    /// Which gradients are cleared before a step: `all`, or `autoencoder_only` for the reference's fault.
    pub zero_grad: ZeroGrad,
    /// A detector is offered for selection after every so many epochs; 1.
    pub offer_every: usize,
    /// What an image's score is.
    pub image_score: ImageScore,
    /// What the map shows.
    pub map: MapScore,
    /// Standard deviation in pixels of the Gaussian that smooths maps; 4, 0 for none.
    pub map_sigma: f64,
}

/// Settings of the association discrepancy.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AssociationConfig {
    /// Whether there is any; the public code has none.
    pub enabled: bool,
    /// Its weight in the loss; 3, the Anomaly Transformer's.
    pub lambda: f64,
    /// How strongly it weighs patches in the map `association`; 50, the Anomaly Transformer's.
    pub temperature: f64,
    /// How far apart two patches are.
    pub distance: Distance,
}

impl Default for AssociationConfig {
    fn default() -> Self {
        Self { enabled: true, lambda: 3.0, temperature: 50.0, distance: Distance::Grid2d }
    }
}

/// Which likelihood is trained and scored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DensityForm {
    /// The components' negative log-likelihoods averaged with their weights, as the public code has it.
    #[default]
    Reference,
    /// The mixture's negative log-likelihood.
    Mixture,
}

impl From<DensityForm> for Likelihood {
    fn from(form: DensityForm) -> Self {
        match form {
            DensityForm::Reference => Self::Reference,
            DensityForm::Mixture => Self::LogVarianceMixture,
        }
    }
}

/// What an image's score is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ImageScore {
    /// Squared error minus structural similarity plus the largest patch value.
    #[default]
    SignFixed,
    /// Squared error **plus** structural similarity plus the largest patch value: the reference's fault.
    Reference,
}

/// What the map shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MapScore {
    /// Each patch's negative log-likelihood.
    #[default]
    Likelihood,
    /// The same weighted by a softmax of minus the association discrepancy over the image's patches.
    Association,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            image_size: 512,
            resize: None,
            patch_size: 64,
            dim: 512,
            depth: 6,
            heads: 8,
            mlp_dim: 1024,
            attention_scale: AttentionScale::Dim,
            gaussians: 10,
            likelihood: DensityForm::Reference,
            capsule_dim: 8,
            latent: [8, 8, 8],
            decoder: vec![
                [8, 16, 3, 2, 1],
                [16, 32, 9, 3, 1],
                [32, 32, 7, 5, 1],
                [32, 16, 9, 2, 0],
                [16, 8, 6, 1, 0],
                [8, 3, 11, 1, 0],
            ],
            association: AssociationConfig::default(),
            noise: 0.2,
            mse_weight: 5.0,
            ssim_weight: 0.5,
            nll_weight: 1.0,
            epochs: 400,
            batch_size: 8,
            learning_rate: 1e-4,
            weight_decay: 1e-4,
            zero_grad: ZeroGrad::All,
            offer_every: 1,
            image_score: ImageScore::SignFixed,
            map: MapScore::Likelihood,
            map_sigma: 4.0,
        }
    }
}

impl Config {
    /// Side that images are resized to before the crop.
    pub(crate) fn resized(&self) -> usize {
        self.resize.unwrap_or(self.image_size * 550 / 512)
    }

    /// Rows and columns of patches.
    pub(crate) fn grid(&self) -> (usize, usize) {
        let side = self.image_size / self.patch_size;
        (side, side)
    }

    pub(crate) fn architecture(&self) -> Architecture {
        let (rows, columns) = self.grid();
        Architecture {
            patches: rows * columns,
            patch: self.patch_size,
            dim: self.dim,
            depth: self.depth,
            heads: self.heads,
            mlp_dim: self.mlp_dim,
            scale: self.attention_scale,
            association: self.association.enabled.then_some(self.association.distance),
            capsule_dim: self.capsule_dim,
            latent: self.latent,
            decoder: self.decoder.clone(),
            gaussians: self.gaussians,
        }
    }

    fn check_sizes(&self) -> Result<(), ConfigError> {
        let refuse = |field: &str, problem: String| Err(ConfigError::field(Self::METHOD, field, problem));
        for (field, value) in [
            ("image_size", self.image_size),
            ("resize", self.resized()),
            ("patch_size", self.patch_size),
            ("dim", self.dim),
            ("depth", self.depth),
            ("heads", self.heads),
            ("mlp_dim", self.mlp_dim),
            ("gaussians", self.gaussians),
            ("capsule_dim", self.capsule_dim),
            ("epochs", self.epochs),
            ("batch_size", self.batch_size),
            ("offer_every", self.offer_every),
        ] {
            if value == 0 {
                return refuse(field, "expected at least 1, found 0".to_owned());
            }
        }
        let (size, patch) = (self.image_size, self.patch_size);
        if size % patch != 0 {
            return refuse(
                "image_size",
                format!("expected a multiple of `patch_size`, {patch}, found {size}"),
            );
        }
        let (rows, columns) = self.grid();
        if rows * columns <= 16 {
            let found = rows * columns;
            return refuse("patch_size", format!("expected more than 16 patches an image, found {found}"));
        }
        for (field, divisor) in [("heads", self.heads), ("capsule_dim", self.capsule_dim)] {
            if !self.dim.is_multiple_of(divisor) {
                return refuse(field, format!("expected a divisor of `dim`, {}, found {divisor}", self.dim));
            }
        }
        if self.latent.contains(&0) {
            return refuse("latent", format!("expected sides of at least 1, found {:?}", self.latent));
        }
        match self.architecture().output() {
            Some(made) if made == (size, size) => Ok(()),
            Some((height, width)) => refuse(
                "decoder",
                format!("expected layers from `latent` to {size} x {size} pixels, found {height} x {width}"),
            ),
            None => refuse(
                "decoder",
                "expected layers from the channels of `latent` to 3, each with the channels of the one before, a \
                 stride, and less padding than it makes"
                    .to_owned(),
            ),
        }
    }
}

impl MethodConfig for Config {
    const METHOD: &'static str = "advit-gmdn";

    fn validate(&self) -> Result<(), ConfigError> {
        self.check_sizes()?;
        // Written so that NaN is refused too.
        for (field, value) in [
            ("association.lambda", self.association.lambda),
            ("association.temperature", self.association.temperature),
            ("noise", self.noise),
            ("mse_weight", self.mse_weight),
            ("ssim_weight", self.ssim_weight),
            ("nll_weight", self.nll_weight),
            ("weight_decay", self.weight_decay),
            ("map_sigma", self.map_sigma),
        ] {
            if !(value.is_finite() && value >= 0.0) {
                let problem = format!("expected a number from 0 on, found {value}");
                return Err(ConfigError::field(Self::METHOD, field, problem));
            }
        }
        if !(self.learning_rate.is_finite() && self.learning_rate > 0.0) {
            let problem = format!("expected a positive number, found {}", self.learning_rate);
            return Err(ConfigError::field(Self::METHOD, "learning_rate", problem));
        }
        if self.nll_weight == 0.0 {
            // Nothing else reaches the density network.
            return Err(ConfigError::field(Self::METHOD, "nll_weight", "expected above 0, found 0"));
        }
        if self.map == MapScore::Association && !self.association.enabled {
            let problem = "expected `likelihood`, for `association.enabled` is false";
            return Err(ConfigError::field(Self::METHOD, "map", problem));
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
    fn the_default_is_the_public_code_with_the_paper_s_claim() {
        let config: Config = parse_config(&json!({})).unwrap();
        assert_eq!(config, Config::default());
        assert_eq!((config.resized(), config.grid()), (550, (8, 8)));
        assert!(config.association.enabled);
        let public: Config = parse_config(&json!({"association": {"enabled": false}})).unwrap();
        assert_eq!(public.architecture().association, None);
    }

    #[test]
    fn what_does_not_fit_together_is_refused_by_its_field() {
        for (overrides, field) in [
            (json!({"image_size": 500}), "image_size"),
            (json!({"image_size": 256}), "patch_size"),
            (json!({"image_size": 640}), "decoder"),
            (json!({"decoder": [[8, 4, 3, 2, 1]]}), "decoder"),
            (json!({"heads": 7}), "heads"),
            (json!({"capsule_dim": 3}), "capsule_dim"),
            (json!({"latent": [8, 0, 8]}), "latent"),
            (json!({"noise": -0.1}), "noise"),
            (json!({"nll_weight": 0}), "nll_weight"),
            (json!({"learning_rate": 0}), "learning_rate"),
            (json!({"association": {"lambda": -1}}), "association.lambda"),
            (json!({"map": "association", "association": {"enabled": false}}), "map"),
            (json!({"zero_grad": "none"}), "zero_grad"),
        ] {
            let error = parse_config::<Config>(&overrides).unwrap_err();
            assert_eq!(error.field_name(), Some(field), "{error}");
        }
    }
}
