//! Between the names and layouts of Keras and those of this crate.

use std::collections::BTreeMap;

use candle_core::Tensor;
use conformance::{Case, Outputs, UnitError};
use vit_ops::NamedTensors;

use super::{to_host, to_tensor};
use crate::architecture::Architecture;

/// Queries, keys and values, in the order in which this crate packs them.
const PARTS: [&str; 3] = ["query", "key", "value"];

/// The case's weights as this crate has them.
pub(super) fn weights(case: &Case) -> Result<NamedTensors, UnitError> {
    let mut theirs = BTreeMap::new();
    for (name, host) in case.weights() {
        theirs.insert(name.to_owned(), to_tensor(host)?);
    }
    let mut ours: Vec<(String, Tensor)> = Vec::new();
    let find = |name: &str| theirs.get(name).ok_or_else(|| format!("w.{name}: missing"));
    for (name, tensor) in &theirs {
        if let Some((at, part)) = name.split_once("/multi_head_attention/") {
            let at = ours_of_block(at)?;
            match part {
                "query/kernel" | "query/bias" => {
                    let kind = part.trim_start_matches("query/");
                    let packed = PARTS
                        .iter()
                        .map(|own| flat(find(&name.replace("/query/", &format!("/{own}/")))?, kind))
                        .collect::<Result<Vec<_>, UnitError>>()?;
                    ours.push((
                        format!("{at}.attention.qkv.{}", ours_of_kind(kind)),
                        Tensor::cat(&packed, 0)?,
                    ));
                }
                "attention_output/kernel" => {
                    let (heads, width, dim) = tensor.dims3()?;
                    let weight = tensor.reshape((heads * width, dim))?.t()?.contiguous()?;
                    ours.push((format!("{at}.attention.out.weight"), weight));
                }
                "attention_output/bias" => ours.push((format!("{at}.attention.out.bias"), tensor.clone())),
                _ => {}
            }
        } else {
            let (name, tensor) = plain(name, tensor)?;
            ours.push((name, tensor));
        }
    }
    Ok(ours.into_iter().collect())
}

/// `(D, h, d)` as `(h d, D)`, `(h, d)` as `(h d)`.
fn flat(tensor: &Tensor, kind: &str) -> Result<Tensor, UnitError> {
    if kind == "bias" {
        return Ok(tensor.flatten_all()?);
    }
    let (dim, heads, width) = tensor.dims3()?;
    Ok(tensor.reshape((dim, heads * width))?.t()?.contiguous()?)
}

fn ours_of_kind(kind: &str) -> &'static str {
    if kind == "bias" { "bias" } else { "weight" }
}

/// `encoder/I` as `encoder.I`.
fn ours_of_block(at: &str) -> Result<String, UnitError> {
    match at.split_once('/') {
        Some(("encoder", index)) if index.parse::<usize>().is_ok() => Ok(format!("encoder.{index}")),
        _ => Err(format!("w.{at}: expected encoder/I").into()),
    }
}

/// Everything but attention: its name and layout here.
fn plain(name: &str, tensor: &Tensor) -> Result<(String, Tensor), UnitError> {
    let unknown = || -> UnitError { format!("w.{name}: no such tensor in this network").into() };
    if name == "registers" || name.starts_with("gmdn.") {
        return Ok((name.to_owned(), tensor.clone()));
    }
    let (at, kind) = name.rsplit_once('/').ok_or_else(unknown)?;
    let kind_here = match kind {
        "kernel" | "gamma" => "weight",
        "bias" | "beta" => "bias",
        "moving_mean" => "running_mean",
        "moving_variance" => "running_var",
        "embeddings" => "",
        _ => return Err(unknown()),
    };
    let parts: Vec<&str> = at.split('/').collect();
    let place = match parts[..] {
        ["embedding", "conv2d"] => "embedding".to_owned(),
        ["embedding", "embedding"] => return Ok(("positions".to_owned(), tensor.clone())),
        ["latent", "layer_normalization"] => "latent_norm".to_owned(),
        ["encoder", index, "layer_normalization"] => format!("encoder.{index}.norm1"),
        ["encoder", index, "layer_normalization_1"] => format!("encoder.{index}.norm2"),
        ["encoder", index, "mlp", "dense"] => format!("encoder.{index}.mlp.fc1"),
        ["encoder", index, "mlp", "dense_1"] => format!("encoder.{index}.mlp.fc2"),
        ["decoder", layer] => {
            let numbered = |start: &str| layer.strip_prefix(start).map(str::to_owned);
            match (numbered("conv2d_transpose_"), numbered("batch_normalization_")) {
                (Some(index), _) => format!("decoder.{index}.conv"),
                (_, Some(index)) => format!("decoder.{index}.norm"),
                _ => return Err(unknown()),
            }
        }
        _ => return Err(unknown()),
    };
    let tensor = match (kind, tensor.rank()) {
        ("kernel", 4) => tensor.permute((3, 2, 0, 1))?.contiguous()?,
        ("kernel", _) => tensor.t()?.contiguous()?,
        _ => tensor.clone(),
    };
    Ok((format!("{place}.{kind_here}"), tensor))
}

