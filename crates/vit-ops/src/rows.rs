//! Kernels over the rows of a matrix on the host: parallel, and the same for every number of threads.

use candle_core::{CpuStorage, CustomOp1, CustomOp2, DType, Layout, Shape, Tensor, WithDType, bail};
use rayon::prelude::*;

use crate::{Error, Result};

/// A type the kernels are written for.
pub(crate) trait Real: WithDType {
    fn root(self) -> Self;
    fn exponential(self) -> Self;
}

impl Real for f32 {
    fn root(self) -> Self {
        self.sqrt()
    }
    fn exponential(self) -> Self {
        self.exp()
    }
}

impl Real for f64 {
    fn root(self) -> Self {
        self.sqrt()
    }
    fn exponential(self) -> Self {
        self.exp()
    }
}

/// Rows a task. Fixed, so that sums over rows are added in one order whatever the number of threads.
pub(crate) const BLOCK: usize = 64;

/// Whether the kernels take such tensors.
pub(crate) fn has_kernels(x: &Tensor) -> bool {
    x.device().is_cpu() && matches!(x.dtype(), DType::F32 | DType::F64) && x.elem_count() > 0
}

/// The sum of `f` over two slices of one length, in eight running sums: one alone would wait for itself.
pub(crate) fn sum_of<T: Real>(a: &[T], b: &[T], f: impl Fn(T, T) -> T) -> T {
    let mut sums = [T::zero(); 8];
    let (a_chunks, b_chunks) = (a.chunks_exact(8), b.chunks_exact(8));
    let mut rest = T::zero();
    for (&x, &y) in a_chunks.remainder().iter().zip(b_chunks.remainder()) {
        rest += f(x, y);
    }
    for (x, y) in a_chunks.zip(b_chunks) {
        for ((sum, &x), &y) in sums.iter_mut().zip(x).zip(y) {
            *sum += f(x, y);
        }
    }
    for sum in sums {
        rest += sum;
    }
    rest
}

/// The elements of a contiguous tensor.
pub(crate) fn slice<'a, T: WithDType>(
    storage: &'a CpuStorage,
    layout: &Layout,
) -> candle_core::Result<&'a [T]> {
    let data = storage.as_slice::<T>()?;
    match layout.contiguous_offsets() {
        Some((start, end)) => Ok(&data[start..end]),
        None => bail!("a kernel over rows takes contiguous tensors"),
    }
}

/// Adds up what each block of rows has to give, in order.
pub(crate) fn add_up<T: Real>(parts: &[Vec<T>], width: usize) -> Vec<T> {
    let mut sums = vec![T::zero(); width];
    for part in parts {
        for (sum, &value) in sums.iter_mut().zip(part) {
            *sum += value;
        }
    }
    sums
}

/// `x + row`, the row `(D,)` added to every row of `x` `(.., D)`.
///
/// candle's broadcast sum has the same values; its backward pass adds up the row's gradient an element at a time, with
/// two divisions each.
pub(crate) fn add_row(operation: &'static str, x: &Tensor, row: &Tensor) -> Result<Tensor> {
    let width = x.dim(candle_core::D::Minus1)?;
    if row.dims() != [width] {
        return Err(Error::shape(operation, "bias", format!("({width},)"), row.shape()));
    }
    if has_kernels(x) && row.track_op() && row.dtype() == x.dtype() {
        return Ok(x.contiguous()?.apply_op2(&row.contiguous()?, AddRow)?);
    }
    Ok(x.broadcast_add(row)?)
}

struct AddRow;

impl CustomOp2 for AddRow {
    fn name(&self) -> &'static str {
        "add_row"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        x_layout: &Layout,
        row: &CpuStorage,
        row_layout: &Layout,
    ) -> candle_core::Result<(CpuStorage, Shape)> {
        fn run<T: Real>(x: &[T], row: &[T]) -> Vec<T> {
            let mut out = x.to_vec();
            out.par_chunks_mut(BLOCK * row.len()).for_each(|block| {
                for line in block.chunks_exact_mut(row.len()) {
                    for (value, &add) in line.iter_mut().zip(row) {
                        *value += add;
                    }
                }
            });
            out
        }
        let storage = match x {
            CpuStorage::F32(_) => CpuStorage::F32(run(slice(x, x_layout)?, slice(row, row_layout)?)),
            CpuStorage::F64(_) => CpuStorage::F64(run(slice(x, x_layout)?, slice(row, row_layout)?)),
            _ => bail!("add_row takes f32 and f64"),
        };
        Ok((storage, x_layout.shape().clone()))
    }

    fn bwd(
        &self,
        _: &Tensor,
        row: &Tensor,
        _: &Tensor,
        gradient: &Tensor,
    ) -> candle_core::Result<(Option<Tensor>, Option<Tensor>)> {
        let sums = gradient.contiguous()?.apply_op1_no_bwd(&ColumnSums { width: row.elem_count() })?;
        Ok((Some(gradient.clone()), Some(sums)))
    }
}

/// The sum of all rows.
struct ColumnSums {
    width: usize,
}

impl CustomOp1 for ColumnSums {
    fn name(&self) -> &'static str {
        "column_sums"
    }

    fn cpu_fwd(&self, x: &CpuStorage, layout: &Layout) -> candle_core::Result<(CpuStorage, Shape)> {
        fn run<T: Real>(x: &[T], width: usize) -> Vec<T> {
            let part = |block: &[T]| {
                let mut sums = vec![T::zero(); width];
                for line in block.chunks_exact(width) {
                    for (sum, &value) in sums.iter_mut().zip(line) {
                        *sum += value;
                    }
                }
                sums
            };
            let parts: Vec<Vec<T>> = x.par_chunks(BLOCK * width).map(part).collect();
            add_up(&parts, width)
        }
        let storage = match x {
            CpuStorage::F32(_) => CpuStorage::F32(run(slice(x, layout)?, self.width)),
            CpuStorage::F64(_) => CpuStorage::F64(run(slice(x, layout)?, self.width)),
            _ => bail!("column_sums takes f32 and f64"),
        };
        Ok((storage, Shape::from(self.width)))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::add_row;
    use crate::gradient_check::{check_gradients, normal, same};
    use candle_core::Var;

    #[test]
    fn a_row_is_added_and_gets_its_gradient() {
        // More rows than a block holds.
        check_gradients(&[normal(&[50, 3, 2], 0), normal(&[2], 1)], |t| add_row("test", &t[0], &t[1]));
        check_gradients(&[normal(&[2, 3], 2), normal(&[2], 3)], |t| add_row("test", &t[0].t()?, &t[1]));
        let (x, row) = (normal(&[4, 3], 4), normal(&[3], 5));
        let var = Var::from_tensor(&row).unwrap();
        same(&add_row("test", &x, &var).unwrap(), &x.broadcast_add(&row).unwrap(), 0.0);
        let frozen = add_row("test", &x, &row).unwrap();
        assert!(!frozen.track_op());
        assert!(add_row("test", &x, &normal(&[4], 6)).unwrap_err().to_string().contains("bias"));
    }
}
