use candle_core::{CpuStorage, CustomOp1, CustomOp2, D, Layout, Shape, Tensor, bail};
use rayon::prelude::*;

use crate::Result;
use crate::rows::{BLOCK, Real, has_kernels, slice, sum_of};

/// Softmax over the last axis; the result has the shape of `x`, `(.., N)`.
///
/// # Errors
///
/// If `x` has no axis or is not of a floating-point type.
pub fn softmax(x: &Tensor) -> Result<Tensor> {
    let width = x.dim(D::Minus1)?;
    if has_kernels(x) {
        return Ok(x.contiguous()?.apply_op1(Fused { width })?);
    }
    composed(x)
}

fn composed(x: &Tensor) -> Result<Tensor> {
    // The maximum only keeps the exponentials in range: the result does not depend on it, so neither does a gradient.
    let max = x.detach().max_keepdim(D::Minus1)?;
    let exp = x.broadcast_sub(&max)?.exp()?;
    Ok(exp.broadcast_div(&exp.sum_keepdim(D::Minus1)?)?)
}

struct Fused {
    width: usize,
}

impl CustomOp1 for Fused {
    fn name(&self) -> &'static str {
        "softmax"
    }

    fn cpu_fwd(&self, x: &CpuStorage, layout: &Layout) -> candle_core::Result<(CpuStorage, Shape)> {
        fn run<T: Real>(x: &[T], width: usize) -> Vec<T> {
            let mut out = vec![T::zero(); x.len()];
            out.par_chunks_mut(BLOCK * width).zip(x.par_chunks(BLOCK * width)).for_each(|(out, x)| {
                for (out, row) in out.chunks_exact_mut(width).zip(x.chunks_exact(width)) {
                    let max = row.iter().fold(row[0], |max, &v| if v > max { v } else { max });
                    for (out, &v) in out.iter_mut().zip(row) {
                        *out = (v - max).exponential();
                    }
                    let share = T::one() / sum_of(out, out, |v, _| v);
                    for out in out {
                        *out *= share;
                    }
                }
            });
            out
        }
        let storage = match x {
            CpuStorage::F32(_) => CpuStorage::F32(run(slice(x, layout)?, self.width)),
            CpuStorage::F64(_) => CpuStorage::F64(run(slice(x, layout)?, self.width)),
            _ => bail!("the kernel of softmax takes f32 and f64"),
        };
        Ok((storage, layout.shape().clone()))
    }

    fn bwd(&self, _: &Tensor, result: &Tensor, gradient: &Tensor) -> candle_core::Result<Option<Tensor>> {
        result.apply_op2_no_bwd(&gradient.contiguous()?, &Backward { width: self.width }).map(Some)
    }
}

/// From the result y and its gradient g: `y (g - sum(y g))`.
struct Backward {
    width: usize,
}

impl CustomOp2 for Backward {
    fn name(&self) -> &'static str {
        "softmax_backward"
    }

    fn cpu_fwd(
        &self,
        result: &CpuStorage,
        result_layout: &Layout,
        gradient: &CpuStorage,
        gradient_layout: &Layout,
    ) -> candle_core::Result<(CpuStorage, Shape)> {
        fn run<T: Real>(result: &[T], gradient: &[T], width: usize) -> Vec<T> {
            let mut out = vec![T::zero(); result.len()];
            out.par_chunks_mut(width)
                .zip(result.par_chunks(width))
                .zip(gradient.par_chunks(width))
                .with_min_len(BLOCK)
                .for_each(|((out, y), g)| {
                    let mean = sum_of(y, g, |y, g| y * g);
                    for ((out, &y), &g) in out.iter_mut().zip(y).zip(g) {
                        *out = y * (g - mean);
                    }
                });
            out
        }
        let storage = match result {
            CpuStorage::F32(_) => CpuStorage::F32(run(
                slice(result, result_layout)?,
                slice(gradient, gradient_layout)?,
                self.width,
            )),
            CpuStorage::F64(_) => CpuStorage::F64(run(
                slice(result, result_layout)?,
                slice(gradient, gradient_layout)?,
                self.width,
            )),
            _ => bail!("the kernel of softmax takes f32 and f64"),
        };
        Ok((storage, result_layout.shape().clone()))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::{composed, softmax};
    use crate::gradient_check::{check_gradients, normal, same};
    use candle_core::{DType, Var};

    #[test]
    fn gradients_are_right() {
        check_gradients(&[normal(&[3, 4], 0)], |t| softmax(&t[0]));
        check_gradients(&[normal(&[4, 3], 0)], |t| softmax(&t[0].t()?));
        check_gradients(&[normal(&[70, 11], 0)], |t| softmax(&t[0]));
        check_gradients(&[normal(&[3, 4], 0)], |t| composed(&t[0]));
    }

    #[test]
    fn a_nan_spreads_over_its_row() {
        let x = candle_core::Tensor::new(&[[1_f32, f32::NAN, 0.], [0., 0., 0.]], &candle_core::Device::Cpu);
        let found = softmax(&x.unwrap()).unwrap().to_vec2::<f32>().unwrap();
        assert!(found[0].iter().all(|v| v.is_nan()));
        assert!(found[1].iter().all(|v| (v - 1.0 / 3.0).abs() < 1e-7));
    }

    #[test]
    fn tracked_and_untracked_agree() {
        let x = (normal(&[7, 9], 1) * 30.0).unwrap();
        let single = x.to_dtype(DType::F32).unwrap();
        let plain = softmax(&single).unwrap();
        assert!(!plain.track_op());
        let tracked = softmax(Var::from_tensor(&single).unwrap().as_tensor()).unwrap();
        assert!(tracked.track_op());
        same(&plain, &tracked, 1e-6);
        same(&plain, &composed(&x).unwrap(), 1e-5);
        same(&softmax(&x.t().unwrap()).unwrap(), &composed(&x.t().unwrap()).unwrap(), 1e-12);
    }
}
