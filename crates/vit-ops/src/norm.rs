// A kernel is compiled for an instruction set only where all of it is inlined: see `lanes`.
#![allow(clippy::inline_always)]

use candle_core::{CpuStorage, CustomOp3, D, Layout, Shape, Tensor, bail};

use crate::kernels::written;
use crate::lanes::{Kernel, Lanes, Real, map, sum, update};
use crate::rows::{Held, add_up, by_type, has_kernels, slice};
use crate::types::{floating, widened};
use crate::{Error, Result};

/// Layer normalisation over the last axis: `(x - mean) / sqrt(var + eps) * weight + bias`.
///
/// `x` is `(.., D)`, `weight` and `bias` are `(D,)`; the result has the shape of `x`. The variance is the biased one
/// (divisor D), and `eps` stands inside the root. (Ba, Kiros and Hinton 2016, arXiv 1607.06450.)
///
/// # Errors
///
/// If `weight` or `bias` is not `(D,)`, types or devices differ, or the type is no floating-point one.
pub fn layer_norm(x: &Tensor, weight: &Tensor, bias: &Tensor, eps: f64) -> Result<Tensor> {
    let width = x.dim(D::Minus1)?;
    floating("layer_norm", "x", x)?;
    for (argument, tensor) in [("weight", weight), ("bias", bias)] {
        if tensor.dims() != [width] {
            return Err(Error::shape("layer_norm", argument, format!("({width},)"), tensor.shape()));
        }
    }
    if has_kernels(x) && weight.dtype() == x.dtype() && bias.dtype() == x.dtype() {
        let (x, weight, bias) = (x.contiguous()?, weight.contiguous()?, bias.contiguous()?);
        return Ok(x.apply_op3(&weight, &bias, Fused { eps })?);
    }
    #[cfg(feature = "cuda")]
    if let Some(result) = crate::cuda::operations::layer_norm(x, weight, bias, eps)? {
        return Ok(result);
    }
    composed(x, weight, bias, eps)
}

fn composed(x: &Tensor, weight: &Tensor, bias: &Tensor, eps: f64) -> Result<Tensor> {
    if let Some([wide, weight, bias]) = widened([x, weight, bias])? {
        return Ok(composed(&wide, &weight, &bias, eps)?.to_dtype(x.dtype())?);
    }
    let centred = x.broadcast_sub(&x.mean_keepdim(D::Minus1)?)?;
    let variance = centred.sqr()?.mean_keepdim(D::Minus1)?;
    let normed = centred.broadcast_div(&(variance + eps)?.sqrt()?)?;
    Ok(normed.broadcast_mul(weight)?.broadcast_add(bias)?)
}

/// One parallel pass over the rows each way.
///
/// candle's own fused form has no backward pass, and sums `x` and `x^2` in one go, which loses digits where the mean is
/// large against the spread; this one subtracts the mean first, like the composed form.
struct Fused {
    eps: f64,
}

/// Mean of a row and one over its standard deviation.
#[inline(always)]
fn moments<L: Lanes>(lanes: L, row: &[L::Number], eps: f64) -> (L::Number, L::Number) {
    let n = L::Number::of(row.len() as f64);
    let [total] = sum(
        lanes,
        [row],
        #[inline(always)]
        |[v]| [v],
    );
    let mean = total / n;
    let centre = lanes.splat(mean);
    let [squares] = sum(
        lanes,
        [row],
        #[inline(always)]
        |[v]| {
            let distance = lanes.sub(v, centre);
            [lanes.mul(distance, distance)]
        },
    );
    (mean, L::Number::ONE / (squares / n + L::Number::of(eps)).root())
}

#[inline(always)]
fn normed<L: Lanes>(lanes: L, v: L::Vector, mean: L::Vector, scale: L::Vector) -> L::Vector {
    lanes.mul(lanes.sub(v, mean), scale)
}

/// One row.
struct Forward<'a, T> {
    out: &'a mut [T],
    row: &'a [T],
    weight: &'a [T],
    bias: &'a [T],
    eps: f64,
}

impl<T: Real> Kernel<T> for Forward<'_, T> {
    type Output = ();
    #[inline(always)]
    fn run<L: Lanes<Number = T>>(self, lanes: L) {
        let (mean, scale) = moments(lanes, self.row, self.eps);
        let (mean, scale) = (lanes.splat(mean), lanes.splat(scale));
        map(
            lanes,
            self.out,
            [self.row, self.weight, self.bias],
            #[inline(always)]
            |[v, w, b]| lanes.mul_add(normed(lanes, v, mean, scale), w, b),
        );
    }
}

