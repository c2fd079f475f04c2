//! A resize in two passes, width first, in the arithmetic of either domain.
//!
//! Both passes add whole vectors of samples that share a weight: the height pass those of a row, the width pass those of
//! eight rows that are first laid side by side. The instructions are chosen at run time; every lane adds its taps in
//! their order, so the numbers do not depend on the choice.

#![allow(clippy::inline_always, reason = "what is not inlined into a dispatched pass lacks its instructions")]

use std::borrow::Cow;

use rayon::prelude::*;

use crate::Filter;
use crate::kernel::{Precision, Weights, fixed_weights, float_weights};

/// How samples are weighted and added.
trait Arithmetic: Copy + Sync {
    type Sample: Copy + Default + Send + Sync;
    type Weight: Copy + Sync;
    type Sum: Copy;
    /// The sum of no taps.
    fn start(self) -> Self::Sum;
    fn add(self, sum: Self::Sum, weight: Self::Weight, sample: Self::Sample) -> Self::Sum;
    fn finish(self, sum: Self::Sum) -> Self::Sample;
}

/// 8-bit samples and fixed-point weights with this many bits after the point; rounded and clipped at the end.
#[derive(Clone, Copy)]
struct Fixed(u32);

impl Arithmetic for Fixed {
    type Sample = u8;
    type Weight = i32;
    type Sum = i32;

    #[inline(always)]
    fn start(self) -> i32 {
        1 << (self.0 - 1)
    }

    #[inline(always)]
    fn add(self, sum: i32, weight: i32, sample: u8) -> i32 {
        sum + weight * i32::from(sample)
    }

    #[inline(always)]
    fn finish(self, sum: i32) -> u8 {
        (sum >> self.0).clamp(0, 255) as u8
    }
}

/// Floats, neither rounded nor clamped.
#[derive(Clone, Copy)]
struct Float;

impl Arithmetic for Float {
    type Sample = f32;
    type Weight = f32;
    type Sum = f32;

    #[inline(always)]
    fn start(self) -> f32 {
        0.0
    }

    #[inline(always)]
    fn add(self, sum: f32, weight: f32, sample: f32) -> f32 {
        sum + weight * sample
    }

    #[inline(always)]
    fn finish(self, sum: f32) -> f32 {
        sum
    }
}

/// Interleaved samples `(h, w, channels)` to `(oh, ow, channels)` on 8 bits; `channels` is 1 or 3.
pub(super) fn eight_bit(
    data: &[u8],
    (height, width): (usize, usize),
    (to_height, to_width): (usize, usize),
    channels: usize,
    filter: Filter,
    precision: Precision,
) -> Vec<u8> {
    let mut current = Cow::Borrowed(data);
    if width != to_width {
        let fixed = fixed_weights(filter, width, to_width, precision);
        let arithmetic = Fixed(fixed.bits);
        current = Cow::Owned(match channels {
            1 => along_width::<_, 1, 8>(arithmetic, &current, height, width, &fixed.weights),
            _ => along_width::<_, 3, 24>(arithmetic, &current, height, width, &fixed.weights),
        });
    }
    if height != to_height {
        let fixed = fixed_weights(filter, height, to_height, precision);
        current = Cow::Owned(along_height(Fixed(fixed.bits), &current, to_width * channels, &fixed.weights));
    }
    current.into_owned()
}

/// Planes `(.., h, w)` to `(.., oh, ow)` of floats.
pub(super) fn float(
    data: &[f32],
    (height, width): (usize, usize),
    (to_height, to_width): (usize, usize),
    filter: Filter,
) -> Vec<f32> {
    let mut current = Cow::Borrowed(data);
    if width != to_width {
        let weights = float_weights(filter, width, to_width);
        current = Cow::Owned(along_width::<_, 1, 8>(Float, &current, data.len() / width, width, &weights));
    }
    if height != to_height {
        let weights = float_weights(filter, height, to_height);
        let plane = |plane| along_height(Float, plane, to_width, &weights);
        current = Cow::Owned(current.chunks_exact(height * to_width).flat_map(plane).collect());
    }
    current.into_owned()
}

/// Rows laid side by side in the width pass.
const BLOCK: usize = 8;

/// Multiply-adds below which handing work to other threads costs more than it saves.
const WORTH_SHARING: usize = 1 << 21;

