//! Binary cross entropy of patches: the plain mean, and the mean of each class by itself.

use candle_core::{Tensor, Var};
use vit_ops::binary_cross_entropy_with_logits;

use crate::Error;

/// Mean over all patches of `logits` `(B, N)` of the cross entropy with one label for all of them, 0 or 1; a scalar
/// with a graph.
pub(crate) fn plain(logits: &Tensor, label: f64) -> Result<Tensor, Error> {
    let targets = logits.zeros_like()?.affine(1.0, label)?;
    Ok(binary_cross_entropy_with_logits(logits, &targets.detach())?.mean_all()?)
}

/// Cross entropy of `logits` `(B, N)` with `labels` `(B, N)`: its mean over the patches of label 0, and its mean over
/// those of label 1, each over the whole batch. `None` for a label that no patch has.
///
/// There the reference takes the mean of nothing, which is NaN, and after one step all of its weights are: it happens
/// when the draw covers every patch of every image, once in N steps with one image a batch.
pub(crate) fn balanced(logits: &Tensor, labels: &[u8]) -> Result<[Option<Tensor>; 2], Error> {
    let device = logits.device();
    let marks = |of: u8| -> Result<Tensor, Error> {
        let marks: Vec<f32> = labels.iter().map(|label| f32::from(u8::from(*label == of))).collect();
        Ok(Tensor::from_vec(marks, logits.shape(), device)?)
    };
    let entropy = binary_cross_entropy_with_logits(logits, &marks(1)?)?;
    let touched: usize = labels.iter().map(|label| usize::from(*label)).sum();
    let mean = |of: u8| -> Result<Option<Tensor>, Error> {
        let count = if of == 1 { touched } else { labels.len() - touched };
        if count == 0 {
            return Ok(None);
        }
        Ok(Some(((&entropy * marks(of)?)?.sum_all()? / count as f64)?))
    };
    Ok([mean(0)?, mean(1)?])
}

/// The gradients of `loss` to `vars`, added to `sum`.
pub(crate) fn accumulate(
    sum: Option<candle_core::backprop::GradStore>,
    loss: &Tensor,
    vars: &[(String, Var)],
) -> Result<candle_core::backprop::GradStore, Error> {
    let mut found = loss.backward()?;
    let Some(mut sum) = sum else { return Ok(found) };
    for (_, var) in vars {
        let both = match (sum.remove(var), found.remove(var)) {
            (Some(a), Some(b)) => (a + b)?.detach(),
            (Some(one), None) | (None, Some(one)) => one,
            (None, None) => continue,
        };
        sum.insert(var, both);
    }
    Ok(sum)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use candle_core::{Device, Tensor, Var};

    use super::{accumulate, balanced, plain};

    fn entropy(logit: f64, label: f64) -> f64 {
        logit.max(0.0) - logit * label + (-logit.abs()).exp().ln_1p()
    }

    fn number(tensor: &Tensor) -> f64 {
        f64::from(tensor.to_scalar::<f32>().unwrap())
    }

    const LOGITS: [[f64; 3]; 2] = [[1.0, -2.0, 0.5], [3.0, 0.0, -0.25]];

    fn logits() -> Tensor {
        Tensor::new(&LOGITS, &Device::Cpu).unwrap().to_dtype(candle_core::DType::F32).unwrap()
    }

    #[test]
    fn each_class_has_its_own_mean_over_the_batch() {
        let [untouched, touched] = balanced(&logits(), &[1, 0, 0, 0, 0, 1]).unwrap();
        let zeros = [-2.0, 0.5, 3.0, 0.0].map(|s| entropy(s, 0.0)).iter().sum::<f64>() / 4.0;
        let ones = [1.0, -0.25].map(|s| entropy(s, 1.0)).iter().sum::<f64>() / 2.0;
        assert!((number(&untouched.unwrap()) - zeros).abs() < 1e-6);
        assert!((number(&touched.unwrap()) - ones).abs() < 1e-6);
        let all = LOGITS.concat().into_iter().map(|s| entropy(s, 1.0)).sum::<f64>() / 6.0;
        assert!((number(&plain(&logits(), 1.0).unwrap()) - all).abs() < 1e-6);
    }

    #[test]
    fn a_class_without_patches_has_no_term() {
        let [untouched, touched] = balanced(&logits(), &[1; 6]).unwrap();
        assert!(untouched.is_none() && touched.is_some());
        let [untouched, touched] = balanced(&logits(), &[0; 6]).unwrap();
        assert!(untouched.is_some() && touched.is_none());
    }

    #[test]
    fn gradients_of_several_passes_add_up() {
        let (used, once) = (Var::new(2_f32, &Device::Cpu).unwrap(), Var::new(5_f32, &Device::Cpu).unwrap());
        let vars = [("used".to_owned(), used.clone()), ("once".to_owned(), once.clone())];
        let first = accumulate(None, &used.sqr().unwrap(), &vars).unwrap();
        let product = (used.as_tensor() * once.as_tensor()).unwrap();
        let both = accumulate(Some(first), &product, &vars).unwrap();
        assert_eq!(both.get(&used).unwrap().to_scalar::<f32>().unwrap(), 4.0 + 5.0);
        assert_eq!(both.get(&once).unwrap().to_scalar::<f32>().unwrap(), 2.0);
    }
}
