//! How a normalisation differentiates its variance.

use candle_core::{D, Tensor};

use crate::norm::layer_norm;
use crate::{Error, Result};

/// The gradient of the variance within a normalisation. The value is the same in both.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum VarianceGradient {
    /// `2 (x - mean) / n`: calculus.
    #[default]
    True,
    /// `2 x / n`: Keras 3 before it was put right computes `E[x^2] - stop_gradient(E[x])^2`, so that the mean in the
    /// variance counts as a constant. For comparison with networks that were trained so; the mean that is subtracted
    /// from `x` keeps its gradient.
    DetachedMean,
}

/// [`layer_norm`] with this gradient of the variance.
///
/// # Errors
///
/// As [`layer_norm`].
pub fn layer_norm_with(
    x: &Tensor,
    weight: &Tensor,
    bias: &Tensor,
    eps: f64,
    gradient: VarianceGradient,
) -> Result<Tensor> {
    if gradient == VarianceGradient::True {
        return layer_norm(x, weight, bias, eps);
    }
    let width = x.dim(D::Minus1)?;
    for (argument, tensor) in [("weight", weight), ("bias", bias)] {
        if tensor.dims() != [width] {
            return Err(Error::shape("layer_norm_with", argument, format!("({width},)"), tensor.shape()));
        }
    }
    let centred = x.broadcast_sub(&x.mean_keepdim(D::Minus1)?)?;
    let variance =
        detached_mean(&centred.detach().sqr()?.mean_keepdim(D::Minus1)?, &x.sqr()?.mean_keepdim(D::Minus1)?)?;
    let normed = centred.broadcast_div(&(variance + eps)?.sqrt()?)?;
    Ok(normed.broadcast_mul(weight)?.broadcast_add(bias)?)
}

/// The value of `variance` with the gradient of the mean square: what `E[x^2] - stop_gradient(E[x])^2` stands for,
/// without the digits that its difference would lose.
pub(crate) fn detached_mean(variance: &Tensor, mean_square: &Tensor) -> Result<Tensor> {
    Ok((variance.detach() + (mean_square - mean_square.detach())?)?)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::{VarianceGradient, layer_norm_with};
    use crate::gradient_check::{check_gradients, normal, same};
    use candle_core::{D, DType, Tensor, Var};

    #[test]
    fn the_detached_mean_is_what_its_formula_differentiates_to() {
        let (w, b) = (normal(&[7], 1), normal(&[7], 2));
        let x = Var::from_tensor(&(normal(&[3, 7], 0) + 0.7).unwrap()).unwrap();
        let weights = normal(&[3, 7], 3);
        let literal = |x: &Tensor| {
            let mean = x.mean_keepdim(D::Minus1).unwrap();
            let square = x.sqr().unwrap().mean_keepdim(D::Minus1).unwrap();
            let variance = (square - mean.detach().sqr().unwrap()).unwrap();
            let normed = x.broadcast_sub(&mean).unwrap();
            let normed = normed.broadcast_div(&(variance + 1e-3).unwrap().sqrt().unwrap()).unwrap();
            normed.broadcast_mul(&w).unwrap().broadcast_add(&b).unwrap()
        };
        let ours = layer_norm_with(&x, &w, &b, 1e-3, VarianceGradient::DetachedMean).unwrap();
        let theirs = literal(x.as_tensor());
        same(&ours, &theirs, 1e-12);
        let [ours, theirs] = [ours, theirs].map(|y| {
            let store = (y * &weights).unwrap().sum_all().unwrap().backward().unwrap();
            store.get(&x).unwrap().clone()
        });
        same(&ours, &theirs, 1e-12);
        // It is not the true one.
        let y = layer_norm_with(&x, &w, &b, 1e-3, VarianceGradient::True).unwrap();
        let store = (y * &weights).unwrap().sum_all().unwrap().backward().unwrap();
        let apart = (store.get(&x).unwrap() - &ours).unwrap().abs().unwrap().max_all().unwrap();
        assert!(apart.to_scalar::<f64>().unwrap() > 1e-2);
    }

    #[test]
    fn weight_and_bias_keep_their_gradients_and_a_wrong_width_is_named() {
        let x = normal(&[4, 5], 4);
        check_gradients(&[normal(&[5], 5), normal(&[5], 6)], |t| {
            layer_norm_with(&x, &t[0], &t[1], 1e-6, VarianceGradient::DetachedMean)
        });
        let wrong = Tensor::zeros(3, DType::F64, x.device()).unwrap();
        let message = layer_norm_with(&x, &wrong, &wrong, 1e-6, VarianceGradient::DetachedMean);
        assert!(message.unwrap_err().to_string().contains("weight"));
    }
}
