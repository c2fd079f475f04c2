use candle_core::Tensor;

use crate::Result;
use crate::rows::add_row;

/// The three forms of GELU (Hendrycks and Gimpel 2016, arXiv 1606.08415) that published networks were trained with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Gelu {
    /// `x/2 (1 + erf(x / sqrt 2))`: nearly every ViT.
    #[default]
    Erf,
    /// `x/2 (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3)))`.
    Tanh,
    /// `x sigmoid(1.702 x)`: `OpenAI`'s CLIP.
    Quick,
}

/// GELU of every element.
///
/// # Errors
///
/// If `x` is not of a floating-point type.
pub fn gelu(x: &Tensor, form: Gelu) -> Result<Tensor> {
    Ok(match form {
        Gelu::Erf => x.gelu_erf()?,
        Gelu::Tanh => x.gelu()?,
        // One node of candle's for the sigmoid: written out with exp, far negative inputs would give 0 * inf backward.
        Gelu::Quick => (candle_nn::ops::sigmoid(&(x * 1.702)?)? * x)?,
    })
}

/// GELU of `x + bias`; `x` is `(.., D)`, `bias` is `(D,)`.
///
/// # Errors
///
/// If the shapes don't fit or `x` is not of a floating-point type.
pub fn bias_gelu(x: &Tensor, bias: &Tensor, form: Gelu) -> Result<Tensor> {
    gelu(&add_row("bias_gelu", x, bias)?, form)
}

/// `x sigmoid(x)`, the gate of `SwiGLU`.
///
/// # Errors
///
/// If `x` is not of a floating-point type.
pub fn silu(x: &Tensor) -> Result<Tensor> {
    Ok((candle_nn::ops::sigmoid(x)? * x)?)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::{Gelu, bias_gelu, gelu, silu};
    use crate::gradient_check::{check_gradients, normal};
    use candle_core::{DType, Device, Tensor, Var};

    fn at(x: f64, form: Gelu) -> f64 {
        let x = Tensor::new(&[x], &Device::Cpu).unwrap();
        gelu(&x, form).unwrap().to_vec1::<f64>().unwrap()[0]
    }

    #[test]
    fn the_forms_have_their_known_values() {
        // Phi(1) = 0.841344746068543; the others by the formula.
        assert!((at(1.0, Gelu::Erf) - 0.841_344_746_068_543).abs() < 1e-7);
        let tanh = 0.5 * (1.0 + ((2.0 / std::f64::consts::PI).sqrt() * 1.044_715_f64).tanh());
        assert!((at(1.0, Gelu::Tanh) - tanh).abs() < 1e-12);
        assert!((at(1.0, Gelu::Quick) - 1.0 / (1.0 + (-1.702_f64).exp())).abs() < 1e-12);
        let x = Tensor::new(&[2_f64], &Device::Cpu).unwrap();
        let found = silu(&x).unwrap().to_vec1::<f64>().unwrap()[0];
        assert!((found - 2.0 / (1.0 + (-2_f64).exp())).abs() < 1e-12);
    }

    #[test]
    fn gradients_are_right() {
        for form in [Gelu::Erf, Gelu::Tanh, Gelu::Quick] {
            check_gradients(&[normal(&[3, 4], 0), normal(&[4], 1)], |t| bias_gelu(&t[0], &t[1], form));
            check_gradients(&[normal(&[4, 3], 2)], |t| gelu(&t[0].t()?, form));
        }
        check_gradients(&[normal(&[3, 4], 3)], |t| silu(&t[0]));
    }

    #[test]
    fn far_values_stay_finite_both_ways() {
        let x = Var::from_tensor(&Tensor::new(&[-1e4_f32, -100., 100., 1e4], &Device::Cpu).unwrap()).unwrap();
        for form in [Gelu::Erf, Gelu::Tanh, Gelu::Quick] {
            let y = gelu(&x, form).unwrap();
            let gradient = y.sum_all().unwrap().backward().unwrap().get(&x).unwrap().clone();
            for t in [y, gradient] {
                let values = t.to_dtype(DType::F32).unwrap().to_vec1::<f32>().unwrap();
                assert!(values.iter().all(|v| v.is_finite()), "{form:?}: {values:?}");
            }
        }
    }
}
