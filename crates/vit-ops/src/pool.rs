//! Pooling over windows of images, with the gradients that candle's own pooling lacks.

use candle_core::{CpuStorage, CustomOp1, CustomOp2, DType, Layout, Shape, Tensor, WithDType, bail};
use rayon::prelude::*;

use crate::axis_map::{AxisMap, apply};
use crate::rows::slice;
use crate::{Error, Result};

/// The windows of a pooling: square, the same steps both ways.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PoolWindows {
    /// The side of a window.
    pub size: usize,
    /// The step from window to window.
    pub stride: usize,
    /// How far the image is continued on each side; at most half of `size`.
    pub padding: usize,
}

impl PoolWindows {
    /// Windows side by side, without padding.
    pub fn new(size: usize) -> Self {
        Self { size, stride: size, padding: 0 }
    }

    /// How many windows there are along an axis of `length`; what fills no whole window is left out.
    fn count(&self, length: usize) -> usize {
        (length + 2 * self.padding - self.size) / self.stride + 1
    }

    fn check(&self, operation: &'static str, x: &Tensor) -> Result<()> {
        let range = |argument, expected, found: usize| {
            Err(Error::Range { operation, argument, expected, found: found as f64 })
        };
        if self.size == 0 {
            return range("size", "at least 1", 0);
        }
        if self.stride == 0 {
            return range("stride", "at least 1", 0);
        }
        if 2 * self.padding > self.size {
            return range("padding", "at most half of the size", self.padding);
        }
        let least = (self.size - 2 * self.padding).max(1);
        match x.dims() {
            [_, _, h, w] if (*h).min(*w) >= least => Ok(()),
            _ => {
                let expected = format!("(B, C, at least {least}, at least {least})");
                Err(Error::shape(operation, "x", expected, x.shape()))
            }
        }
    }
}

/// The largest element of each window of `x` `(B, C, H, W)`; the padding never is it. The gradient goes to the first
/// of the largest, as in `PyTorch`.
///
/// # Errors
///
/// If a setting is out of its range, or the image is smaller than a window.
pub fn max_pool2d(x: &Tensor, windows: PoolWindows) -> Result<Tensor> {
    windows.check("max_pool2d", x)?;
    if x.device().is_cpu() && matches!(x.dtype(), DType::F32 | DType::F64) {
        return Ok(x.contiguous()?.apply_op1(MaxPool(windows))?);
    }
    let (_, _, height, width) = x.dims4()?;
    let PoolWindows { size, stride, padding } = windows;
    let (rows, columns) = (windows.count(height), windows.count(width));
    let lowest = f64::NEG_INFINITY;
    let bordered = border(&border(x, 2, padding, lowest)?, 3, padding, lowest)?;
    let indices = |offset: usize, count: usize| {
        let all: Vec<u32> = (0..count).map(|i| (i * stride + offset) as u32).collect();
        Tensor::new(all, x.device())
    };
    let mut taps = Vec::new();
    for dy in 0..size {
        let lines = bordered.index_select(&indices(dy, rows)?, 2)?;
        for dx in 0..size {
            taps.push(lines.index_select(&indices(dx, columns)?, 3)?);
        }
    }
    // By index, not by `max`, whose gradient goes in full to each of several largest.
    let taps = Tensor::stack(&taps, 4)?;
    let numbers = taps.detach();
    // NaN, which candle's comparisons pass over, is the largest in PyTorch.
    let highest = Tensor::full(f64::INFINITY, (), x.device())?.to_dtype(x.dtype())?;
    let ranked = numbers.eq(&numbers)?.where_cond(&numbers, &highest.broadcast_as(numbers.shape())?)?;
    let largest = ranked.argmax_keepdim(4)?;
    Ok(taps.gather(&largest, 4)?.squeeze(4)?)
}

