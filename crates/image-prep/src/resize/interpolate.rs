//! torch's `interpolate`: a fixed number of taps, no widening when shrinking.

use rayon::prelude::*;

/// Where the taps lie and what they weigh.
#[derive(Clone, Copy)]
pub(crate) enum Rule {
    /// Two taps around `(i + 0.5) * in / out - 0.5`, not below zero.
    Bilinear,
    /// Two taps around `i * (in - 1) / (out - 1)`.
    BilinearAligned,
    /// Four taps, a = -0.75, indices clamped to the edge.
    Bicubic,
}

/// Taps of one output position; a rule with fewer repeats an index with weight zero.
struct Taps {
    at: [usize; 4],
    weight: [f32; 4],
}

/// Outputs below which handing rows to other threads costs more than it saves.
const WORTH_SHARING: usize = 1 << 17;

/// Planes `(.., h, w)` to `(.., oh, ow)`.
pub(crate) fn planes(
    data: &[f32],
    (height, width): (usize, usize),
    (to_height, to_width): (usize, usize),
    rule: Rule,
) -> Vec<f32> {
    let (rows, columns) = (axis(rule, height, to_height), axis(rule, width, to_width));
    let taps = if matches!(rule, Rule::Bicubic) { 4 } else { 2 };
    let count = data.len() / (height * width);
    let mut out = vec![0.0; count * to_height * to_width];
    let fill = |(y, to): (usize, &mut [f32])| {
        let plane = &data[y / to_height * height * width..];
        let row = &rows[y % to_height];
        for (&at, &weight) in row.at.iter().zip(&row.weight).take(taps) {
            let from = &plane[at * width..(at + 1) * width];
            for (to, column) in to.iter_mut().zip(&columns) {
                let across = column.at.iter().zip(&column.weight).take(taps);
                *to += weight * across.map(|(&x, &w)| w * from[x]).sum::<f32>();
            }
        }
    };
    if out.len() >= WORTH_SHARING {
        out.par_chunks_exact_mut(to_width).enumerate().with_min_len(8).for_each(fill);
    } else {
        out.chunks_exact_mut(to_width).enumerate().for_each(fill);
    }
    out
}

/// Positions are computed in f32 as torch computes them.
fn axis(rule: Rule, input: usize, output: usize) -> Vec<Taps> {
    let scale = input as f32 / output as f32;
    let last = input - 1;
    let linear = |position: f32| {
        let low = (position as usize).min(last);
        let share = (position - low as f32).clamp(0.0, 1.0);
        Taps { at: [low, (low + 1).min(last), low, low], weight: [1.0 - share, share, 0.0, 0.0] }
    };
    let tap = |i: usize| match rule {
        Rule::Bilinear => linear((scale * (i as f32 + 0.5) - 0.5).max(0.0)),
        Rule::BilinearAligned => {
            let scale = if output > 1 { last as f32 / (output - 1) as f32 } else { 0.0 };
            linear(scale * i as f32)
        }
        Rule::Bicubic => {
            let position = scale * (i as f32 + 0.5) - 0.5;
            let low = position.floor();
            let t = position - low;
            let at =
                std::array::from_fn(|k| (low as isize + k as isize - 1).clamp(0, last as isize) as usize);
            Taps { at, weight: [cubic(t + 1.0), cubic(t), cubic(1.0 - t), cubic(2.0 - t)] }
        }
    };
    (0..output).map(tap).collect()
}

fn cubic(x: f32) -> f32 {
    const A: f32 = -0.75;
    if x <= 1.0 {
        ((A + 2.0) * x - (A + 3.0)) * x * x + 1.0
    } else {
        ((A * x - 5.0 * A) * x + 8.0 * A) * x - 4.0 * A
    }
}
