//! Two passes over 8-bit samples in fixed point, rounded and clipped to 8 bits after each.

use crate::Filter;
use crate::kernel::{FixedWeights, Precision, fixed_weights};

use super::for_each_row;

/// Interleaved samples `(h, w, C)` to `(oh, ow, C)`.
pub(super) fn resize<const C: usize>(
    data: &[u8],
    (height, width): (usize, usize),
    (to_height, to_width): (usize, usize),
    filter: Filter,
    precision: Precision,
) -> Vec<u8> {
    let narrowed = (width != to_width).then(|| {
        let weights = fixed_weights(filter, width, to_width, precision);
        along_width::<C>(data, height, width, to_width, &weights)
    });
    let rows = narrowed.as_deref().unwrap_or(data);
    if height == to_height {
        return narrowed.unwrap_or_else(|| data.to_vec());
    }
    along_height(rows, to_width * C, to_height, &fixed_weights(filter, height, to_height, precision))
}

fn along_width<const C: usize>(
    data: &[u8],
    height: usize,
    width: usize,
    to_width: usize,
    weights: &FixedWeights,
) -> Vec<u8> {
    let mut out = vec![0; height * to_width * C];
    let half = 1 << (weights.bits - 1);
    for_each_row(&mut out, to_width * C, height * to_width * C * weights.taps, |y, to| {
        let from = data[y * width * C..(y + 1) * width * C].as_chunks::<C>().0;
        let outputs = to.as_chunks_mut::<C>().0.iter_mut();
        let tables = weights.spans.iter().zip(weights.values.chunks_exact(weights.taps));
        for (pixel, (&(start, count), slots)) in outputs.zip(tables) {
            let mut sums = [half; C];
            for (source, &weight) in from[start..start + count].iter().zip(slots) {
                for (sum, &sample) in sums.iter_mut().zip(source) {
                    *sum += weight * i32::from(sample);
                }
            }
            *pixel = sums.map(|sum| clip(sum, weights.bits));
        }
    });
    out
}

fn along_height(data: &[u8], row: usize, to_height: usize, weights: &FixedWeights) -> Vec<u8> {
    let mut out = vec![0; to_height * row];
    let half = 1 << (weights.bits - 1);
    for_each_row(&mut out, row, to_height * row * weights.taps, |y, to| {
        let (start, count) = weights.spans[y];
        let slots = &weights.values[y * weights.taps..][..count];
        let mut sums = vec![half; row];
        for (source, &weight) in data[start * row..].chunks_exact(row).zip(slots) {
            for (sum, &sample) in sums.iter_mut().zip(source) {
                *sum += weight * i32::from(sample);
            }
        }
        for (to, &sum) in to.iter_mut().zip(&sums) {
            *to = clip(sum, weights.bits);
        }
    });
    out
}

fn clip(sum: i32, bits: u32) -> u8 {
    (sum >> bits).clamp(0, 255) as u8
}
