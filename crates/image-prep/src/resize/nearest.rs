//! Which source sample each output takes, by the two rules in use.

/// `floor(i * in / out)`, with the scale in f32 as torch has it.
pub(crate) fn floor_indices(input: usize, output: usize) -> Vec<usize> {
    let scale = input as f32 / output as f32;
    (0..output).map(|i| ((i as f32 * scale) as usize).min(input - 1)).collect()
}

/// `floor((i + 0.5) * in / out)`, the position accumulated in f64 as Pillow does, which decides on exact ties.
pub(crate) fn centre_indices(input: usize, output: usize) -> Vec<usize> {
    let scale = input as f64 / output as f64;
    let positions = std::iter::successors(Some(scale * 0.5), |position| Some(position + scale));
    positions.take(output).map(|position| (position as usize).min(input - 1)).collect()
}

/// The samples at `rows` x `columns` of interleaved data `(H, width, channels)`.
pub(super) fn pick<T: Copy>(
    data: &[T],
    width: usize,
    channels: usize,
    rows: &[usize],
    columns: &[usize],
) -> Vec<T> {
    let mut out = Vec::with_capacity(rows.len() * columns.len() * channels);
    for &y in rows {
        for &x in columns {
            let at = (y * width + x) * channels;
            out.extend_from_slice(&data[at..at + channels]);
        }
    }
    out
}
