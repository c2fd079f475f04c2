use candle_core::Tensor;

use crate::axis_map::{AxisMap, apply};
use crate::{Error, Result};

/// How values between the samples are made up. Coordinates are of pixel centres unless told otherwise: output `i`
/// lies at `(i + 0.5) * step - 0.5` of the input, with `step = old / new`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Interpolation {
    /// Linear, two taps, coordinates clamped to the edge (`PyTorch`'s bilinear without antialiasing).
    Linear,
    /// Linear, the corners' centres kept: output `i` lies at `i * (old - 1) / (new - 1)` (scipy's zoom of order 1).
    LinearAlignedCorners,
    /// Triangle, widened when shrinking (`PyTorch`'s bilinear with antialiasing).
    LinearAntialias,
    /// Cubic with `a = -0.75`, four taps, indices clamped to the edge (`PyTorch`'s bicubic without antialiasing).
    Cubic,
    /// Cubic with `a = -0.5`, widened when shrinking, taps beyond the edge left out and the rest renormalised
    /// (`PyTorch`'s bicubic with antialiasing).
    CubicAntialias,
    /// The sample whose area holds the coordinate: `floor(i * step)`.
    Nearest,
}

/// A change of grid as one fixed matrix per axis: exact, and differentiable in its input.
#[derive(Debug, Clone, PartialEq)]
pub struct Resample {
    rows: AxisMap,
    columns: AxisMap,
}

impl Resample {
    /// From a grid of `old` `(height, width)` to one of `new`.
    ///
    /// # Errors
    ///
    /// If a side is 0.
    pub fn new(interpolation: Interpolation, old: (usize, usize), new: (usize, usize)) -> Result<Self> {
        Self::with_offset(interpolation, old, new, 0.0)
    }

    /// The same with `step = old / (new + offset)`: the original DINO and `DINOv2` code passes `(new + 0.1) / old` as
    /// a scale factor. Without meaning for aligned corners.
    ///
    /// # Errors
    ///
    /// If a side is 0, or `new + offset` is not above 0.
    pub fn with_offset(
        interpolation: Interpolation,
        old: (usize, usize),
        new: (usize, usize),
        offset: f64,
    ) -> Result<Self> {
        Ok(Self {
            rows: axis(interpolation, old.0, new.0, offset)?,
            columns: axis(interpolation, old.1, new.1, offset)?,
        })
    }

    /// The grid taken, `(height, width)`.
    pub fn old(&self) -> (usize, usize) {
        (self.rows.inputs, self.columns.inputs)
    }

    /// The grid made, `(height, width)`.
    pub fn new_size(&self) -> (usize, usize) {
        (self.rows.outputs, self.columns.outputs)
    }

    /// The maps along rows and along columns.
    #[cfg(test)]
    pub(crate) fn axes(&self) -> (&AxisMap, &AxisMap) {
        (&self.rows, &self.columns)
    }

    /// Resamples the last two axes of `x`, `(.., old height, old width)`.
    ///
    /// # Errors
    ///
    /// If the last two axes have other lengths.
    pub fn apply(&self, x: &Tensor) -> Result<Tensor> {
        let (h, w) = self.old();
        match x.dims() {
            [.., found_h, found_w] if (*found_h, *found_w) == (h, w) => apply(&self.rows, &self.columns, x),
            _ => Err(Error::shape("resample", "x", format!("(.., {h}, {w})"), x.shape())),
        }
    }

    /// Resamples a table of tokens `(B, old height * old width, D)`, row by row, to the new number of tokens.
    ///
    /// # Errors
    ///
    /// If the number of tokens is another.
    pub fn apply_tokens(&self, x: &Tensor) -> Result<Tensor> {
        let ((h, w), (new_h, new_w)) = (self.old(), self.new_size());
        match x.dims3() {
            Ok((batch, tokens, width)) if tokens == h * w => {
                let planes = x.transpose(1, 2)?.reshape((batch, width, h, w))?;
                let planes = self.apply(&planes)?.reshape((batch, width, new_h * new_w))?;
                Ok(planes.transpose(1, 2)?.contiguous()?)
            }
            _ => Err(Error::shape("resample", "tokens", format!("(B, {h} * {w}, D)"), x.shape())),
        }
    }
}

