//! What is minimised.

use candle_core::{D, DType, Tensor};
use density_heads::Likelihood;
use vit_ops::{Border, SsimOptions, squared_error, ssim};

use crate::Error;

/// The factors of the parts.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct LossWeights {
    pub(crate) mse: f64,
    pub(crate) ssim: f64,
    pub(crate) density: f64,
}

/// The reference's weights, of [`reconstruction_error`].
const FIXED_WEIGHTS: LossWeights = LossWeights { mse: 5.0, ssim: 0.5, density: 0.0 };

/// The mean squared difference over everything; a scalar.
pub(crate) fn mse(reconstruction: &Tensor, images: &Tensor) -> Result<Tensor, Error> {
    // Rows first: one long f32 sum would lose digits.
    Ok(squared_error(reconstruction, images)?.mean_all()?)
}

/// The structural similarity where the whole window fits, its mean for each image: `(B,)`.
pub(crate) fn valid_ssim_per_image(x: &Tensor, y: &Tensor, window: &SsimOptions) -> Result<Tensor, Error> {
    Ok(ssim(x, y, &SsimOptions { border: Border::Valid, ..*window })?.mean((1, 2, 3))?)
}

/// `1 - SSIM`, the mean over images; a scalar.
pub(crate) fn dissimilarity(
    reconstruction: &Tensor,
    images: &Tensor,
    window: &SsimOptions,
) -> Result<Tensor, Error> {
    Ok(valid_ssim_per_image(reconstruction, images, window)?.mean_all()?.affine(-1.0, 1.0)?)
}

/// `5 MSE + 0.5 (1 - SSIM)` of each image, `(B,)`: how well it is reproduced, by the same weights whatever weights training
/// has, so that fits can be compared.
pub(crate) fn reconstruction_error(reconstruction: &Tensor, images: &Tensor) -> Result<Tensor, Error> {
    let squares = squared_error(reconstruction, images)?.mean((1, 2))?;
    let similarity = valid_ssim_per_image(reconstruction, images, &SsimOptions::default())?;
    let weights = FIXED_WEIGHTS;
    Ok(((squares * weights.mse)? + similarity.affine(-weights.ssim, weights.ssim)?)?)
}

/// The density's part of the loss, of values `(B, N)`: for the reference's form the sum over patches, the mean over
/// images; for a mixture the mean over both.
pub(crate) fn density_loss(values: &Tensor, form: Likelihood) -> Result<Tensor, Error> {
    Ok(match form {
        Likelihood::Reference => values.sum(D::Minus1)?.mean_all()?,
        _ => values.mean_all()?,
    })
}

/// The parts of a training loss, scalars with graphs.
pub(crate) struct Losses {
    pub(crate) mse: Tensor,
    pub(crate) dissimilarity: Tensor,
    pub(crate) density: Option<Tensor>,
}

impl Losses {
    /// Of reconstructions and images `(B, 3, H, W)`, and the density's part.
    pub(crate) fn new(
        reconstruction: &Tensor,
        images: &Tensor,
        density: Option<Tensor>,
    ) -> Result<Self, Error> {
        Ok(Self {
            mse: mse(reconstruction, images)?,
            dissimilarity: dissimilarity(reconstruction, images, &SsimOptions::default())?,
            density,
        })
    }

    /// The weighted sum.
    pub(crate) fn total(&self, weights: &LossWeights) -> Result<Tensor, Error> {
        let own = ((&self.mse * weights.mse)? + (&self.dissimilarity * weights.ssim)?)?;
        Ok(match &self.density {
            Some(density) => (own + (density * weights.density)?)?,
            None => own,
        })
    }

    /// Their values.
    pub(crate) fn values(&self, weights: &LossWeights) -> Result<Values, Error> {
        let of = |t: &Tensor| -> Result<f64, Error> { Ok(t.to_dtype(DType::F64)?.to_scalar::<f64>()?) };
        Ok(Values {
            mse: of(&self.mse)?,
            dissimilarity: of(&self.dissimilarity)?,
            density: self.density.as_ref().map(of).transpose()?,
            total: of(&self.total(weights)?)?,
        })
    }
}

/// The parts of a loss in numbers.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Values {
    pub(crate) mse: f64,
    pub(crate) dissimilarity: f64,
    pub(crate) density: Option<f64>,
    pub(crate) total: f64,
}

impl Values {
    /// Under their names.
    pub(crate) fn named(&self) -> Vec<(&'static str, f64)> {
        let always = [("loss", self.total), ("mse", self.mse), ("dissimilarity", self.dissimilarity)];
        always.into_iter().chain(self.density.map(|density| ("density", density))).collect()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use candle_core::{DType, Device, Tensor};

    use super::{FIXED_WEIGHTS, Losses, reconstruction_error};

    #[test]
    fn the_mean_of_reconstruction_errors_is_the_loss_with_fixed_weights() {
        let of = |shift: u32| {
            let values: Vec<f32> =
                (0..3 * 3 * 12 * 13_u32).map(|i| ((i * i + shift * i) % 97) as f32 / 97.0).collect();
            Tensor::from_vec(values, (3, 3, 12, 13), &Device::Cpu).unwrap()
        };
        let (image, made) = (of(0), of(5));
        let errors = reconstruction_error(&made, &image).unwrap();
        let mean = errors.to_dtype(DType::F64).unwrap().mean_all().unwrap().to_scalar::<f64>().unwrap();
        let loss = Losses::new(&made, &image, None).unwrap().values(&FIXED_WEIGHTS).unwrap().total;
        assert_eq!(errors.dims(), [3]);
        assert!((mean - loss).abs() < 1e-6 && loss > 0.1, "{mean} {loss}");
        let none = reconstruction_error(&image, &image).unwrap().to_vec1::<f32>().unwrap();
        assert!(none.iter().all(|error| error.abs() < 1e-5), "{none:?}");
    }
}
