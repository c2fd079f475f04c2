//! Functions with a corner, and `PyTorch`'s choice of the gradient there.

use candle_core::Tensor;

use crate::Result;

/// `max(x, 0)`, with gradient 0 at 0 (candle's has 1 there).
///
/// # Errors
///
/// If the device cannot compute it.
pub fn relu(x: &Tensor) -> Result<Tensor> {
    // Asked this way round, NaN stays NaN.
    Ok(x.le(0_f64)?.where_cond(&x.zeros_like()?, x)?)
}

/// `x` above 0, `slope * x` elsewhere; the gradient at 0 is `slope`.
///
/// # Errors
///
/// If the device cannot compute it.
pub fn leaky_relu(x: &Tensor, slope: f64) -> Result<Tensor> {
    Ok(x.gt(0_f64)?.where_cond(x, &(x * slope)?)?)
}

/// `max(x, bound)`; the gradient passes where `x >= bound`, the bound included (`torch.clamp(min=bound)`; candle's
/// gives half there).
///
/// # Errors
///
/// If the device cannot compute it.
pub fn at_least(x: &Tensor, bound: f64) -> Result<Tensor> {
    let bounds = Tensor::full(bound, x.shape(), x.device())?.to_dtype(x.dtype())?;
    Ok(x.lt(&bounds)?.where_cond(&bounds, x)?)
}

/// `|x|`, with gradient 0 at 0 (candle's has 1 there).
///
/// # Errors
///
/// If the device cannot compute it.
pub fn absolute(x: &Tensor) -> Result<Tensor> {
    Ok((x * x.detach().sign()?)?)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::{absolute, at_least, leaky_relu, relu};
    use crate::Result;
    use crate::gradient_check::{check_gradients, normal, values};
    use candle_core::{DType, Device, Tensor, Var};

    fn at(points: &[f64], f: impl Fn(&Tensor) -> Result<Tensor>) -> (Vec<f64>, Vec<f64>) {
        let x = Var::new(points, &Device::Cpu).unwrap();
        let y = f(&x).unwrap();
        let gradient = y.sum_all().unwrap().backward().unwrap().get(&x).unwrap().clone();
        (values(&y), values(&gradient))
    }

    #[test]
    fn the_corners_have_the_gradients_of_pytorch() {
        let points = [-2.0, -0.0, 0.0, 0.5];
        assert_eq!(at(&points, relu), (vec![0.0, 0.0, 0.0, 0.5], vec![0.0, 0.0, 0.0, 1.0]));
        let leaky = at(&points, |x| leaky_relu(x, 0.2));
        assert_eq!(leaky, (vec![-0.4, 0.0, 0.0, 0.5], vec![0.2, 0.2, 0.2, 1.0]));
        assert_eq!(at(&points, absolute), (vec![2.0, 0.0, 0.0, 0.5], vec![-1.0, 0.0, 0.0, 1.0]));
        let bound = at(&[-1.0, 0.25, 0.3], |x| at_least(x, 0.25));
        assert_eq!(bound, (vec![0.25, 0.25, 0.3], vec![0.0, 1.0, 1.0]));
    }

    #[test]
    fn gradients_are_right() {
        let x = normal(&[3, 4], 0);
        for f in [relu, absolute, |x: &Tensor| leaky_relu(x, 0.2), |x: &Tensor| at_least(x, 0.1)] {
            check_gradients(std::slice::from_ref(&x), |t| f(&t[0]));
            check_gradients(std::slice::from_ref(&x), |t| f(&t[0].t()?));
        }
    }

    #[test]
    fn nan_and_single_precision_go_through() {
        let x = Tensor::new(&[f32::NAN, -1.0, 1.0], &Device::Cpu).unwrap();
        for f in [relu, absolute, |x: &Tensor| leaky_relu(x, 0.2), |x: &Tensor| at_least(x, 0.1)] {
            let y = f(&x).unwrap();
            assert_eq!(y.dtype(), DType::F32);
            let y = y.to_vec1::<f32>().unwrap();
            assert!(y[0].is_nan() && y[2] == 1.0, "{y:?}");
        }
    }
}
