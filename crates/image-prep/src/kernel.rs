//! Filter kernels and their tables of weights for one axis.

use std::collections::HashMap;
use std::f64::consts::PI;
use std::hash::Hash;
use std::sync::{Arc, LazyLock, PoisonError, RwLock};

use crate::Filter;

/// The taps of every output position along one axis, by the antialiasing rule that Pillow and torch share.
///
/// Output `i` is the sum of `weight * source[start + k]` over its taps; each output has `taps` slots, padded with
/// zeros, in one flat table.
pub(crate) struct Weights<W> {
    /// Slots per output.
    pub(crate) taps: usize,
    /// First source position and number of taps of each output.
    pub(crate) spans: Vec<(usize, usize)>,
    /// `spans.len() * taps` weights; those of one output sum to 1.
    pub(crate) values: Vec<W>,
}

/// Weights in fixed point.
pub(crate) struct FixedWeights {
    pub(crate) weights: Weights<i32>,
    /// Bits after the binary point.
    pub(crate) bits: u32,
}

/// How many bits a fixed-point table gives its weights.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Precision {
    /// 22 bits, always: Pillow.
    Pillow,
    /// As many as let the largest weight fit into 16 signed bits, at most 22: torch on uint8 tensors.
    Torch,
}

impl Weights<f64> {
    pub(crate) fn new(filter: Filter, input: usize, output: usize) -> Self {
        let scale = input as f64 / output as f64;
        let stretch = scale.max(1.0);
        let (kernel, base): (fn(f64) -> f64, f64) = match filter {
            Filter::Nearest | Filter::Bilinear => (triangle, 1.0),
            Filter::Bicubic => (cubic, 2.0),
            Filter::Lanczos => (lanczos, 3.0),
        };
        let support = base * stretch;
        // Pillow multiplies by the inverse; dividing would differ in the last bit.
        let inverse = 1.0 / stretch;
        let taps = support.ceil() as usize * 2 + 1;
        let mut spans = Vec::with_capacity(output);
        let mut values = vec![0.0; output * taps];
        for (i, slots) in values.chunks_exact_mut(taps).enumerate() {
            let centre = (i as f64 + 0.5) * scale;
            // The cast truncates towards zero and takes what is below zero to zero, as wanted.
            let start = (centre - support + 0.5) as usize;
            let end = ((centre + support + 0.5) as usize).min(input);
            let slots = &mut slots[..end - start];
            let mut sum = 0.0;
            for (k, slot) in slots.iter_mut().enumerate() {
                *slot = kernel(((k + start) as f64 - centre + 0.5) * inverse);
                sum += *slot;
            }
            if sum != 0.0 {
                for slot in slots.iter_mut() {
                    *slot /= sum;
                }
            }
            spans.push((start, end - start));
        }
        Self { taps, spans, values }
    }

    fn fixed(self, precision: Precision) -> FixedWeights {
        let bits = match precision {
            Precision::Pillow => 22,
            Precision::Torch => {
                let largest = self.values.iter().copied().fold(0.0, f64::max);
                let fits = |bits: u32| (0.5 + largest * f64::from(1u32 << bits)) < 32768.0;
                (0..=22).rev().find(|&bits| fits(bits)).unwrap_or(0)
            }
        };
        let one = f64::from(1u32 << bits);
        let values = self.values.iter().map(|&w| (w * one + 0.5f64.copysign(w)) as i32).collect();
        FixedWeights { weights: Weights { taps: self.taps, spans: self.spans, values }, bits }
    }

    fn single(self) -> Weights<f32> {
        let values = self.values.iter().map(|&w| w as f32).collect();
        Weights { taps: self.taps, spans: self.spans, values }
    }
}

/// Tables kept of each kind: a data set has few shapes, and a table of a large image is some 100 KiB.
const KEPT_TABLES: usize = 64;

