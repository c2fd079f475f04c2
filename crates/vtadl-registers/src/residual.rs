//! What a reconstruction says of an image, pixel by pixel: maps, masks, and the figure that the reference tracks.

use candle_core::{DType, Tensor};
use vit_ops::{Border, SsimOptions, ssim};

use crate::Error;
use crate::loss::valid_ssim_per_image;

/// The mean over the channels of `|image - reconstruction|`, `(B, H, W)`; both `(B, 3, H, W)`. Higher = worse.
///
/// # Errors
/// If the shapes differ.
pub fn l1_map(images: &Tensor, reconstruction: &Tensor) -> Result<Tensor, Error> {
    Ok((images - reconstruction)?.abs()?.mean(1)?)
}

/// The local structural similarity of each channel, `(B, C, H, W)`, at the images' full size: window 11 with sigma 1.5,
/// beyond the edge mirrored with the edge repeated (as scikit-image has it). In f64: the differences of moments lose
/// digits.
///
/// The reference's own local map (TensorFlow's) is smaller by ten pixels each way and a mean over the channels.
///
/// # Errors
/// If the shapes differ.
pub fn ssim_map_channels(images: &Tensor, reconstruction: &Tensor) -> Result<Tensor, Error> {
    local_ssim(images, reconstruction, &SsimOptions::default())
}

pub(crate) fn local_ssim(x: &Tensor, y: &Tensor, window: &SsimOptions) -> Result<Tensor, Error> {
    let window = SsimOptions { border: Border::Symmetric, ..*window };
    Ok(ssim(&x.to_dtype(DType::F64)?, &y.to_dtype(DType::F64)?, &window)?.to_dtype(x.dtype())?)
}

/// One minus the mean over the channels of [`ssim_map_channels`], `(B, H, W)`. Higher = worse.
///
/// # Errors
/// If the shapes differ.
pub fn ssim_map(images: &Tensor, reconstruction: &Tensor) -> Result<Tensor, Error> {
    one_minus_mean(&ssim_map_channels(images, reconstruction)?)
}

pub(crate) fn one_minus_mean(similarity: &Tensor) -> Result<Tensor, Error> {
    Ok(similarity.mean(1)?.affine(-1.0, 1.0)?)
}

/// 1 where a map is above `threshold`, else 0; the shape and type of the map.
///
/// # Errors
/// If the device can't compute it.
pub fn mask(map: &Tensor, threshold: f64) -> Result<Tensor, Error> {
    Ok(map.gt(threshold)?.to_dtype(map.dtype())?)
}

/// The reference's "grey mask", channel by channel `(B, 3, H, W)`: 1 where `threshold > |image - reconstruction|`, so that
/// 1 is **normal**, the inverse of a ground truth. Its threshold is 0.2.
///
/// # Errors
/// If the shapes differ.
pub fn l1_mask_reference(images: &Tensor, reconstruction: &Tensor, threshold: f64) -> Result<Tensor, Error> {
    let residual = (images - reconstruction)?.abs()?;
    Ok(residual.lt(threshold)?.to_dtype(residual.dtype())?)
}

/// The figure that the reference tracks as "`groundtruth_L1`": one minus the structural similarity (where the window
/// fits) of a ground truth `(B, 3, H, W)`, 1 = defect, and a mask of the same shape, for each image: `(B,)`.
///
/// With [`l1_mask_reference`] it is the reference's: a perfect reconstruction of a good image then has 0.9999, and one
/// that is wrong everywhere has 0. With one minus that mask the polarity is right.
///
/// # Errors
/// If the shapes differ, or a side is below 11.
pub fn reference_gt_metric(ground_truth: &Tensor, mask: &Tensor) -> Result<Tensor, Error> {
    Ok(valid_ssim_per_image(ground_truth, mask, &SsimOptions::default())?.affine(-1.0, 1.0)?)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use candle_core::{DType, Device, Tensor};

    use super::{l1_map, l1_mask_reference, mask, reference_gt_metric, ssim_map};

    fn level(value: f64) -> Tensor {
        Tensor::full(value as f32, (1, 3, 12, 13), &Device::Cpu).unwrap()
    }

    fn mean(t: &Tensor) -> f64 {
        t.to_dtype(DType::F64).unwrap().mean_all().unwrap().to_scalar().unwrap()
    }

    #[test]
    fn polarity_is_right_here_and_wrong_in_the_reference() {
        let (image, far) = (level(0.2), level(0.9));
        assert!(mean(&l1_map(&image, &image).unwrap()) == 0.0);
        assert!((mean(&l1_map(&image, &far).unwrap()) - 0.7).abs() < 1e-6);
        assert_eq!(ssim_map(&image, &far).unwrap().dims(), [1, 12, 13]);
        assert!(mean(&ssim_map(&image, &image).unwrap()).abs() < 1e-6);
        assert!(mean(&ssim_map(&image, &far).unwrap()) > 0.3);
        assert_eq!(mean(&mask(&l1_map(&image, &far).unwrap(), 0.2).unwrap()), 1.0);

        let truth = level(0.0);
        let good = l1_mask_reference(&image, &image, 0.2).unwrap();
        let bad = l1_mask_reference(&image, &far, 0.2).unwrap();
        assert!((mean(&reference_gt_metric(&truth, &good).unwrap()) - 0.9999).abs() < 1e-4);
        assert!(mean(&reference_gt_metric(&truth, &bad).unwrap()).abs() < 1e-6);
    }
}
