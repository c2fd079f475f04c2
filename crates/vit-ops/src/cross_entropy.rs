//! Binary cross entropy, and the softplus it is made of, finite for every finite argument.

use candle_core::Tensor;

use crate::own_gradient::{with_gradient, with_gradients};
use crate::types::floating;
use crate::{Error, Result};

/// `ln(1 + exp(x))`, `x` itself far above 0; the gradient is the logistic function.
///
/// # Errors
///
/// If `x` is not of a floating-point type.
pub fn softplus(x: &Tensor) -> Result<Tensor> {
    floating("softplus", "x", x)?;
    let detached = x.detach();
    let value = (detached.relu()? + log_1p_exp_minus_abs(&detached)?)?;
    Ok(with_gradient(x, &value, |x, _, gradient| gradient * logistic(x)?)?)
}

/// `max(s, 0) - s t + ln(1 + exp(-|s|))` for logits `s` and targets `t` of one shape: the cross entropy of `t` and the
/// logistic function of `s`, element by element (`PyTorch`'s `binary_cross_entropy_with_logits` without reduction;
/// `mean_all` gives its default). Targets may have a gradient too.
///
/// # Errors
///
/// If the shapes differ, or the predictions are not of a floating-point type.
pub fn binary_cross_entropy_with_logits(logits: &Tensor, targets: &Tensor) -> Result<Tensor> {
    same_shape("binary_cross_entropy_with_logits", logits, targets)?;
    let (s, t) = (logits.detach(), targets.detach());
    let value = ((s.relu()? - (&s * &t)?)? + log_1p_exp_minus_abs(&s)?)?;
    Ok(with_gradients(logits, targets, &value, |s, t, gradient| {
        Ok((((logistic(s)? - t)? * gradient)?, (s.neg()? * gradient)?))
    })?)
}

/// `-t ln(p) - (1 - t) ln(1 - p)` for probabilities `p` in `[0, 1]` and constant targets `t` of one shape, element by
/// element, as `PyTorch`'s `binary_cross_entropy` has it: each logarithm is at least -100, and the gradient is
/// `(p - t) / max(p (1 - p), 1e-12)`. With logits at hand, take [`binary_cross_entropy_with_logits`].
///
/// # Errors
///
/// If the shapes differ, or the predictions are not of a floating-point type.
pub fn binary_cross_entropy(probabilities: &Tensor, targets: &Tensor) -> Result<Tensor> {
    same_shape("binary_cross_entropy", probabilities, targets)?;
    let (p, t) = (probabilities.detach(), targets.detach());
    let (log_of, log_against) = (p.log()?.maximum(-100_f64)?, log_1p(&p.neg()?)?.maximum(-100_f64)?);
    let value = (((&t - 1.0)? * log_against)? - (&t * log_of)?)?;
    Ok(with_gradient(probabilities, &value, move |p, _, gradient| {
        let spread = (p * p.affine(-1., 1.)?)?.maximum(1e-12_f64)?;
        ((p - &t)? / spread)? * gradient
    })?)
}

fn same_shape(operation: &'static str, values: &Tensor, targets: &Tensor) -> Result<()> {
    floating(operation, "predictions", values)?;
    if values.shape() == targets.shape() {
        Ok(())
    } else {
        Err(Error::shape(operation, "targets", format!("{:?}", values.dims()), targets.shape()))
    }
}

fn logistic(x: &Tensor) -> candle_core::Result<Tensor> {
    // exp overflows to infinity below, and its inverse is the 0 wanted.
    (x.neg()?.exp()? + 1.0)?.recip()
}

/// `ln(1 + exp(-|x|))`, to the last digits where the exponential is far below 1 and would be lost in the sum.
fn log_1p_exp_minus_abs(x: &Tensor) -> candle_core::Result<Tensor> {
    log_1p(&x.abs()?.neg()?.exp()?)
}

