//! Each operation of `vit-ops` on a device against the CPU in f64: values, and the gradient of every input.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use candle_core::{DType, Device, Tensor, Var};
use comfy_table::{CellAlignment, Table, presets};
use random_streams::Streams;
use vit_ops::{
    AttentionOptions, AttentionWeights, Border, Dropout, Gelu, Interpolation, Linear, Resample, SsimOptions,
};

use super::{Outcome, error};
use crate::say;

/// What an operation is applied to: its inputs, rounded to the type under test, and a mask for those that take one.
struct Arguments<'a> {
    inputs: &'a [Tensor],
    /// Ones and zeros, u8, of the last of `shapes`.
    mask: &'a Tensor,
}

type Apply = fn(&Arguments<'_>) -> vit_ops::Result<Tensor>;

/// An operation at the size of a `ViT`'s block.
struct Operation {
    name: &'static str,
    inputs: &'static [&'static [usize]],
    apply: Apply,
}

const HEADS: usize = 6;
/// Tokens that fill no tile, heads of 64 channels.
const TOKENS: usize = 197;
const WIDTH: usize = 384;
/// Of the probabilities' mask.
const MASK: [usize; 4] = [2, HEADS, TOKENS, TOKENS];

const OPERATIONS: &[Operation] = &[
    Operation {
        name: "layer norm",
        inputs: &[&[2, TOKENS, WIDTH], &[WIDTH], &[WIDTH]],
        apply: |a| vit_ops::layer_norm(&a.inputs[0], &a.inputs[1], &a.inputs[2], 1e-6),
    },
    Operation {
        name: "layer norm, strided",
        inputs: &[&[2, WIDTH, TOKENS], &[WIDTH], &[WIDTH]],
        apply: |a| vit_ops::layer_norm(&a.inputs[0].transpose(1, 2)?, &a.inputs[1], &a.inputs[2], 1e-6),
    },
    Operation {
        name: "softmax",
        inputs: &[&[2, HEADS, TOKENS, TOKENS]],
        apply: |a| vit_ops::softmax(&a.inputs[0]),
    },
    Operation {
        name: "bias + GELU, exact",
        inputs: &[&[2, TOKENS, 4 * WIDTH], &[4 * WIDTH]],
        apply: |a| vit_ops::bias_gelu(&a.inputs[0], &a.inputs[1], Gelu::Erf),
    },
    Operation {
        name: "bias + GELU, tanh",
        inputs: &[&[2, TOKENS, 4 * WIDTH], &[4 * WIDTH]],
        apply: |a| vit_ops::bias_gelu(&a.inputs[0], &a.inputs[1], Gelu::Tanh),
    },
    Operation {
        name: "bias + GELU, quick",
        inputs: &[&[2, TOKENS, 4 * WIDTH], &[4 * WIDTH]],
        apply: |a| vit_ops::bias_gelu(&a.inputs[0], &a.inputs[1], Gelu::Quick),
    },
    Operation { name: "SiLU", inputs: &[&[2, TOKENS, WIDTH]], apply: |a| vit_ops::silu(&a.inputs[0]) },
    Operation {
        name: "residual",
        inputs: &[&[2, TOKENS, WIDTH], &[2, TOKENS, WIDTH]],
        apply: |a| vit_ops::add_residual(&a.inputs[0], &a.inputs[1], None, None),
    },
    Operation {
        name: "residual with bias",
        inputs: &[&[2, TOKENS, WIDTH], &[2, TOKENS, WIDTH], &[WIDTH]],
        apply: |a| vit_ops::add_residual(&a.inputs[0], &a.inputs[1], Some(&a.inputs[2]), None),
    },
    Operation {
        name: "residual with bias and LayerScale",
        inputs: &[&[2, TOKENS, WIDTH], &[2, TOKENS, WIDTH], &[WIDTH], &[WIDTH]],
        apply: |a| vit_ops::add_residual(&a.inputs[0], &a.inputs[1], Some(&a.inputs[2]), Some(&a.inputs[3])),
    },
    Operation {
        name: "linear",
        inputs: &[&[2, TOKENS, WIDTH], &[WIDTH, WIDTH], &[WIDTH]],
        apply: |a| Linear::new(a.inputs[1].clone(), Some(a.inputs[2].clone()))?.forward(&a.inputs[0]),
    },
    Operation {
        name: "attention",
        inputs: &[&[2, TOKENS, 3 * WIDTH]],
        apply: |a| Ok(vit_ops::attention(&a.inputs[0], &mut AttentionOptions::new(HEADS))?.context),
    },
    Operation {
        name: "attention of 3 heads of 128",
        inputs: &[&[2, TOKENS, 3 * WIDTH]],
        apply: |a| Ok(vit_ops::attention(&a.inputs[0], &mut AttentionOptions::new(3))?.context),
    },
    Operation {
        name: "attention of 12 heads of 32, apart",
        inputs: &[&[2, 12, 49, 32], &[2, 12, 49, 32], &[2, 12, 49, 32]],
        apply: |a| {
            let mut options = AttentionOptions::new(12);
            Ok(vit_ops::attention_qkv(&a.inputs[0], &a.inputs[1], &a.inputs[2], &mut options)?.context)
        },
    },
    Operation {
        name: "attention with bias, mask and dropout",
        inputs: &[&[2, TOKENS, 3 * WIDTH], &[HEADS, TOKENS, TOKENS]],
        apply: |a| {
            // A quarter of the pairs is masked at random: every query keeps some of its keys.
            let mask = a.mask.narrow(0, 0, 1)?.contiguous()?;
            let mut options = AttentionOptions {
                bias: Some(&a.inputs[1]),
                mask: Some(&mask),
                dropout: Some(Dropout::given(0.25, a.mask)),
                ..AttentionOptions::new(HEADS)
            };
            Ok(vit_ops::attention(&a.inputs[0], &mut options)?.context)
        },
    },
    Operation {
        name: "attention's class-token row",
        inputs: &[&[2, TOKENS, 3 * WIDTH]],
        apply: |a| {
            let mut options =
                AttentionOptions { weights: AttentionWeights::ClassRow, ..AttentionOptions::new(HEADS) };
            let found = vit_ops::attention(&a.inputs[0], &mut options)?;
            found.weights.ok_or_else(|| candle_core::Error::msg("no weights came back").into())
        },
    },
    Operation {
        name: "patch embedding",
        inputs: &[&[2, 3, 112, 112], &[WIDTH, 3, 14, 14], &[WIDTH]],
        apply: |a| vit_ops::patch_embed(&a.inputs[0], &a.inputs[1], Some(&a.inputs[2])),
    },
    Operation {
        name: "bilinear resampling",
        inputs: &[&[2, 8, 16, 16]],
        apply: |a| Resample::new(Interpolation::Linear, (16, 16), (61, 61))?.apply(&a.inputs[0]),
    },
    Operation {
        name: "bicubic resampling, strided",
        inputs: &[&[2, 8, 37, 37]],
        apply: |a| {
            Resample::new(Interpolation::CubicAntialias, (37, 37), (16, 16))?
                .apply(&a.inputs[0].transpose(2, 3)?)
        },
    },
    Operation {
        name: "Gaussian filter",
        inputs: &[&[2, 3, 40, 40]],
        apply: |a| vit_ops::gaussian_filter(&a.inputs[0], 1.5, 5, Border::Reflect),
    },
    Operation {
        name: "SSIM",
        inputs: &[&[2, 3, 40, 40], &[2, 3, 40, 40]],
        apply: |a| {
            vit_ops::ssim(&a.inputs[0], &a.inputs[1], &SsimOptions { range: 6.0, ..SsimOptions::default() })
        },
    },
];

