//! The numeric cases of this crate, for the conformance runner.

use std::collections::HashMap;

use candle_core::{DType, Device, Tensor, Var};
use conformance::{Case, HostTensor, Unit, UnitError};
use serde::Deserialize;

use crate::{
    Activation, Family, NameScheme, Outputs, Pooling, Positions, QkvBias, Resampling, Vit, VitConfig,
    dinov2_swiglu_hidden,
};

/// The units `forward` and `gradients` of method `vit-backbone`.
pub fn conformance_units() -> Vec<Unit> {
    vec![
        Unit { method: "vit-backbone", unit: "forward", run: forward },
        Unit { method: "vit-backbone", unit: "gradients", run: gradients },
    ]
}

/// A case's configuration, as the table beside the cases lists it.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct CaseConfig {
    family: Family,
    weight_names: WeightNames,
    embed_dim: usize,
    depth: usize,
    num_heads: usize,
    patch_size: Side,
    trained_image_size: Side,
    mlp_ratio: Option<f64>,
    mlp_hidden: Option<usize>,
    act: Act,
    layer_norm_eps: f64,
    layer_scale: Option<bool>,
    class_token: Option<bool>,
    num_register_tokens: Option<usize>,
    pre_norm: Option<bool>,
    patch_bias: Option<bool>,
    qkv_bias: Option<bool>,
    key_bias: Option<bool>,
    pool: Option<Pool>,
    num_classes: Option<usize>,
    rope_base: Option<f64>,
    pos_embed_interp: Interpolation,
    scalar: Option<Scalar>,
}

#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "snake_case")]
enum WeightNames {
    Timm,
    HfHub,
    OriginalPth,
    PytorchPretrainedVit,
}

#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(untagged)]
enum Side {
    Square(usize),
    Both([usize; 2]),
}

#[derive(Debug, Clone, Copy, PartialEq, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Act {
    GeluErf,
    QuickGelu,
    SwigluPacked,
    SwigluSplit,
}

#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Pool {
    Token,
    Avg,
    AvgFcNorm,
}

#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Interpolation {
    None,
    Bicubic,
    BicubicAntialias,
    BicubicScaleFactorOffset,
    LinearAlignCorners,
    Rope,
}

#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Scalar {
    NormDotCotangent,
}

impl Side {
    fn both(self) -> (usize, usize) {
        match self {
            Self::Square(side) => (side, side),
            Self::Both([height, width]) => (height, width),
        }
    }
}

impl CaseConfig {
    fn scheme(&self) -> Result<NameScheme, UnitError> {
        use Family::{
            HfClipVision, HfDinov2, HfDinov2Reg, HfDinov3, HfVit, PytorchPretrainedVit, TimmClip, TimmDinov2,
            TimmDinov2Reg, TimmDinov3, TimmVit,
        };
        Ok(match (self.weight_names, self.family) {
            (WeightNames::Timm, TimmDinov3) => NameScheme::TimmEva,
            (WeightNames::Timm, TimmVit | TimmClip | TimmDinov2 | TimmDinov2Reg) => NameScheme::Timm,
            (WeightNames::OriginalPth, Family::FbDino | Family::FbDinov2) => NameScheme::Original,
            (WeightNames::HfHub, HfVit) => NameScheme::HfVit,
            (WeightNames::HfHub, HfDinov2 | HfDinov2Reg) => NameScheme::HfDinov2,
            (WeightNames::HfHub, HfClipVision) => NameScheme::HfClip,
            (WeightNames::HfHub, HfDinov3) => NameScheme::HfDinov3,
            (WeightNames::PytorchPretrainedVit, PytorchPretrainedVit) => NameScheme::PytorchPretrainedVit,
            (names, family) => {
                return Err(format!("family {family:?} has no files under weight_names {names:?}").into());
            }
        })
    }

    fn vit(&self, has_pooler: bool) -> Result<VitConfig, UnitError> {
        for (key, value, only) in [
            ("pre_norm", self.pre_norm, true),
            ("patch_bias", self.patch_bias, false),
            ("key_bias", self.key_bias, false),
        ] {
            if value.is_some_and(|value| value != only) {
                return Err(format!("{key}: expected {only} or nothing, found {}", !only).into());
            }
        }
        let mut config = VitConfig::new(self.family, (self.embed_dim, self.depth, self.num_heads), 1, 1);
        config.patch = self.patch_size.both();
        config.trained_size = self.trained_image_size.both();
        config.activation = match self.act {
            Act::GeluErf => Activation::GeluErf,
            Act::QuickGelu => Activation::QuickGelu,
            Act::SwigluPacked | Act::SwigluSplit => Activation::Swiglu,
        };
        let ratio = self.mlp_ratio.unwrap_or(4.0);
        let full = (self.embed_dim as f64 * ratio) as usize;
        config.mlp_hidden = match (self.mlp_hidden, config.activation, self.family) {
            (Some(hidden), ..) => hidden,
            (None, Activation::Swiglu, Family::FbDinov2 | Family::HfDinov2 | Family::HfDinov2Reg) => {
                dinov2_swiglu_hidden(self.embed_dim, ratio)
            }
            // timm's ratio is that of both halves together.
            (None, Activation::Swiglu, _) => full / 2,
            (None, ..) => full,
        };
        config.norm_eps = self.layer_norm_eps;
        config.layer_scale = self.layer_scale.unwrap_or(false);
        config.class_token = self.class_token.unwrap_or(true);
        config.registers = self.num_register_tokens.unwrap_or(0);
        config.pre_norm = self.pre_norm.unwrap_or(false);
        config.patch_bias = self.patch_bias.unwrap_or(true);
        config.qkv_bias = match (self.qkv_bias.unwrap_or(true), self.family, self.key_bias) {
            (false, ..) => QkvBias::None,
            (true, Family::TimmDinov3, _) | (true, _, Some(false)) => QkvBias::QueryValue,
            (true, ..) => QkvBias::All,
        };
        config.positions = match self.pos_embed_interp {
            Interpolation::None => Positions::Table(Resampling::None),
            Interpolation::Bicubic => Positions::Table(Resampling::Bicubic),
            Interpolation::BicubicAntialias => Positions::Table(Resampling::BicubicAntialias),
            Interpolation::BicubicScaleFactorOffset => Positions::Table(Resampling::BicubicScaleFactorOffset),
            Interpolation::LinearAlignCorners => Positions::Table(Resampling::LinearAlignCorners),
            Interpolation::Rope => {
                Positions::Rope { base: self.rope_base.ok_or("rope_base: needed for rotary positions")? }
            }
        };
        config.pooling = match self.pool {
            Some(Pool::Avg) => Pooling::Mean,
            Some(Pool::AvgFcNorm) => Pooling::MeanThenNorm,
            None if has_pooler => Pooling::TanhPooler,
            None if !config.class_token => Pooling::Mean,
            Some(Pool::Token) | None => Pooling::ClassToken,
        };
        config.classes = self.num_classes.filter(|classes| *classes > 0);
        Ok(config)
    }
}

