//! Products with a weight that is trained: each way one operation.
//!
//! candle's own product goes backward with both factors transposed in memory first, and through a copy for each
//! reshaping on the way; here each of the three products reads what is there, in whatever order it lies.

use candle_core::{CpuStorage, CustomOp1, CustomOp2, CustomOp3, D, Layout, Shape, Tensor, bail};
use rayon::prelude::*;

use super::frozen::with_last;
use crate::Precision;
use crate::kernels::{Matrix, Path, double_product, product};
use crate::rows::slice;

/// Which axis of a factor is summed over.
#[derive(Clone, Copy)]
enum Order {
    /// `a (m, k)`, `b (n, k)`: the layer itself.
    Layer,
    /// `a (m, k)`, `b (k, n)`: the gradient of the input.
    Input,
    /// `a (k, m)`, `b (k, n)`: the gradient of the weight.
    Weight,
}

/// The product of two tensors whose last axes have these lengths, each seen as a matrix of that width.
fn multiply(
    precision: Precision,
    order: Order,
    (a, a_layout): (&CpuStorage, &Layout),
    (b, b_layout): (&CpuStorage, &Layout),
) -> candle_core::Result<CpuStorage> {
    fn matrices<'a, T>(
        order: Order,
        a: &'a [T],
        a_last: usize,
        b: &'a [T],
        b_last: usize,
    ) -> [Matrix<'a, T>; 2] {
        match order {
            Order::Layer => [Matrix::by_rows(a, a_last), Matrix::by_columns(b, b_last)],
            Order::Input => [Matrix::by_rows(a, a_last), Matrix::by_rows(b, b_last)],
            Order::Weight => [Matrix::by_columns(a, a_last), Matrix::by_rows(b, b_last)],
        }
    }
    let (a_last, b_last) = (a_layout.shape().dim(D::Minus1)?, b_layout.shape().dim(D::Minus1)?);
    Ok(match a {
        CpuStorage::F32(_) => {
            let [left, right] = matrices(order, slice(a, a_layout)?, a_last, slice(b, b_layout)?, b_last);
            CpuStorage::F32(product(Path::best(), precision, left, right))
        }
        CpuStorage::F64(_) => {
            let [left, right] = matrices(order, slice(a, a_layout)?, a_last, slice(b, b_layout)?, b_last);
            CpuStorage::F64(double_product(left, right))
        }
        _ => bail!("the kernel of linear takes f32 and f64"),
    })
}

/// `x W^T`.
pub(super) struct Trained(pub(super) Precision);

impl CustomOp2 for Trained {
    fn name(&self) -> &'static str {
        "linear"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        x_layout: &Layout,
        weight: &CpuStorage,
        weight_layout: &Layout,
    ) -> candle_core::Result<(CpuStorage, Shape)> {
        let out = multiply(self.0, Order::Layer, (x, x_layout), (weight, weight_layout))?;
        Ok((out, with_last(x_layout.shape(), weight_layout.shape().dim(0)?)))
    }

    fn bwd(
        &self,
        x: &Tensor,
        weight: &Tensor,
        _: &Tensor,
        gradient: &Tensor,
    ) -> candle_core::Result<(Option<Tensor>, Option<Tensor>)> {
        let gradient = gradient.contiguous()?;
        let of_x = if x.track_op() {
            Some(gradient.apply_op2_no_bwd(weight, &Backward { order: Order::Input, precision: self.0 })?)
        } else {
            None
        };
        let of_weight = if weight.track_op() {
            Some(gradient.apply_op2_no_bwd(x, &Backward { order: Order::Weight, precision: self.0 })?)
        } else {
            None
        };
        Ok((of_x, of_weight))
    }
}

/// `x W^T + bias`.
pub(super) struct TrainedWithBias(pub(super) Precision);

