// A kernel is compiled for an instruction set only where all of it is inlined: see `lanes`.
#![allow(clippy::inline_always)]

use candle_core::{CpuStorage, CustomOp1, D, Layout, Shape, Tensor, bail};

use crate::Result;
use crate::kernels::written;
use crate::lanes::{Kernel, Lanes, Real, exponentials, largest, map, sum, update};
use crate::rows::{Held, by_type, has_kernels, slice};
use crate::types::{floating, widened};

/// Softmax over the last axis; the result has the shape of `x`, `(.., N)`.
///
/// # Errors
///
/// If `x` has no axis or is not of a floating-point type.
pub fn softmax(x: &Tensor) -> Result<Tensor> {
    let width = x.dim(D::Minus1)?;
    floating("softmax", "x", x)?;
    if x.elem_count() == 0 {
        return Ok(x.clone());
    }
    if has_kernels(x) {
        return Ok(x.contiguous()?.apply_op1(Fused { width })?);
    }
    #[cfg(feature = "cuda")]
    if let Some(result) = crate::cuda::operations::softmax(x)? {
        return Ok(result);
    }
    composed(x)
}

fn composed(x: &Tensor) -> Result<Tensor> {
    if let Some([wide]) = widened([x])? {
        return Ok(composed(&wide)?.to_dtype(x.dtype())?);
    }
    // The maximum only keeps the exponentials in range: the result does not depend on it, so neither does a gradient.
    let max = x.detach().max_keepdim(D::Minus1)?;
    let exp = x.broadcast_sub(&max)?.exp()?;
    Ok(exp.broadcast_div(&exp.sum_keepdim(D::Minus1)?)?)
}

struct Fused {
    width: usize,
}

/// One row, in place.
struct Forward<'a, T>(&'a mut [T]);

impl<T: Real> Kernel<T> for Forward<'_, T> {
    type Output = ();
    #[inline(always)]
    fn run<L: Lanes<Number = T>>(self, lanes: L) {
        let Self(row) = self;
        let highest = largest(lanes, row);
        let share = lanes.splat(T::ONE / exponentials(lanes, row, highest));
        update(
            lanes,
            row,
            [],
            #[inline(always)]
            |value, []| lanes.mul(value, share),
        );
    }
}

/// From the result y of a row and its gradient g: `y (g - sum(y g))`.
struct Backward<'a, T> {
    out: &'a mut [T],
    result: &'a [T],
    gradient: &'a [T],
}

impl<T: Real> Kernel<T> for Backward<'_, T> {
    type Output = ();
    #[inline(always)]
    fn run<L: Lanes<Number = T>>(self, lanes: L) {
        let Self { out, result, gradient } = self;
        let [mean] = sum(
            lanes,
            [result, gradient],
            #[inline(always)]
            |[y, g]| [lanes.mul(y, g)],
        );
        let mean = lanes.splat(mean);
        map(
            lanes,
            out,
            [result, gradient],
            #[inline(always)]
            |[y, g]| lanes.mul(y, lanes.sub(g, mean)),
        );
    }
}

fn backward<T: Real>(result: &Tensor, gradient: &Tensor, width: usize) -> candle_core::Result<Tensor> {
    let of_x = {
        let (result, gradient) = (Held::new(result), Held::new(gradient));
        let (result, gradient) = (result.slice::<T>()?, gradient.slice::<T>()?);
        let fill = |(): &mut (), index: usize, out: &mut [T]| {
            let row = index * width..(index + 1) * width;
            T::run(Backward { out, result: &result[row.clone()], gradient: &gradient[row] });
        };
        written(result.len() / width, width, || (), fill).0
    };
    Tensor::from_vec(of_x, result.shape(), result.device())
}

impl CustomOp1 for Fused {
    fn name(&self) -> &'static str {
        "softmax"
    }

    fn cpu_fwd(&self, x: &CpuStorage, layout: &Layout) -> candle_core::Result<(CpuStorage, Shape)> {
        fn run<T: Real>(x: &[T], width: usize) -> Vec<T> {
            let fill = |(): &mut (), index: usize, out: &mut [T]| {
                out.copy_from_slice(&x[index * width..][..width]);
                T::run(Forward(out));
            };
            written(x.len() / width, width, || (), fill).0
        }
        let storage = match x {
            CpuStorage::F32(_) => CpuStorage::F32(run(slice(x, layout)?, self.width)),
            CpuStorage::F64(_) => CpuStorage::F64(run(slice(x, layout)?, self.width)),
            _ => bail!("the kernel of softmax takes f32 and f64"),
        };
        Ok((storage, layout.shape().clone()))
    }

    fn bwd(&self, _: &Tensor, result: &Tensor, gradient: &Tensor) -> candle_core::Result<Option<Tensor>> {
        let gradient = gradient.contiguous()?;
        by_type!(result, "softmax", backward(result, &gradient, self.width)).map(Some)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::{composed, softmax};
    use crate::gradient_check::{check_gradients, normal, same};
    use candle_core::{DType, Tensor, Var};

    #[test]
    fn gradients_are_right() {
        check_gradients(&[normal(&[3, 4], 0)], |t| softmax(&t[0]));
        check_gradients(&[normal(&[4, 3], 0)], |t| softmax(&t[0].t()?));
        check_gradients(&[normal(&[70, 11], 0)], |t| softmax(&t[0]));
        check_gradients(&[normal(&[3, 4], 0)], |t| composed(&t[0]));
    }

    #[test]
    fn a_nan_spreads_over_its_row() {
        let x = Tensor::new(&[[1_f32, f32::NAN, 0.], [0., 0., 0.]], &candle_core::Device::Cpu);
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

    #[test]
    fn f32_gradients_are_those_of_f64() {
        let x = (normal(&[70, 37], 20) * 3.0).unwrap();
        let run = |dtype: DType, f: &dyn Fn(&Var) -> Tensor| -> Tensor {
            let var = Var::from_tensor(&x.to_dtype(dtype).unwrap()).unwrap();
            let y = f(&var);
            let weights = normal(y.dims(), 21).to_dtype(dtype).unwrap();
            (y * weights).unwrap().sum_all().unwrap().backward().unwrap().get(&var).unwrap().clone()
        };
        let wanted = run(DType::F64, &|x| composed(x).unwrap());
        same(&run(DType::F32, &|x| softmax(x).unwrap()), &wanted, 1e-6);
    }

    #[test]
    fn nothing_gives_nothing() {
        assert_eq!(softmax(&normal(&[0, 3, 5], 0)).unwrap().dims(), [0, 3, 5]);
    }
}
