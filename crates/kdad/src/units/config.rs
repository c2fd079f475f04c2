//! A case's configuration, as the table beside the cases lists it. Keys with an underscore have one value, or are sizes that
//! the tensors have as well.

use conformance::{Case, UnitError};
use serde::Deserialize;

use crate::StudentKind;
use crate::network::{NORM_EPS, Sizes};

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct CaseConfig {
    image_size: Option<usize>,
    patch_size: Option<usize>,
    embed_dim: Option<usize>,
    layers: Option<usize>,
    prefix_tokens: Option<usize>,
    #[serde(rename = "num_patches")]
    _num_patches: Option<usize>,
    #[serde(rename = "batch")]
    _batch: Option<usize>,
    heads: Option<usize>,
    hidden_dim: Option<usize>,
    #[serde(rename = "gelu")]
    _gelu: Option<OnlyErf>,
    ln_eps: Option<f64>,
    steps: Option<usize>,
    #[serde(rename = "epochs")]
    _epochs: Option<usize>,
    epoch_per_step: Option<bool>,
    #[serde(rename = "optimizer")]
    _optimizer: Option<OnlyAdamw>,
    lr: Option<f64>,
    adamw_wd: Option<f64>,
    eps: Option<f64>,
    betas: Option<[f64; 2]>,
    milestones: Option<Vec<f64>>,
    gamma: Option<f64>,
    model_type: Option<StudentKind>,
}

#[derive(Debug, Clone, Copy, Deserialize)]
enum OnlyErf {
    #[serde(rename = "erf")]
    Erf,
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
                self.$key.ok_or_else(|| concat!(stringify!($key), ": missing").into())
            })*
        }
    };
}

needed! {
    image_size: usize,
    patch_size: usize,
    embed_dim: usize,
    layers: usize,
    prefix_tokens: usize,
    heads: usize,
    hidden_dim: usize,
    steps: usize,
    lr: f64,
    adamw_wd: f64,
    gamma: f64,
    model_type: StudentKind,
}

impl CaseConfig {
    pub(super) fn of(case: &Case) -> Result<Self, UnitError> {
        Ok(case.config()?)
    }

    pub(super) fn betas(&self) -> [f64; 2] {
        self.betas.unwrap_or([0.9, 0.999])
    }

    pub(super) fn eps(&self) -> f64 {
        self.eps.unwrap_or(1e-8)
    }

    pub(super) fn epoch_per_step(&self) -> bool {
        self.epoch_per_step.unwrap_or(false)
    }

    /// Whole epochs, though the table calls them floats.
    pub(super) fn milestones(&self) -> Result<Vec<u64>, UnitError> {
        let milestones = self.milestones.as_deref().ok_or("milestones: missing")?;
        let whole = |at: &f64| {
            if at.fract() == 0.0 && *at >= 0.0 {
                return Ok(*at as u64);
            }
            Err(format!("milestones: expected whole epochs, found {at}").into())
        };
        milestones.iter().map(whole).collect()
    }

    pub(super) fn sizes(&self) -> Result<Sizes, UnitError> {
        let (size, patch, kind) = (self.image_size()?, self.patch_size()?, self.model_type()?);
        if patch == 0 || !size.is_multiple_of(patch) {
            return Err(format!("image_size: expected a multiple of {patch}, found {size}").into());
        }
        // An MLP has neither blocks nor heads.
        let (layers, heads) = match kind {
            StudentKind::Vit => (self.layers()?, self.heads()?),
            StudentKind::Mlp => (0, 1),
        };
        Ok(Sizes {
            kind,
            patch: (patch, patch),
            patches: (size / patch).pow(2),
            dim: self.embed_dim()?,
            hidden: self.hidden_dim()?,
            layers,
            heads,
            norm_eps: self.ln_eps.unwrap_or(NORM_EPS),
        })
    }
}
