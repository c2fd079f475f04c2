//! Sums over the rows of a matrix: the gradients of biases, scales and norm weights.

use candle_core::{DType, Result};

use super::{Arg, Input, Launch, Machine, Module, Rows, blocks, small};

/// Columns and threads of a block of the first step; as in `columns.cu`.
const TILE_COLUMNS: usize = 32;
const PARTS_THREADS: u32 = 256;
/// Threads of a block of the second step.
const FINISH_THREADS: u32 = 128;
/// Rows a part, at least: fewer would leave the second step with as much work as the first.
const ROWS_EACH: usize = 64;
/// Parts at most.
const PARTS: usize = 128;

/// What the gradient is multiplied with for the second of the two sums.
pub(crate) enum Weighting<'a, A> {
    /// There is no second sum.
    None,
    /// The normed rows of x, from the moments that the kernel `layer_norm_backward` left.
    Normed {
        /// The input of the norm.
        x: Input<'a, A>,
        /// Mean and factor of every row, f32.
        stats: &'a A,
    },
    /// `x + bias`.
    Biased {
        /// A matrix like the gradient.
        x: Input<'a, A>,
        /// Of a row's width.
        bias: Option<Input<'a, A>>,
    },
}

/// Writes the sums over the rows of `gradient`, times `scale` where there is one, to `out` from `plain` on, and those
/// of the gradient times the weighting from `weighted` on.
#[allow(clippy::too_many_arguments)] // every one is a kernel's
pub(crate) fn column_sums_into<M: Machine>(
    machine: &M,
    dtype: DType,
    gradient: Input<'_, M::Array>,
    weighting: &Weighting<'_, M::Array>,
    rows: Rows,
    out: &mut M::Array,
    plain: usize,
    weighted: Option<usize>,
    scale: Option<Input<'_, M::Array>>,
) -> Result<()> {
    let rows_each = rows.count.div_ceil(PARTS).max(ROWS_EACH);
    let count = rows.count.div_ceil(rows_each).max(1);
    let mut parts = machine.array(DType::F32, count * 2 * rows.width)?;
    let width = small(rows.width)?;
    let (x, bias, stats, kind) = match weighting {
        Weighting::None => (Arg::Null, Arg::Null, Arg::Null, 0),
        Weighting::Normed { x, stats } => (x.arg(), Arg::Null, Arg::Read(*stats, 0), 1),
        Weighting::Biased { x, bias } => (x.arg(), Input::optional(*bias), Arg::Null, 2),
    };
    let grid = (blocks(rows.width, TILE_COLUMNS)?, small(count)?);
    machine.launch(
        &Launch::new(Module::Columns, "column_parts", dtype, grid, PARTS_THREADS)?,
        &mut [
            gradient.arg(),
            x,
            bias,
            stats,
            Arg::Write(&mut parts, 0),
            Arg::U32(small(rows.count)?),
            Arg::U32(width),
            Arg::U32(small(rows_each)?),
            Arg::U32(kind),
        ],
    )?;
    let grid = (blocks(rows.width, FINISH_THREADS as usize)?, 1);
    let finish = Launch::new(Module::Columns, "column_finish", dtype, grid, FINISH_THREADS)?;
    for (which, start) in [(0, Some(plain)), (1, weighted)] {
        let Some(start) = start else { continue };
        let scale = if which == 0 { Input::optional(scale) } else { Arg::Null };
        machine.launch(
            &finish,
            &mut [
                Arg::Read(&parts, 0),
                scale,
                Arg::Write(out, start),
                Arg::U32(small(count)?),
                Arg::U32(width),
                Arg::U32(which),
            ],
        )?;
    }
    Ok(())
}

/// The sum of all rows, of a row's width.
pub(crate) fn column_sums<M: Machine>(
    machine: &M,
    dtype: DType,
    x: Input<'_, M::Array>,
    rows: Rows,
) -> Result<M::Array> {
    let mut out = machine.array(dtype, rows.width)?;
    column_sums_into(machine, dtype, x, &Weighting::None, rows, &mut out, 0, None, None)?;
    Ok(out)
}
