use candle_core::{CpuStorage, CustomOp3, D, DType, Layout, Shape, Tensor, WithDType, bail};
use rayon::prelude::*;

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
    let tracked = x.track_op() || weight.track_op() || bias.track_op();
    let host = x.device().is_cpu() && matches!(x.dtype(), DType::F32 | DType::F64);
    if !tracked && host && width > 0 {
        return Ok(x.contiguous()?.apply_op3_no_bwd(
            &weight.contiguous()?,
            &bias.contiguous()?,
            &Untracked { eps },
        )?);
    }
    composed(x, weight, bias, eps)
}

fn composed(x: &Tensor, weight: &Tensor, bias: &Tensor, eps: f64) -> Result<Tensor> {
    let centred = x.broadcast_sub(&x.mean_keepdim(D::Minus1)?)?;
    let variance = centred.sqr()?.mean_keepdim(D::Minus1)?;
    let normed = centred.broadcast_div(&(variance + eps)?.sqrt()?)?;
    Ok(normed.broadcast_mul(weight)?.broadcast_add(bias)?)
}

/// One parallel pass over the rows; for inputs without a graph only.
///
/// candle's own fused form sums `x` and `x^2` in one go and loses digits where the mean is large against the spread;
/// this one subtracts the mean first, like the composed form.
struct Untracked {
    eps: f64,
}

impl CustomOp3 for Untracked {
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
            CpuStorage::F32(_) => CpuStorage::F32(rows(
                contiguous::<f32>(x, x_layout)?,
                contiguous::<f32>(weight, weight_layout)?,
                contiguous::<f32>(bias, bias_layout)?,
                |row, weight, bias, out| {
                    // Eight running sums: one alone would wait for itself, and be less exact.
                    let n = row.len() as f32;
                    let mean = lanes(row, |v| v) / n;
                    let variance = lanes(row, |v| (v - mean) * (v - mean)) / n;
                    let scale = 1.0 / (variance + self.eps as f32).sqrt();
                    for (((out, v), w), b) in out.iter_mut().zip(row).zip(weight).zip(bias) {
                        *out = (v - mean) * scale * w + b;
                    }
                },
            )),
            CpuStorage::F64(_) => CpuStorage::F64(rows(
                contiguous::<f64>(x, x_layout)?,
                contiguous::<f64>(weight, weight_layout)?,
                contiguous::<f64>(bias, bias_layout)?,
                |row, weight, bias, out| {
                    let n = row.len() as f64;
                    let mean = row.iter().sum::<f64>() / n;
                    let variance = row.iter().map(|v| (v - mean) * (v - mean)).sum::<f64>() / n;
                    let scale = 1.0 / (variance + self.eps).sqrt();
                    for (((out, v), w), b) in out.iter_mut().zip(row).zip(weight).zip(bias) {
                        *out = (v - mean) * scale * w + b;
                    }
                },
            )),
            _ => bail!("layer_norm without a graph takes f32 and f64"),
        };
        Ok((storage, x_layout.shape().clone()))
    }
}

fn lanes(row: &[f32], f: impl Fn(f32) -> f32) -> f32 {
    let mut sums = [0_f32; 8];
    let chunks = row.chunks_exact(8);
    let rest: f32 = chunks.remainder().iter().map(|&v| f(v)).sum();
    for chunk in chunks {
        for (sum, &v) in sums.iter_mut().zip(chunk) {
            *sum += f(v);
        }
    }
    sums.iter().sum::<f32>() + rest
}

fn contiguous<'a, T: WithDType>(storage: &'a CpuStorage, layout: &Layout) -> candle_core::Result<&'a [T]> {
    let data = storage.as_slice::<T>()?;
    match layout.contiguous_offsets() {
        Some((start, end)) => Ok(&data[start..end]),
        None => bail!("layer_norm without a graph takes contiguous tensors"),
    }
}

fn rows<T: WithDType>(
    x: &[T],
    weight: &[T],
    bias: &[T],
    row: impl Fn(&[T], &[T], &[T], &mut [T]) + Send + Sync,
) -> Vec<T> {
    let width = weight.len();
    let mut out = vec![T::zero(); x.len()];
    // At least some ten thousand numbers a task: less is not worth a thread.
    out.par_chunks_mut(width)
        .zip(x.par_chunks(width))
        .with_min_len(1 + 16_384 / width)
        .for_each(|(out, x)| row(x, weight, bias, out));
    out
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::{composed, layer_norm};
    use crate::gradient_check::{check_gradients, normal, same};
    use candle_core::{DType, Device, Tensor, Var};

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
