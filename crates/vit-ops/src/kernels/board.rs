//! A stack of matrices that tasks fill tile by tile, each tile once, in any order.

use std::cell::UnsafeCell;
use std::mem::{ManuallyDrop, MaybeUninit};
use std::sync::atomic::{AtomicBool, Ordering};

/// Matrices of `rows` by `columns`, each cut into tiles of some rows and columns; the last ones may be smaller.
pub(crate) struct Board<T> {
    cells: Vec<UnsafeCell<MaybeUninit<T>>>,
    /// One for each tile, row by row of tiles: whether it is taken.
    taken: Vec<AtomicBool>,
    size: (usize, usize),
    tile: (usize, usize),
}

// SAFETY: a cell belongs to one tile, and a tile is written by the one call that finds it free.
unsafe impl<T: Send> Sync for Board<T> {}

impl<T: Copy> Board<T> {
    pub(crate) fn new(count: usize, size: (usize, usize), tile: (usize, usize)) -> Self {
        let length = count * size.0 * size.1;
        let mut cells = Vec::with_capacity(length);
        // SAFETY: as much was reserved, and such a cell may hold anything.
        unsafe { cells.set_len(length) };
        let tiles = count * size.0.div_ceil(tile.0) * size.1.div_ceil(tile.1);
        let taken = (0..tiles).map(|_| AtomicBool::new(false)).collect();
        Self { cells, taken, size, tile }
    }

    /// Fills the tile at `row`, `column` of tiles of matrix `index` with `numbers`, whose rows follow each other and
    /// are as long as a whole tile is wide.
    ///
    /// # Panics
    /// If there is no such tile, it is filled already, or the numbers are too few.
    pub(crate) fn fill(&self, index: usize, (row, column): (usize, usize), numbers: &[T]) {
        let (down, across) = (self.size.0.div_ceil(self.tile.0), self.size.1.div_ceil(self.tile.1));
        assert!(row < down && column < across);
        assert!(!self.taken[(index * down + row) * across + column].swap(true, Ordering::Relaxed));
        let (top, left) = (row * self.tile.0, column * self.tile.1);
        let height = self.tile.0.min(self.size.0 - top);
        let width = self.tile.1.min(self.size.1 - left);
        for i in 0..height {
            let numbers = &numbers[i * self.tile.1..][..width];
            let start = (index * self.size.0 + top + i) * self.size.1 + left;
            for (cell, &number) in self.cells[start..start + width].iter().zip(numbers) {
                // SAFETY: the tile was free, so that no other call touches its cells; nobody reads before `finish`.
                unsafe { (*cell.get()).write(number) };
            }
        }
    }

    /// The matrices, row by row.
    ///
    /// # Panics
    /// If a tile was never filled.
    pub(crate) fn finish(self) -> Vec<T> {
        assert!(self.taken.iter().all(|taken| taken.load(Ordering::Relaxed)));
        let mut cells = ManuallyDrop::new(self.cells);
        let (data, length, capacity) = (cells.as_mut_ptr(), cells.len(), cells.capacity());
        // SAFETY: the parts of one vector, whose elements have T's layout (both wrappers are transparent) and are all
        // written, as every tile is.
        unsafe { Vec::from_raw_parts(data.cast::<T>(), length, capacity) }
    }
}

#[cfg(test)]
mod tests {
    use super::Board;
    use rayon::prelude::*;

    #[test]
    fn tiles_make_matrices() {
        // Two of 5 x 7 in tiles of 2 x 3: 3 x 3 tiles each, the last ones cut.
        let board = Board::new(2, (5, 7), (2, 3));
        (0..18_usize).into_par_iter().for_each(|task| {
            let (index, row, column) = (task / 9, task / 3 % 3, task % 3);
            let number = |i: usize| index * 35 + (2 * row + i / 3) * 7 + 3 * column + i % 3;
            board.fill(index, (row, column), &(0..6).map(number).collect::<Vec<_>>());
        });
        assert_eq!(board.finish(), (0..70).collect::<Vec<_>>());
    }

    #[test]
    #[should_panic(expected = "assertion")]
    fn a_tile_is_filled_once() {
        let board = Board::new(1, (2, 2), (2, 2));
        board.fill(0, (0, 0), &[0; 4]);
        board.fill(0, (0, 0), &[0; 4]);
    }

    #[test]
    #[should_panic(expected = "assertion")]
    fn a_hole_is_found() {
        Board::<u8>::new(1, (2, 2), (1, 2)).finish();
    }
}
