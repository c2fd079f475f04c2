//! Layer norm and softmax: one warp a row.

use candle_core::{DType, Result};

use super::columns::{Weighting, column_sums_into};
use super::{Arg, Input, Launch, Machine, Module, Rows, blocks, small};

const THREADS: u32 = 256;
/// Threads of a warp.
const WARP: u32 = 32;

/// A launch of a kernel that gives each row a warp.
pub(super) fn per_row(module: Module, kernel: &str, dtype: DType, rows: usize) -> Result<Launch> {
    Launch::new(module, kernel, dtype, (blocks(rows, (THREADS / WARP) as usize)?, 1), THREADS)
}

/// `(x - mean) / sqrt(var + eps) * weight + bias`, of the shape of x.
pub(crate) fn layer_norm<M: Machine>(
    machine: &M,
    dtype: DType,
    x: Input<'_, M::Array>,
    weight: Input<'_, M::Array>,
    bias: Input<'_, M::Array>,
    rows: Rows,
    eps: f64,
) -> Result<M::Array> {
    let mut out = machine.array(dtype, rows.elements())?;
    let launch = per_row(Module::Rows, "layer_norm_forward", dtype, rows.count)?;
    machine.launch(
        &launch,
        &mut [
            x.arg(),
            weight.arg(),
            bias.arg(),
            Arg::Write(&mut out, 0),
            Arg::U32(small(rows.count)?),
            Arg::U32(small(rows.width)?),
            Arg::F32(eps as f32),
        ],
    )?;
    Ok(out)
}

/// The gradients of x, weight and bias, one behind the other.
pub(crate) fn layer_norm_backward<M: Machine>(
    machine: &M,
    dtype: DType,
    x: Input<'_, M::Array>,
    weight: Input<'_, M::Array>,
    gradient: Input<'_, M::Array>,
    rows: Rows,
    eps: f64,
) -> Result<M::Array> {
    let elements = rows.elements();
    let mut out = machine.array(dtype, elements + 2 * rows.width)?;
    let mut stats = machine.array(DType::F32, 2 * rows.count)?;
    let launch = per_row(Module::Rows, "layer_norm_backward", dtype, rows.count)?;
    machine.launch(
        &launch,
        &mut [
            x.arg(),
            weight.arg(),
            gradient.arg(),
            Arg::Write(&mut out, 0),
            Arg::Write(&mut stats, 0),
            Arg::U32(small(rows.count)?),
            Arg::U32(small(rows.width)?),
            Arg::F32(eps as f32),
        ],
    )?;
    let weighting = Weighting::Normed { x, stats: &stats };
    column_sums_into(
        machine,
        dtype,
        gradient,
        &weighting,
        rows,
        &mut out,
        elements + rows.width,
        Some(elements),
        None,
    )?;
    Ok(out)
}

/// Softmax over each row.
pub(crate) fn softmax<M: Machine>(
    machine: &M,
    dtype: DType,
    x: Input<'_, M::Array>,
    rows: Rows,
) -> Result<M::Array> {
    let mut out = machine.array(dtype, rows.elements())?;
    let launch = per_row(Module::Rows, "softmax_forward", dtype, rows.count)?;
    let (count, width) = (Arg::U32(small(rows.count)?), Arg::U32(small(rows.width)?));
    machine.launch(&launch, &mut [x.arg(), Arg::Write(&mut out, 0), count, width])?;
    Ok(out)
}

/// The gradient of softmax's input, from its result and the result's gradient.
pub(crate) fn softmax_backward<M: Machine>(
    machine: &M,
    dtype: DType,
    result: Input<'_, M::Array>,
    gradient: Input<'_, M::Array>,
    rows: Rows,
) -> Result<M::Array> {
    let mut out = machine.array(dtype, rows.elements())?;
    let launch = per_row(Module::Rows, "softmax_backward", dtype, rows.count)?;
    let (count, width) = (Arg::U32(small(rows.count)?), Arg::U32(small(rows.width)?));
    machine.launch(&launch, &mut [result.arg(), gradient.arg(), Arg::Write(&mut out, 0), count, width])?;
    Ok(out)
}
