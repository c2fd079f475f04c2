//! A case's configuration, as the table beside the cases lists it.

use conformance::{Case, UnitError};
use serde::Deserialize;

use crate::architecture::{Architecture, AttentionScale, DecoderLayer};
use crate::association::Distance;
use crate::trainer::ZeroGrad;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct CaseConfig {
    module: String,
    image_size: Option<usize>,
    patch_size: Option<usize>,
    input_hw: Option<[usize; 2]>,
    #[serde(rename = "hw")]
    _hw: Option<[usize; 2]>,
    dim: Option<usize>,
    depth: Option<usize>,
    heads: Option<usize>,
    mlp_dim: Option<usize>,
    batch: Option<usize>,
    images: Option<usize>,
    n: Option<usize>,
    #[serde(rename = "normal")]
    _normal: Option<usize>,
    in_num_caps: Option<usize>,
    in_dim_caps: Option<usize>,
    out_dim_caps: Option<usize>,
    caps_per_token: Option<usize>,
    latent_chw: Option<[usize; 3]>,
    latent_hw: Option<[usize; 2]>,
    decoder: Option<Vec<DecoderLayer>>,
    train: Option<bool>,
    coefs: Option<usize>,
    grid: Option<[usize; 2]>,
    distance: Option<Distance>,
    cls_token: Option<bool>,
    scale: Option<AttentionScale>,
    lambda: Option<f64>,
    temperature: Option<f64>,
    assoc: Option<bool>,
    steps: Option<usize>,
    zero_grad: Option<ZeroGrad>,
    lr: Option<f64>,
    weight_decay: Option<f64>,
    window: Option<usize>,
    sigma: Option<f64>,
    truncate: Option<f64>,
    #[serde(rename = "mode")]
    _mode: Option<OnlyReflect>,
    out_hw: Option<[usize; 2]>,
    shape: Option<[usize; 4]>,
    stride: Option<usize>,
    #[serde(rename = "fpr_limit")]
    _fpr_limit: Option<f64>,
    #[serde(rename = "connectivity")]
    _connectivity: Option<usize>,
    #[serde(rename = "resize")]
    _resize: Option<usize>,
    #[serde(rename = "crop")]
    _crop: Option<usize>,
    #[serde(rename = "channels")]
    _channels: Option<usize>,
    // How the inputs were drawn.
    #[serde(rename = "level")]
    _level: Option<f64>,
    #[serde(rename = "levels")]
    _levels: Option<f64>,
    #[serde(rename = "spread")]
    _spread: Option<f64>,
    #[serde(rename = "img_noise")]
    _img_noise: Option<f64>,
}

#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "lowercase")]
enum OnlyReflect {
    Reflect,
}

/// A getter for each key a unit can't do without.
macro_rules! needed {
    ($($key:ident: $kind:ty),* $(,)?) => {
        impl CaseConfig {
            $(pub(super) fn $key(&self) -> Result<$kind, UnitError> {
                self.$key.clone().ok_or_else(|| concat!(stringify!($key), ": missing").into())
            })*
        }
    };
}

needed! {
    image_size: usize,
    patch_size: usize,
    dim: usize,
    depth: usize,
    heads: usize,
    mlp_dim: usize,
    in_dim_caps: usize,
    latent_chw: [usize; 3],
    decoder: Vec<DecoderLayer>,
    train: bool,
    coefs: usize,
    grid: [usize; 2],
    distance: Distance,
    cls_token: bool,
    scale: AttentionScale,
    lambda: f64,
    temperature: f64,
    steps: usize,
    zero_grad: ZeroGrad,
    lr: f64,
    weight_decay: f64,
    window: usize,
    sigma: f64,
    truncate: f64,
    out_hw: [usize; 2],
}

impl CaseConfig {
    pub(super) fn of(case: &Case) -> Result<Self, UnitError> {
        let config: Self = case.config()?;
        if config.module != case.unit {
            return Err(format!("module: expected the unit, {}, found {}", case.unit, config.module).into());
        }
        Ok(config)
    }

    pub(super) fn assoc(&self) -> bool {
        self.assoc.unwrap_or(false)
    }

    pub(super) fn stride(&self) -> Result<usize, UnitError> {
        match self.stride {
            Some(0) => Err("stride: expected at least 1, found 0".into()),
            stride => Ok(stride.unwrap_or(1)),
        }
    }

    /// Refuses tensors of other sizes than the configuration states, where it states any.
    pub(super) fn check(&self, sizes: &[(&str, usize)]) -> Result<(), UnitError> {
        for &(key, found) in sizes {
            let stated = match key {
                "batch" => self.batch,
                "images" => self.images,
                "n" => self.n,
                "dim" => self.dim,
                "image_size" => self.image_size,
                "in_num_caps" => self.in_num_caps,
                "in_dim_caps" => self.in_dim_caps,
                "out_dim_caps" => self.out_dim_caps,
                "input height" => self.input_hw.map(|hw| hw[0]),
                "input width" => self.input_hw.map(|hw| hw[1]),
                "latent height" => self.latent_hw.map(|hw| hw[0]),
                "latent width" => self.latent_hw.map(|hw| hw[1]),
                _ => None,
            };
            if let Some(stated) = stated
                && stated != found
            {
                return Err(format!("{key}: is {stated}, but the tensors have {found}").into());
            }
        }
        Ok(())
    }

    /// Refuses a tensor of another shape than stated.
    pub(super) fn check_shape(&self, found: &[usize]) -> Result<(), UnitError> {
        match self.shape {
            Some(stated) if stated != found => {
                Err(format!("shape: is {stated:?}, but the tensors have {found:?}").into())
            }
            _ => Ok(()),
        }
    }

    /// The transformer alone; what else there is has no size.
    pub(super) fn transformer(&self) -> Result<Architecture, UnitError> {
        let (size, patch) = (self.image_size()?, self.patch_size()?);
        if patch == 0 || size % patch != 0 {
            return Err(format!("patch_size: expected a divisor of {size}, found {patch}").into());
        }
        Ok(Architecture {
            patches: (size / patch).pow(2),
            patch,
            dim: self.dim()?,
            depth: self.depth()?,
            heads: self.heads()?,
            mlp_dim: self.mlp_dim()?,
            scale: self.scale.unwrap_or_default(),
            association: None,
            capsule_dim: 1,
            latent: [0; 3],
            decoder: Vec::new(),
            gaussians: 0,
        })
    }

    /// Transformer, capsule and decoder.
    pub(super) fn autoencoder(&self) -> Result<Architecture, UnitError> {
        let (latent, capsule_dim) = (self.latent_chw()?, self.in_dim_caps()?);
        let outputs: usize = latent.iter().product();
        self.check(&[("out_dim_caps", outputs)])?;
        if let Some(count) = self.caps_per_token
            && count * capsule_dim != self.dim()?
        {
            return Err(
                format!("caps_per_token: {count} of {capsule_dim} are not dim, {}", self.dim()?).into()
            );
        }
        let transformer = self.transformer()?;
        Ok(Architecture { capsule_dim, latent, decoder: self.decoder()?, ..transformer })
    }
}
