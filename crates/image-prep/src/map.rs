//! Anomaly maps at another size.

use crate::pixels::check_samples;
use crate::resize::{self, interpolate};
use crate::{Error, Filter, Planar};

/// How a map is brought to another size; all as torch's `interpolate`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MapFilter {
    /// Two taps, corners not aligned.
    #[default]
    Bilinear,
    /// Two taps, corners aligned.
    BilinearAligned,
    /// Four taps, a = -0.75, corners not aligned.
    Bicubic,
    /// `floor(i * in / out)`.
    Nearest,
}

/// Maps `(N, h, w)`, row-major, at size `to = (height, width)`: `(N, height, width)`.
///
/// # Errors
/// If `maps` does not hold a whole number of maps of size `from`, or a side is zero or beyond the limits.
pub fn upsample_maps(
    maps: &[f32],
    from: (usize, usize),
    to: (usize, usize),
    filter: MapFilter,
) -> Result<Vec<f32>, Error> {
    let count = maps.len() / (from.0 * from.1).max(1);
    check_samples("anomaly maps", &[count.max(1), from.0, from.1], maps.len())?;
    resize::check_target(to.0, to.1)?;
    let rule = match filter {
        MapFilter::Bilinear => interpolate::Rule::Bilinear,
        MapFilter::BilinearAligned => interpolate::Rule::BilinearAligned,
        MapFilter::Bicubic => interpolate::Rule::Bicubic,
        MapFilter::Nearest => {
            let planes = Planar { channels: count, height: from.0, width: from.1, data: maps.to_vec() };
            return Ok(resize::float(&planes, to.0, to.1, Filter::Nearest, false)?.data);
        }
    };
    Ok(interpolate::planes(maps, from, to, rule))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn aligned_corners_are_kept_and_linear_between() {
        let up = upsample_maps(&[0.0, 1.0, 2.0, 3.0], (2, 2), (3, 3), MapFilter::BilinearAligned).unwrap();
        assert_eq!(up, [0.0, 0.5, 1.0, 1.0, 1.5, 2.0, 2.0, 2.5, 3.0]);
    }

    #[test]
    fn several_maps_are_several_maps() {
        let both = upsample_maps(&[1.0, 1.0, 5.0, 5.0], (1, 2), (2, 3), MapFilter::Bilinear).unwrap();
        assert_eq!(both, [[1.0; 6], [5.0; 6]].concat());
    }

    #[test]
    fn data_that_is_no_map_is_refused() {
        assert!(upsample_maps(&[0.0; 7], (2, 3), (4, 4), MapFilter::Nearest).is_err());
        assert!(upsample_maps(&[], (2, 3), (4, 4), MapFilter::Nearest).is_err());
        assert!(upsample_maps(&[0.0; 6], (2, 3), (0, 4), MapFilter::Bicubic).is_err());
    }
}
