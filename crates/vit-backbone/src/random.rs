//! Random weights for a whole network.

use std::collections::HashMap;

use candle_core::{Device, Tensor};
use random_streams::Stream;

use crate::trainable::shapes;
use crate::{Error, Pooling, VitConfig};

/// Standard deviation of random weights.
const DEVIATION: f32 = 0.02;

/// Tensors under this crate's names; the draws come in the order of the forward pass.
pub(crate) fn tensors(
    config: &VitConfig,
    stream: &mut Stream,
    device: &Device,
) -> Result<HashMap<String, Tensor>, Error> {
    let dim = config.dim;
    let mut named: Vec<(String, Vec<usize>)> = Vec::new();
    let mut add = |there: bool, name: &str, shape: &[usize]| {
        if there {
            named.push((name.to_owned(), shape.to_vec()));
        }
    };
    add(true, "patch_embed.proj.weight", &[dim, 3, config.patch.0, config.patch.1]);
    add(config.patch_bias, "patch_embed.proj.bias", &[dim]);
    add(config.class_token, "cls_token", &[1, 1, dim]);
    add(config.registers > 0, "reg_token", &[1, config.registers, dim]);
    let grid = config.trained_grid();
    let rows = grid.0 * grid.1 + usize::from(config.class_token);
    add(config.positions.table().is_some(), "pos_embed", &[1, rows, dim]);
    add(config.pre_norm, "norm_pre.weight", &[dim]);
    add(config.pre_norm, "norm_pre.bias", &[dim]);
    for block in 0..config.depth {
        for (name, shape) in shapes(&config.block()) {
            add(true, &format!("blocks.{block}.{name}"), &shape);
        }
    }
    add(config.final_norm(), "norm.weight", &[dim]);
    add(config.final_norm(), "norm.bias", &[dim]);
    let after = config.pooling == Pooling::MeanThenNorm;
    add(after, "fc_norm.weight", &[dim]);
    add(after, "fc_norm.bias", &[dim]);
    let pooler = config.pooling == Pooling::TanhPooler;
    add(pooler, "pooler.dense.weight", &[dim, dim]);
    add(pooler, "pooler.dense.bias", &[dim]);
    if let Some(classes) = config.classes {
        add(true, "head.weight", &[classes, dim]);
        add(true, "head.bias", &[classes]);
    }

    let mut tensors = HashMap::with_capacity(named.len());
    for (name, shape) in named {
        let mut values = vec![0.0_f32; shape.iter().product()];
        if shape.len() > 1 {
            for value in &mut values {
                *value = loop {
                    let draw = stream.normal();
                    if draw.abs() <= 2.0 {
                        break draw * DEVIATION;
                    }
                };
            }
        } else if starts_at_one(&name) {
            values.fill(1.0);
        }
        tensors.insert(name, Tensor::from_vec(values, shape, device)?);
    }
    Ok(tensors)
}

/// Gains of norms and `LayerScale`.
fn starts_at_one(name: &str) -> bool {
    match name.rsplit_once('.') {
        Some((_, "gamma")) => true,
        Some((layer, "weight")) => layer.contains("norm"),
        _ => false,
    }
}
