use candle_core::{D, Tensor};

use crate::Result;

/// Softmax over the last axis; the result has the shape of `x`, `(.., N)`.
///
/// # Errors
///
/// If `x` has no axis or is not of a floating-point type.
pub fn softmax(x: &Tensor) -> Result<Tensor> {
    if x.track_op() {
        return composed(x);
    }
    // candle's fused form has no backward pass: for tensors without a graph only.
    Ok(candle_nn::ops::softmax_last_dim(&x.contiguous()?)?)
}

fn composed(x: &Tensor) -> Result<Tensor> {
    // The maximum only keeps the exponentials in range: the result does not depend on it, so neither does a gradient.
    let max = x.detach().max_keepdim(D::Minus1)?;
    let exp = x.broadcast_sub(&max)?.exp()?;
    Ok(exp.broadcast_div(&exp.sum_keepdim(D::Minus1)?)?)
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
