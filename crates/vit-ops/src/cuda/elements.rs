//! Operations on every element: activations with a bias, residual additions.

use candle_core::{DType, Result};

use super::columns::{Weighting, column_sums_into};
use super::{Arg, Input, Launch, Machine, Module, Rows, blocks, small};
use crate::Gelu;

const THREADS: u32 = 256;

/// What becomes of `x + bias`, numbered as in `elements.cu`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    GeluErf = 0,
    GeluTanh = 1,
    GeluQuick = 2,
    Silu = 3,
    Identity = 4,
}

impl From<Gelu> for Form {
    fn from(form: Gelu) -> Self {
        match form {
            Gelu::Erf => Self::GeluErf,
            Gelu::Tanh => Self::GeluTanh,
            Gelu::Quick => Self::GeluQuick,
        }
    }
}

fn per_element(kernel: &str, dtype: DType, rows: Rows) -> Result<Launch> {
    let grid = (blocks(rows.elements(), THREADS as usize)?, 1);
    Launch::new(Module::Elements, kernel, dtype, grid, THREADS)
}

/// `f(x + bias)`, of the shape of x.
pub(crate) fn bias_activation<M: Machine>(
    machine: &M,
    dtype: DType,
    x: Input<'_, M::Array>,
    bias: Option<Input<'_, M::Array>>,
    rows: Rows,
    form: Form,
) -> Result<M::Array> {
    let mut out = machine.array(dtype, rows.elements())?;
    machine.launch(
        &per_element("bias_activation_forward", dtype, rows)?,
        &mut [
            x.arg(),
            Input::optional(bias),
            Arg::Write(&mut out, 0),
            Arg::Size(rows.elements()),
            Arg::U32(small(rows.width)?),
            Arg::U32(form as u32),
        ],
    )?;
    Ok(out)
}

/// The gradient of x; that of the bias is its [column sums](super::columns::column_sums).
pub(crate) fn bias_activation_backward<M: Machine>(
    machine: &M,
    dtype: DType,
    x: Input<'_, M::Array>,
    bias: Option<Input<'_, M::Array>>,
    gradient: Input<'_, M::Array>,
    rows: Rows,
    form: Form,
) -> Result<M::Array> {
    let mut of_x = machine.array(dtype, rows.elements())?;
    machine.launch(
        &per_element("bias_activation_backward", dtype, rows)?,
        &mut [
            x.arg(),
            Input::optional(bias),
            gradient.arg(),
            Arg::Write(&mut of_x, 0),
            Arg::Size(rows.elements()),
            Arg::U32(small(rows.width)?),
            Arg::U32(form as u32),
        ],
    )?;
    Ok(of_x)
}

/// `x + scale * (branch + bias)`, of the shape of x.
pub(crate) fn residual<M: Machine>(
    machine: &M,
    dtype: DType,
    x: Input<'_, M::Array>,
    branch: Input<'_, M::Array>,
    bias: Option<Input<'_, M::Array>>,
    scale: Option<Input<'_, M::Array>>,
    rows: Rows,
) -> Result<M::Array> {
    let mut out = machine.array(dtype, rows.elements())?;
    machine.launch(
        &per_element("residual_forward", dtype, rows)?,
        &mut [
            x.arg(),
            branch.arg(),
            Input::optional(bias),
            Input::optional(scale),
            Arg::Write(&mut out, 0),
            Arg::Size(rows.elements()),
            Arg::U32(small(rows.width)?),
        ],
    )?;
    Ok(out)
}

/// The gradients of the branch, the bias and the scale of [`residual`], one behind the other: `(rows, width)`,
/// `width`, `width`. That of x is the gradient itself.
pub(crate) fn residual_backward<M: Machine>(
    machine: &M,
    dtype: DType,
    branch: Input<'_, M::Array>,
    bias: Option<Input<'_, M::Array>>,
    scale: Input<'_, M::Array>,
    gradient: Input<'_, M::Array>,
    rows: Rows,
) -> Result<M::Array> {
    let elements = rows.elements();
    let mut out = machine.array(dtype, elements + 2 * rows.width)?;
    machine.launch(
        &per_element("scale_columns", dtype, rows)?,
        &mut [
            gradient.arg(),
            scale.arg(),
            Arg::Write(&mut out, 0),
            Arg::Size(elements),
            Arg::U32(small(rows.width)?),
        ],
    )?;
    let weighting = Weighting::Biased { x: branch, bias };
    column_sums_into(
        machine,
        dtype,
        gradient,
        &weighting,
        rows,
        &mut out,
        elements,
        Some(elements + rows.width),
        Some(scale),
    )?;
    Ok(out)
}