/// On the device that the run is for, the CPU if it names none.
fn to_tensor(host: &HostTensor) -> Result<Tensor, UnitError> {
    let device = conformance::context().unwrap_or(&Device::Cpu);
    Ok(Tensor::from_vec(host.to_f32_vec()?, host.shape.clone(), device)?)
}

fn to_host(tensor: &Tensor) -> Result<HostTensor, UnitError> {
    let values = tensor.to_dtype(DType::F32)?.flatten_all()?.to_vec1::<f32>()?;
    Ok(HostTensor::f32(tensor.dims().to_vec(), values))
}

fn build(case: &Case, config: &CaseConfig, weights: &HashMap<String, Tensor>) -> Result<Vit, UnitError> {
    let scheme = config.scheme()?;
    let has_pooler =
        config.family == Family::HfVit && weights.keys().any(|n| n.ends_with("pooler.dense.weight"));
    let vit = config.vit(has_pooler).map_err(|error| format!("{}: {error}", case.case))?;
    Ok(Vit::from_tensors(vit, weights, scheme)?)
}

fn forward(case: &Case) -> Result<conformance::Outputs, UnitError> {
    let config: CaseConfig = case.config()?;
    if config.scalar.is_some() {
        return Err("scalar: belongs to the unit gradients".into());
    }
    let mut weights = HashMap::new();
    for (name, host) in case.weights() {
        weights.insert(name.to_owned(), to_tensor(host)?);
    }
    outputs(&build(case, &config, &weights)?, &to_tensor(case.input("in.pixel_values")?)?)
}

fn outputs(vit: &Vit, images: &Tensor) -> Result<conformance::Outputs, UnitError> {
    let last = vit.depth() - 1;
    let wanted = Outputs {
        embed: true,
        blocks: (0..vit.depth()).collect(),
        norm: true,
        pooled: true,
        logits: vit.config().classes.is_some(),
        full_attention_of: Some(last),
        ..Outputs::default()
    };
    let features = vit.forward(images, &wanted)?;
    let (_, _, height, width) = images.dims4()?;
    let mut out = conformance::Outputs::new();
    for (index, block) in features.blocks.iter().enumerate() {
        out.insert(format!("out.block.{index}"), to_host(block)?);
    }
    for (name, tensor) in [
        ("out.embed", features.embed),
        ("out.norm", features.norm),
        ("out.attn_last", features.full_attention),
        ("out.pooled", features.pooled),
        ("out.logits", features.logits),
        ("out.pos_embed", vit.position_table(height, width)?),
        ("out.rope_sin_cos", vit.rope(height, width)?.map(|rope| rope.sin_cos()).transpose()?),
    ] {
        if let Some(tensor) = tensor {
            out.insert(name.to_owned(), to_host(&tensor)?);
        }
    }
    Ok(out)
}

fn gradients(case: &Case) -> Result<conformance::Outputs, UnitError> {
    let config: CaseConfig = case.config()?;
    let Some(Scalar::NormDotCotangent) = config.scalar else {
        return Err("scalar: expected norm_dot_cotangent, found nothing".into());
    };
    let mut vars = Vec::new();
    for (name, host) in case.weights() {
        vars.push((name.to_owned(), Var::from_tensor(&to_tensor(host)?)?));
    }
    let weights = vars.iter().map(|(name, var)| (name.clone(), var.as_tensor().clone())).collect();
    let vit = build(case, &config, &weights)?;
    let images = Var::from_tensor(&to_tensor(case.input("in.pixel_values")?)?)?;
    let mut out = outputs(&vit, images.as_tensor())?;

    let norm = vit.forward(images.as_tensor(), &Outputs::norm())?.norm.ok_or("no norm came back")?;
    let scalar = (norm * to_tensor(case.input("in.cotangent")?)?)?.sum_all()?;
    let gradients = scalar.backward()?;
    out.insert("out.scalar".to_owned(), to_host(&scalar.reshape(1)?)?);
    // A tensor the network does not read (mask token, head) has none.
    for (name, var) in &vars {
        if let Some(gradient) = gradients.get(var) {
            out.insert(format!("grad.{name}"), to_host(gradient)?);
        }
    }
    if let Some(gradient) = gradients.get(&images) {
        out.insert("grad.in.pixel_values".to_owned(), to_host(gradient)?);
    }
    Ok(out)
}