/// One row's gradient, and what the row adds to those of weight and bias.
struct Backward<'a, T> {
    out: &'a mut [T],
    of_weight: &'a mut [T],
    of_bias: &'a mut [T],
    row: &'a [T],
    weight: &'a [T],
    gradient: &'a [T],
    eps: f64,
}

impl<T: Real> Kernel<T> for Backward<'_, T> {
    type Output = ();
    #[inline(always)]
    fn run<L: Lanes<Number = T>>(self, lanes: L) {
        let Self { out, of_weight, of_bias, row, weight, gradient, eps } = self;
        let n = T::of(row.len() as f64);
        let (mean, scale) = moments(lanes, row, eps);
        let (mean, scale) = (lanes.splat(mean), lanes.splat(scale));
        update(
            lanes,
            of_weight,
            [gradient, row],
            #[inline(always)]
            |sum, [g, v]| lanes.mul_add(g, normed(lanes, v, mean, scale), sum),
        );
        update(
            lanes,
            of_bias,
            [gradient],
            #[inline(always)]
            |sum, [g]| lanes.add(sum, g),
        );
        // What the mean and the variance take away. A weight beyond a row's end is 0, and so is what is summed there.
        let [level, slope] = sum(
            lanes,
            [gradient, weight, row],
            #[inline(always)]
            |[g, w, v]| {
                let scaled = lanes.mul(g, w);
                [scaled, lanes.mul(scaled, normed(lanes, v, mean, scale))]
            },
        );
        let (level, slope) = (lanes.splat(level / n), lanes.splat(slope / n));
        map(
            lanes,
            out,
            [gradient, weight, row],
            #[inline(always)]
            |[g, w, v]| {
                let rest = lanes.sub(lanes.mul(g, w), level);
                lanes.mul(scale, lanes.sub(rest, lanes.mul(normed(lanes, v, mean, scale), slope)))
            },
        );
    }
}

fn forward<T: Real>(x: &[T], weight: &[T], bias: &[T], eps: f64) -> Vec<T> {
    let width = weight.len();
    let fill = |(): &mut (), index: usize, out: &mut [T]| {
        T::run(Forward { out, row: &x[index * width..][..width], weight, bias, eps });
    };
    written(x.len() / width, width, || (), fill).0
}

fn backward<T: Real>(
    x: &Tensor,
    weight: &Tensor,
    gradient: &Tensor,
    eps: f64,
) -> candle_core::Result<(Tensor, Tensor, Tensor)> {
    let width = weight.elem_count();
    let (of_x, sums) = {
        let (x, weight, gradient) = (Held::new(x), Held::new(weight), Held::new(gradient));
        let (x, weight, gradient) = (x.slice::<T>()?, weight.slice::<T>()?, gradient.slice::<T>()?);
        let start = || vec![T::ZERO; 2 * width];
        written(x.len() / width, width, start, |sums: &mut Vec<T>, index, out| {
            let (of_weight, of_bias) = sums.split_at_mut(width);
            let row = &x[index * width..][..width];
            let gradient = &gradient[index * width..][..width];
            T::run(Backward { out, of_weight, of_bias, row, weight, gradient, eps });
        })
    };
    let mut of_weight = add_up(&sums, 2 * width);
    let of_bias = of_weight.split_off(width);
    let device = x.device();
    Ok((
        Tensor::from_vec(of_x, x.shape(), device)?,
        Tensor::from_vec(of_weight, width, device)?,
        Tensor::from_vec(of_bias, width, device)?,
    ))
}

