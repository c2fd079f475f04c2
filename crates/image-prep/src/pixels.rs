//! The two forms an image takes: interleaved bytes and planes of floats.

use crate::Error;

/// An 8-bit RGB image, rows from the top, pixels interleaved: `(H, W, 3)`, row-major.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rgb8 {
    /// Rows.
    pub height: usize,
    /// Columns.
    pub width: usize,
    /// `height * width * 3` samples.
    pub data: Vec<u8>,
}

impl Rgb8 {
    /// An image from its `(H, W, 3)` samples.
    ///
    /// # Errors
    /// If a side is zero or `data` has another length than `height * width * 3`.
    pub fn new(height: usize, width: usize, data: Vec<u8>) -> Result<Self, Error> {
        let image = Self { height, width, data };
        image.check()?;
        Ok(image)
    }

    /// An image of one colour.
    pub fn filled(height: usize, width: usize, colour: [u8; 3]) -> Self {
        let data = colour.repeat(height * width);
        Self { height, width, data }
    }

    /// A grey image `(H, W)` with its value copied to the three channels.
    ///
    /// # Errors
    /// If a side is zero or `grey` has another length than `height * width`.
    pub fn from_grey(height: usize, width: usize, grey: &[u8]) -> Result<Self, Error> {
        Self::new(height, width, grey.iter().flat_map(|&v| [v, v, v]).collect())
    }

    /// Pillow's integer grey value of each pixel, `(H, W)`: `(19595 R + 38470 G + 7471 B + 32768) >> 16`.
    pub fn luma(&self) -> Vec<u8> {
        self.data
            .as_chunks::<3>()
            .0
            .iter()
            .map(|&[r, g, b]| {
                ((19595 * u32::from(r) + 38470 * u32::from(g) + 7471 * u32::from(b) + 32768) >> 16) as u8
            })
            .collect()
    }

    /// The samples as planes of floats in 0..=1: `(3, H, W)`, each divided by 255.
    pub fn to_unit_planes(&self) -> Planar {
        self.to_planes(|_, v| f32::from(v) / 255.0)
    }

    /// Planes `(3, H, W)` of `value(channel, sample)`, which is called once for each of the 3 x 256 possibilities.
    pub(crate) fn to_planes(&self, value: impl Fn(usize, u8) -> f32) -> Planar {
        let area = self.height * self.width;
        let mut data = vec![0.0; 3 * area];
        for (channel, plane) in data.chunks_exact_mut(area.max(1)).enumerate() {
            let table: [f32; 256] = std::array::from_fn(|sample| value(channel, sample as u8));
            for (to, pixel) in plane.iter_mut().zip(self.data.as_chunks::<3>().0) {
                *to = table[usize::from(pixel[channel])];
            }
        }
        Planar { channels: 3, height: self.height, width: self.width, data }
    }

    pub(crate) fn check(&self) -> Result<(), Error> {
        check_samples("RGB image", &[self.height, self.width, 3], self.data.len())
    }
}

/// Planes of floats: `(C, H, W)`, row-major.
#[derive(Clone, Debug, PartialEq)]
pub struct Planar {
    /// Planes.
    pub channels: usize,
    /// Rows.
    pub height: usize,
    /// Columns.
    pub width: usize,
    /// `channels * height * width` values.
    pub data: Vec<f32>,
}

impl Planar {
    /// Planes from their `(C, H, W)` values.
    ///
    /// # Errors
    /// If a side is zero or `data` has another length than `channels * height * width`.
    pub fn new(channels: usize, height: usize, width: usize, data: Vec<f32>) -> Result<Self, Error> {
        let planes = Self { channels, height, width, data };
        planes.check()?;
        Ok(planes)
    }

    pub(crate) fn check(&self) -> Result<(), Error> {
        check_samples("planes", &[self.channels, self.height, self.width], self.data.len())
    }
}

/// Refuses an empty shape and a sample count that does not fit it.
pub(crate) fn check_samples(what: &'static str, shape: &[usize], found: usize) -> Result<(), Error> {
    if shape.contains(&0) {
        return Err(Error::Shape {
            what,
            expected: "every side at least 1".into(),
            found: format!("{shape:?}"),
        });
    }
    let expected = shape.iter().try_fold(1usize, |n, &side| n.checked_mul(side));
    if expected != Some(found) {
        return Err(Error::Shape {
            what,
            expected: format!("the samples of shape {shape:?}"),
            found: format!("{found} samples"),
        });
    }
    Ok(())
}
