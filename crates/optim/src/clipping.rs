use candle_core::backprop::GradStore;
use candle_core::{DType, Var};

use crate::{Error, Result};

/// The Euclidean norm of all gradients of `parameters` taken together; those without gradient count nothing.
///
/// # Errors
///
/// If the device cannot compute it.
pub fn gradient_norm<'a>(
    gradients: &GradStore,
    parameters: impl IntoIterator<Item = &'a Var>,
) -> Result<f64> {
    let mut sum = 0.0;
    for var in parameters {
        if let Some(gradient) = gradients.get(var) {
            // f32 squares of large tensors are summed in f64: their rounding would decide the last digits.
            sum += gradient.to_dtype(DType::F64)?.sqr()?.sum_all()?.to_scalar::<f64>()?;
        }
    }
    Ok(sum.sqrt())
}

/// Scales the gradients of `parameters` by `max_norm / (norm + 1e-6)` if that is below 1 (`PyTorch`'s
/// `clip_grad_norm_`), and returns the norm before it.
///
/// # Errors
///
/// If the norm is NaN or infinite: no clipping makes a usable step of that.
pub fn clip_grad_norm<'a>(
    gradients: &mut GradStore,
    parameters: impl IntoIterator<Item = &'a Var>,
    max_norm: f64,
) -> Result<f64> {
    let parameters: Vec<&Var> = parameters.into_iter().collect();
    let norm = gradient_norm(gradients, parameters.iter().copied())?;
    if !norm.is_finite() {
        return Err(Error::NotFinite(norm));
    }
    let scale = max_norm / (norm + 1e-6);
    if scale < 1.0 {
        for var in parameters {
            if let Some(gradient) = gradients.remove(var) {
                gradients.insert(var, (gradient * scale)?);
            }
        }
    }
    Ok(norm)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::{clip_grad_norm, gradient_norm};
    use crate::Error;
    use candle_core::backprop::GradStore;
    use candle_core::{Device, Var};

    fn case() -> (Var, Var, GradStore) {
        let (a, b) =
            (Var::new(&[1_f32, 1.], &Device::Cpu).unwrap(), Var::new(&[1_f32], &Device::Cpu).unwrap());
        let loss = ((a.sum_all().unwrap() * 3.0).unwrap() + (b.sum_all().unwrap() * 4.0).unwrap()).unwrap();
        let store = loss.backward().unwrap();
        (a, b, store)
    }

    #[test]
    fn long_gradients_are_cut_and_short_ones_stay() {
        let (a, b, mut store) = case();
        let wanted = (9.0_f64 + 9.0 + 16.0).sqrt();
        assert!((clip_grad_norm(&mut store, [&a, &b], 100.0).unwrap() - wanted).abs() < 1e-9);
        assert_eq!(store.get(&b).unwrap().to_vec1::<f32>().unwrap(), [4.0]);
        assert!((clip_grad_norm(&mut store, [&a, &b], 1.0).unwrap() - wanted).abs() < 1e-9);
        assert!((gradient_norm(&store, [&a, &b]).unwrap() - 1.0).abs() < 1e-6);
        let ratio = store.get(&b).unwrap().to_vec1::<f32>().unwrap()[0]
            / store.get(&a).unwrap().to_vec1::<f32>().unwrap()[0];
        assert!((ratio - 4.0 / 3.0).abs() < 1e-6);
    }

    #[test]
    fn nan_is_refused() {
        let (a, b, mut store) = case();
        let nan = (store.get(&b).unwrap() * f64::NAN).unwrap();
        store.insert(&b, nan);
        assert!(matches!(clip_grad_norm(&mut store, [&a, &b], 1.0), Err(Error::NotFinite(_))));
    }
}
