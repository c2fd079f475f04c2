use candle_core::Tensor;

use crate::filter::gaussian_window;
use crate::types::{floating, widened};
use crate::{Border, Error, Result, separable_filter};

/// How [`ssim`] looks at its images; the default is that of Wang et al. 2004: a Gaussian window of 11 x 11 with sigma
/// 1.5, images of range 1, mirrored borders.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SsimOptions {
    /// The window's side is twice this and one; 5.
    pub radius: usize,
    /// The window's standard deviation in pixels; 1.5.
    pub sigma: f64,
    /// The distance between black and white; 1.
    pub range: f64,
    /// What lies beyond the edge; [`Border::Symmetric`], with which the map has the images' size.
    pub border: Border,
}

impl Default for SsimOptions {
    fn default() -> Self {
        Self { radius: 5, sigma: 1.5, range: 1.0, border: Border::Symmetric }
    }
}

/// The structural similarity of `x` and `y` `(B, C, H, W)` around every pixel, channel by channel: `(B, C, H, W)`, or
/// smaller by twice the radius with [`Border::Valid`]. 1 where they agree.
///
/// Variances are those of the population (no factor N/(N-1)). They come from `E[x^2] - E[x]^2`, which loses digits in
/// f32: evaluate in f64 where errors of 1e-4 matter.
///
/// # Errors
///
/// If the shapes differ, `x` is not of a floating-point type, or with [`Border::Valid`] the window does not fit.
pub fn ssim(x: &Tensor, y: &Tensor, options: &SsimOptions) -> Result<Tensor> {
    let batch = match x.dims4() {
        Ok((batch, ..)) if x.dims() == y.dims() => batch,
        Ok(_) => {
            return Err(Error::shape("ssim", "y", format!("{:?} like x", x.shape()), y.shape()));
        }
        Err(_) => return Err(Error::shape("ssim", "x", "(B, C, H, W)", x.shape())),
    };
    floating("ssim", "x", x)?;
    let window = gaussian_window(options.sigma, options.radius)?;
    let (c1, c2) = ((0.01 * options.range).powi(2), (0.03 * options.range).powi(2));
    #[cfg(feature = "cuda")]
    if let Some((rows, columns)) = crate::filter::axes(x, &window, options.border) {
        let windowing = crate::cuda::map_operations::Windowing { rows, columns, c1, c2 };
        if let Some(map) = crate::cuda::map_operations::ssim(x, y, &windowing)? {
            return Ok(map);
        }
    }
    if let Some([wide_x, wide_y]) = widened([x, y])? {
        return Ok(ssim(&wide_x, &wide_y, options)?.to_dtype(x.dtype())?);
    }
    // All five moments in one filtering.
    let moments = Tensor::cat(&[x, y, &x.sqr()?, &y.sqr()?, &(x * y)?], 0)?;
    let moments = separable_filter(&moments, &window, options.border)?;
    let moment = |i: usize| moments.narrow(0, i * batch, batch);
    let (mean_x, mean_y) = (moment(0)?, moment(1)?);
    let (square_x, square_y, product) = (mean_x.sqr()?, mean_y.sqr()?, (&mean_x * &mean_y)?);
    let (variance_x, variance_y) = ((moment(2)? - &square_x)?, (moment(3)? - &square_y)?);
    let covariance = (moment(4)? - &product)?;
    let above = (((product * 2.0)? + c1)? * ((covariance * 2.0)? + c2)?)?;
    let below = (((square_x + square_y)? + c1)? * ((variance_x + variance_y)? + c2)?)?;
    Ok((above / below)?)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::{SsimOptions, ssim};
    use crate::Border;
    use crate::gradient_check::{check_gradients, normal, same, values};

    #[test]
    fn an_image_is_like_itself() {
        let x = normal(&[2, 3, 12, 13], 0);
        assert!(
            values(&ssim(&x, &x, &SsimOptions::default()).unwrap()).iter().all(|v| (v - 1.0).abs() < 1e-9)
        );
    }

    #[test]
    fn one_window_by_hand() {
        // Valid with a window of the image's size: one number, from its weighted moments.
        let (x, y) = (normal(&[1, 1, 3, 3], 1), normal(&[1, 1, 3, 3], 2));
        let options = SsimOptions { radius: 1, sigma: 0.8, range: 2.0, border: Border::Valid };
        let found = values(&ssim(&x, &y, &options).unwrap());
        let tap = (-1.0_f64 / (2.0 * 0.64)).exp();
        let sum = 1.0 + 2.0 * tap;
        let line = [tap / sum, 1.0 / sum, tap / sum];
        let mean = |f: &dyn Fn(usize) -> f64| (0..9).map(|i| line[i / 3] * line[i % 3] * f(i)).sum::<f64>();
        let (a, b) = (values(&x), values(&y));
        let (ma, mb) = (mean(&|i| a[i]), mean(&|i| b[i]));
        let va = mean(&|i| (a[i] - ma).powi(2));
        let vb = mean(&|i| (b[i] - mb).powi(2));
        let cov = mean(&|i| (a[i] - ma) * (b[i] - mb));
        let (c1, c2) = (4e-4, 36e-4);
        let wanted = (2. * ma * mb + c1) * (2. * cov + c2) / ((ma * ma + mb * mb + c1) * (va + vb + c2));
        assert_eq!(found.len(), 1);
        assert!((found[0] - wanted).abs() < 1e-9, "{} {wanted}", found[0]);
    }

    #[test]
    fn borders_agree_inside() {
        let (x, y) = (normal(&[1, 2, 9, 8], 3), normal(&[1, 2, 9, 8], 4));
        let map = |border| {
            let options = SsimOptions { radius: 2, border, ..SsimOptions::default() };
            ssim(&x, &y, &options).unwrap()
        };
        let valid = map(Border::Valid);
        assert_eq!(valid.dims(), [1, 2, 5, 4]);
        for border in [Border::Zero, Border::Symmetric, Border::Reflect, Border::Replicate] {
            let inner = map(border).narrow(2, 2, 5).unwrap().narrow(3, 2, 4).unwrap();
            same(&inner, &valid, 1e-9);
        }
    }

    #[test]
    fn gradients_are_right() {
        for border in [Border::Zero, Border::Symmetric, Border::Valid] {
            let options = SsimOptions { radius: 1, border, ..SsimOptions::default() };
            check_gradients(&[normal(&[1, 2, 4, 3], 5), normal(&[1, 2, 4, 3], 6)], |t| {
                ssim(&t[0], &t[1], &options)
            });
        }
    }

    #[test]
    fn different_shapes_are_refused() {
        let options = SsimOptions::default();
        assert!(ssim(&normal(&[1, 1, 3, 3], 0), &normal(&[1, 1, 3, 4], 0), &options).is_err());
        assert!(ssim(&normal(&[3, 3], 0), &normal(&[3, 3], 0), &options).is_err());
    }
}
