//! A case's configuration, as the table beside the cases lists it. Keys with an underscore are sizes that the tensors have
//! as well, or are in the draws already.

use conformance::{Case, UnitError};
use optim::AdamOptions;
use serde::Deserialize;

use crate::batch_norm::Options;
use crate::network::{SLOPE, Sizes};

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct CaseConfig {
    #[serde(rename = "image_size")]
    _image_size: Option<usize>,
    #[serde(rename = "patch_size")]
    _patch_size: Option<usize>,
    embed_dim: Option<usize>,
    layers: Option<Vec<usize>>,
    #[serde(rename = "num_patches")]
    _num_patches: Option<usize>,
    #[serde(rename = "batch")]
    _batch: Option<usize>,
    dsc_layers: Option<usize>,
    hidden_dim: Option<usize>,
    bn_eps: Option<f64>,
    bn_momentum: Option<f64>,
    leaky_slope: Option<f64>,
    #[serde(rename = "noise_std")]
    _noise_std: Option<f64>,
    #[serde(rename = "noise_scale")]
    _noise_scale: Option<f64>,
    steps: Option<usize>,
    epochs: Option<usize>,
    epoch_per_step: Option<bool>,
    #[serde(rename = "optimizer")]
    _optimizer: Option<OnlyAdamw>,
    lr: Option<f64>,
    lr_adaptor: Option<f64>,
    wd: Option<f64>,
    adaptor_wd: Option<f64>,
    eps: Option<f64>,
    lr_floor_factor: Option<f64>,
    betas: Option<[f64; 2]>,
    pool_size: Option<usize>,
    grid_from_layer: Option<usize>,
}

#[derive(Debug, Clone, Copy, Deserialize)]
enum OnlyAdamw {
    #[serde(rename = "adamw")]
    AdamW,
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
    layers: Vec<usize>,
    grid_from_layer: usize,
    pool_size: usize,
    embed_dim: usize,
    hidden_dim: usize,
    dsc_layers: usize,
    steps: usize,
    epochs: usize,
    lr: f64,
    lr_floor_factor: f64,
    wd: f64,
    lr_adaptor: f64,
    adaptor_wd: f64,
}

impl CaseConfig {
    pub(super) fn of(case: &Case) -> Result<Self, UnitError> {
        Ok(case.config()?)
    }

    /// `AdamW`'s other settings.
    pub(super) fn adam(&self) -> AdamOptions {
        let default = AdamOptions::adam_w();
        let [beta1, beta2] = self.betas.unwrap_or([default.beta1, default.beta2]);
        AdamOptions { beta1, beta2, epsilon: self.eps.unwrap_or(default.epsilon), ..default }
    }

    pub(super) fn epoch_per_step(&self) -> bool {
        self.epoch_per_step.unwrap_or(false)
    }

    pub(super) fn sizes(&self) -> Result<Sizes, UnitError> {
        let default = Options::default();
        let hidden_layers =
            self.dsc_layers()?.checked_sub(1).ok_or("dsc_layers: expected at least 1, found 0")?;
        Ok(Sizes {
            width: self.embed_dim()?,
            hidden: self.hidden_dim()?,
            hidden_layers,
            slope: self.leaky_slope.unwrap_or(SLOPE),
            batch_norm: Options {
                eps: self.bn_eps.unwrap_or(default.eps),
                momentum: self.bn_momentum.unwrap_or(default.momentum),
            },
        })
    }
}
