use candle_core::Tensor;

use crate::axis_map::{AxisMap, apply};
use crate::{Error, Result};

/// What a filter reads beyond the edge of `a b c d`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Border {
    /// Zeros; the window is not renormalised.
    Zero,
    /// `d c b | a b c d | c b a`: mirrored about the edge sample (`PyTorch`'s reflect, scipy's mirror).
    Reflect,
    /// `c b a | a b c d | d c b`: mirrored with the edge sample repeated (scipy's reflect, numpy's symmetric).
    Symmetric,
    /// `a a a | a b c d | d d d` (scipy's nearest).
    Replicate,
    /// Nothing: only where the whole window fits, so that the result is smaller by twice the radius.
    Valid,
}

impl Border {
    /// The shortest axis that `window` can be moved along.
    fn least(self, window: &[f64]) -> usize {
        if self == Self::Valid { window.len() } else { 1 }
    }

    /// The sample read at `position`, which may lie far outside; mirrors bounce as often as they must.
    fn index(self, position: isize, length: usize) -> Option<usize> {
        let n = length as isize;
        if (0..n).contains(&position) {
            return Some(position as usize);
        }
        let index = match self {
            Self::Zero | Self::Valid => return None,
            Self::Replicate => position.clamp(0, n - 1),
            Self::Symmetric => {
                let turned = position.rem_euclid(2 * n);
                if turned < n { turned } else { 2 * n - 1 - turned }
            }
            Self::Reflect if n == 1 => 0,
            Self::Reflect => {
                let turned = position.rem_euclid(2 * (n - 1));
                if turned < n { turned } else { 2 * (n - 1) - turned }
            }
        };
        Some(index as usize)
    }
}

/// A Gaussian of standard deviation `sigma` (in samples), cut off at `radius` samples and normalised to sum 1, along
/// the last two axes of `x` `(.., H, W)`.
///
/// The result has the shape of `x`, or `(.., H - 2 radius, W - 2 radius)` with [`Border::Valid`].
///
/// # Errors
///
/// If `sigma` is not above 0, or with [`Border::Valid`] the window does not fit.
pub fn gaussian_filter(x: &Tensor, sigma: f64, radius: usize, border: Border) -> Result<Tensor> {
    separable_filter(x, &gaussian_window(sigma, radius)?, border)
}

/// `window` (an odd number of weights, used as they are) along both of the last two axes of `x` `(.., H, W)`, as a
/// correlation: output `i` is the sum of `window[radius + j] * x[i + j]`.
///
/// # Errors
///
/// If the number of weights is even, `x` has less than two axes or an empty one, or with [`Border::Valid`] the window
/// does not fit.
pub fn separable_filter(x: &Tensor, window: &[f64], border: Border) -> Result<Tensor> {
    if window.len().is_multiple_of(2) {
        return Err(Error::Range {
            operation: "separable_filter",
            argument: "the window's length",
            expected: "odd",
            found: window.len() as f64,
        });
    }
    if let Some((rows, columns)) = axes(x, window, border) {
        return apply(&rows, &columns, x);
    }
    let least = border.least(window);
    let expected = format!("(.., at least {least}, at least {least})");
    Err(Error::shape("separable_filter", "x", expected, x.shape()))
}

/// What the filter is along the last two axes of `x`, rows first; `None` if they are missing or too short.
pub(crate) fn axes(x: &Tensor, window: &[f64], border: Border) -> Option<(AxisMap, AxisMap)> {
    let least = border.least(window);
    match *x.dims() {
        [.., height, width] if height >= least && width >= least => {
            Some((axis(height, window, border), axis(width, window, border)))
        }
        _ => None,
    }
}

pub(crate) fn gaussian_window(sigma: f64, radius: usize) -> Result<Vec<f64>> {
    if !(sigma.is_finite() && sigma > 0.0) {
        return Err(Error::Range {
            operation: "gaussian_filter",
            argument: "sigma",
            expected: "above 0",
            found: sigma,
        });
    }
    let radius = radius as isize;
    let weights: Vec<f64> =
        (-radius..=radius).map(|d| (-((d * d) as f64) / (2.0 * sigma * sigma)).exp()).collect();
    let sum: f64 = weights.iter().sum();
    Ok(weights.iter().map(|w| w / sum).collect())
}

