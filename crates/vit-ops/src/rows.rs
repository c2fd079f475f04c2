//! What the kernels over the rows of a matrix share: rows go in parallel, and results are the same for every number of
//! threads.
// A kernel is compiled for an instruction set only where all of it is inlined: see `lanes`.
#![allow(clippy::inline_always)]

use candle_core::{
    CpuStorage, CustomOp2, DType, Layout, Shape, Storage, StorageRef, Tensor, WithDType, bail,
};

use crate::kernels::written;
use crate::lanes::{Kernel, Lanes, Real, update};
use crate::types::widened;
use crate::{Error, Result};

/// Whether the kernels take such tensors.
pub(crate) fn has_kernels(x: &Tensor) -> bool {
    x.device().is_cpu() && matches!(x.dtype(), DType::F32 | DType::F64) && x.elem_count() > 0
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

/// A tensor on the host, held for reading.
pub(crate) struct Held<'a> {
    storage: StorageRef<'a>,
    layout: &'a Layout,
}

impl<'a> Held<'a> {
    pub(crate) fn new(tensor: &'a Tensor) -> Self {
        let (storage, layout) = tensor.storage_and_layout();
        Self { storage, layout }
    }

    /// The elements, if the tensor is contiguous and on the host.
    pub(crate) fn slice<T: WithDType>(&self) -> candle_core::Result<&[T]> {
        match &*self.storage {
            Storage::Cpu(storage) => slice(storage, self.layout),
            _ => bail!("a kernel over rows takes tensors on the host"),
        }
    }
}

/// A function for each type that the kernels are written for, called with the type of `tensor`.
macro_rules! by_type {
    ($tensor:expr, $operation:literal, $function:ident($($argument:expr),* $(,)?)) => {
        match $tensor.dtype() {
            candle_core::DType::F32 => $function::<f32>($($argument),*),
            candle_core::DType::F64 => $function::<f64>($($argument),*),
            other => candle_core::bail!("the kernel of {} takes f32 and f64, not {other:?}", $operation),
        }
    };
}
pub(crate) use by_type;

/// Adds up what each block of rows has to give, in order.
pub(crate) fn add_up<T: Real>(parts: &[Vec<T>], width: usize) -> Vec<T> {
    let mut sums = vec![T::ZERO; width];
    for part in parts {
        for (sum, &value) in sums.iter_mut().zip(part) {
            *sum += value;
        }
    }
    sums
}

/// `sums += row`, number by number.
pub(crate) struct AddTo<'a, T>(pub(crate) &'a mut [T], pub(crate) &'a [T]);

impl<T: Real> Kernel<T> for AddTo<'_, T> {
    type Output = ();
    #[inline(always)]
    fn run<L: Lanes<Number = T>>(self, lanes: L) {
        update(
            lanes,
            self.0,
            [self.1],
            #[inline(always)]
            |sum, [value]| lanes.add(sum, value),
        );
    }
}

/// The sum of all rows of `x`, which are `width` long.
pub(crate) fn column_sums<T: Real>(x: &[T], width: usize) -> Vec<T> {
    use rayon::prelude::*;
    let part = |block: &[T]| {
        let mut sums = vec![T::ZERO; width];
        for line in block.chunks_exact(width) {
            T::run(AddTo(&mut sums, line));
        }
        sums
    };
    let parts: Vec<Vec<T>> = x.par_chunks(crate::kernels::BLOCK * width).map(part).collect();
    add_up(&parts, width)
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
    if has_kernels(x) && row.dtype() == x.dtype() {
        return Ok(x.contiguous()?.apply_op2(&row.contiguous()?, AddRow)?);
    }
    #[cfg(feature = "cuda")]
    if let Some(sum) =
        crate::cuda::operations::activation(x, Some(row), crate::cuda::elements::Form::Identity)?
    {
        return Ok(sum);
    }
    // The sum over rows that is the row's gradient.
    if row.track_op()
        && let Some([wide, row]) = widened([x, row])?
    {
        return Ok(add_row(operation, &wide, &row)?.to_dtype(x.dtype())?);
    }
    Ok(x.broadcast_add(row)?)
}

struct AddRow;

/// `out = x + row`, number by number.
struct Sum<'a, T> {
    out: &'a mut [T],
    x: &'a [T],
    row: &'a [T],
}

impl<T: Real> Kernel<T> for Sum<'_, T> {
    type Output = ();
    #[inline(always)]
    fn run<L: Lanes<Number = T>>(self, lanes: L) {
        crate::lanes::map(
            lanes,
            self.out,
            [self.x, self.row],
            #[inline(always)]
            |[x, row]| lanes.add(x, row),
        );
    }
}

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
            let width = row.len();
            let fill = |(): &mut (), index: usize, out: &mut [T]| {
                T::run(Sum { out, x: &x[index * width..][..width], row });
            };
            written(x.len() / width, width, || (), fill).0
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
        fn sums<T: Real>(gradient: &Tensor, width: usize) -> candle_core::Result<Tensor> {
            let sums = column_sums(Held::new(gradient).slice::<T>()?, width);
            Tensor::from_vec(sums, width, gradient.device())
        }
        if !row.track_op() {
            return Ok((Some(gradient.clone()), None));
        }
        let contiguous = gradient.contiguous()?;
        let sums = by_type!(gradient, "add_row", sums(&contiguous, row.elem_count()))?;
        Ok((Some(gradient.clone()), Some(sums)))
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
