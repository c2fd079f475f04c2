//! A fixed linear map along one axis, `new x old`, applied to the last two axes of a tensor.

// A kernel is compiled for an instruction set only where all of it is inlined: see `lanes`.
#![allow(clippy::inline_always)]

use candle_core::Tensor;

use crate::Result;
use crate::lanes::{Kernel, Lanes, Real, sum};
use crate::own_gradient::with_gradient;
use crate::rows::{Held, by_type, has_kernels};
use crate::types::widened;

/// What one input adds to one output.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Tap {
    output: usize,
    input: usize,
    weight: f64,
}

/// Few taps of a large matrix, in the order in which they were added.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct AxisMap {
    pub(crate) inputs: usize,
    pub(crate) outputs: usize,
    taps: Vec<Tap>,
}

/// The taps of a map or of its transpose, output by output.
#[cfg(any(test, feature = "cuda"))]
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Taps {
    pub(crate) inputs: usize,
    pub(crate) outputs: usize,
    /// Where each output's taps start, and where the last ones end; then the input of each tap.
    pub(crate) places: Vec<u32>,
    /// The weight of each tap.
    pub(crate) weights: Vec<f32>,
}

impl AxisMap {
    pub(crate) fn zeros(inputs: usize, outputs: usize) -> Self {
        Self { inputs, outputs, taps: Vec::new() }
    }

    pub(crate) fn add(&mut self, output: usize, input: usize, weight: f64) {
        assert!(output < self.outputs && input < self.inputs, "a tap outside of its map");
        if weight != 0.0 {
            self.taps.push(Tap { output, input, weight });
        }
    }

    pub(crate) fn is_identity(&self) -> bool {
        self.inputs == self.outputs
            && self.taps.len() == self.outputs
            && self.taps.iter().enumerate().all(|(i, &tap)| tap == Tap { output: i, input: i, weight: 1.0 })
    }

    /// The taps of each output.
    #[cfg(any(test, feature = "cuda"))]
    pub(crate) fn taps_by_output(&self) -> Taps {
        Self::listed(self.inputs, self.outputs, self.taps.clone())
    }

    /// The transposed map's, which maps gradients back.
    #[cfg(any(test, feature = "cuda"))]
    pub(crate) fn taps_by_input(&self) -> Taps {
        let turned = self.transposed();
        Self::listed(turned.inputs, turned.outputs, turned.taps)
    }

    fn transposed(&self) -> Self {
        let taps = self.taps.iter().map(|t| Tap { output: t.input, input: t.output, ..*t }).collect();
        Self { inputs: self.outputs, outputs: self.inputs, taps }
    }

    #[cfg(any(test, feature = "cuda"))]
    fn listed(inputs: usize, outputs: usize, mut taps: Vec<Tap>) -> Taps {
        taps.sort_by_key(|tap| tap.output); // stable: each output's sum keeps its order
        let starts = (0..=outputs).map(|output| taps.partition_point(|tap| tap.output < output) as u32);
        let places = starts.chain(taps.iter().map(|tap| tap.input as u32)).collect();
        Taps { inputs, outputs, places, weights: taps.iter().map(|tap| tap.weight as f32).collect() }
    }

    /// Along the last axis of `x` `(P, n, inputs)`: `(P, n, outputs)`.
    fn along_last(&self, x: &Tensor) -> Result<Tensor> {
        if self.is_identity() {
            return Ok(x.clone());
        }
        let (p, n, _) = x.dims3()?;
        if !is_finite(x)? {
            return Ok(tap_by_tap(self, &x.contiguous()?, 1)?.reshape((p, n, self.outputs))?);
        }
        let matrix = self.matrix(x)?.t()?;
        Ok(x.reshape((p * n, self.inputs))?.matmul(&matrix)?.reshape((p, n, self.outputs))?)
    }

    /// Along the axis before the last of `x` `(P, inputs, n)`: `(P, outputs, n)`. One product a plane: to transpose them
    /// there and back takes many times as long.
    fn along_rows(&self, x: &Tensor) -> Result<Tensor> {
        if self.is_identity() {
            return Ok(x.clone());
        }
        let (p, _, n) = x.dims3()?;
        if !is_finite(x)? {
            return Ok(tap_by_tap(self, &x.contiguous()?, n)?.reshape((p, self.outputs, n))?);
        }
        let matrix = self.matrix(x)?.broadcast_as((p, self.outputs, self.inputs))?;
        Ok(matrix.matmul(&x.contiguous()?)?)
    }

    /// `(outputs, inputs)`, for tensors like `x`.
    fn matrix(&self, x: &Tensor) -> Result<Tensor> {
        let mut weights = vec![0.0; self.outputs * self.inputs];
        for tap in &self.taps {
            weights[tap.output * self.inputs + tap.input] += tap.weight;
        }
        let matrix = Tensor::from_vec(weights, (self.outputs, self.inputs), x.device())?;
        Ok(matrix.to_dtype(x.dtype())?)
    }
}