/// The width pass over `height` rows of `width` pixels of `C` samples; `L` is `BLOCK * C`.
fn along_width<A: Arithmetic, const C: usize, const L: usize>(
    arithmetic: A,
    data: &[A::Sample],
    height: usize,
    width: usize,
    weights: &Weights<A::Weight>,
) -> Vec<A::Sample> {
    let to_width = weights.spans.len();
    let mut out = vec![A::Sample::default(); height * to_width * C];
    let block = |from: &[A::Sample], to: &mut [A::Sample]| {
        // Pixel x of the block's rows, one after the other.
        let mut side_by_side = vec![[A::Sample::default(); L]; width];
        for (row, samples) in from.chunks_exact(width * C).enumerate() {
            for (pixels, pixel) in side_by_side.iter_mut().zip(samples.as_chunks::<C>().0) {
                pixels.as_chunks_mut::<C>().0[row] = *pixel;
            }
        }
        let narrowed =
            pulp::Arch::new().dispatch(WidthPass { arithmetic, side_by_side: &side_by_side, weights });
        for (row, samples) in to.chunks_exact_mut(to_width * C).enumerate() {
            for (pixels, pixel) in narrowed.iter().zip(samples.as_chunks_mut::<C>().0) {
                *pixel = pixels.as_chunks::<C>().0[row];
            }
        }
    };
    let (from, to) = (BLOCK * width * C, BLOCK * to_width * C);
    if out.len() * weights.taps >= WORTH_SHARING {
        out.par_chunks_mut(to).zip(data.par_chunks(from)).for_each(|(to, from)| block(from, to));
    } else {
        out.chunks_mut(to).zip(data.chunks(from)).for_each(|(to, from)| block(from, to));
    }
    out
}

struct WidthPass<'a, A: Arithmetic, const L: usize> {
    arithmetic: A,
    side_by_side: &'a [[A::Sample; L]],
    weights: &'a Weights<A::Weight>,
}

impl<A: Arithmetic, const L: usize> pulp::NullaryFnOnce for WidthPass<'_, A, L> {
    type Output = Vec<[A::Sample; L]>;

    #[inline(always)]
    fn call(self) -> Self::Output {
        let Self { arithmetic, side_by_side, weights } = self;
        let mut narrowed = vec![[A::Sample::default(); L]; weights.spans.len()];
        let tables = weights.spans.iter().zip(weights.values.chunks_exact(weights.taps));
        for (to, (&(start, count), slots)) in narrowed.iter_mut().zip(tables) {
            let mut sums = [arithmetic.start(); L];
            for (from, &weight) in side_by_side[start..start + count].iter().zip(slots) {
                for (sum, &sample) in sums.iter_mut().zip(from) {
                    *sum = arithmetic.add(*sum, weight, sample);
                }
            }
            for (to, &sum) in to.iter_mut().zip(&sums) {
                *to = arithmetic.finish(sum);
            }
        }
        narrowed
    }
}

/// The height pass over rows of `row` samples.
fn along_height<A: Arithmetic>(
    arithmetic: A,
    data: &[A::Sample],
    row: usize,
    weights: &Weights<A::Weight>,
) -> Vec<A::Sample> {
    let mut out = vec![A::Sample::default(); weights.spans.len() * row];
    let fill = |(y, to): (usize, &mut [A::Sample])| {
        let (start, count) = weights.spans[y];
        let slots = &weights.values[y * weights.taps..][..count];
        let rows = &data[start * row..(start + count) * row];
        pulp::Arch::new().dispatch(HeightPass { arithmetic, rows, slots, to });
    };
    if out.len() * weights.taps >= WORTH_SHARING {
        out.par_chunks_exact_mut(row).enumerate().with_min_len(8).for_each(fill);
    } else {
        out.chunks_exact_mut(row).enumerate().for_each(fill);
    }
    out
}

/// One output row.
struct HeightPass<'a, A: Arithmetic> {
    arithmetic: A,
    rows: &'a [A::Sample],
    slots: &'a [A::Weight],
    to: &'a mut [A::Sample],
}

/// Columns whose sums are held in registers at a time.
const LANES: usize = 32;

impl<A: Arithmetic> pulp::NullaryFnOnce for HeightPass<'_, A> {
    type Output = ();

    #[inline(always)]
    fn call(self) {
        let Self { arithmetic, rows, slots, to } = self;
        let row = to.len();
        let (lanes, rest) = to.as_chunks_mut::<LANES>();
        let done = lanes.len() * LANES;
        for (at, to) in lanes.iter_mut().enumerate() {
            let mut sums = [arithmetic.start(); LANES];
            for (from, &weight) in rows.chunks_exact(row).zip(slots) {
                for (sum, &sample) in sums.iter_mut().zip(&from[at * LANES..(at + 1) * LANES]) {
                    *sum = arithmetic.add(*sum, weight, sample);
                }
            }
            for (to, &sum) in to.iter_mut().zip(&sums) {
                *to = arithmetic.finish(sum);
            }
        }
        for (column, to) in rest.iter_mut().enumerate() {
            let taps = rows.chunks_exact(row).zip(slots);
            let sum = taps.fold(arithmetic.start(), |sum, (from, &weight)| {
                arithmetic.add(sum, weight, from[done + column])
            });
            *to = arithmetic.finish(sum);
        }
    }
}
