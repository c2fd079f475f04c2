use candle_core::{CpuStorage, CustomOp3, D, Layout, Shape, Tensor, bail};
use rayon::prelude::*;

use crate::rows::{BLOCK, Real, add_up, has_kernels, slice, sum_of};
use crate::{Error, Result};

/// Layer normalisation over the last axis: `(x - mean) / sqrt(var + eps) * weight + bias`.
///
/// `x` is `(.., D)`, `weight` and `bias` are `(D,)`; the result has the shape of `x`. The variance is the biased one
/// (divisor D), and `eps` stands inside the root. (Ba, Kiros and Hinton 2016, arXiv 1607.06450.)
///
/// # Errors
///
/// If `weight` or `bias` is not `(D,)`, or types or devices differ.
pub fn layer_norm(x: &Tensor, weight: &Tensor, bias: &Tensor, eps: f64) -> Result<Tensor> {
    let width = x.dim(D::Minus1)?;
    for (argument, tensor) in [("weight", weight), ("bias", bias)] {
        if tensor.dims() != [width] {
            return Err(Error::shape("layer_norm", argument, format!("({width},)"), tensor.shape()));
        }
    }
    if has_kernels(x) && weight.dtype() == x.dtype() && bias.dtype() == x.dtype() {
        let (x, weight, bias) = (x.contiguous()?, weight.contiguous()?, bias.contiguous()?);
        return Ok(x.apply_op3(&weight, &bias, Fused { eps })?);
    }
    composed(x, weight, bias, eps)
}

fn composed(x: &Tensor, weight: &Tensor, bias: &Tensor, eps: f64) -> Result<Tensor> {
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
fn moments<T: Real>(row: &[T], eps: f64) -> (T, T) {
    let n = T::from_f64(row.len() as f64);
    let mean = sum_of(row, row, |v, _| v) / n;
    let variance = sum_of(row, row, |v, _| (v - mean) * (v - mean)) / n;
    (mean, T::one() / (variance + T::from_f64(eps)).root())
}

fn forward<T: Real>(x: &[T], weight: &[T], bias: &[T], eps: f64) -> Vec<T> {
    let width = weight.len();
    let mut out = vec![T::zero(); x.len()];
    out.par_chunks_mut(BLOCK * width).zip(x.par_chunks(BLOCK * width)).for_each(|(out, x)| {
        for (out, row) in out.chunks_exact_mut(width).zip(x.chunks_exact(width)) {
            let (mean, scale) = moments(row, eps);
            for (((out, &v), &w), &b) in out.iter_mut().zip(row).zip(weight).zip(bias) {
                *out = (v - mean) * scale * w + b;
            }
        }
    });
    out
}

/// The gradients of `x`, weight and bias, one behind the other.
fn backward<T: Real>(x: &[T], weight: &[T], gradient: &[T], eps: f64) -> Vec<T> {
    let width = weight.len();
    let n = T::from_f64(width as f64);
    let mut out = vec![T::zero(); x.len()];
    let block = |((out, x), gradient): ((&mut [T], &[T]), &[T])| {
        // Of the weight, then of the bias.
        let mut sums = vec![T::zero(); 2 * width];
        let (of_weight, of_bias) = sums.split_at_mut(width);
        let mut normed = vec![T::zero(); width];
        let mut scaled = vec![T::zero(); width];
        let lines = out.chunks_exact_mut(width).zip(x.chunks_exact(width)).zip(gradient.chunks_exact(width));
        for ((out, row), gradient) in lines {
            let (mean, scale) = moments(row, eps);
            for i in 0..width {
                normed[i] = (row[i] - mean) * scale;
                scaled[i] = gradient[i] * weight[i];
                of_weight[i] += gradient[i] * normed[i];
                of_bias[i] += gradient[i];
            }
            // What the mean and the variance take away.
            let level = sum_of(&scaled, &normed, |g, _| g) / n;
            let slope = sum_of(&scaled, &normed, |g, v| g * v) / n;
            for ((out, &g), &v) in out.iter_mut().zip(&scaled).zip(&normed) {
                *out = scale * (g - level - v * slope);
            }
        }
        sums
    };
    let parts: Vec<Vec<T>> = out
        .par_chunks_mut(BLOCK * width)
        .zip(x.par_chunks(BLOCK * width))
        .zip(gradient.par_chunks(BLOCK * width))
        .map(block)
        .collect();
    out.extend(add_up(&parts, 2 * width));
    out
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
        let storage = match x {
            CpuStorage::F32(_) => CpuStorage::F32(forward(
                slice(x, x_layout)?,
                slice(weight, weight_layout)?,
                slice(bias, bias_layout)?,
                self.eps,
            )),
            CpuStorage::F64(_) => CpuStorage::F64(forward(
                slice(x, x_layout)?,
                slice(weight, weight_layout)?,
                slice(bias, bias_layout)?,
                self.eps,
            )),
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
        let kernel = Backward { eps: self.eps };
        let packed = x.apply_op3_no_bwd(weight, &gradient.contiguous()?, &kernel)?;
        let (count, width) = (x.elem_count(), weight.elem_count());
        let of_x = packed.narrow(0, 0, count)?.reshape(x.shape())?;
        let of_weight = packed.narrow(0, count, width)?;
        let of_bias = packed.narrow(0, count + width, width)?;
        Ok((Some(of_x), Some(of_weight), Some(of_bias)))
    }
}

struct Backward {
    eps: f64,
}

impl CustomOp3 for Backward {
    fn name(&self) -> &'static str {
        "layer_norm_backward"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        x_layout: &Layout,
        weight: &CpuStorage,
        weight_layout: &Layout,
        gradient: &CpuStorage,
        gradient_layout: &Layout,
    ) -> candle_core::Result<(CpuStorage, Shape)> {
        let storage = match x {
            CpuStorage::F32(_) => CpuStorage::F32(backward(
                slice(x, x_layout)?,
                slice(weight, weight_layout)?,
                slice(gradient, gradient_layout)?,
                self.eps,
            )),
            CpuStorage::F64(_) => CpuStorage::F64(backward(
                slice(x, x_layout)?,
                slice(weight, weight_layout)?,
                slice(gradient, gradient_layout)?,
                self.eps,
            )),
            _ => bail!("the kernel of layer_norm takes f32 and f64"),
        };
        let count = x_layout.shape().elem_count() + 2 * weight_layout.shape().elem_count();
        Ok((storage, Shape::from(count)))
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
}
