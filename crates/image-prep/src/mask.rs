//! Ground-truth masks.

use crate::pixels::check_samples;
use crate::resize;
use crate::{Crop, Error, Filter, Preprocess};

/// A ground-truth mask: one stored sample per pixel, `(H, W)` row-major; any sample above zero is anomalous.
///
/// Stored values are kept, since some datasets (MVTec LOCO) say with them which kind of defect a pixel has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mask {
    /// Rows.
    pub height: usize,
    /// Columns.
    pub width: usize,
    /// `height * width` samples.
    pub data: Vec<u8>,
}

/// How a mask changes its size.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MaskResize {
    /// `floor(i * in / out)`: torch, torchvision on tensors, anomalib, OpenCV.
    #[default]
    NearestTensor,
    /// `floor((i + 0.5) * in / out)`: Pillow, TensorFlow with half-pixel centres.
    NearestPil,
    /// Bilinear on 8 bits, then any non-zero sample becomes 1: what `ADViT` and VT-ADL do. Regions grow.
    BilinearAnyNonzero,
    /// Lanczos on 8 bits, then any non-zero sample becomes 1: what GeneralAD does. Regions grow by the filter's
    /// reach; for comparison with its figures only.
    LanczosAnyNonzero,
}

impl Mask {
    /// A mask from its `(H, W)` samples.
    ///
    /// # Errors
    /// If a side is zero or `data` has another length than `height * width`.
    pub fn new(height: usize, width: usize, data: Vec<u8>) -> Result<Self, Error> {
        let mask = Self { height, width, data };
        mask.check()?;
        Ok(mask)
    }

    /// The mask of a normal image.
    pub fn empty(height: usize, width: usize) -> Self {
        Self { height, width, data: vec![0; height * width] }
    }

    /// 1 where a sample is above `threshold`, else 0. Most evaluation codes mean 0; adeval's command line means 127.
    #[must_use]
    pub fn binary(&self, threshold: u8) -> Self {
        let data = self.data.iter().map(|&v| u8::from(v > threshold)).collect();
        Self { height: self.height, width: self.width, data }
    }

    /// Whether any sample is above zero.
    pub fn any(&self) -> bool {
        self.data.iter().any(|&v| v > 0)
    }

    /// Samples above zero.
    pub fn area(&self) -> usize {
        self.data.iter().map(|&v| usize::from(v > 0)).sum()
    }

    /// 1 where any of `masks` is above zero.
    ///
    /// # Errors
    /// If there is no mask, or two differ in size.
    pub fn union(masks: &[Self]) -> Result<Self, Error> {
        let Some(first) = masks.first() else {
            return Err(Error::Shape {
                what: "mask union",
                expected: "at least one mask".into(),
                found: "none".into(),
            });
        };
        let mut union = first.binary(0);
        for mask in masks {
            if (mask.height, mask.width) != (first.height, first.width) {
                return Err(Error::Shape {
                    what: "mask union",
                    expected: format!("{} x {} as the first", first.height, first.width),
                    found: format!("{} x {}", mask.height, mask.width),
                });
            }
            for (to, &sample) in union.data.iter_mut().zip(&mask.data) {
                *to |= u8::from(sample > 0);
            }
        }
        Ok(union)
    }

    /// The mask at another size. The nearest rules keep stored values, the others give 0 and 1.
    ///
    /// # Errors
    /// If the mask is malformed or the wanted size is refused (see [`resize::pillow`]).
    pub fn resize(&self, height: usize, width: usize, rule: MaskResize) -> Result<Self, Error> {
        self.check()?;
        resize::check_target(height, width)?;
        let (rows, columns) = match rule {
            MaskResize::NearestTensor => {
                (resize::floor_indices(self.height, height), resize::floor_indices(self.width, width))
            }
            MaskResize::NearestPil => {
                (resize::centre_indices(self.height, height), resize::centre_indices(self.width, width))
            }
            MaskResize::BilinearAnyNonzero => return Ok(self.smeared(height, width, Filter::Bilinear)),
            MaskResize::LanczosAnyNonzero => return Ok(self.smeared(height, width, Filter::Lanczos)),
        };
        let data = rows
            .iter()
            .flat_map(|&y| columns.iter().map(move |&x| y * self.width + x))
            .map(|at| self.data[at])
            .collect();
        Ok(Self { height, width, data })
    }

    /// The mask at a crop's size, by the crop's own offsets; what it pads is normal.
    #[must_use]
    pub fn crop(&self, crop: &Crop) -> Self {
        let data = crop.samples(&self.data, self.height, self.width, 1);
        Self { height: crop.height, width: crop.width, data }
    }

    fn smeared(&self, height: usize, width: usize, filter: Filter) -> Self {
        let data = resize::pillow_samples(&self.data, (self.height, self.width), (height, width), 1, filter);
        Self { height, width, data }.binary(0)
    }

    pub(crate) fn check(&self) -> Result<(), Error> {
        check_samples("mask", &[self.height, self.width], self.data.len())
    }
}

impl Preprocess {
    /// The mask as the network sees its image: resized by `rule` to the same size, cropped in the same place.
    ///
    /// # Errors
    /// As [`Preprocess::apply`].
    pub fn apply_to_mask(&self, mask: &Mask, rule: MaskResize) -> Result<Mask, Error> {
        self.validate()?;
        mask.check()?;
        let (height, width) = self.resize.output_size(mask.height, mask.width)?;
        let resized = mask.resize(height, width, rule)?;
        Ok(match &self.crop {
            Some(crop) => resized.crop(crop),
            None => resized,
        })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn a_union_is_anomalous_where_any_mask_is() {
        let a = Mask::new(1, 3, vec![0, 200, 0]).unwrap();
        let b = Mask::new(1, 3, vec![0, 0, 7]).unwrap();
        assert_eq!(Mask::union(&[a.clone(), b]).unwrap().data, [0, 1, 1]);
        let found = Mask::union(&[a, Mask::empty(2, 3)]).unwrap_err().to_string();
        assert!(found.contains("1 x 3") && found.contains("2 x 3"), "{found}");
    }

    #[test]
    fn the_two_nearest_rules_differ_by_half_a_source_pixel() {
        let mask = Mask::new(1, 6, vec![1, 2, 3, 4, 5, 6]).unwrap();
        assert_eq!(mask.resize(1, 2, MaskResize::NearestTensor).unwrap().data, [1, 4]);
        assert_eq!(mask.resize(1, 2, MaskResize::NearestPil).unwrap().data, [2, 5]);
    }

    #[test]
    fn a_mask_follows_its_image_through_resize_and_crop() {
        let preprocess =
            Preprocess::square(4, Filter::Bilinear, [0.0; 3], [1.0; 3]).with_crop(Crop::square(2));
        let mut mask = Mask::empty(8, 8);
        mask.data[2 * 8 + 2] = 255;
        let seen = preprocess.apply_to_mask(&mask, MaskResize::NearestTensor).unwrap();
        assert_eq!((seen.height, seen.width, seen.data), (2, 2, vec![255, 0, 0, 0]));
    }
}