fn axis(interpolation: Interpolation, old: usize, new: usize, offset: f64) -> Result<AxisMap> {
    let enlarged = new as f64 + offset;
    for (argument, found) in
        [("old size", old as f64), ("new size", new as f64), ("new size + offset", enlarged)]
    {
        // Written so that NaN is refused too.
        if !(found.is_finite() && found > 0.0) {
            return Err(Error::Range { operation: "resample", argument, expected: "above 0", found });
        }
    }
    let step = old as f64 / enlarged;
    let last = old - 1;
    let mut map = AxisMap::zeros(old, new);
    for output in 0..new {
        let centre = (output as f64 + 0.5) * step;
        match interpolation {
            Interpolation::Linear => two_taps(&mut map, output, (centre - 0.5).max(0.0)),
            Interpolation::LinearAlignedCorners => {
                let at = if new == 1 { 0.0 } else { (output * last) as f64 / (new - 1) as f64 };
                two_taps(&mut map, output, at);
            }
            Interpolation::LinearAntialias => {
                widened(&mut map, output, centre, step, 1.0, |x| (1.0 - x.abs()).max(0.0));
            }
            Interpolation::Cubic => {
                let at = centre - 0.5;
                let base = at.floor();
                for tap in -1..=2 {
                    let index = (base as isize + tap).clamp(0, last as isize) as usize;
                    map.add(output, index, cubic(at - base - tap as f64, -0.75));
                }
            }
            Interpolation::CubicAntialias => {
                widened(&mut map, output, centre, step, 2.0, |x| cubic(x, -0.5));
            }
            Interpolation::Nearest => {
                // In whole numbers where that can be: `step` may be rounded to just below one.
                let at = if offset == 0.0 { output * old / new } else { (output as f64 * step) as usize };
                map.add(output, at.min(last), 1.0);
            }
        }
    }
    Ok(map)
}

fn two_taps(map: &mut AxisMap, output: usize, at: f64) {
    let last = map.inputs - 1;
    let low = (at.floor() as usize).min(last);
    let share = if low == last { 0.0 } else { at - low as f64 };
    map.add(output, low, 1.0 - share);
    map.add(output, (low + 1).min(last), share);
}

fn widened(
    map: &mut AxisMap,
    output: usize,
    centre: f64,
    step: f64,
    radius: f64,
    kernel: impl Fn(f64) -> f64,
) {
    let wide = step.max(1.0);
    let support = radius * wide;
    // Truncation towards zero, as in the reference implementations; what is below zero is cut off anyway.
    let start = (centre - support + 0.5).max(0.0) as usize;
    let end = ((centre + support + 0.5) as usize).min(map.inputs);
    let weight = |i: usize| kernel((i as f64 - centre + 0.5) / wide);
    let sum: f64 = (start..end).map(weight).sum();
    for i in start..end {
        map.add(output, i, weight(i) / sum);
    }
}