impl CustomOp3 for Fused {
    fn name(&self) -> &'static str {
        "layer_norm"
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
        fn run<T: Real>(
            (x, x_layout): (&CpuStorage, &Layout),
            (weight, weight_layout): (&CpuStorage, &Layout),
            (bias, bias_layout): (&CpuStorage, &Layout),
            eps: f64,
        ) -> candle_core::Result<Vec<T>> {
            let (weight, bias) = (slice(weight, weight_layout)?, slice(bias, bias_layout)?);
            Ok(forward(slice(x, x_layout)?, weight, bias, eps))
        }
        let (whole, scale, level) = ((x, x_layout), (weight, weight_layout), (bias, bias_layout));
        let storage = match x {
            CpuStorage::F32(_) => CpuStorage::F32(run(whole, scale, level, self.eps)?),
            CpuStorage::F64(_) => CpuStorage::F64(run(whole, scale, level, self.eps)?),
            _ => bail!("the kernel of layer_norm takes f32 and f64"),
        };
        Ok((storage, x_layout.shape().clone()))
    }

    fn bwd(
        &self,
        x: &Tensor,
        weight: &Tensor,
        _: &Tensor,
        _: &Tensor,
        gradient: &Tensor,
    ) -> candle_core::Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let gradient = gradient.contiguous()?;
        let (of_x, of_weight, of_bias) = by_type!(x, "layer_norm", backward(x, weight, &gradient, self.eps))?;
        Ok((Some(of_x), Some(of_weight), Some(of_bias)))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::{composed, layer_norm};
    use crate::gradient_check::{check_gradients, normal, same};
    use candle_core::{DType, Device, Tensor, Var};

    #[test]
    fn the_composed_form_agrees_both_ways() {
        // What other devices run; more rows than a block holds.
        let inputs = [normal(&[70, 9], 10), normal(&[9], 11), normal(&[9], 12)];
        check_gradients(&inputs[..], |t| composed(&t[0], &t[1], &t[2], 1e-3));
        check_gradients(&inputs[..], |t| layer_norm(&t[0], &t[1], &t[2], 1e-3));
        same(
            &composed(&inputs[0], &inputs[1], &inputs[2], 1e-6).unwrap(),
            &layer_norm(&inputs[0], &inputs[1], &inputs[2], 1e-6).unwrap(),
            1e-12,
        );
    }

    #[test]
    fn gradients_are_right() {
        check_gradients(&[normal(&[2, 3, 5], 0), normal(&[5], 1), normal(&[5], 2)], |t| {
            layer_norm(&t[0], &t[1], &t[2], 1e-3)
        });
    }

    #[test]
    fn strided_input_is_taken() {
        let x = normal(&[5, 3, 2], 3).transpose(0, 2).unwrap();
        let (w, b) = (normal(&[5], 4), normal(&[5], 5));
        let copy = x.contiguous().unwrap();
        same(&layer_norm(&x, &w, &b, 1e-6).unwrap(), &composed(&copy, &w, &b, 1e-6).unwrap(), 1e-12);
        check_gradients(&[normal(&[5, 3, 2], 3)], |t| layer_norm(&t[0].transpose(0, 2)?, &w, &b, 1e-3));
    }

    #[test]
    fn tracked_and_untracked_agree_and_only_tracked_keep_a_graph() {
        // A mean far from zero: a one-pass variance in f32 would be off by far more than this.
        let x64 = (normal(&[40, 77], 6) + 300.0).unwrap();
        let x = x64.to_dtype(DType::F32).unwrap();
        let (w64, b64) = (normal(&[77], 7), normal(&[77], 8));
        let (w, b) = (w64.to_dtype(DType::F32).unwrap(), b64.to_dtype(DType::F32).unwrap());
        let plain = layer_norm(&x, &w, &b, 1e-6).unwrap();
        assert!(!plain.track_op());
        let var = Var::from_tensor(&x).unwrap();
        let tracked = layer_norm(var.as_tensor(), &w, &b, 1e-6).unwrap();
        assert!(tracked.track_op());
        same(&plain, &tracked, 2e-4);
        let wanted = composed(&x.to_dtype(DType::F64).unwrap(), &w64, &b64, 1e-6).unwrap();
        same(&plain, &wanted, 2e-4);
    }

    #[test]
    fn a_wrong_width_is_named() {
        let x = Tensor::zeros((2, 4), DType::F32, &Device::Cpu).unwrap();
        let w = Tensor::zeros(3, DType::F32, &Device::Cpu).unwrap();
        let message = layer_norm(&x, &w, &w, 1e-6).unwrap_err().to_string();
        assert!(message.contains("weight") && message.contains("(4,)"), "{message}");
    }

    #[test]
    fn f32_gradients_are_those_of_f64() {
        let inputs = [normal(&[70, 37], 20), normal(&[37], 21), normal(&[37], 22)];
        let run = |dtype: DType, f: &dyn Fn(&[Var]) -> Tensor| -> Vec<Tensor> {
            let vars: Vec<Var> =
                inputs.iter().map(|t| Var::from_tensor(&t.to_dtype(dtype).unwrap()).unwrap()).collect();
            let y = f(&vars);
            let weights = normal(y.dims(), 23).to_dtype(dtype).unwrap();
            let gradients = (y * weights).unwrap().sum_all().unwrap().backward().unwrap();
            vars.iter().map(|var| gradients.get(var).unwrap().clone()).collect()
        };
        let wanted = run(DType::F64, &|v| composed(&v[0], &v[1], &v[2], 1e-6).unwrap());
        let found = run(DType::F32, &|v| layer_norm(&v[0], &v[1], &v[2], 1e-6).unwrap());
        for (found, wanted) in found.iter().zip(&wanted) {
            same(found, wanted, 2e-5);
        }
    }
}