/// The largest error, as a share of the largest value, that each type may have: f32 without TF32, whose sums of some
/// hundred products are a few units of 2^-24 off; the halves at a few units of 2^-11 and 2^-8, what storing them costs.
const TYPES: [(DType, f64); 3] = [(DType::F32, 2e-5), (DType::F16, 1e-2), (DType::BF16, 6e-2)];

/// Prints a table of errors and times.
pub(super) fn check(device: &Device) -> Result<Outcome> {
    let mut table = Table::new();
    table.load_style(presets::ASCII_MARKDOWN);
    table.set_header(["operation", "type", "value", "gradient", "allowed", "forward ms", "backward ms", ""]);
    for column in 2..7 {
        if let Some(column) = table.column_mut(column) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    let mut outcome = Outcome::default();
    for operation in OPERATIONS {
        for (dtype, allowed) in TYPES {
            // Half types have no matrix product on the CPU.
            if device.is_cpu() && dtype != DType::F32 {
                continue;
            }
            let mut row = vec![operation.name.to_owned(), dtype.as_str().to_owned()];
            match compare(operation, device, dtype) {
                Ok(found) => {
                    let good = found.value <= allowed && found.gradient <= allowed;
                    outcome.count(good);
                    row.extend([format!("{:.1e}", found.value), format!("{:.1e}", found.gradient)]);
                    row.push(format!("{allowed:.0e}"));
                    row.extend(
                        [found.forward, found.backward].map(|t| format!("{:.3}", t.as_secs_f64() * 1e3)),
                    );
                    row.push(if good { "ok" } else { "FAILED" }.to_owned());
                }
                Err(error) => {
                    outcome.count(false);
                    row.extend(["-", "-", "-", "-", "-"].map(str::to_owned));
                    row.push(format!("FAILED: {error:#}"));
                }
            }
            table.add_row(row);
        }
    }
    say(&table.to_string())?;
    Ok(outcome)
}

/// Errors as shares of the largest value, and the best time of some.
struct Found {
    value: f64,
    gradient: f64,
    forward: Duration,
    backward: Duration,
}

fn compare(operation: &Operation, device: &Device, dtype: DType) -> Result<Found> {
    let streams = Streams::new(0);
    let mut stream = streams.stream(operation.name);
    let mut rounded = Vec::new();
    for shape in operation.inputs {
        let mut numbers = vec![0_f32; shape.iter().product()];
        stream.fill_normal(&mut numbers);
        rounded.push(Tensor::from_vec(numbers, *shape, &Device::Cpu)?.to_dtype(dtype)?);
    }
    let kept = streams.stream("mask").keep_mask(MASK.iter().product(), 0.25);
    let mask = Tensor::from_vec(kept, &MASK, &Device::Cpu)?.to_dtype(DType::U8)?;

    let host: Vec<Tensor> = rounded.iter().map(|t| t.to_dtype(DType::F64)).collect::<Result<_, _>>()?;
    let plain = (operation.apply)(&Arguments { inputs: &host, mask: &mask })?;
    let mut numbers = vec![0_f32; plain.elem_count()];
    streams.stream("gradient").fill_normal(&mut numbers);
    let gradient = Tensor::from_vec(numbers, plain.shape(), &Device::Cpu)?.to_dtype(dtype)?;

    let wanted = once(operation, &host, &mask, &gradient.to_dtype(DType::F64)?)?;
    let there: Vec<Tensor> = rounded.iter().map(|t| t.to_device(device)).collect::<Result<_, _>>()?;
    let (mask, gradient) = (mask.to_device(device)?, gradient.to_device(device)?);
    // The first time loads kernels and fills caches.
    once(operation, &there, &mask, &gradient)?;
    let mut found = once(operation, &there, &mask, &gradient)?;
    for _ in 0..3 {
        let again = once(operation, &there, &mask, &gradient)?;
        found.forward = found.forward.min(again.forward);
        found.backward = found.backward.min(again.backward);
    }
    let mut worst = 0_f64;
    for (input, (found, wanted)) in found.gradients.iter().zip(&wanted.gradients).enumerate() {
        worst = worst.max(error(found, wanted).with_context(|| format!("the gradient of input {input}"))?);
    }
    Ok(Found {
        value: error(&found.value, &wanted.value)?,
        gradient: worst,
        forward: found.forward,
        backward: found.backward,
    })
}

/// A result and what it took.
struct Run {
    value: Tensor,
    gradients: Vec<Tensor>,
    forward: Duration,
    backward: Duration,
}

fn once(operation: &Operation, inputs: &[Tensor], mask: &Tensor, gradient: &Tensor) -> Result<Run> {
    let device = mask.device();
    let vars: Vec<Var> = inputs.iter().map(Var::from_tensor).collect::<Result<_, _>>()?;
    let tensors: Vec<Tensor> = vars.iter().map(|v| v.as_tensor().clone()).collect();
    device.synchronize()?;
    let start = Instant::now();
    let value = (operation.apply)(&Arguments { inputs: &tensors, mask })?;
    device.synchronize()?;
    let forward = start.elapsed();
    let loss = (&value * gradient.to_dtype(value.dtype())?)?.sum_all()?;
    device.synchronize()?;
    let start = Instant::now();
    let store = loss.backward()?;
    device.synchronize()?;
    let backward = start.elapsed();
    let gradients = vars
        .iter()
        .enumerate()
        .map(|(i, var)| store.get(var).cloned().with_context(|| format!("input {i} has no gradient")))
        .collect::<Result<_>>()?;
    Ok(Run { value, gradients, forward, backward })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::{OPERATIONS, TYPES, compare};
    use candle_core::{DType, Device};

    #[test]
    fn the_cpu_itself_passes_in_f32() {
        for operation in OPERATIONS {
            let found = compare(operation, &Device::Cpu, DType::F32).unwrap();
            assert!(found.value <= TYPES[0].1, "{}: {:e}", operation.name, found.value);
            assert!(found.gradient <= TYPES[0].1, "{}: gradient {:e}", operation.name, found.gradient);
        }
    }
}
