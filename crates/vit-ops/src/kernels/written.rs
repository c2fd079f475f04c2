//! Vectors that are written by rows, in parallel, without being filled with zeros first.

use std::mem::MaybeUninit;

use rayon::prelude::*;

/// Rows a task. Fixed, so that sums over rows are added in one order whatever the number of threads.
pub(crate) const BLOCK: usize = 64;

/// A matrix of `rows` by `width` numbers, each row filled by `fill` from its index; and the state of each block of
/// rows, in order, which `start` makes.
///
/// `fill` finds some numbers in the row it is given, and all it leaves there is the result.
pub(crate) fn written<T: Copy + Default + Send + Sync, S: Send>(
    rows: usize,
    width: usize,
    start: impl Fn() -> S + Sync,
    fill: impl Fn(&mut S, usize, &mut [T]) + Sync,
) -> (Vec<T>, Vec<S>) {
    let mut out: Vec<T> = Vec::with_capacity(rows * width);
    let spare = &mut out.spare_capacity_mut()[..rows * width];
    let block = |(block, out): (usize, &mut [MaybeUninit<T>])| {
        let mut state = start();
        // In the first cache; from here whole rows are copied to memory that nothing has read.
        let mut row = vec![T::default(); width];
        for (i, out) in out.chunks_exact_mut(width).enumerate() {
            fill(&mut state, block * BLOCK + i, &mut row);
            for (out, &number) in out.iter_mut().zip(&row) {
                out.write(number);
            }
        }
        state
    };
    let states = spare.par_chunks_mut((BLOCK * width).max(1)).enumerate().map(block).collect();
    // SAFETY: as much was reserved; the blocks cover all of it and are whole rows, each of which was written just now.
    unsafe { out.set_len(rows * width) };
    (out, states)
}

#[cfg(test)]
mod tests {
    use super::{BLOCK, written};

    #[test]
    fn every_row_is_written_and_states_come_in_order() {
        let rows = 2 * BLOCK + 5;
        let (numbers, states) = written(rows, 3, Vec::new, |seen, row, out: &mut [usize]| {
            seen.push(row);
            out.copy_from_slice(&[3 * row, 3 * row + 1, 3 * row + 2]);
        });
        assert_eq!(numbers, (0..3 * rows).collect::<Vec<_>>());
        assert_eq!(states.concat(), (0..rows).collect::<Vec<_>>());
        let (numbers, states) = written(0, 3, || (), |(), _, _: &mut [f32]| ());
        assert!(numbers.is_empty() && states.is_empty());
    }
}
