//! Fixed linear maps along one axis: resampling and filtering.

use candle_core::{DType, Result};

use super::{Arg, Input, Launch, Machine, Module, blocks, small};

const THREADS: u32 = 256;

/// A map's taps where kernels see them, as `AxisMap::taps_by_output` or `AxisMap::taps_by_input` lists them.
#[derive(Debug)]
pub(crate) struct Table<'a, A> {
    /// u32: one more start than outputs, then the input of each tap.
    pub(crate) places: Input<'a, A>,
    /// f32: the weight of each tap.
    pub(crate) weights: Input<'a, A>,
    pub(crate) inputs: usize,
    pub(crate) outputs: usize,
}

/// A launch with a thread for each element of the result.
pub(super) fn per_element(module: Module, kernel: &str, dtype: DType, elements: usize) -> Result<Launch> {
    Launch::new(module, kernel, dtype, (blocks(elements, THREADS as usize)?, 1), THREADS)
}

/// Maps the middle axis of x, `(outer, inputs, inner)`: `(outer, outputs, inner)`.
pub(crate) fn map_axis<M: Machine>(
    machine: &M,
    dtype: DType,
    x: Input<'_, M::Array>,
    table: &Table<'_, M::Array>,
    outer: usize,
    inner: usize,
) -> Result<M::Array> {
    let elements = outer * table.outputs * inner;
    let mut out = machine.array(dtype, elements)?;
    machine.launch(
        &per_element(Module::Maps, "map_axis", dtype, elements)?,
        &mut [
            x.arg(),
            table.places.arg(),
            table.weights.arg(),
            Arg::Write(&mut out, 0),
            Arg::Size(elements),
            Arg::U32(small(table.inputs)?),
            Arg::U32(small(table.outputs)?),
            Arg::U32(small(inner)?),
        ],
    )?;
    Ok(out)
}
