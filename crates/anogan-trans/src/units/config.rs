//! A case's configuration, as the table beside the cases lists it.

use std::collections::BTreeMap;

use conformance::{Case, UnitError};
use optim::AdamOptions;
use serde::Deserialize;

use crate::config::RunningUpdates;
use crate::discriminator::DiscriminatorConfig;
use crate::generator::{AttentionKind, GeneratorConfig, HeadLayout};
use crate::sizes::{DEPTH, HEADS, WINDOW};
use crate::trainer::StepRule;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct CaseConfig {
    isize: Option<usize>,
    nc: Option<usize>,
    patchsize: Option<usize>,
    dim: Option<usize>,
    depth: Option<usize>,
    heads: Option<usize>,
    window: Option<usize>,
    attention: Option<AttentionKind>,
    ndf: Option<usize>,
    nz: Option<usize>,
    bn_eps: Option<f64>,
    bn_momentum: Option<f64>,
    leaky: Option<f64>,
    batchsize: Option<usize>,
    steps: Option<usize>,
    lr: Option<f64>,
    beta1: Option<f64>,
    beta2: Option<f64>,
    eps: Option<f64>,
    w_adv: Option<f64>,
    w_con: Option<f64>,
    w_lat: Option<f64>,
    uselat: Option<u8>,
    noise: Option<NoiseKind>,
    w_rec: Option<f64>,
    w_feat: Option<f64>,
    /// Of the unit `metric`, which is not here.
    #[serde(rename = "n")]
    _n: Option<usize>,
    #[serde(rename = "f1_threshold")]
    _f1_threshold: Option<f64>,
    blocks: Option<BTreeMap<String, BlockConfig>>,
    /// How the inputs were drawn.
    #[serde(rename = "seed")]
    _seed: Option<i64>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum NoiseKind {
    Constant,
    Zeros,
}

/// What to build.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum BlockType {
    Swin,
    WindowAttention,
    AttentionBlock,
    TfLayer,
    Embedding,
    Merge,
    Expand,
    AttDown,
    AttUp,
    OutputHead,
}

#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(untagged)]
pub(super) enum Side {
    Square(usize),
    Each([usize; 2]),
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct BlockConfig {
    #[serde(rename = "type")]
    pub(super) kind: BlockType,
    pub(super) attention: Option<AttentionKind>,
    pub(super) dim: Option<usize>,
    pub(super) heads: Option<usize>,
    pub(super) resolution: Option<[usize; 2]>,
    pub(super) window: Option<Side>,
    pub(super) shift_requested: Option<bool>,
    pub(super) window_used: Option<usize>,
    pub(super) shift_used: Option<usize>,
    pub(super) num_windows: Option<usize>,
    pub(super) tokens: Option<usize>,
    pub(super) last: Option<bool>,
    pub(super) size: Option<usize>,
    pub(super) patch: Option<usize>,
    pub(super) nc: Option<usize>,
    pub(super) dim_in: Option<usize>,
    pub(super) dim_out: Option<usize>,
}

/// A getter for each key a unit can't do without.
macro_rules! needed {
    ($of:ty: $($key:ident: $kind:ty),* $(,)?) => {
        impl $of {
            $(pub(super) fn $key(&self) -> Result<$kind, UnitError> {
                self.$key.clone().ok_or_else(|| concat!(stringify!($key), ": missing").into())
            })*
        }
    };
}

needed! {
    CaseConfig:
    isize: usize,
    patchsize: usize,
    dim: usize,
    ndf: usize,
    nz: usize,
    batchsize: usize,
    steps: usize,
    lr: f64,
    beta1: f64,
    beta2: f64,
    eps: f64,
    w_adv: f64,
    w_con: f64,
    w_lat: f64,
    noise: NoiseKind,
    w_rec: f64,
    w_feat: f64,
    blocks: BTreeMap<String, BlockConfig>,
}

needed! {
    BlockConfig:
    dim: usize,
    resolution: [usize; 2],
    size: usize,
    patch: usize,
    dim_in: usize,
    dim_out: usize,
}

impl CaseConfig {
    pub(super) fn of(case: &Case) -> Result<Self, UnitError> {
        Ok(case.config()?)
    }

    pub(super) fn generator(&self) -> Result<GeneratorConfig, UnitError> {
        if let Some(depth) = self.depth
            && depth != DEPTH
        {
            return Err(format!("depth: expected {DEPTH}, found {depth}").into());
        }
        Ok(GeneratorConfig {
            size: self.isize()?,
            channels: self.nc.unwrap_or(3),
            // Whatever the images have, the reference paints three.
            outputs: 3,
            patch: self.patchsize()?,
            dim: self.dim()?,
            attention: self.attention.unwrap_or_default(),
            heads: self.heads.unwrap_or(HEADS),
            window: self.window.unwrap_or(WINDOW),
            fusion: false,
            layout: HeadLayout::Scrambled,
        })
    }

    pub(super) fn discriminator(&self) -> Result<DiscriminatorConfig, UnitError> {
        let usual = DiscriminatorConfig::default();
        Ok(DiscriminatorConfig {
            size: self.isize()?,
            channels: self.nc.unwrap_or(3),
            width: self.ndf()?,
            features: self.nz()?,
            eps: self.bn_eps.unwrap_or(usual.eps),
            momentum: self.bn_momentum.unwrap_or(usual.momentum),
            leak: self.leaky.unwrap_or(usual.leak),
        })
    }

    /// The reference's step.
    pub(super) fn rule(&self) -> Result<StepRule, UnitError> {
        let latent = match self.uselat {
            Some(0) => 0.0,
            Some(1) | None => self.w_lat()?,
            Some(other) => return Err(format!("uselat: expected 0 or 1, found {other}").into()),
        };
        Ok(StepRule {
            adversarial: self.w_adv()?,
            reconstruction: self.w_con()?,
            latent,
            latent_times: 2.0,
            discriminator_latent: true,
            updates: RunningUpdates::Five,
            adam: AdamOptions {
                learning_rate: self.lr()?,
                beta1: self.beta1()?,
                beta2: self.beta2()?,
                epsilon: self.eps()?,
                ..AdamOptions::default()
            },
        })
    }
}
