//! A case's configuration, as the table beside the cases lists it.

use std::collections::HashMap;

use candle_core::Tensor;
use conformance::{Case, UnitError};
use serde::Deserialize;
use vit_backbone::{Family, NameScheme, Vit, VitConfig};

use crate::network::Sizes;
use crate::training::Optimisation;
use crate::{Amount, FakeFeatures};

/// The keys of all units in the folder: those that belong to others are accepted, and not looked at.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct CaseConfig {
    pub(super) image_size: Option<usize>,
    patch_size: Option<usize>,
    pub(super) embed_dim: Option<usize>,
    depth: Option<usize>,
    num_heads: Option<usize>,
    layers: Option<Layers>,
    mlp_ratio: Option<f64>,
    norm_eps: Option<f64>,
    layer_scale: Option<bool>,
    no_embed_class: Option<bool>,
    reg_tokens: Option<usize>,
    prefix_tokens: Option<usize>,
    pub(super) attn_heads: Option<usize>,
    pub(super) num_patches: Option<usize>,
    pub(super) batch: Option<usize>,
    dsc_layers: Option<usize>,
    num_layers: Option<usize>,
    dsc_heads: Option<usize>,
    heads: Option<usize>,
    hidden_dim: Option<usize>,
    #[serde(rename = "gelu")]
    _gelu: Option<OnlyErf>,
    ln_eps: Option<f64>,
    #[serde(rename = "bn_eps")]
    _bn_eps: Option<f64>,
    #[serde(rename = "bn_momentum")]
    _bn_momentum: Option<f64>,
    #[serde(rename = "leaky_slope")]
    _leaky_slope: Option<f64>,
    fake_feature_type: Option<FakeFeatureType>,
    pub(super) num_fake_patches: Option<i64>,
    top_k: Option<i64>,
    #[serde(rename = "noise_std")]
    _noise_std: Option<f64>,
    #[serde(rename = "noise_scale")]
    _noise_scale: Option<f64>,
    steps: Option<usize>,
    epochs: Option<usize>,
    pub(super) epoch_per_step: Option<bool>,
    #[serde(rename = "optimizer")]
    _optimizer: Option<OnlyAdamW>,
    lr: Option<f64>,
    #[serde(rename = "lr_adaptor")]
    _lr_adaptor: Option<f64>,
    wd: Option<f64>,
    #[serde(rename = "adaptor_wd")]
    _adaptor_wd: Option<f64>,
    adamw_wd: Option<f64>,
    eps: Option<f64>,
    lr_decay_factor: Option<f64>,
    lr_floor_factor: Option<f64>,
    betas: Option<[f64; 2]>,
    #[serde(rename = "milestones")]
    _milestones: Option<Vec<f64>>,
    #[serde(rename = "gamma")]
    _gamma: Option<f64>,
    #[serde(rename = "model_type")]
    _model_type: Option<ModelType>,
    #[serde(rename = "pool_size")]
    _pool_size: Option<usize>,
    #[serde(rename = "grid_from_layer")]
    _grid_from_layer: Option<usize>,
    patches_per_side: Option<usize>,
    out_size: Option<usize>,
    smoothing_radius: Option<usize>,
    smoothing_sigma: Option<f64>,
    #[serde(rename = "border")]
    _border: Option<OnlySymmetric>,
    pub(super) log_pixel_metrics: Option<u8>,
    #[serde(rename = "pro_variant")]
    _pro_variant: Option<OnlyReference>,
    #[serde(rename = "pro_fpr_limit")]
    _pro_fpr_limit: Option<f64>,
    #[serde(rename = "pro_kernel")]
    _pro_kernel: Option<usize>,
    #[serde(rename = "pro_thresholds")]
    _pro_thresholds: Option<usize>,
    #[serde(rename = "filter")]
    _filter: Option<OnlyLanczos>,
    #[serde(rename = "layout")]
    _layout: Option<Layout>,
    #[serde(rename = "mean")]
    _mean: Option<Vec<f64>>,
    #[serde(rename = "std")]
    _std: Option<Vec<f64>>,
    #[serde(rename = "token_scale")]
    _token_scale: Option<f64>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(untagged)]
enum Layers {
    One(usize),
    Several(Vec<usize>),
}

/// The types that occur in cases; the crate knows more.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "snake_case")]
enum FakeFeatureType {
    Base,
    Random,
    CopyOutAndAttn,
    CopyOutAndRandom,
    RandshuffleAndAttn,
    ShuffleAndRandom,
}

