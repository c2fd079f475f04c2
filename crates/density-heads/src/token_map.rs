//! From a value a token to a value a pixel.

use candle_core::Tensor;
use vit_ops::{Border, Interpolation, Resample, gaussian_filter};

use crate::Error;

/// How values of tokens become a map; the default is VT-ADL's.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct TokenMap {
    /// Standard deviation of the Gaussian that smooths the map, in pixels of the map; 4. 0 for none.
    pub sigma: f64,
    /// Where the Gaussian is cut off, in standard deviations (the radius is rounded to the nearest pixel); 4.
    pub truncate: f64,
}

impl Default for TokenMap {
    fn default() -> Self {
        Self { sigma: 4.0, truncate: 4.0 }
    }
}

impl TokenMap {
    /// Values `(B, rows * columns)`, row by row, as maps `(B, height, width)`: bilinear with the corners' centres kept.
    ///
    /// # Errors
    /// [`Error::Shape`] if the number of tokens is another; [`Error::Operation`] if a side is 0.
    pub fn upsample(values: &Tensor, grid: (usize, usize), size: (usize, usize)) -> Result<Tensor, Error> {
        let batch = match values.dims2() {
            Ok((batch, tokens)) if tokens == grid.0 * grid.1 => batch,
            _ => {
                return Err(Error::Shape {
                    argument: "the values of tokens",
                    expected: format!("(B, {} * {})", grid.0, grid.1),
                    found: values.dims().to_vec(),
                });
            }
        };
        let resample = Resample::new(Interpolation::LinearAlignedCorners, grid, size)?;
        Ok(resample.apply(&values.reshape((batch, grid.0, grid.1))?)?)
    }

    /// Maps `(B, H, W)` smoothed; beyond the edge they go on mirrored, the edge repeated.
    ///
    /// # Errors
    /// [`Error::Operation`] if a side is 0 or `sigma` is no number.
    pub fn smooth(&self, maps: &Tensor) -> Result<Tensor, Error> {
        if self.sigma == 0.0 {
            return Ok(maps.clone());
        }
        let radius = (self.truncate * self.sigma + 0.5) as usize;
        Ok(gaussian_filter(maps, self.sigma, radius, Border::Symmetric)?)
    }

    /// Both.
    ///
    /// # Errors
    /// As [`TokenMap::upsample`] and [`TokenMap::smooth`].
    pub fn map(&self, values: &Tensor, grid: (usize, usize), size: (usize, usize)) -> Result<Tensor, Error> {
        self.smooth(&Self::upsample(values, grid, size)?)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use candle_core::{DType, Device, Tensor};

    use super::TokenMap;

    #[test]
    fn corners_are_kept_and_smoothing_keeps_constants() {
        let values = Tensor::new(&[[0_f64, 1., 2., 3.]], &Device::Cpu).unwrap();
        let wide = TokenMap::upsample(&values, (2, 2), (3, 3)).unwrap();
        let found: Vec<f64> = wide.flatten_all().unwrap().to_vec1().unwrap();
        for (found, wanted) in found.iter().zip([0.0, 0.5, 1.0, 1.0, 1.5, 2.0, 2.0, 2.5, 3.0]) {
            assert!((found - wanted).abs() < 1e-12);
        }
        let ones = Tensor::ones((1, 4), DType::F64, &Device::Cpu).unwrap();
        // A radius of 16 on three pixels: the mirror bounces.
        let map = TokenMap::default().map(&ones, (2, 2), (3, 5)).unwrap();
        let found: Vec<f64> = map.flatten_all().unwrap().to_vec1().unwrap();
        assert!(found.iter().all(|v| (v - 1.0).abs() < 1e-12));
        let still = TokenMap { sigma: 0.0, ..TokenMap::default() };
        assert_eq!(still.smooth(&wide).unwrap().to_vec3::<f64>().unwrap(), wide.to_vec3::<f64>().unwrap());
    }

    #[test]
    fn another_number_of_tokens_is_named() {
        let values = Tensor::ones((1, 5), DType::F32, &Device::Cpu).unwrap();
        let message = TokenMap::upsample(&values, (2, 2), (3, 3)).unwrap_err().to_string();
        assert!(message.contains("2 * 2"), "{message}");
    }
}