/// Tensors of this crate (weights or gradients) under Keras' names and layouts, each behind `prefix`.
pub(super) fn put_theirs<'t>(
    out: &mut Outputs,
    prefix: &str,
    architecture: &Architecture,
    tensors: impl IntoIterator<Item = (&'t String, &'t Tensor)>,
) -> Result<(), UnitError> {
    let mut put = |name: String, tensor: &Tensor| -> Result<(), UnitError> {
        out.insert(format!("{prefix}{name}"), to_host(tensor)?);
        Ok(())
    };
    let (heads, width) = (architecture.heads, architecture.key_dim);
    for (name, tensor) in tensors {
        let parts: Vec<&str> = name.split('.').collect();
        match parts[..] {
            ["registers"] | ["gmdn", ..] => put(name.clone(), tensor)?,
            ["positions"] => put("embedding/embedding/embeddings".to_owned(), tensor)?,
            ["embedding", "weight"] => {
                put("embedding/conv2d/kernel".to_owned(), &tensor.permute((2, 3, 1, 0))?)?;
            }
            ["embedding", "bias"] => put("embedding/conv2d/bias".to_owned(), tensor)?,
            ["latent_norm", kind] => put(format!("latent/layer_normalization/{}", of_norm(kind)), tensor)?,
            ["encoder", index, "attention", "qkv", kind] => {
                for (place, own) in PARTS.iter().enumerate() {
                    let part = tensor.narrow(0, place * heads * width, heads * width)?;
                    let at = format!("encoder/{index}/multi_head_attention/{own}");
                    if kind == "bias" {
                        put(format!("{at}/bias"), &part.reshape((heads, width))?)?;
                    } else {
                        let kernel = part.t()?.contiguous()?.reshape(((), heads, width))?;
                        put(format!("{at}/kernel"), &kernel)?;
                    }
                }
            }
            ["encoder", index, "attention", "out", kind] => {
                let at = format!("encoder/{index}/multi_head_attention/attention_output");
                if kind == "bias" {
                    put(format!("{at}/bias"), tensor)?;
                } else {
                    put(format!("{at}/kernel"), &tensor.t()?.contiguous()?.reshape((heads, width, ()))?)?;
                }
            }
            ["encoder", index, norm @ ("norm1" | "norm2"), kind] => {
                let layer = if norm == "norm1" { "layer_normalization" } else { "layer_normalization_1" };
                put(format!("encoder/{index}/{layer}/{}", of_norm(kind)), tensor)?;
            }
            ["encoder", index, "mlp", layer, kind] => {
                let dense = if layer == "fc1" { "dense" } else { "dense_1" };
                let at = format!("encoder/{index}/mlp/{dense}");
                if kind == "bias" {
                    put(format!("{at}/bias"), tensor)?;
                } else {
                    put(format!("{at}/kernel"), &tensor.t()?)?;
                }
            }
            ["decoder", index, "conv", kind] => {
                let at = format!("decoder/conv2d_transpose_{index}");
                if kind == "bias" {
                    put(format!("{at}/bias"), tensor)?;
                } else {
                    put(format!("{at}/kernel"), &tensor.permute((2, 3, 1, 0))?)?;
                }
            }
            ["decoder", index, "norm", kind] => {
                put(format!("decoder/batch_normalization_{index}/{}", of_norm(kind)), tensor)?;
            }
            _ => return Err(format!("{name} has no name in Keras").into()),
        }
    }
    Ok(())
}

fn of_norm(kind: &str) -> &'static str {
    match kind {
        "weight" => "gamma",
        "running_mean" => "moving_mean",
        "running_var" => "moving_variance",
        _ => "beta",
    }
}