impl CustomOp3 for TrainedWithBias {
    fn name(&self) -> &'static str {
        "linear_bias"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        x_layout: &Layout,
        weight: &CpuStorage,
        weight_layout: &Layout,
        bias: &CpuStorage,
        bias_layout: &Layout,
    ) -> candle_core::Result<(CpuStorage, Shape)> {
        let (mut out, shape) = Trained(self.0).cpu_fwd(x, x_layout, weight, weight_layout)?;
        match &mut out {
            CpuStorage::F32(out) => add_to_rows(out, slice(bias, bias_layout)?),
            CpuStorage::F64(out) => add_to_rows(out, slice(bias, bias_layout)?),
            _ => bail!("the kernel of linear takes f32 and f64"),
        }
        Ok((out, shape))
    }

    fn bwd(
        &self,
        x: &Tensor,
        weight: &Tensor,
        bias: &Tensor,
        result: &Tensor,
        gradient: &Tensor,
    ) -> candle_core::Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let gradient = gradient.contiguous()?;
        let (of_x, of_weight) = Trained(self.0).bwd(x, weight, result, &gradient)?;
        let of_bias = if bias.track_op() { Some(gradient.apply_op1_no_bwd(&ColumnSums)?) } else { None };
        Ok((of_x, of_weight, of_bias))
    }
}

/// Rows a task; fixed, so that sums over rows have one order whatever the number of threads.
const ROWS: usize = 64;

fn add_to_rows<T: std::ops::AddAssign + Copy + Send + Sync>(out: &mut [T], bias: &[T]) {
    out.par_chunks_mut(ROWS * bias.len()).for_each(|rows| {
        for row in rows.chunks_exact_mut(bias.len()) {
            for (out, &bias) in row.iter_mut().zip(bias) {
                *out += bias;
            }
        }
    });
}

/// The gradient of the bias: the sum of all rows.
struct ColumnSums;

impl CustomOp1 for ColumnSums {
    fn name(&self) -> &'static str {
        "linear_bias_backward"
    }

    fn cpu_fwd(&self, x: &CpuStorage, layout: &Layout) -> candle_core::Result<(CpuStorage, Shape)> {
        fn sums<T: std::ops::AddAssign + Copy + Default + Send + Sync>(x: &[T], width: usize) -> Vec<T> {
            let add = |mut sums: Vec<T>, row: &[T]| {
                for (sum, &value) in sums.iter_mut().zip(row) {
                    *sum += value;
                }
                sums
            };
            let zeros = || vec![T::default(); width];
            let parts: Vec<Vec<T>> =
                x.par_chunks(ROWS * width).map(|rows| rows.chunks_exact(width).fold(zeros(), add)).collect();
            parts.iter().fold(zeros(), |sums, part| add(sums, part))
        }
        let width = layout.shape().dim(D::Minus1)?;
        let out = match x {
            CpuStorage::F32(_) => CpuStorage::F32(sums(slice(x, layout)?, width)),
            CpuStorage::F64(_) => CpuStorage::F64(sums(slice(x, layout)?, width)),
            _ => bail!("the kernel of linear takes f32 and f64"),
        };
        Ok((out, Shape::from(width)))
    }
}

/// One of the gradients, from the result's and the other factor.
struct Backward {
    order: Order,
    precision: Precision,
}

impl CustomOp2 for Backward {
    fn name(&self) -> &'static str {
        "linear_backward"
    }

    fn cpu_fwd(
        &self,
        gradient: &CpuStorage,
        gradient_layout: &Layout,
        other: &CpuStorage,
        other_layout: &Layout,
    ) -> candle_core::Result<(CpuStorage, Shape)> {
        let out = multiply(self.precision, self.order, (gradient, gradient_layout), (other, other_layout))?;
        let last = other_layout.shape().dim(D::Minus1)?;
        let shape = match self.order {
            Order::Weight => Shape::from((gradient_layout.shape().dim(D::Minus1)?, last)),
            _ => with_last(gradient_layout.shape(), last),
        };
        Ok((out, shape))
    }
}
