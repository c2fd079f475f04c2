// A kernel is compiled for an instruction set only where all of it is inlined: see `lanes`.
#![allow(clippy::inline_always)]

use candle_core::{CpuStorage, CustomOp2, CustomOp3, D, Layout, Shape, Tensor, bail};
use rayon::prelude::*;

use crate::kernels::BLOCK;
use crate::lanes::{Kernel, Lanes, Real, sum};
use crate::rows::{has_kernels, slice};
use crate::types::{floating, widened};
use crate::{Error, Result};

/// The mean over the last axis of the squared differences of `x` and `y`, `(.., D)` each: `(..)`.
///
/// Its mean is the mean squared error; with the channels summed up first, long sums keep their digits.
///
/// # Errors
///
/// If the shapes differ or have no last axis, or `x` is not of a floating-point type.
pub fn squared_error(x: &Tensor, y: &Tensor) -> Result<Tensor> {
    if x.dims() != y.dims() {
        return Err(Error::shape("squared_error", "y", format!("{:?} like x", x.shape()), y.shape()));
    }
    x.dim(D::Minus1)?;
    floating("squared_error", "x", x)?;
    if has_kernels(x) && x.dtype() == y.dtype() {
        return Ok(x.contiguous()?.apply_op2(&y.contiguous()?, Fused)?);
    }
    composed(x, y)
}

fn composed(x: &Tensor, y: &Tensor) -> Result<Tensor> {
    if let Some([wide, y]) = widened([x, y])? {
        return Ok(composed(&wide, &y)?.to_dtype(x.dtype())?);
    }
    Ok((x - y)?.sqr()?.mean(D::Minus1)?)
}

/// The length of the last axis.
fn width(layout: &Layout) -> usize {
    layout.dims().last().copied().unwrap_or(1)
}

struct Fused;

impl CustomOp2 for Fused {
    fn name(&self) -> &'static str {
        "squared_error"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        x_layout: &Layout,
        y: &CpuStorage,
        y_layout: &Layout,
    ) -> candle_core::Result<(CpuStorage, Shape)> {
        fn run<T: Real>(x: &[T], y: &[T], width: usize) -> Vec<T> {
            let share = T::one() / T::from_f64(width as f64);
            x.par_chunks(width)
                .zip(y.par_chunks(width))
                .with_min_len(BLOCK)
                .map(|(x, y)| T::run(Distance(x, y)) * share)
                .collect()
        }
        let width = width(x_layout);
        let storage = match x {
            CpuStorage::F32(_) => CpuStorage::F32(run(slice(x, x_layout)?, slice(y, y_layout)?, width)),
            CpuStorage::F64(_) => CpuStorage::F64(run(slice(x, x_layout)?, slice(y, y_layout)?, width)),
            _ => bail!("the kernel of squared_error takes f32 and f64"),
        };
        let dims = x_layout.dims();
        Ok((storage, Shape::from(&dims[..dims.len() - 1])))
    }

    fn bwd(
        &self,
        x: &Tensor,
        y: &Tensor,
        _: &Tensor,
        gradient: &Tensor,
    ) -> candle_core::Result<(Option<Tensor>, Option<Tensor>)> {
        let of_x = x.apply_op3_no_bwd(y, &gradient.contiguous()?, &Backward)?;
        // A target needs none.
        let of_y = if y.track_op() { Some(of_x.neg()?) } else { None };
        Ok((x.track_op().then_some(of_x), of_y))
    }
}

/// The squared distance of two rows.
struct Distance<'a, T>(&'a [T], &'a [T]);

impl<T: Real> Kernel<T> for Distance<'_, T> {
    type Output = T;
    #[inline(always)]
    fn run<L: Lanes<Number = T>>(self, lanes: L) -> T {
        let [squares] = sum(
            lanes,
            [self.0, self.1],
            #[inline(always)]
            |[x, y]| {
                let difference = lanes.sub(x, y);
                [lanes.mul(difference, difference)]
            },
        );
        squares
    }
}

/// `2/D g (x - y)`, g the gradient of the row's mean.
struct Backward;

impl CustomOp3 for Backward {
    fn name(&self) -> &'static str {
        "squared_error_backward"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        x_layout: &Layout,
        y: &CpuStorage,
        y_layout: &Layout,
        gradient: &CpuStorage,
        gradient_layout: &Layout,
    ) -> candle_core::Result<(CpuStorage, Shape)> {
        fn run<T: Real>(x: &[T], y: &[T], gradient: &[T], width: usize) -> Vec<T> {
            let share = T::from_f64(2.0 / width as f64);
            let mut out = vec![T::zero(); x.len()];
            out.par_chunks_mut(width)
                .zip(x.par_chunks(width))
                .zip(y.par_chunks(width))
                .zip(gradient)
                .with_min_len(BLOCK)
                .for_each(|(((out, x), y), &gradient)| {
                    let scale = share * gradient;
                    for ((out, &x), &y) in out.iter_mut().zip(x).zip(y) {
                        *out = scale * (x - y);
                    }
                });
            out
        }
        let width = width(x_layout);
        let storage = match x {
            CpuStorage::F32(_) => CpuStorage::F32(run(
                slice(x, x_layout)?,
                slice(y, y_layout)?,
                slice(gradient, gradient_layout)?,
                width,
            )),
            CpuStorage::F64(_) => CpuStorage::F64(run(
                slice(x, x_layout)?,
                slice(y, y_layout)?,
                slice(gradient, gradient_layout)?,
                width,
            )),
            _ => bail!("the kernel of squared_error takes f32 and f64"),
        };
        Ok((storage, x_layout.shape().clone()))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::{composed, squared_error};
    use crate::gradient_check::{check_gradients, normal, same};
    use candle_core::{DType, Var};

    #[test]
    fn gradients_are_right() {
        check_gradients(&[normal(&[2, 3, 5], 0), normal(&[2, 3, 5], 1)], |t| squared_error(&t[0], &t[1]));
        check_gradients(&[normal(&[5, 3], 0), normal(&[3, 5], 1)], |t| squared_error(&t[0].t()?, &t[1]));
        let target = normal(&[70, 3], 2);
        check_gradients(&[normal(&[70, 3], 3)], |t| squared_error(&t[0], &target));
        check_gradients(&[normal(&[70, 3], 3)], |t| squared_error(&target, &t[0]));
        check_gradients(&[normal(&[2, 5], 0), normal(&[2, 5], 1)], |t| composed(&t[0], &t[1]));
    }

    #[test]
    fn both_forms_agree_and_plain_tensors_keep_no_graph() {
        let (x, y) = (normal(&[4, 50, 33], 4), normal(&[4, 50, 33], 5));
        let plain = squared_error(&x, &y).unwrap();
        assert_eq!(plain.dims(), [4, 50]);
        assert!(!plain.track_op());
        same(&plain, &composed(&x, &y).unwrap(), 1e-12);
        let single = Var::from_tensor(&x.to_dtype(DType::F32).unwrap()).unwrap();
        let tracked = squared_error(&single, &y.to_dtype(DType::F32).unwrap()).unwrap();
        assert!(tracked.track_op());
        same(&tracked, &plain, 1e-5);
    }

    #[test]
    fn different_shapes_are_refused() {
        let message = squared_error(&normal(&[2, 3], 0), &normal(&[3, 2], 0)).unwrap_err().to_string();
        assert!(message.contains("squared_error") && message.contains('y'), "{message}");
    }
}
