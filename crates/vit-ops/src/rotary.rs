// A kernel is compiled for an instruction set only where all of it is inlined: see `lanes`.
#![allow(clippy::inline_always)]

use candle_core::{CpuStorage, CustomOp3, D, Layout, Shape, Tensor, bail};

use crate::kernels::written;
use crate::lanes::{Kernel, Lanes, Real, map};
use crate::rows::{Held, by_type, has_kernels, slice};
use crate::{Error, Result};

/// Rotary positions on the queries and keys of a packed tensor `(B, N, 3 H d)`; its values stay as they are.
///
/// A head's queries and keys u of a token become `u cos + [-u_high, u_low] sin`, with that token's rows of `cos` and
/// `sin` `(N, d)`, which are constants: they get no gradient. (Su et al. 2021, arXiv 2104.09864, halves instead of
/// neighbours.)
///
/// # Errors
///
/// If the shapes are not these, or d is odd.
pub fn rotate_packed(qkv: &Tensor, heads: usize, cos: &Tensor, sin: &Tensor) -> Result<Tensor> {
    let (tokens, width) = match qkv.dims3() {
        Ok((_, n, p)) if heads > 0 && p % (6 * heads) == 0 => (n, p / (3 * heads)),
        _ => {
            let expected = format!("(B, N, 3 * {heads} heads * d), d even");
            return Err(Error::shape("rotate_packed", "qkv", expected, qkv.shape()));
        }
    };
    for (argument, tensor) in [("cos", cos), ("sin", sin)] {
        if tensor.dims() != [tokens, width] {
            let expected = format!("({tokens}, {width})");
            return Err(Error::shape("rotate_packed", argument, expected, tensor.shape()));
        }
    }
    let constant = |t: &Tensor| t.detach().to_dtype(qkv.dtype())?.contiguous();
    let (cos, sin) = (constant(cos)?, constant(sin)?);
    if has_kernels(qkv) {
        return Ok(qkv.contiguous()?.apply_op3(&cos, &sin, Turn { heads })?);
    }
    composed(qkv, heads, &cos, &sin)
}

fn composed(qkv: &Tensor, heads: usize, cos: &Tensor, sin: &Tensor) -> Result<Tensor> {
    let (batch, tokens, packed) = qkv.dims3()?;
    let (width, third) = (packed / (3 * heads), packed / 3);
    let both = qkv.narrow(2, 0, 2 * third)?.reshape((batch, tokens, 2 * heads, width))?;
    let half = |i: usize| both.narrow(D::Minus1, i * (width / 2), width / 2);
    let turned = Tensor::cat(&[&half(1)?.neg()?, &half(0)?], D::Minus1)?;
    let both = (both.broadcast_mul(&cos.unsqueeze(1)?)? + turned.broadcast_mul(&sin.unsqueeze(1)?)?)?;
    let both = both.reshape((batch, tokens, 2 * third))?;
    Ok(Tensor::cat(&[&both, &qkv.narrow(2, 2 * third, third)?], 2)?)
}

struct Turn {
    heads: usize,
}

/// One head of one token: its halves by the angles, or back by them.
struct Head<'a, T> {
    out: &'a mut [T],
    x: &'a [T],
    cos: &'a [T],
    sin: &'a [T],
    back: bool,
}

impl<T: Real> Kernel<T> for Head<'_, T> {
    type Output = ();
    #[inline(always)]
    fn run<L: Lanes<Number = T>>(self, lanes: L) {
        let Self { out, x, cos, sin, back } = self;
        let half = x.len() / 2;
        let (low, high) = x.split_at(half);
        let ((cos_low, cos_high), (sin_low, sin_high)) = (cos.split_at(half), sin.split_at(half));
        let (out_low, out_high) = out.split_at_mut(half);
        if back {
            // The transpose: each sine goes with the half that it was multiplied with.
            map(
                lanes,
                out_low,
                [low, cos_low, high, sin_high],
                #[inline(always)]
                |[a, c, b, s]| lanes.mul_add(b, s, lanes.mul(a, c)),
            );
            map(
                lanes,
                out_high,
                [high, cos_high, low, sin_low],
                #[inline(always)]
                |[b, c, a, s]| lanes.sub(lanes.mul(b, c), lanes.mul(a, s)),
            );
        } else {
            map(
                lanes,
                out_low,
                [low, cos_low, high, sin_low],
                #[inline(always)]
                |[a, c, b, s]| lanes.sub(lanes.mul(a, c), lanes.mul(b, s)),
            );
            map(
                lanes,
                out_high,
                [high, cos_high, low, sin_high],
                #[inline(always)]
                |[b, c, a, s]| lanes.mul_add(a, s, lanes.mul(b, c)),
            );
        }
    }
}

