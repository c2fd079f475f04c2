//! How badly a student block imitates its teacher.

use candle_core::{DType, Tensor};

use crate::Error;

/// Mean of the squared differences over images, tokens and channels of `(B, N, D)`; a scalar with a graph.
pub(crate) fn block_loss(student: &Tensor, teacher: &Tensor) -> Result<Tensor, Error> {
    // Channels first: one long f32 sum over everything would lose digits.
    Ok(vit_ops::squared_error(student, teacher)?.mean_all()?)
}

/// The same for each image by itself: B numbers. Each is a sum in a fixed order over its own tokens.
pub(crate) fn image_errors(student: &Tensor, teacher: &Tensor) -> Result<Vec<f64>, Error> {
    let per_token = vit_ops::squared_error(student, teacher)?.to_dtype(DType::F64)?.to_vec2::<f64>()?;
    Ok(per_token.into_iter().map(|tokens| tokens.iter().sum::<f64>() / tokens.len() as f64).collect())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::{block_loss, image_errors};
    use candle_core::{Device, Tensor};

    #[test]
    fn both_are_means_of_squares() {
        let student = Tensor::arange(0_f32, 12., &Device::Cpu).unwrap().reshape((2, 3, 2)).unwrap();
        let teacher = Tensor::ones((2, 3, 2), candle_core::DType::F32, &Device::Cpu).unwrap();
        let errors = image_errors(&student, &teacher).unwrap();
        // (0-1)^2 .. (5-1)^2 and (6-1)^2 .. (11-1)^2, over six.
        assert_eq!(errors, [31.0 / 6.0, 355.0 / 6.0]);
        let loss = block_loss(&student, &teacher).unwrap().to_scalar::<f32>().unwrap();
        assert!((f64::from(loss) - 386.0 / 12.0).abs() < 1e-5);
    }
}