/// The mean of each window of `x` `(B, C, H, W)`. With `count_padding` the padding is zeros that count (`PyTorch`'s
/// default, `count_include_pad`), else it does not take part.
///
/// # Errors
///
/// If a setting is out of its range, or the image is smaller than a window.
pub fn avg_pool2d(x: &Tensor, windows: PoolWindows, count_padding: bool) -> Result<Tensor> {
    windows.check("avg_pool2d", x)?;
    let axis = |length: usize| {
        let mut map = AxisMap::zeros(length, windows.count(length));
        for output in 0..map.outputs {
            let start = output * windows.stride;
            let inside = start.max(windows.padding)..(start + windows.size).min(length + windows.padding);
            let share = if count_padding { windows.size } else { inside.len() };
            for i in inside {
                map.add(output, i - windows.padding, 1.0 / share as f64);
            }
        }
        map
    };
    let (_, _, height, width) = x.dims4()?;
    apply(&axis(height), &axis(width), x)
}

/// `x` with `count` layers of `value` on both ends of axis `dim`.
fn border(x: &Tensor, dim: usize, count: usize, value: f64) -> Result<Tensor> {
    if count == 0 {
        return Ok(x.clone());
    }
    let mut shape = x.dims().to_vec();
    shape[dim] = count;
    let layer = Tensor::full(value, shape, x.device())?.to_dtype(x.dtype())?;
    Ok(Tensor::cat(&[&layer, x, &layer], dim)?)
}

/// Calls `f` with the number of each window of a plane `height x width` and the place of its first largest element.
fn largest_of<T: WithDType>(
    windows: PoolWindows,
    (height, width): (usize, usize),
    plane: &[T],
    mut f: impl FnMut(usize, usize),
) {
    let PoolWindows { size, stride, padding } = windows;
    let range = |i: usize, length: usize| {
        let start = i * stride;
        start.saturating_sub(padding)..(start + size - padding).min(length)
    };
    let (rows, columns) = (windows.count(height), windows.count(width));
    for row in 0..rows {
        for column in 0..columns {
            let across = range(column, width);
            let mut best = None;
            for y in range(row, height) {
                for x in across.clone() {
                    let place = y * width + x;
                    let found = plane[place];
                    // NaN counts as the largest, so that it is not lost.
                    let larger = |best: usize| found > plane[best] || (is_nan(found) && !is_nan(plane[best]));
                    if best.is_none_or(larger) {
                        best = Some(place);
                    }
                }
            }
            // The padding is at most half of a window, so that every window has an element.
            f(row * columns + column, best.unwrap_or(0));
        }
    }
}

fn is_nan<T: WithDType>(number: T) -> bool {
    number.to_f64().is_nan()
}

struct MaxPool(PoolWindows);

impl CustomOp1 for MaxPool {
    fn name(&self) -> &'static str {
        "max_pool2d"
    }

    fn cpu_fwd(&self, x: &CpuStorage, layout: &Layout) -> candle_core::Result<(CpuStorage, Shape)> {
        fn run<T: WithDType>(windows: PoolWindows, size: (usize, usize), outputs: usize, x: &[T]) -> Vec<T> {
            let mut out = vec![T::zero(); x.len() / (size.0 * size.1) * outputs];
            out.par_chunks_mut(outputs).zip(x.par_chunks(size.0 * size.1)).for_each(|(out, plane)| {
                largest_of(windows, size, plane, |window, place| out[window] = plane[place]);
            });
            out
        }
        let (batch, channels, height, width) = layout.shape().dims4()?;
        let (rows, columns) = (self.0.count(height), self.0.count(width));
        let (size, outputs) = ((height, width), rows * columns);
        let storage = match x {
            CpuStorage::F32(_) => CpuStorage::F32(run(self.0, size, outputs, slice::<f32>(x, layout)?)),
            CpuStorage::F64(_) => CpuStorage::F64(run(self.0, size, outputs, slice::<f64>(x, layout)?)),
            _ => bail!("max_pool2d takes f32 and f64"),
        };
        Ok((storage, Shape::from((batch, channels, rows, columns))))
    }

    fn bwd(&self, x: &Tensor, _: &Tensor, gradient: &Tensor) -> candle_core::Result<Option<Tensor>> {
        x.contiguous()?.apply_op2_no_bwd(&gradient.contiguous()?, &MaxPoolBackward(self.0)).map(Some)
    }
}

/// The gradient of the pooled image, brought back to the largest elements of `x`.
struct MaxPoolBackward(PoolWindows);

