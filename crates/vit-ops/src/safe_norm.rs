//! Square roots and norms whose gradient stays finite at 0.

use candle_core::Tensor;

use crate::own_gradient::with_gradient;
use crate::rectify::at_least;
use crate::types::{floating, widened};
use crate::{Error, Result};

/// `sqrt(x)` of `x >= 0`, with gradient 0 where `x` is 0 (candle's is infinite there, and NaN one step further back).
///
/// # Errors
///
/// If `x` is not of a floating-point type.
pub fn safe_sqrt(x: &Tensor) -> Result<Tensor> {
    floating("safe_sqrt", "x", x)?;
    let root = x.detach().sqrt()?;
    Ok(with_gradient(x, &root, |_, root, gradient| {
        let zeros = root.zeros_like()?;
        // Where the root is 0, so that the division that is thrown away is a harmless one.
        let is_zero = root.eq(&zeros)?;
        let divisor = is_zero.where_cond(&zeros.ones_like()?, &(root * 2.0)?)?;
        is_zero.where_cond(&zeros, &gradient.div(&divisor)?)
    })?)
}

/// The Euclidean norm along the last axis of `x` `(.., D)`, which is kept with length 1: `(.., 1)`. A row of zeros has
/// gradient 0, as in `PyTorch`.
///
/// # Errors
///
/// If `x` has no axis or is not of a floating-point type.
pub fn norm_last_dim(x: &Tensor) -> Result<Tensor> {
    if x.rank() == 0 {
        return Err(Error::shape("norm_last_dim", "x", "(.., D)", x.shape()));
    }
    floating("norm_last_dim", "x", x)?;
    if let Some([wide]) = widened([x])? {
        return Ok(norm_last_dim(&wide)?.to_dtype(x.dtype())?);
    }
    safe_sqrt(&x.sqr()?.sum_keepdim(candle_core::D::Minus1)?)
}

/// `x` `(.., D)` divided by the larger of its norm along the last axis and `floor`: `torch.nn.functional.normalize`,
/// whose `floor` is 1e-12.
///
/// # Errors
///
/// If `x` has no axis or is not of a floating-point type.
pub fn normalize_last_dim(x: &Tensor, floor: f64) -> Result<Tensor> {
    Ok(x.broadcast_div(&at_least(&norm_last_dim(x)?, floor)?)?)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::{norm_last_dim, normalize_last_dim, safe_sqrt};
    use crate::gradient_check::{check_gradients, normal, values};
    use candle_core::{Device, Tensor, Var};

    #[test]
    fn roots_of_zero_have_gradient_zero() {
        let x = Var::new(&[0.0, 4.0], &Device::Cpu).unwrap();
        let y = safe_sqrt(&x).unwrap();
        let gradients = y.sum_all().unwrap().backward().unwrap();
        assert_eq!((values(&y), values(gradients.get(&x).unwrap())), (vec![0.0, 2.0], vec![0.0, 0.25]));
        let squares = (normal(&[3, 4], 0).sqr().unwrap() + 0.5).unwrap();
        check_gradients(&[squares], |t| safe_sqrt(&t[0].t()?));
    }

    #[test]
    fn norms_are_right_and_a_row_of_zeros_stays_finite() {
        let x = Var::new(&[[3.0, 4.0], [0.0, 0.0]], &Device::Cpu).unwrap();
        assert_eq!(values(&norm_last_dim(&x).unwrap()), [5.0, 0.0]);
        let unit = normalize_last_dim(&x, 1e-12).unwrap();
        assert_eq!(values(&unit), [0.6, 0.8, 0.0, 0.0]);
        let weights = Tensor::new(&[[1.0, -2.0], [0.5, 0.0]], &Device::Cpu).unwrap();
        let gradients = (unit * weights).unwrap().sum_all().unwrap().backward().unwrap();
        let found = values(gradients.get(&x).unwrap());
        assert!(found.iter().all(|g| g.is_finite()), "{found:?}");
        // Below the floor the division is by a constant.
        assert_eq!(&found[2..], [0.5e12, 0.0]);
    }

    #[test]
    fn gradients_are_right() {
        let x = normal(&[2, 3, 4], 1);
        check_gradients(std::slice::from_ref(&x), |t| norm_last_dim(&t[0]));
        check_gradients(std::slice::from_ref(&x), |t| normalize_last_dim(&t[0].transpose(0, 2)?, 1e-12));
        check_gradients(&[x], |t| normalize_last_dim(&t[0], 100.0));
    }

    #[test]
    fn a_number_has_no_norm_along_an_axis() {
        let x = Tensor::new(1.0, &Device::Cpu).unwrap();
        assert!(norm_last_dim(&x).unwrap_err().to_string().contains("norm_last_dim"));
    }
}
