use std::collections::{BTreeSet, HashMap};

use candle_core::Tensor;
use conformance::{Case, Outputs, UnitError};
use image_prep::{Filter, IMAGENET_MEAN, IMAGENET_STD, Preprocess};
use vit_backbone::Vit;
use vit_ops::{AttentionOptions, AttentionWeights, Linear, attention, layer_norm};

use super::config::CaseConfig;
use super::{put, to_host, to_tensor};
use crate::features::{Extractor, of_patches, side_by_side};
use crate::{Config, FakeFeatures};

/// The weights whose names start with `prefix`, without it.
pub(super) fn weights(case: &Case, prefix: &str) -> Result<HashMap<String, Tensor>, UnitError> {
    let own = case.weights().filter_map(|(name, host)| Some((name.strip_prefix(prefix)?, host)));
    own.map(|(name, host)| Ok((name.to_owned(), to_tensor(host)?))).collect()
}

/// What reads the layers that the case names, and the attention of the last one written.
pub(super) fn extractor(config: &CaseConfig, vit: Vit) -> Result<Extractor, UnitError> {
    let size = config.image_size.ok_or("image_size: missing")?;
    let settings = Config {
        image_size: size,
        layers: config.layers()?,
        // Any that looks at attention: it is an output here.
        fake_features: FakeFeatures::Shuffle,
        ..Config::default()
    };
    let preprocess = Preprocess::square(size, Filter::Lanczos, IMAGENET_MEAN, IMAGENET_STD);
    Ok(Extractor::new(&settings, vit.into(), &preprocess)?)
}

pub(super) fn backbone(case: &Case) -> Result<Outputs, UnitError> {
    let config = CaseConfig::of(case)?;
    let images = to_tensor(case.input("in.images")?)?;
    let extractor = extractor(&config, config.vit(&weights(case, "")?)?)?;
    let (features, attention) = extractor.compute(&images)?;
    let mut out = Outputs::new();
    put(&mut out, "tokens0", to_host(&extractor.vit().embed(&images)?)?);
    put(&mut out, "features", to_host(&features)?);
    put(&mut out, "attn_cls", to_host(&attention.ok_or("no attention came back")?)?);
    Ok(out)
}

pub(super) fn feature_aggregation(case: &Case) -> Result<Outputs, UnitError> {
    let config = CaseConfig::of(case)?;
    let weights = weights(case, "")?;
    let weight = |name: &str| weights.get(name).ok_or_else(|| format!("w.{name}: missing"));
    let (prefix, written) = (config.prefix()?, config.layers()?);
    let mut normed = Vec::new();
    for layer in written.iter().copied().collect::<BTreeSet<usize>>() {
        let tokens = to_tensor(case.input(&format!("in.block_output.{layer}"))?)?;
        normed.push(layer_norm(&tokens, weight("norm.weight")?, weight("norm.bias")?, config.norm_eps()?)?);
    }
    let last = written.last().ok_or("layers: empty")? - 1;
    let of = |end: &str| weight(&format!("blocks.{last}.attn.qkv.{end}")).cloned();
    let packed =
        Linear::new(of("weight")?, Some(of("bias")?))?.forward(&to_tensor(case.input("in.attn_input")?)?)?;
    let mut options = AttentionOptions {
        weights: AttentionWeights::ClassRow,
        ..AttentionOptions::new(config.backbone_heads()?)
    };
    let row = attention(&packed, &mut options)?.weights.ok_or("no attention came back")?;
    let mut out = Outputs::new();
    put(&mut out, "features", to_host(&side_by_side(&normed, prefix)?)?);
    put(&mut out, "attn_cls", to_host(&of_patches(&row, prefix)?)?);
    Ok(out)
}
