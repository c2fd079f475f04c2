//! The antialiased float resize: two passes, width first, nothing rounded or clamped.

use crate::Filter;
use crate::kernel::{Weights, float_weights};

use super::for_each_row;

/// Planes `(.., h, w)` to `(.., oh, ow)`.
pub(super) fn antialiased(
    data: &[f32],
    (height, width): (usize, usize),
    (to_height, to_width): (usize, usize),
    filter: Filter,
) -> Vec<f32> {
    let narrowed = (width != to_width).then(|| {
        let weights = float_weights(filter, width, to_width);
        along_width(data, width, to_width, &weights)
    });
    let rows = narrowed.as_deref().unwrap_or(data);
    if height == to_height {
        return narrowed.unwrap_or_else(|| data.to_vec());
    }
    let weights = float_weights(filter, height, to_height);
    rows.chunks_exact(height * to_width)
        .flat_map(|plane| along_height(plane, to_width, to_height, &weights))
        .collect()
}

fn along_width(data: &[f32], width: usize, to_width: usize, weights: &Weights) -> Vec<f32> {
    let height = data.len() / width;
    let mut out = vec![0.0; height * to_width];
    for_each_row(&mut out, to_width, height * to_width * weights.taps, |y, to| {
        let from = &data[y * width..(y + 1) * width];
        let tables = weights.spans.iter().zip(weights.values.chunks_exact(weights.taps));
        for (to, (&(start, count), slots)) in to.iter_mut().zip(tables) {
            let taps = from[start..start + count].iter().zip(slots);
            *to = taps.map(|(&value, &weight)| value * weight as f32).sum();
        }
    });
    out
}

fn along_height(plane: &[f32], width: usize, to_height: usize, weights: &Weights) -> Vec<f32> {
    let mut out = vec![0.0; to_height * width];
    for_each_row(&mut out, width, to_height * width * weights.taps, |y, to| {
        let (start, count) = weights.spans[y];
        let slots = &weights.values[y * weights.taps..][..count];
        for (from, &weight) in plane[start * width..].chunks_exact(width).zip(slots) {
            for (to, &value) in to.iter_mut().zip(from) {
                *to += value * weight as f32;
            }
        }
    });
    out
}