/// Keys' cubic convolution kernel (1981) with parameter `a`.
fn cubic(x: f64, a: f64) -> f64 {
    let x = x.abs();
    if x < 1.0 {
        ((a + 2.0) * x - (a + 3.0)) * x * x + 1.0
    } else if x < 2.0 {
        ((a * x - 5.0 * a) * x + 8.0 * a) * x - 4.0 * a
    } else {
        0.0
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::{Interpolation, Resample};
    use crate::gradient_check::{check_gradients, normal, same, values};
    use candle_core::{Device, Tensor};

    const ALL: [Interpolation; 6] = [
        Interpolation::Linear,
        Interpolation::LinearAlignedCorners,
        Interpolation::LinearAntialias,
        Interpolation::Cubic,
        Interpolation::CubicAntialias,
        Interpolation::Nearest,
    ];

    #[test]
    fn constants_stay_and_the_same_size_is_the_identity() {
        for interpolation in ALL {
            for (old, new) in [((3, 5), (7, 4)), ((6, 2), (2, 9)), ((1, 4), (3, 1))] {
                let ones = Tensor::ones((2, old.0, old.1), candle_core::DType::F64, &Device::Cpu).unwrap();
                let made = Resample::new(interpolation, old, new).unwrap().apply(&ones).unwrap();
                assert_eq!(made.dims(), [2, new.0, new.1]);
                assert!(values(&made).iter().all(|v| (v - 1.0).abs() < 1e-12), "{interpolation:?}");
            }
            let x = normal(&[2, 4, 3], 0);
            same(&Resample::new(interpolation, (4, 3), (4, 3)).unwrap().apply(&x).unwrap(), &x, 1e-12);
        }
    }

    #[test]
    fn known_values() {
        let row = Tensor::new(&[[0_f64, 10., 20., 30.]], &Device::Cpu).unwrap();
        let of = |interpolation, new| {
            values(&Resample::new(interpolation, (1, 4), (1, new)).unwrap().apply(&row).unwrap())
        };
        let near = |found: Vec<f64>, wanted: &[f64]| {
            assert_eq!(found.len(), wanted.len());
            assert!(found.iter().zip(wanted).all(|(a, b)| (a - b).abs() < 1e-9), "{found:?} {wanted:?}");
        };
        near(of(Interpolation::Linear, 2), &[5., 25.]);
        near(of(Interpolation::Linear, 8), &[0., 2.5, 7.5, 12.5, 17.5, 22.5, 27.5, 30.]);
        near(of(Interpolation::LinearAlignedCorners, 7), &[0., 5., 10., 15., 20., 25., 30.]);
        near(of(Interpolation::Nearest, 2), &[0., 20.]);
        // Half: taps 0..3 with weights 3/4, 3/4, 1/4 over 7/4.
        near(of(Interpolation::LinearAntialias, 2), &[50. / 7., 160. / 7.]);
        // Half way between the samples the four weights are a/8, 1/2 - a/8, the same mirrored; with a = -3/4.
        let middle = 10. * (0.5 + 0.75 / 8.) + 20. * (0.5 + 0.75 / 8.) + 30. * (-0.75 / 8.);
        near(of(Interpolation::Cubic, 2)[..1].to_vec(), &[10. * (0.5 + 0.75 / 8.) + 20. * (-0.75 / 8.)]);
        let three = Resample::new(Interpolation::Cubic, (1, 4), (1, 4)).unwrap();
        assert_eq!(three.old(), three.new_size());
        assert!(middle > 14.9 && middle < 15.1);
    }

    #[test]
    fn the_offset_changes_the_step() {
        // step = 4 / 2.1: output 0 lies at 0.5 * 4 / 2.1 - 0.5.
        let row = Tensor::new(&[[0_f64, 10., 20., 30.]], &Device::Cpu).unwrap();
        let map = Resample::with_offset(Interpolation::Linear, (1, 4), (1, 2), 0.1).unwrap();
        let found = values(&map.apply(&row).unwrap());
        assert!((found[0] - 10. * (2. / 2.1 - 0.5)).abs() < 1e-9, "{found:?}");
    }

    #[test]
    fn tokens_are_planes_in_another_order() {
        let map = Resample::new(Interpolation::CubicAntialias, (3, 2), (2, 5)).unwrap();
        let planes = normal(&[2, 4, 3, 2], 1);
        let tokens = planes.reshape((2, 4, 6)).unwrap().transpose(1, 2).unwrap();
        let wanted = map.apply(&planes).unwrap().reshape((2, 4, 10)).unwrap().transpose(1, 2).unwrap();
        same(&map.apply_tokens(&tokens).unwrap(), &wanted, 1e-12);
    }

    #[test]
    fn gradients_are_right() {
        for interpolation in ALL {
            let map = Resample::new(interpolation, (3, 4), (5, 2)).unwrap();
            check_gradients(&[normal(&[2, 3, 4], 2)], |t| map.apply(&t[0]));
            check_gradients(&[normal(&[4, 3], 3)], |t| map.apply(&t[0].t()?));
            check_gradients(&[normal(&[1, 12, 2], 4)], |t| map.apply_tokens(&t[0]));
        }
    }

    #[test]
    fn wrong_sizes_are_refused() {
        assert!(Resample::new(Interpolation::Cubic, (0, 4), (2, 2)).is_err());
        assert!(Resample::with_offset(Interpolation::Cubic, (4, 4), (2, 2), f64::NAN).is_err());
        let map = Resample::new(Interpolation::Cubic, (4, 4), (2, 2)).unwrap();
        assert!(map.apply(&normal(&[2, 4], 0)).unwrap_err().to_string().contains("(.., 4, 4)"));
        assert!(map.apply_tokens(&normal(&[1, 15, 2], 0)).is_err());
    }

    #[test]
    fn the_nearest_sample_is_exact_for_all_sizes() {
        for (old, new) in [(2, 98), (3, 147), (2, 82), (7, 7), (50, 3), (300, 299)] {
            let resample = Resample::new(Interpolation::Nearest, (1, old), (1, new)).unwrap();
            let numbers = Tensor::arange(0_f64, old as f64, &Device::Cpu).unwrap().reshape((1, old)).unwrap();
            let wanted: Vec<f64> = (0..new).map(|i| (i * old / new) as f64).collect();
            assert_eq!(values(&resample.apply(&numbers).unwrap()), wanted, "{old} to {new}");
        }
    }

    #[test]
    fn what_is_not_read_does_no_harm() {
        let mut numbers = vec![1.0; 64];
        numbers[9] = f64::INFINITY;
        let x = Tensor::from_vec(numbers, (8, 8), &Device::Cpu).unwrap();
        let to =
            |interpolation| values(&Resample::new(interpolation, (8, 8), (4, 4)).unwrap().apply(&x).unwrap());
        assert_eq!(to(Interpolation::Nearest), [1.0; 16]);
        let linear = to(Interpolation::Linear);
        assert!(linear[0] == f64::INFINITY && linear[1..] == [1.0; 15], "{linear:?}");
    }
}