impl CustomOp2 for MaxPoolBackward {
    fn name(&self) -> &'static str {
        "max_pool2d_backward"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        x_layout: &Layout,
        gradient: &CpuStorage,
        gradient_layout: &Layout,
    ) -> candle_core::Result<(CpuStorage, Shape)> {
        fn run<T: WithDType>(windows: PoolWindows, size: (usize, usize), x: &[T], gradient: &[T]) -> Vec<T> {
            let (plane, outputs) = (size.0 * size.1, windows.count(size.0) * windows.count(size.1));
            let mut out = vec![T::zero(); x.len()];
            let planes = x.par_chunks(plane).zip(gradient.par_chunks(outputs));
            out.par_chunks_mut(plane).zip(planes).for_each(|(out, (plane, gradient))| {
                largest_of(windows, size, plane, |window, place| out[place] += gradient[window]);
            });
            out
        }
        let (_, _, height, width) = x_layout.shape().dims4()?;
        let size = (height, width);
        let storage = match x {
            CpuStorage::F32(_) => {
                CpuStorage::F32(run(self.0, size, slice(x, x_layout)?, slice(gradient, gradient_layout)?))
            }
            CpuStorage::F64(_) => {
                CpuStorage::F64(run(self.0, size, slice(x, x_layout)?, slice(gradient, gradient_layout)?))
            }
            _ => bail!("max_pool2d takes f32 and f64"),
        };
        Ok((storage, x_layout.shape().clone()))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::{PoolWindows, avg_pool2d, max_pool2d};
    use crate::gradient_check::{check_gradients, normal, same, values};
    use candle_core::{DType, Device, Tensor, Var};

    const ALL: [PoolWindows; 5] = [
        PoolWindows { size: 2, stride: 2, padding: 0 },
        PoolWindows { size: 3, stride: 2, padding: 1 },
        PoolWindows { size: 3, stride: 1, padding: 1 },
        PoolWindows { size: 3, stride: 3, padding: 0 },
        PoolWindows { size: 2, stride: 3, padding: 1 },
    ];

    /// Every window by itself: its elements, and how many places it has.
    fn by_loops(x: &Tensor, windows: PoolWindows, f: impl Fn(&[f64], usize) -> f64) -> Tensor {
        let (b, c, h, w) = x.dims4().unwrap();
        let data = values(x);
        let PoolWindows { size, stride, padding } = windows;
        let places = |length: usize| (0..).take_while(move |i| i * stride + size <= length + 2 * padding);
        let mut out = Vec::new();
        for plane in 0..b * c {
            for row in places(h) {
                for column in places(w) {
                    let mut inside = Vec::new();
                    for (dy, dx) in (0..size).flat_map(|dy| (0..size).map(move |dx| (dy, dx))) {
                        let (y, x) = (row * stride + dy, column * stride + dx);
                        if (padding..h + padding).contains(&y) && (padding..w + padding).contains(&x) {
                            inside.push(data[(plane * h + y - padding) * w + x - padding]);
                        }
                    }
                    out.push(f(&inside, size * size));
                }
            }
        }
        Tensor::from_vec(out, (b, c, places(h).count(), places(w).count()), &Device::Cpu).unwrap()
    }

    #[test]
    fn values_are_those_of_plain_loops() {
        let x = normal(&[2, 3, 7, 8], 0);
        for windows in ALL {
            let largest = by_loops(&x, windows, |v, _| v.iter().copied().fold(f64::MIN, f64::max));
            same(&max_pool2d(&x, windows).unwrap(), &largest, 0.0);
            let all = by_loops(&x, windows, |v, places| v.iter().sum::<f64>() / places as f64);
            same(&avg_pool2d(&x, windows, true).unwrap(), &all, 1e-12);
            let inside = by_loops(&x, windows, |v, _| v.iter().sum::<f64>() / v.len() as f64);
            same(&avg_pool2d(&x, windows, false).unwrap(), &inside, 1e-12);
            let half = x.to_dtype(DType::F16).unwrap();
            let composed = max_pool2d(&half, windows).unwrap();
            let wanted = max_pool2d(&half.to_dtype(DType::F32).unwrap(), windows).unwrap();
            same(&composed, &wanted, 0.0);
        }
    }

    #[test]
    fn gradients_are_right_also_of_strided_input() {
        let x = normal(&[1, 2, 5, 6], 1);
        for windows in ALL {
            check_gradients(std::slice::from_ref(&x), |t| max_pool2d(&t[0], windows));
            check_gradients(std::slice::from_ref(&x), |t| max_pool2d(&t[0].transpose(2, 3)?, windows));
            check_gradients(std::slice::from_ref(&x), |t| avg_pool2d(&t[0], windows, true));
            check_gradients(std::slice::from_ref(&x), |t| avg_pool2d(&t[0].transpose(2, 3)?, windows, false));
        }
    }

    #[test]
    fn the_first_of_several_largest_has_the_gradient() {
        let x = Var::new(&[[[[1.0, 1.0], [1.0, 0.0]]]], &Device::Cpu).unwrap();
        let gradients = max_pool2d(&x, PoolWindows::new(2)).unwrap().sum_all().unwrap().backward().unwrap();
        assert_eq!(values(gradients.get(&x).unwrap()), [1.0, 0.0, 0.0, 0.0]);
        let nan = Tensor::new(&[[[[1.0, f32::NAN], [3.0, 2.0]]]], &Device::Cpu).unwrap();
        assert!(values(&max_pool2d(&nan, PoolWindows::new(2)).unwrap())[0].is_nan());
    }

    #[test]
    fn wrong_settings_are_refused() {
        let x = normal(&[1, 1, 3, 9], 2);
        for (windows, word) in [
            (PoolWindows { size: 0, stride: 1, padding: 0 }, "size"),
            (PoolWindows { size: 2, stride: 0, padding: 0 }, "stride"),
            (PoolWindows { size: 3, stride: 1, padding: 2 }, "padding"),
            (PoolWindows { size: 4, stride: 1, padding: 0 }, "at least 4"),
        ] {
            assert!(max_pool2d(&x, windows).unwrap_err().to_string().contains(word));
            assert!(avg_pool2d(&x, windows, true).unwrap_err().to_string().contains(word));
        }
        assert!(max_pool2d(&normal(&[3, 3], 3), PoolWindows::new(2)).is_err());
    }

    #[test]
    fn half_types_know_nan_and_infinity() {
        let (low, nan) = (f64::NEG_INFINITY, f64::NAN);
        let x = Tensor::new(&[[[[1.0, nan, low, low], [2.0, 1.0, low, low]]]], &Device::Cpu).unwrap();
        for dtype in [DType::F16, DType::BF16, DType::F32] {
            let x = x.to_dtype(dtype).unwrap();
            let found = values(&max_pool2d(&x, PoolWindows { size: 2, stride: 2, padding: 0 }).unwrap());
            assert!(found[0].is_nan() && found[1] == low, "{dtype:?}: {found:?}");
            let right = x.narrow(3, 2, 2).unwrap();
            let found = max_pool2d(&right, PoolWindows { size: 3, stride: 2, padding: 1 }).unwrap();
            assert_eq!(values(&found), [low], "{dtype:?}");
        }
    }

    #[test]
    fn a_nan_spoils_its_own_windows_alone() {
        let mut numbers = vec![1.0; 64];
        numbers[9] = f64::NAN;
        for dtype in [DType::F16, DType::F32, DType::F64] {
            let x =
                Tensor::from_slice(&numbers, (1, 1, 8, 8), &Device::Cpu).unwrap().to_dtype(dtype).unwrap();
            let var = Var::from_tensor(&x).unwrap();
            let pooled = avg_pool2d(&var, PoolWindows::new(2), true).unwrap();
            let (first, others) = (values(&pooled)[0], values(&pooled)[1..].to_vec());
            assert!(first.is_nan() && others == [1.0; 15], "{dtype:?}: {first} {others:?}");
            let store = pooled.sum_all().unwrap().backward().unwrap();
            assert_eq!(values(store.get(&var).unwrap()), [0.25; 64]);
        }
    }
}