/// Tables by shape, so that each is computed once.
struct Tables<K, T> {
    known: RwLock<HashMap<K, Arc<T>>>,
}

impl<K: Eq + Hash, T> Tables<K, T> {
    fn get(&self, key: K, compute: impl FnOnce() -> T) -> Arc<T> {
        // A poisoned lock is no obstacle: the map is only ever inserted into or cleared.
        let known = self.known.read().unwrap_or_else(PoisonError::into_inner).get(&key).cloned();
        known.unwrap_or_else(|| {
            let table = Arc::new(compute());
            let mut tables = self.known.write().unwrap_or_else(PoisonError::into_inner);
            if tables.len() >= KEPT_TABLES {
                tables.clear();
            }
            tables.insert(key, Arc::clone(&table));
            table
        })
    }
}

impl<K, T> Default for Tables<K, T> {
    fn default() -> Self {
        Self { known: RwLock::new(HashMap::new()) }
    }
}

type FixedKey = (Filter, usize, usize, Precision);

/// The fixed-point table of one axis.
pub(crate) fn fixed_weights(
    filter: Filter,
    input: usize,
    output: usize,
    precision: Precision,
) -> Arc<FixedWeights> {
    static TABLES: LazyLock<Tables<FixedKey, FixedWeights>> = LazyLock::new(Tables::default);
    TABLES.get((filter, input, output, precision), || Weights::new(filter, input, output).fixed(precision))
}

/// The floating-point table of one axis.
pub(crate) fn float_weights(filter: Filter, input: usize, output: usize) -> Arc<Weights<f32>> {
    static TABLES: LazyLock<Tables<(Filter, usize, usize), Weights<f32>>> = LazyLock::new(Tables::default);
    TABLES.get((filter, input, output), || Weights::new(filter, input, output).single())
}

fn triangle(x: f64) -> f64 {
    (1.0 - x.abs()).max(0.0)
}

fn cubic(x: f64) -> f64 {
    const A: f64 = -0.5;
    let x = x.abs();
    if x < 1.0 {
        ((A + 2.0) * x - (A + 3.0)) * x * x + 1.0
    } else if x < 2.0 {
        (((x - 5.0) * x + 8.0) * x - 4.0) * A
    } else {
        0.0
    }
}

fn lanczos(x: f64) -> f64 {
    if (-3.0..3.0).contains(&x) { sinc(x) * sinc(x / 3.0) } else { 0.0 }
}

fn sinc(x: f64) -> f64 {
    if x == 0.0 { 1.0 } else { (PI * x).sin() / (PI * x) }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn weights_sum_to_one_and_fit_the_accumulator(
            input in 1usize..300,
            output in 1usize..300,
            filter in prop::sample::select(vec![Filter::Bilinear, Filter::Bicubic, Filter::Lanczos]),
        ) {
            let weights = Weights::new(filter, input, output);
            for (slots, &(start, count)) in weights.values.chunks_exact(weights.taps).zip(&weights.spans) {
                prop_assert!(count >= 1 && start + count <= input);
                let sum: f64 = slots.iter().sum();
                prop_assert!((sum - 1.0).abs() < 1e-12);
            }
            // The resize adds in i32: no partial sum of 8-bit samples may leave its range.
            let fixed = weights.fixed(Precision::Pillow).weights;
            for slots in fixed.values.chunks_exact(fixed.taps) {
                let reach: i64 = slots.iter().map(|&w| i64::from(w).abs() * 255).sum();
                prop_assert!(reach + (1 << 21) <= i64::from(i32::MAX));
            }
        }
    }

    #[test]
    fn torch_weights_fit_sixteen_bits() {
        for (input, output) in [(47, 20), (36, 27), (1, 5), (400, 3)] {
            let fixed = Weights::new(Filter::Bicubic, input, output).fixed(Precision::Torch).weights;
            assert!(fixed.values.iter().all(|&w| i16::try_from(w).is_ok()));
        }
    }
}
