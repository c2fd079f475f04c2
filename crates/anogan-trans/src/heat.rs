//! Maps of where in an image the feature error comes from.

use candle_core::{D, Tensor, Var};
use vit_ops::{Border, Interpolation, Resample, gaussian_filter, relu};

use crate::Error;
use crate::discriminator::Mode;
use crate::scoring::Networks;

/// Of images `(B, 3, S, S)` and their reconstructions (channels last): `(B, S, S)`, from 0 on.
///
/// In the manner of Grad-CAM++ (Chattopadhay et al. 2018, arXiv 1710.11063): the activations A of the discriminator's
/// first stage, each channel weighted by the positive gradients g of the image's feature error with the shares
/// `g^2 / (2 g^2 + sum(A) g^3)`, added up, cut at 0 and enlarged to the image. The paper's picture is said to be of this
/// kind, and the code for it is missing: which layer and which score it took is not known.
pub(crate) fn gradient_map(networks: &Networks, images: &Tensor, painted: &Tensor) -> Result<Tensor, Error> {
    let images = images.to_device(networks.device())?;
    let (_, _, height, width) = images.dims4()?;
    let discriminator = &networks.discriminator;
    let activations = discriminator.activations(&images.permute((0, 2, 3, 1))?.contiguous()?)?.detach();
    let leaf = Var::from_tensor(&activations)?;
    let of_image = discriminator.judge(leaf.as_tensor(), Mode::Running)?.feature;
    let of_painted = discriminator.forward(painted, Mode::Running)?.feature.detach();
    // A sum over images, which don't meet: each gets the gradient of its own.
    let error = (of_image - of_painted)?.sqr()?.mean(D::Minus1)?.sum_all()?;
    let gradients = error.backward()?;
    let gradient = gradients.get(&leaf).ok_or_else(|| Error::NoGradient("the first stage".to_owned()))?;

    let square = gradient.sqr()?;
    let totals = activations.sum_keepdim((1, 2))?;
    let denominator = ((&square * 2.0)? + (&square * gradient)?.broadcast_mul(&totals)?)?;
    let none = denominator.eq(&denominator.zeros_like()?)?;
    let shares = (square / none.where_cond(&denominator.ones_like()?, &denominator)?)?;
    let weights = (shares * relu(gradient)?)?.sum_keepdim((1, 2))?;
    let map = relu(&activations.broadcast_mul(&weights)?.sum(D::Minus1)?)?;
    let (rows, columns) = (map.dim(1)?, map.dim(2)?);
    Ok(Resample::new(Interpolation::Linear, (rows, columns), (height, width))?.apply(&map)?)
}

/// Maps `(B, S, S)` through a Gaussian of this standard deviation in pixels, cut off at four of them; 0 leaves them.
pub(crate) fn blurred(maps: &Tensor, sigma: f64) -> Result<Tensor, Error> {
    if sigma == 0.0 {
        return Ok(maps.clone());
    }
    let radius = ((4.0 * sigma).ceil() as usize).max(1);
    Ok(gaussian_filter(maps, sigma, radius, Border::Replicate)?)
}