fn turn<T: Real>(x: &[T], (cos, sin): (&[T], &[T]), (heads, width): (usize, usize), back: bool) -> Vec<T> {
    let (packed, tokens) = (3 * heads * width, cos.len() / width);
    let fill = |(): &mut (), index: usize, out: &mut [T]| {
        let x = &x[index * packed..][..packed];
        let angles = index % tokens * width..(index % tokens + 1) * width;
        let (cos, sin) = (&cos[angles.clone()], &sin[angles]);
        let (turned, values) = out.split_at_mut(2 * heads * width);
        for (out, x) in turned.chunks_exact_mut(width).zip(x.chunks_exact(width)) {
            T::run(Head { out, x, cos, sin, back });
        }
        values.copy_from_slice(&x[2 * heads * width..]);
    };
    written(x.len() / packed, packed, || (), fill).0
}

impl CustomOp3 for Turn {
    fn name(&self) -> &'static str {
        "rotate_packed"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        layout: &Layout,
        cos: &CpuStorage,
        cos_layout: &Layout,
        sin: &CpuStorage,
        sin_layout: &Layout,
    ) -> candle_core::Result<(CpuStorage, Shape)> {
        let sizes = (self.heads, cos_layout.shape().dims().last().copied().unwrap_or(1));
        let storage = match x {
            CpuStorage::F32(_) => {
                let angles = (slice(cos, cos_layout)?, slice(sin, sin_layout)?);
                CpuStorage::F32(turn(slice(x, layout)?, angles, sizes, false))
            }
            CpuStorage::F64(_) => {
                let angles = (slice(cos, cos_layout)?, slice(sin, sin_layout)?);
                CpuStorage::F64(turn(slice(x, layout)?, angles, sizes, false))
            }
            _ => bail!("the kernel of rotate_packed takes f32 and f64"),
        };
        Ok((storage, layout.shape().clone()))
    }

    fn bwd(
        &self,
        _: &Tensor,
        cos: &Tensor,
        sin: &Tensor,
        _: &Tensor,
        gradient: &Tensor,
    ) -> candle_core::Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        fn back<T: Real>(
            gradient: &Tensor,
            (cos, sin): (&Tensor, &Tensor),
            heads: usize,
        ) -> candle_core::Result<Tensor> {
            let width = cos.dim(1)?;
            let (held, cos, sin) = (Held::new(gradient), Held::new(cos), Held::new(sin));
            let angles = (cos.slice::<T>()?, sin.slice::<T>()?);
            let of_x = turn(held.slice::<T>()?, angles, (heads, width), true);
            Tensor::from_vec(of_x, gradient.shape(), gradient.device())
        }
        let gradient = gradient.contiguous()?;
        let of_x = by_type!(gradient, "rotate_packed", back(&gradient, (cos, sin), self.heads))?;
        Ok((Some(of_x), None, None))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::{composed, rotate_packed};
    use crate::gradient_check::{check_gradients, normal, same};
    use candle_core::DType;

    #[test]
    fn both_forms_agree_both_ways() {
        // Any two tables: nothing relies on their being cosines and sines.
        let (qkv, cos, sin) = (normal(&[2, 3, 24], 0), normal(&[3, 4], 1), normal(&[3, 4], 2));
        same(&rotate_packed(&qkv, 2, &cos, &sin).unwrap(), &composed(&qkv, 2, &cos, &sin).unwrap(), 1e-12);
        check_gradients(std::slice::from_ref(&qkv), |t| rotate_packed(&t[0], 2, &cos, &sin));
        check_gradients(std::slice::from_ref(&qkv), |t| composed(&t[0], 2, &cos, &sin));
        let single = rotate_packed(&qkv.to_dtype(DType::F32).unwrap(), 2, &cos, &sin).unwrap();
        same(&single, &composed(&qkv, 2, &cos, &sin).unwrap(), 1e-6);
    }

    #[test]
    fn wrong_shapes_are_named() {
        let message = rotate_packed(&normal(&[2, 3, 24], 0), 2, &normal(&[3, 2], 0), &normal(&[3, 4], 0));
        assert!(message.unwrap_err().to_string().contains("cos"));
        let odd = rotate_packed(&normal(&[2, 3, 18], 0), 2, &normal(&[3, 3], 0), &normal(&[3, 3], 0));
        assert!(odd.unwrap_err().to_string().contains("d even"));
    }
}