macro_rules! only {
    ($($name:ident { $($variant:ident = $word:literal),* })*) => {
        $(#[derive(Debug, Clone, Copy, Deserialize)]
        enum $name { $(#[serde(rename = $word)] $variant),* })*
    };
}

only! {
    OnlyErf { Erf = "erf" }
    OnlyAdamW { AdamW = "adamw" }
    OnlySymmetric { Symmetric = "half_sample_symmetric" }
    OnlyReference { Reference = "reference" }
    OnlyLanczos { Lanczos = "lanczos3_u8_horizontal_first" }
    ModelType { Mlp = "mlp", Vit = "vit" }
    Layout { MvtecAd = "mvtec_ad", MvtecLocoAd = "mvtec_loco_ad" }
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
    hidden_dim: usize,
    steps: usize,
    epochs: usize,
    lr: f64,
    patches_per_side: usize,
    out_size: usize,
    smoothing_radius: usize,
    smoothing_sigma: f64,
}

impl CaseConfig {
    pub(super) fn of(case: &Case) -> Result<Self, UnitError> {
        Ok(case.config()?)
    }

    /// Blocks counted from 1, as written.
    pub(super) fn layers(&self) -> Result<Vec<usize>, UnitError> {
        let layers = match self.layers.clone().ok_or("layers: missing")? {
            Layers::One(layer) => vec![layer],
            Layers::Several(layers) => layers,
        };
        if layers.is_empty() || layers.contains(&0) {
            return Err(format!("layers: expected blocks counted from 1, found {layers:?}").into());
        }
        Ok(layers)
    }

    pub(super) fn fake_features(&self) -> Result<FakeFeatures, UnitError> {
        Ok(match self.fake_feature_type.ok_or("fake_feature_type: missing")? {
            FakeFeatureType::Base => FakeFeatures::Base,
            FakeFeatureType::Random => FakeFeatures::Random,
            FakeFeatureType::CopyOutAndAttn => FakeFeatures::CopyOutAndAttn,
            FakeFeatureType::CopyOutAndRandom => FakeFeatures::CopyOutAndRandom,
            FakeFeatureType::RandshuffleAndAttn => FakeFeatures::RandshuffleAndAttn,
            FakeFeatureType::ShuffleAndRandom => FakeFeatures::ShuffleAndRandom,
        })
    }

    pub(super) fn top_k(&self) -> Result<Amount, UnitError> {
        match self.top_k.ok_or("top_k: missing")? {
            0 => Err("top_k: expected at least 1, or below 0 for all, found 0".into()),
            all if all < 0 => Ok(Amount::All),
            count => Ok(Amount::Of(usize::try_from(count)?)),
        }
    }

    pub(super) fn norm_eps(&self) -> Result<f64, UnitError> {
        self.norm_eps.ok_or_else(|| "norm_eps: missing".into())
    }

    pub(super) fn backbone_heads(&self) -> Result<usize, UnitError> {
        self.num_heads.ok_or_else(|| "num_heads: missing".into())
    }

    /// Class token and registers.
    pub(super) fn prefix(&self) -> Result<usize, UnitError> {
        let registers = self.reg_tokens.unwrap_or(0);
        let prefix = self.prefix_tokens.unwrap_or(1 + registers);
        if prefix != 1 + registers {
            return Err(format!("prefix_tokens: is {prefix}, but there are {registers} registers").into());
        }
        Ok(prefix)
    }

    /// The discriminator for this many patches of this width. `num_heads` is the backbone's wherever there is one.
    pub(super) fn sizes(&self, patches: usize, width: usize) -> Result<Sizes, UnitError> {
        let blocks = self.dsc_layers.or(self.num_layers).ok_or("dsc_layers: missing")?;
        let heads = self.dsc_heads.or(self.heads).or(self.num_heads).ok_or("dsc_heads: missing")?;
        if heads == 0 || !width.is_multiple_of(heads) {
            return Err(format!("dsc_heads: expected a divisor of {width}, found {heads}").into());
        }
        let norm_eps = self.ln_eps.unwrap_or(crate::fit::NORM_EPS);
        Ok(Sizes { patches, width, blocks, heads, hidden: self.hidden_dim()?, norm_eps })
    }

    pub(super) fn optimisation(&self) -> Result<Optimisation, UnitError> {
        let [beta1, beta2] = self.betas.unwrap_or([0.9, 0.999]);
        Ok(Optimisation {
            learning_rate: self.lr()?,
            floor: self.lr_decay_factor.or(self.lr_floor_factor).ok_or("lr_decay_factor: missing")?,
            epochs: self.epochs()?,
            weight_decay: self.wd.or(self.adamw_wd).ok_or("wd: missing")?,
            betas: (beta1, beta2),
            epsilon: self.eps.unwrap_or(1e-8),
        })
    }

    /// The backbone of these weights, under timm's names.
    pub(super) fn vit(&self, weights: &HashMap<String, Tensor>) -> Result<Vit, UnitError> {
        let needed = |value: Option<usize>, key: &str| value.ok_or_else(|| format!("{key}: missing"));
        let dim = needed(self.embed_dim, "embed_dim")?;
        let depth = needed(self.depth, "depth")?;
        let (patch, size) = (needed(self.patch_size, "patch_size")?, needed(self.image_size, "image_size")?);
        let family = if self.no_embed_class == Some(true) { Family::TimmDinov2Reg } else { Family::TimmVit };
        let mut config = VitConfig::new(family, (dim, depth, self.backbone_heads()?), patch, size);
        config.registers = self.prefix()? - 1;
        config.layer_scale = self.layer_scale.unwrap_or(false);
        config.norm_eps = self.norm_eps()?;
        let hidden = weights.get("blocks.0.mlp.fc1.weight").map(|weight| weight.dim(0)).transpose()?;
        config.mlp_hidden = match (self.mlp_ratio, hidden) {
            (Some(ratio), _) => (dim as f64 * ratio) as usize,
            (None, Some(hidden)) => hidden,
            (None, None) => return Err("mlp_ratio: missing, and so are the weights that would tell".into()),
        };
        Ok(Vit::from_tensors(config, weights, NameScheme::Timm)?)
    }
}
