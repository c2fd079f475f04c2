//! Anomaly maps laid over their images.

use std::io::Cursor;

use image::{ExtendedColorType, ImageEncoder, codecs::png::PngEncoder};

use crate::{Error, Scale};

/// An 8-bit RGB image, `(H, W, 3)` row-major.
#[derive(Debug, Clone, Copy)]
pub struct Pixels<'a> {
    /// Height in pixels.
    pub height: usize,
    /// Width in pixels.
    pub width: usize,
    /// `height * width * 3` bytes: red, green, blue of each pixel, row by row.
    pub data: &'a [u8],
}

/// An anomaly map, `(h, w)` row-major, at any resolution.
#[derive(Debug, Clone, Copy)]
pub struct Map<'a> {
    /// Height of the map.
    pub height: usize,
    /// Width of the map.
    pub width: usize,
    /// `height * width` raw scores; higher is more anomalous.
    pub data: &'a [f32],
}

impl Scale {
    /// The scale for all maps of a category together: from the median of their values, below which nothing is shown,
    /// to their 99.9 % quantile, so that a few extreme pixels do not darken the rest. `None` if there are no values.
    ///
    /// # Errors
    /// [`Error::NotFinite`] if a map holds NaN or an infinity.
    pub fn shared<'a>(maps: impl IntoIterator<Item = &'a [f32]>) -> Result<Option<Self>, Error> {
        let mut values: Vec<f32> = maps.into_iter().flatten().copied().collect();
        finite(&values)?;
        if values.is_empty() {
            return Ok(None);
        }
        let mut quantile = |share: f64| {
            let index = ((values.len() - 1) as f64 * share).ceil() as usize;
            *values.select_nth_unstable_by(index, f32::total_cmp).1
        };
        Ok(Some(Self { low: quantile(0.5), high: quantile(0.999) }))
    }

    /// Where `value` lies between the ends, in `[0, 1]`.
    fn position(self, value: f32) -> f32 {
        if self.high > self.low {
            // In f64, where the difference of two finite f32 cannot overflow.
            let span = f64::from(self.high) - f64::from(self.low);
            ((f64::from(value) - f64::from(self.low)) / span).clamp(0.0, 1.0) as f32
        } else {
            f32::from(u8::from(value > self.high))
        }
    }
}

/// The image as a PNG file.
///
/// # Errors
/// [`Error::Size`] if `image.data` does not fit its sizes, [`Error::Png`] if it cannot be encoded.
pub fn png(image: &Pixels) -> Result<Vec<u8>, Error> {
    check_image(image)?;
    let mut file = Cursor::new(Vec::new());
    PngEncoder::new(&mut file).write_image(
        image.data,
        image.width as u32,
        image.height as u32,
        ExtendedColorType::Rgb8,
    )?;
    Ok(file.into_inner())
}

/// The map alone as a PNG file at its own size, black at `scale.low` and below, white at `scale.high` and above.
///
/// # Errors
/// [`Error::Size`] if the data do not fit their sizes or are empty, [`Error::NotFinite`] if the map holds NaN or an
/// infinity, [`Error::Png`] if the result cannot be encoded.
pub fn grey_map(map: &Map, scale: Scale) -> Result<Vec<u8>, Error> {
    check_map(map)?;
    let level = |value: &f32| [(255.0 * scale.position(*value)).round() as u8; 3];
    let data: Vec<u8> = map.data.iter().flat_map(level).collect();
    png(&Pixels { height: map.height, width: map.width, data: &data })
}

/// The image as a PNG file with `map` laid over it: the image in grey, over it the map, resized to the image
/// bilinearly, in colours of the inferno palette that grow more opaque from `scale.low` to `scale.high`.
///
/// # Errors
/// [`Error::Size`] if data do not fit their sizes or are empty, [`Error::NotFinite`] if the map holds NaN or an
/// infinity, [`Error::Png`] if the result cannot be encoded.
pub fn overlay(image: &Pixels, map: &Map, scale: Scale) -> Result<Vec<u8>, Error> {
    check_image(image)?;
    check_map(map)?;
    let rows = taps(map.height, image.height);
    let columns = taps(map.width, image.width);
    let mut data = Vec::with_capacity(image.data.len());
    for (y, row) in rows.iter().enumerate() {
        for (x, column) in columns.iter().enumerate() {
            let at = |y: usize, x: usize| map.data[y * map.width + x];
            let top = mix(at(row.0, column.0), at(row.0, column.1), column.2);
            let bottom = mix(at(row.1, column.0), at(row.1, column.1), column.2);
            let heat = scale.position(mix(top, bottom, row.2));
            let pixel = &image.data[(y * image.width + x) * 3..][..3];
            // ITU-R BT.601 luma.
            let grey =
                0.299 * f32::from(pixel[0]) + 0.587 * f32::from(pixel[1]) + 0.114 * f32::from(pixel[2]);
            let colour = colorous::INFERNO.eval_continuous(f64::from(0.25 + 0.75 * heat));
            let opacity = 0.75 * heat;
            for channel in [colour.r, colour.g, colour.b] {
                data.push(mix(grey, f32::from(channel), opacity).round() as u8);
            }
        }
    }
    png(&Pixels { height: image.height, width: image.width, data: &data })
}

