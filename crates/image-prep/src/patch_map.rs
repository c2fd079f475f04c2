//! Scores of patches as maps of pixels.

use rayon::prelude::*;

use crate::Error;
use crate::pixels::check_samples;
use crate::preprocess::check_target;

/// From one score a patch to one a pixel: bilinear, then, if wanted, a Gaussian that is cut off at a radius.
///
/// Both steps are linear and go along one axis at a time, so an axis is one fixed matrix, worked out in f64; sums are
/// f64 too, and the map is rounded to f32 once. One map does not depend on the others, nor on the number of threads.
///
/// ```
/// use image_prep::PatchMaps;
///
/// let maps = PatchMaps::smoothed((2, 2), (28, 28), 4.0, 9)?;
/// let map = maps.apply(&[0.0, 0.0, 0.0, 1.0])?;
/// assert_eq!(map.len(), 28 * 28);
/// assert!(map[28 * 28 - 1] > 0.9 && map[0] < 0.1);
/// # Ok::<(), image_prep::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct PatchMaps {
    rows: Axis,
    columns: Axis,
}

/// `weights[o * inputs + i]` is what input `i` adds to output `o`.
#[derive(Clone, Debug, PartialEq)]
struct Axis {
    inputs: usize,
    outputs: usize,
    weights: Vec<f64>,
}

impl PatchMaps {
    /// From `from = (rows, columns)` of patches to `to = (height, width)` pixels, bilinear as [`MapFilter::Bilinear`](crate::MapFilter::Bilinear):
    /// half-pixel centres, what lies beyond the outermost centres is theirs.
    ///
    /// # Errors
    /// If a side is zero, or `to` beyond this crate's limits.
    pub fn bilinear(from: (usize, usize), to: (usize, usize)) -> Result<Self, Error> {
        if from.0 * from.1 == 0 {
            return Err(Error::Shape {
                what: "grid of patches",
                expected: "at least one".into(),
                found: format!("{} x {}", from.0, from.1),
            });
        }
        check_target(to.0, to.1)?;
        Ok(Self { rows: Axis::linear(from.0, to.0), columns: Axis::linear(from.1, to.1) })
    }

    /// The same, and then a Gaussian of standard deviation `sigma` pixels whose window reaches `radius` pixels to each
    /// side, however wide it is, and sums to 1. Beyond the border the map is mirrored with the edge pixel repeated, again
    /// and again where the radius is larger than the map (scipy's `reflect`).
    ///
    /// # Errors
    /// As [`PatchMaps::bilinear`], and if `sigma` is not above 0.
    pub fn smoothed(
        from: (usize, usize),
        to: (usize, usize),
        sigma: f64,
        radius: usize,
    ) -> Result<Self, Error> {
        if !(sigma.is_finite() && sigma > 0.0) {
            let (what, expected) = ("sigma of a map's Gaussian", "above 0".to_owned());
            return Err(Error::Shape { what, expected, found: sigma.to_string() });
        }
        let Self { rows, columns } = Self::bilinear(from, to)?;
        let window = gaussian(sigma, radius);
        Ok(Self { rows: rows.smoothed(&window), columns: columns.smoothed(&window) })
    }

    /// Rows and columns of patches.
    pub fn from_size(&self) -> (usize, usize) {
        (self.rows.inputs, self.columns.inputs)
    }

    /// Height and width of the maps.
    pub fn to_size(&self) -> (usize, usize) {
        (self.rows.outputs, self.columns.outputs)
    }

    /// Maps `(N, height, width)` of `scores` `(N, rows, columns)`, both row-major.
    ///
    /// # Errors
    /// If `scores` is not a whole number of grids.
    pub fn apply(&self, scores: &[f32]) -> Result<Vec<f32>, Error> {
        let ((rows, columns), (height, width)) = (self.from_size(), self.to_size());
        if scores.is_empty() {
            return Ok(Vec::new());
        }
        let count = scores.len() / (rows * columns);
        check_samples("scores of patches", &[count, rows, columns], scores.len())?;
        let mut maps = vec![0.0; count * height * width];
        maps.par_chunks_mut(height * width)
            .zip(scores.par_chunks(rows * columns))
            .for_each(|(map, scores)| self.one(scores, map));
        Ok(maps)
    }

    fn one(&self, scores: &[f32], map: &mut [f32]) {
        let Self { rows, columns } = self;
        let mut tall = vec![0.0_f64; columns.inputs];
        let mut wide = vec![0.0_f64; columns.outputs];
        let across = columns.transposed();
        for (weights, line) in
            rows.weights.chunks_exact(rows.inputs).zip(map.chunks_exact_mut(columns.outputs))
        {
            tall.fill(0.0);
            for (weight, scores) in weights.iter().zip(scores.chunks_exact(columns.inputs)) {
                if *weight != 0.0 {
                    tall.iter_mut().zip(scores).for_each(|(sum, score)| *sum += weight * f64::from(*score));
                }
            }
            wide.fill(0.0);
            for (value, weights) in tall.iter().zip(across.chunks_exact(columns.outputs)) {
                wide.iter_mut().zip(weights).for_each(|(sum, weight)| *sum += value * weight);
            }
            line.iter_mut().zip(&wide).for_each(|(pixel, sum)| *pixel = *sum as f32);
        }
    }
}

impl Axis {
    fn zeros(inputs: usize, outputs: usize) -> Self {
        Self { inputs, outputs, weights: vec![0.0; inputs * outputs] }
    }