/// `rows` along the axis before the last and `columns` along the last of `x` `(.., rows.inputs, columns.inputs)`.
pub(crate) fn apply(rows: &AxisMap, columns: &AxisMap, x: &Tensor) -> Result<Tensor> {
    let dims = x.dims();
    let leading = &dims[..dims.len() - 2];
    let flat = x.reshape((leading.iter().product::<usize>(), rows.inputs, columns.inputs))?;
    let done = both(rows, columns, &flat)?;
    let mut shape = leading.to_vec();
    shape.extend([rows.outputs, columns.outputs]);
    Ok(done.reshape(shape)?)
}

/// Of `x` `(P, rows.inputs, columns.inputs)`.
fn both(rows: &AxisMap, columns: &AxisMap, x: &Tensor) -> Result<Tensor> {
    #[cfg(feature = "cuda")]
    if let Some(done) = crate::cuda::map_operations::along_both(rows, columns, x)? {
        return Ok(done);
    }
    if let Some([wide]) = widened([x])? {
        return Ok(both(rows, columns, &wide)?.to_dtype(x.dtype())?);
    }
    rows.along_rows(&columns.along_last(x)?)
}

/// Whether the kernels of the host don't take `x`, or none of its numbers is NaN or infinite.
fn is_finite(x: &Tensor) -> candle_core::Result<bool> {
    /// The sum of the numbers' differences from themselves: 0, or NaN.
    struct Differences<'a, T>(&'a [T]);
    impl<T: Real> Kernel<T> for Differences<'_, T> {
        type Output = T;
        #[inline(always)]
        fn run<L: Lanes<Number = T>>(self, lanes: L) -> T {
            let [sum] = sum(
                lanes,
                [self.0],
                #[inline(always)]
                |[v]| [lanes.sub(v, v)],
            );
            sum
        }
    }
    fn all<T: Real>(x: &Tensor) -> candle_core::Result<bool> {
        Ok(T::run(Differences(Held::new(x).slice::<T>()?)) == T::ZERO)
    }
    if !has_kernels(x) {
        return Ok(true);
    }
    let x = x.contiguous()?;
    by_type!(x, "an axis map", all(&x))
}

/// `map` along the middle axis of a contiguous `x` `(outer, inputs, inner)`, flat. Each output is made from its own taps
/// alone, so that a NaN or an infinity gets no further than to where it is read: by a matrix, whose zeros times those are
/// NaN, it would spoil its whole line.
fn tap_by_tap(map: &AxisMap, x: &Tensor, inner: usize) -> candle_core::Result<Tensor> {
    fn mapped<T: Real>(map: &AxisMap, x: &Tensor, inner: usize) -> candle_core::Result<Tensor> {
        let held = Held::new(x);
        let planes = held.slice::<T>()?.chunks_exact(map.inputs * inner);
        let mut out = vec![T::ZERO; planes.len() * map.outputs * inner];
        for (plane, out) in planes.zip(out.chunks_exact_mut((map.outputs * inner).max(1))) {
            for tap in &map.taps {
                let weight = T::of(tap.weight);
                let read = &plane[tap.input * inner..][..inner];
                for (sum, &value) in out[tap.output * inner..][..inner].iter_mut().zip(read) {
                    *sum += weight * value;
                }
            }
        }
        let length = out.len();
        Tensor::from_vec(out, length, x.device())
    }
    let value = by_type!(x, "an axis map", mapped(map, x, inner))?;
    let back = map.transposed();
    with_gradient(x, &value, move |x, _, gradient| {
        tap_by_tap(&back, &gradient.contiguous()?, inner)?.reshape(x.shape())
    })
}

#[cfg(test)]
mod tests {
    use super::AxisMap;

    #[test]
    fn taps_are_listed_by_output_and_by_input() {
        let mut map = AxisMap::zeros(3, 2);
        for (output, input, weight) in [(1, 0, 0.5), (0, 2, 1.0), (1, 2, 0.25), (0, 1, 0.0)] {
            map.add(output, input, weight);
        }
        let forward = map.taps_by_output();
        assert_eq!((forward.inputs, forward.outputs), (3, 2));
        assert_eq!(forward.places, [0, 1, 3, 2, 0, 2]);
        assert_eq!(forward.weights, [1.0, 0.5, 0.25]);
        let back = map.taps_by_input();
        assert_eq!((back.inputs, back.outputs), (2, 3));
        // Input 1 has no weight anywhere.
        assert_eq!(back.places, [0, 1, 1, 3, 1, 0, 1]);
        assert_eq!(back.weights, [0.5, 1.0, 0.25]);
        assert!(!map.is_identity());
    }
}