/// For each of `to` pixel centres, the two of `from` samples around it and the weight of the second.
fn taps(from: usize, to: usize) -> Vec<(usize, usize, f32)> {
    (0..to)
        .map(|index| {
            let centre = ((index as f64 + 0.5) * from as f64 / to as f64 - 0.5).clamp(0.0, (from - 1) as f64);
            let first = centre.floor() as usize;
            (first, (first + 1).min(from - 1), (centre - centre.floor()) as f32)
        })
        .collect()
}

fn mix(a: f32, b: f32, share: f32) -> f32 {
    a * (1.0 - share) + b * share
}

fn check_map(map: &Map) -> Result<(), Error> {
    if map.data.is_empty() || map.height.checked_mul(map.width) != Some(map.data.len()) {
        return Err(Error::Size {
            what: "anomaly map",
            expected: format!("{} x {} values, at least one", map.height, map.width),
            found: map.data.len().to_string(),
        });
    }
    finite(map.data)
}

fn check_image(image: &Pixels) -> Result<(), Error> {
    let expected = image.height.checked_mul(image.width).and_then(|pixels| pixels.checked_mul(3));
    let fits_png = u32::try_from(image.height).is_ok() && u32::try_from(image.width).is_ok();
    if image.data.is_empty() || expected != Some(image.data.len()) || !fits_png {
        return Err(Error::Size {
            what: "image",
            expected: format!("{} x {} x 3 bytes, at least one pixel", image.height, image.width),
            found: image.data.len().to_string(),
        });
    }
    Ok(())
}

fn finite(values: &[f32]) -> Result<(), Error> {
    match values.iter().find(|value| !value.is_finite()) {
        Some(&found) => Err(Error::NotFinite { what: "anomaly map", found }),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn a_flat_map_at_the_lower_end_leaves_the_grey_image() {
        let image = Pixels { height: 2, width: 3, data: &[100; 18] };
        let map = Map { height: 1, width: 1, data: &[1.0] };
        let file = overlay(&image, &map, Scale { low: 1.0, high: 2.0 }).unwrap();
        let decoded = image::load_from_memory(&file).unwrap().to_rgb8();
        assert_eq!(decoded.dimensions(), (3, 2));
        assert!(decoded.pixels().all(|pixel| pixel.0 == [100, 100, 100]));
    }

    #[test]
    fn the_anomalous_corner_is_coloured_and_only_it() {
        let image = Pixels { height: 8, width: 8, data: &[0; 192] };
        let map = Map { height: 2, width: 2, data: &[0.0, 0.0, 0.0, 1.0] };
        let file = overlay(&image, &map, Scale { low: 0.0, high: 1.0 }).unwrap();
        let decoded = image::load_from_memory(&file).unwrap().to_rgb8();
        assert_eq!(decoded.get_pixel(0, 0).0, [0, 0, 0]);
        assert!(decoded.get_pixel(7, 7).0[0] > 150);
    }

    #[test]
    fn the_shared_scale_runs_from_the_median_to_nearly_the_top() {
        let one: Vec<f32> = (0..=500).map(|value| value as f32).collect();
        let two: Vec<f32> = (501..=1000).map(|value| value as f32).collect();
        let scale = Scale::shared([one.as_slice(), two.as_slice()]).unwrap().unwrap();
        assert_eq!((scale.low, scale.high), (500.0, 999.0));
        assert_eq!(Scale::shared(std::iter::empty::<&[f32]>()).unwrap(), None);
    }

    #[test]
    fn extreme_scales_stay_in_range() {
        let scale = Scale { low: f32::MIN, high: f32::MAX };
        assert_eq!(scale.position(f32::MAX), 1.0);
        assert_eq!(scale.position(f32::MIN), 0.0);
        let flat = Scale { low: 2.0, high: 2.0 };
        assert_eq!((flat.position(2.0), flat.position(2.5)), (0.0, 1.0));
    }

    #[test]
    fn wrong_sizes_and_values_are_named() {
        let image = Pixels { height: 2, width: 2, data: &[0; 11] };
        let error = png(&image).unwrap_err().to_string();
        assert_eq!(error, "image: expected 2 x 2 x 3 bytes, at least one pixel, found 11");
        let image = Pixels { height: 1, width: 1, data: &[0; 3] };
        let map = Map { height: 1, width: 1, data: &[f32::NAN] };
        let error = overlay(&image, &map, Scale { low: 0.0, high: 1.0 }).unwrap_err().to_string();
        assert_eq!(error, "anomaly map: expected finite numbers, found NaN");
    }
}
