//! How far the student's tokens are from the teacher's.

use candle_core::{DType, Tensor};

use crate::Error;

/// What a token's length is at least taken for, so that a zero token can be divided by it.
const FLOOR: f64 = 1e-12;

/// The mean over channels of the squared difference of both `(B, N, D)`, each token scaled to unit length: `(B, N)`.
fn token_errors(student: &Tensor, teacher: &Tensor) -> Result<Tensor, Error> {
    let student = vit_ops::normalize_last_dim(student, FLOOR)?;
    let teacher = vit_ops::normalize_last_dim(teacher, FLOOR)?;
    Ok(vit_ops::squared_error(&student, &teacher)?)
}

/// The mean over images, tokens and channels; a scalar with a graph.
pub(crate) fn loss(student: &Tensor, teacher: &Tensor) -> Result<Tensor, Error> {
    Ok(token_errors(student, teacher)?.mean_all()?)
}

/// The same of each image by itself, B numbers: sums in a fixed order over an image's own tokens.
pub(crate) fn image_scores(student: &Tensor, teacher: &Tensor) -> Result<Vec<f64>, Error> {
    let errors = token_errors(student, teacher)?.to_dtype(DType::F64)?.to_vec2::<f64>()?;
    Ok(errors.into_iter().map(|tokens| tokens.iter().sum::<f64>() / tokens.len().max(1) as f64).collect())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use candle_core::{Device, Tensor};

    use super::{image_scores, loss};

    #[test]
    fn lengths_do_not_matter_and_opposite_tokens_are_farthest() {
        let tensor =
            |values: [f32; 4]| Tensor::new(&values, &Device::Cpu).unwrap().reshape((2, 1, 2)).unwrap();
        let (student, teacher) = (tensor([3., 4., 0., 2.]), tensor([6., 8., 0., -1.]));
        // Two unit vectors apart in the second image: 4 over two channels.
        let scores = image_scores(&student, &teacher).unwrap();
        assert!(scores[0].abs() < 1e-12 && (scores[1] - 2.0).abs() < 1e-6, "{scores:?}");
        let mean = loss(&student, &teacher).unwrap().to_scalar::<f32>().unwrap();
        assert!((mean - 1.0).abs() < 1e-6, "{mean}");
    }

    #[test]
    fn a_zero_token_is_no_division_by_zero() {
        let zero = Tensor::zeros((1, 1, 2), candle_core::DType::F32, &Device::Cpu).unwrap();
        let unit = Tensor::new(&[[[0_f32, 1.]]], &Device::Cpu).unwrap();
        assert_eq!(image_scores(&zero, &unit).unwrap(), [0.5]);
    }
}