    fn linear(inputs: usize, outputs: usize) -> Self {
        let mut axis = Self::zeros(inputs, outputs);
        let step = inputs as f64 / outputs as f64;
        for output in 0..outputs {
            let at = ((output as f64 + 0.5) * step - 0.5).max(0.0);
            let low = (at.floor() as usize).min(inputs - 1);
            let high = (low + 1).min(inputs - 1);
            let share = if high == low { 0.0 } else { at - low as f64 };
            axis.weights[output * inputs + low] += 1.0 - share;
            axis.weights[output * inputs + high] += share;
        }
        axis
    }

    /// This axis, then the window over its outputs.
    fn smoothed(&self, window: &[f64]) -> Self {
        let mut axis = Self::zeros(self.inputs, self.outputs);
        let radius = (window.len() / 2) as isize;
        for output in 0..self.outputs {
            let line = &mut axis.weights[output * self.inputs..][..self.inputs];
            for (tap, weight) in window.iter().enumerate() {
                let from = mirrored(output as isize + tap as isize - radius, self.outputs);
                let taken = &self.weights[from * self.inputs..][..self.inputs];
                line.iter_mut().zip(taken).for_each(|(sum, value)| *sum += weight * value);
            }
        }
        axis
    }

    /// `(inputs, outputs)`.
    fn transposed(&self) -> Vec<f64> {
        let at = |index: usize| self.weights[(index % self.outputs) * self.inputs + index / self.outputs];
        (0..self.weights.len()).map(at).collect()
    }
}

/// The pixel that stands at `position`, edges repeated: `… b a | a b c | c b …`.
fn mirrored(position: isize, length: usize) -> usize {
    let length = length as isize;
    let turned = position.rem_euclid(2 * length);
    (if turned < length { turned } else { 2 * length - 1 - turned }) as usize
}

/// Weights at `-radius..=radius`.
fn gaussian(sigma: f64, radius: usize) -> Vec<f64> {
    let radius = radius as isize;
    let weights: Vec<f64> =
        (-radius..=radius).map(|x| (-((x * x) as f64) / (2.0 * sigma * sigma)).exp()).collect();
    let sum: f64 = weights.iter().sum();
    weights.into_iter().map(|weight| weight / sum).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::{PatchMaps, gaussian, mirrored};
    use crate::{MapFilter, upsample_maps};

    fn scores(count: usize) -> Vec<f32> {
        (0..count).map(|i| ((i * 37 + 11) % 101) as f32 / 7.0 - 6.0).collect()
    }

    #[test]
    fn without_a_gaussian_it_is_the_bilinear_map() {
        for (from, to) in [((3, 5), (17, 9)), ((4, 4), (4, 4)), ((1, 6), (8, 3)), ((5, 2), (2, 7))] {
            let scores = scores(2 * from.0 * from.1);
            let found = PatchMaps::bilinear(from, to).unwrap().apply(&scores).unwrap();
            let wanted = upsample_maps(&scores, from, to, MapFilter::Bilinear).unwrap();
            assert_eq!(found.len(), wanted.len());
            assert!(found.iter().zip(&wanted).all(|(a, b)| (a - b).abs() < 1e-5), "{from:?} {to:?}");
        }
    }

    #[test]
    fn the_gaussian_is_cut_at_its_radius_and_mirrored_at_the_border() {
        // One pixel a patch, so that the Gaussian is all there is.
        let (side, sigma, radius) = (6, 16.0, 8);
        let scores = scores(side * side);
        let found =
            PatchMaps::smoothed((side, side), (side, side), sigma, radius).unwrap().apply(&scores).unwrap();
        let window = gaussian(sigma, radius);
        for y in 0..side {
            for x in 0..side {
                let mut wanted = 0.0;
                for (i, a) in window.iter().enumerate() {
                    for (j, b) in window.iter().enumerate() {
                        let at = |p: usize, tap: usize| mirrored((p + tap) as isize - radius as isize, side);
                        wanted += a * b * f64::from(scores[at(y, i) * side + at(x, j)]);
                    }
                }
                assert!((f64::from(found[y * side + x]) - wanted).abs() < 1e-5);
            }
        }
    }

    #[test]
    fn positions_beyond_the_border_bounce_with_the_edge_repeated() {
        let seen: Vec<usize> = (-4..7).map(|p| mirrored(p, 3)).collect();
        assert_eq!(seen, [2, 2, 1, 0, 0, 1, 2, 2, 1, 0, 0]);
        assert!((-9..9).all(|p| mirrored(p, 1) == 0));
    }

    #[test]
    fn a_constant_stays_and_several_maps_are_several_maps() {
        let maps = PatchMaps::smoothed((3, 2), (10, 12), 2.0, 5).unwrap();
        let both = maps.apply(&[[1.5; 6], [-4.0; 6]].concat()).unwrap();
        assert!(both[..120].iter().all(|v| (v - 1.5).abs() < 1e-6));
        assert!(both[120..].iter().all(|v| (v + 4.0).abs() < 1e-6));
        assert_eq!((maps.from_size(), maps.to_size()), ((3, 2), (10, 12)));
        assert!(maps.apply(&[]).unwrap().is_empty());
    }

    #[test]
    fn what_is_no_map_is_refused() {
        assert!(PatchMaps::bilinear((0, 2), (4, 4)).is_err());
        assert!(PatchMaps::bilinear((2, 2), (0, 4)).is_err());
        assert!(PatchMaps::smoothed((2, 2), (4, 4), 0.0, 1).unwrap_err().to_string().contains("sigma"));
        assert!(PatchMaps::smoothed((2, 2), (4, 4), f64::NAN, 1).is_err());
        assert!(PatchMaps::bilinear((2, 2), (4, 4)).unwrap().apply(&[0.0; 5]).is_err());
    }
}
