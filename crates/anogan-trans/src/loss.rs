//! The losses, each a mean over all elements.

use candle_core::Tensor;
use vit_ops::{absolute, binary_cross_entropy};

use crate::Error;

/// Binary cross entropy of probabilities `(B,)` to one answer for all, with `PyTorch`'s bound on the logarithms.
pub(crate) fn verdict(probability: &Tensor, real: bool) -> Result<Tensor, Error> {
    let target = if real { probability.ones_like()? } else { probability.zeros_like()? };
    Ok(binary_cross_entropy(probability, &target)?.mean_all()?)
}

/// Mean absolute difference of images and their reconstructions, of one shape.
pub(crate) fn reconstruction(painted: &Tensor, images: &Tensor) -> Result<Tensor, Error> {
    Ok(absolute(&(painted - images)?)?.mean_all()?)
}

/// Mean squared difference of two feature vectors of each image, of one shape.
pub(crate) fn latent(painted: &Tensor, images: &Tensor) -> Result<Tensor, Error> {
    Ok((painted - images)?.sqr()?.mean_all()?)
}

/// A scalar's value.
pub(crate) fn value(scalar: &Tensor) -> Result<f64, Error> {
    Ok(f64::from(scalar.to_scalar::<f32>()?))
}