/// `ln(1 + x)` for `x` from -1 on, to the last digits where `x` would be lost in the sum.
fn log_1p(x: &Tensor) -> candle_core::Result<Tensor> {
    let sum = (x + 1.0)?;
    // ln(sum) * x / (sum - 1): what the sum lost in rounding is lost in its logarithm too (Kahan's way).
    let lost = sum.eq(&sum.ones_like()?)?;
    let difference = lost.where_cond(&sum, &(&sum - 1.0)?)?;
    let exact = ((sum.log()? * x)? / difference)?;
    lost.where_cond(x, &exact)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::{binary_cross_entropy, binary_cross_entropy_with_logits, softplus};
    use crate::gradient_check::{check_gradients, normal, values};
    use candle_core::{DType, Device, Tensor, Var};

    fn tensor(values: &[f64], dtype: DType) -> Tensor {
        Tensor::new(values, &Device::Cpu).unwrap().to_dtype(dtype).unwrap()
    }

    #[test]
    fn softplus_is_exact_from_end_to_end() {
        let points = [-800.0, -50.0, -10.0, -1e-3, 0.0, 0.7, 20.0, 50.0, 800.0];
        for (dtype, tolerance) in [(DType::F64, 1e-15), (DType::F32, 3e-7)] {
            let x = Var::from_tensor(&tensor(&points, dtype)).unwrap();
            let y = softplus(&x).unwrap();
            let gradients = y.sum_all().unwrap().backward().unwrap();
            let gradient = values(gradients.get(&x).unwrap());
            for ((x, y), gradient) in points.iter().zip(values(&y)).zip(gradient) {
                let wanted = x.max(0.0) + (-x.abs()).exp().ln_1p();
                assert!((y - wanted).abs() <= tolerance * wanted, "{x}: {y} {wanted}");
                let slope = if *x < 0.0 { x.exp() / (1.0 + x.exp()) } else { 1.0 / (1.0 + (-x).exp()) };
                assert!((gradient - slope).abs() <= 1e-6 * slope + 1e-38, "{x}: {gradient} {slope}");
            }
        }
        check_gradients(&[normal(&[3, 4], 0)], |t| softplus(&t[0].t()?));
    }

    #[test]
    fn logits_far_out_are_finite_and_exact() {
        let (s, t) = ([-50.0, -50.0, 50.0, 50.0, 10.0, 0.0], [0.0, 1.0, 0.0, 1.0, 1.0, 0.3]);
        let logits = Var::from_tensor(&tensor(&s, DType::F32)).unwrap();
        let loss = binary_cross_entropy_with_logits(&logits, &tensor(&t, DType::F32)).unwrap();
        let gradients = loss.sum_all().unwrap().backward().unwrap();
        let gradient = values(gradients.get(&logits).unwrap());
        for (i, loss) in values(&loss).into_iter().enumerate() {
            let (s, t) = (s[i], t[i]);
            let wanted = s.max(0.0) - s * t + (-s.abs()).exp().ln_1p();
            assert!((loss - wanted).abs() <= 1e-6 * wanted, "{s} {t}: {loss} {wanted}");
            let slope = 1.0 / (1.0 + (-s).exp()) - t;
            assert!((gradient[i] - slope).abs() <= 1e-7, "{s} {t}: {} {slope}", gradient[i]);
        }
    }

    #[test]
    fn gradients_of_logits_and_targets_are_right() {
        let inputs = [normal(&[2, 3], 1), normal(&[2, 3], 2)];
        check_gradients(&inputs, |t| binary_cross_entropy_with_logits(&t[0], &t[1]));
        check_gradients(&inputs, |t| binary_cross_entropy_with_logits(&t[0].t()?, &t[1].t()?));
        let targets = inputs[1].clone();
        check_gradients(&inputs[..1], |t| binary_cross_entropy_with_logits(&t[0], &targets));
    }

    #[test]
    fn probabilities_at_the_ends_are_cut_as_in_pytorch() {
        let p = Var::from_tensor(&tensor(&[0.0, 1.0, 0.0, 1.0, 0.25], DType::F64)).unwrap();
        let t = tensor(&[0.0, 1.0, 1.0, 0.0, 1.0], DType::F64);
        let loss = binary_cross_entropy(&p, &t).unwrap();
        let found = values(&loss);
        assert_eq!(&found[..4], [0.0, 0.0, 100.0, 100.0]);
        assert!((found[4] - 4_f64.ln()).abs() < 1e-15);
        let gradients = loss.sum_all().unwrap().backward().unwrap();
        let gradient = values(gradients.get(&p).unwrap());
        assert_eq!(&gradient[..4], [0.0, 0.0, -1e12, 1e12]);
        assert!((gradient[4] + 4.0).abs() < 1e-12);
        let targets = tensor(&[0.0, 0.3, 1.0], DType::F64);
        check_gradients(&[tensor(&[0.2, 0.6, 0.9], DType::F64)], |x| binary_cross_entropy(&x[0], &targets));
    }

    #[test]
    fn other_shapes_are_refused() {
        let (a, b) = (normal(&[2, 3], 3), normal(&[3, 2], 4));
        for f in [binary_cross_entropy, binary_cross_entropy_with_logits] {
            assert!(f(&a, &b).unwrap_err().to_string().contains("targets"));
        }
    }

    #[test]
    fn small_probabilities_keep_their_digits() {
        let small = [1e-9, 1e-8, 3e-8, 1e-7];
        let p = tensor(&small, DType::F32);
        let found = values(&binary_cross_entropy(&p, &p.zeros_like().unwrap()).unwrap());
        for (found, wanted) in found.into_iter().zip(small) {
            assert!((found / wanted - 1.0).abs() < 1e-6, "{found} {wanted}");
        }
    }
}