fn axis(length: usize, window: &[f64], border: Border) -> AxisMap {
    let radius = window.len() / 2;
    let (outputs, first) = if border == Border::Valid { (length - 2 * radius, 0) } else { (length, radius) };
    let mut map = AxisMap::zeros(length, outputs);
    for output in 0..outputs {
        for (tap, &weight) in window.iter().enumerate() {
            if let Some(input) = border.index((output + tap) as isize - first as isize, length) {
                map.add(output, input, weight);
            }
        }
    }
    map
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::{Border, gaussian_filter, separable_filter};
    use crate::gradient_check::{check_gradients, normal, values};
    use candle_core::{DType, Device, Tensor};

    const ALL: [Border; 5] =
        [Border::Zero, Border::Reflect, Border::Symmetric, Border::Replicate, Border::Valid];

    #[test]
    fn each_border_reads_what_it_says() {
        // A window that picks the sample two to the left shows what lies beyond that edge; the axis of length one
        // is left alone by the three borders that have something there.
        let row = Tensor::new(&[[1_f64, 2., 3.]], &Device::Cpu).unwrap();
        let left = |border| {
            let pick = [1., 0., 0., 0., 0.];
            separable_filter(&row, &pick, border).map(|t| values(&t)).unwrap()
        };
        assert_eq!(left(Border::Reflect), [3., 2., 1.]);
        assert_eq!(left(Border::Symmetric), [2., 1., 1.]);
        assert_eq!(left(Border::Replicate), [1., 1., 1.]);
        assert_eq!(left(Border::Zero), [0., 0., 0.]);
        assert!(separable_filter(&row, &[1., 0., 0.], Border::Valid).is_err());
    }

    #[test]
    fn mirrors_bounce_on_short_axes() {
        let row = Tensor::new(&[[1_f64, 2.]], &Device::Cpu).unwrap();
        let mut pick = vec![0.0; 15];
        pick[0] = 1.0; // seven to the left
        let far = |border| values(&separable_filter(&row, &pick, border).unwrap());
        // .. 2 1 | 1 2 2 1 1 2 2 1: period four, so -7 is 1 and -6 is 2.
        assert_eq!(far(Border::Symmetric), [2., 2.]);
        // period two: -7 is 1, -6 is 0.
        assert_eq!(far(Border::Reflect), [2., 1.]);
    }

    #[test]
    fn a_gaussian_keeps_constants_and_sums() {
        let ones = Tensor::ones((1, 2, 9, 6), DType::F64, &Device::Cpu).unwrap();
        for border in [Border::Reflect, Border::Symmetric, Border::Replicate] {
            let found = values(&gaussian_filter(&ones, 2.0, 8, border).unwrap());
            assert!(found.iter().all(|v| (v - 1.0).abs() < 1e-12), "{border:?}");
        }
        let valid = gaussian_filter(&ones, 1.5, 2, Border::Valid).unwrap();
        assert_eq!(valid.dims(), [1, 2, 5, 2]);
        let mut point = vec![0_f64; 49];
        point[24] = 1.0;
        let point = Tensor::from_vec(point, (7, 7), &Device::Cpu).unwrap();
        let spread = values(&gaussian_filter(&point, 1.0, 3, Border::Zero).unwrap());
        assert!((spread.iter().sum::<f64>() - 1.0).abs() < 1e-12);
        assert!((spread[23] / spread[24] - (-0.5_f64).exp()).abs() < 1e-12);
    }

    #[test]
    fn gradients_are_right() {
        for border in ALL {
            check_gradients(&[normal(&[1, 2, 5, 6], 0)], |t| gaussian_filter(&t[0], 1.2, 2, border));
            check_gradients(&[normal(&[6, 5], 0)], |t| gaussian_filter(&t[0].t()?, 1.2, 2, border));
        }
    }

    #[test]
    fn bad_arguments_are_refused() {
        let x = normal(&[4, 4], 0);
        assert!(gaussian_filter(&x, 0.0, 2, Border::Zero).is_err());
        assert!(gaussian_filter(&x, f64::NAN, 2, Border::Zero).is_err());
        assert!(separable_filter(&x, &[0.5, 0.5], Border::Zero).is_err());
        assert!(gaussian_filter(&x, 1.0, 2, Border::Valid).is_err());
    }
}
