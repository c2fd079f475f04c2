//! A product over panels, in parallel.

#[cfg(target_arch = "x86_64")]
use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
use std::mem::MaybeUninit;
use std::ops::Range;

use rayon::prelude::*;

use crate::lanes::arch;

use super::panels::{Blocks, ElementOf, Kernel, View, pack_rows, with_scratch};

/// Most rows of the left factor that are packed at a time: with them, a block of the depth stays in a core's second
/// cache.
const STRIP: usize = 256;

/// Below so many multiplications, other threads would take longer to wake up than to help.
const SERIAL: usize = 1 << 18;

/// What becomes of the sums.
#[derive(Clone, Copy)]
pub(crate) enum Ending<'a> {
    /// They are the result.
    Store,
    /// They are added to what is there already.
    Add,
    /// The row `bias` is added, then all go through `map`.
    Map {
        /// As long as a row of the result.
        bias: Option<&'a [f32]>,
        /// Element by element, for any number of them.
        map: Option<fn(&mut [f32])>,
    },
    /// `x + scale (sums + bias)`.
    Residual {
        /// As long as a row of the result.
        bias: Option<&'a [f32]>,
        /// As long as a row of the result.
        scale: Option<&'a [f32]>,
        /// Of the result's shape.
        x: &'a [f32],
    },
}

/// The result, of which tasks write disjoint rectangles.
#[derive(Clone, Copy)]
struct Target {
    data: *mut MaybeUninit<f32>,
    length: usize,
    width: usize,
}

// SAFETY: the pointer comes from an exclusive borrow that outlives all tasks, and each element belongs to one task.
unsafe impl Send for Target {}
// SAFETY: as above.
unsafe impl Sync for Target {}

impl Target {
    /// Part of a row.
    ///
    /// # Safety
    /// No other live borrow may cover any of these elements.
    #[allow(clippy::mut_from_ref)]
    unsafe fn part(&self, row: usize, column: usize, count: usize) -> &mut [MaybeUninit<f32>] {
        let start = row * self.width + column;
        assert!(column + count <= self.width && start + count <= self.length);
        // SAFETY: inside of the borrow by the assertion; not aliased by this function's contract.
        unsafe { std::slice::from_raw_parts_mut(self.data.add(start), count) }
    }
}

/// `left` times the matrix in `columns`, whose width is `width`, into `out`, row by row. Every element of `out` is
/// written; with [`Ending::Add`] all of them must hold numbers already.
///
/// Each sum is taken in one order, whatever the number of rows or of threads.
pub(super) fn multiply<K: Kernel>(
    kernel: K,
    left: View<'_>,
    columns: &[ElementOf<K>],
    width: usize,
    ending: Ending<'_>,
    out: &mut [MaybeUninit<f32>],
) {
    assert_eq!(out.len(), left.rows * width);
    let parallel = left.rows * left.columns * width >= SERIAL && rayon::current_num_threads() > 1;
    let target = Target { data: out.as_mut_ptr(), length: out.len(), width };
    let run = || {
        let product = Product { kernel, left, columns, ending, target };
        product.run(parallel);
    };
    if parallel {
        // One call into the pool for all its steps.
        rayon::join(run, || ());
    } else {
        run();
    }
}

struct Product<'a, K: Kernel> {
    kernel: K,
    left: View<'a>,
    columns: &'a [ElementOf<K>],
    ending: Ending<'a>,
    target: Target,
}

impl<K: Kernel> Product<'_, K> {
    fn run(&self, parallel: bool) {
        let rows = self.left.rows;
        // Strips of about one height.
        let strip = rows.div_ceil(rows.div_ceil(STRIP).max(1)).next_multiple_of(K::ROWS);
        let length = Blocks::of::<K>(self.left.columns).row_panel::<K>();
        with_scratch(strip / K::ROWS * length, |packed: &mut [ElementOf<K>]| {
            for start in (0..rows).step_by(strip.max(1)) {
                let count = strip.min(rows - start);
                let panels = count.div_ceil(K::ROWS);
                let packed = &mut packed[..panels * length];
                let pack = |(panel, out): (usize, &mut [ElementOf<K>])| {
                    pack_rows::<K>(self.left, start + panel * K::ROWS, out);
                };
                if parallel {
                    packed.par_chunks_exact_mut(length.max(1)).enumerate().for_each(pack);
                } else {
                    packed.chunks_exact_mut(length.max(1)).enumerate().for_each(pack);
                }
                self.strip(packed, start, count, parallel);
            }
        });
    }

    /// The rows `start..start + count`, which lie in `packed`.
    fn strip(&self, packed: &[ElementOf<K>], start: usize, count: usize, parallel: bool) {
        let blocks = Blocks::of::<K>(self.left.columns);
        let length = blocks.row_panel::<K>();
        let across = self.target.width.div_ceil(K::COLUMNS);
        let panels = count.div_ceil(K::ROWS);
        // A task is a column panel, or a part of its rows where there would be too few for the threads.
        let wanted = if parallel { 4 * rayon::current_num_threads() } else { 1 };
        let parts = wanted.div_ceil(across.max(1)).clamp(1, panels.max(1));
        let part = panels.div_ceil(parts);
        let task = |sums: &mut Vec<f32>, task: usize| {
            let (column, first) = (task / parts, task % parts * part);
            let panels = part.min(panels.saturating_sub(first));
            if panels == 0 {
                return;
            }
            sums.clear();
            sums.resize(panels * K::ROWS * K::COLUMNS, 0.0);
            let mut session = self.kernel.session();
            let columns = &self.columns[column * blocks.column_panel::<K>()..];
            let rows = &packed[first * length..];
            let size = Blocks::rows_of_block::<K>();
            for (index, block) in blocks.iter().enumerate() {
                let columns = &columns[Blocks::columns_of_block::<K>(block)];
                for (panel, sums) in sums.chunks_exact_mut(K::ROWS * K::COLUMNS).enumerate() {
                    let rows = &rows[panel * length + index * size..][..size];
                    let there = K::ROWS.min(count - (first + panel) * K::ROWS);
                    if index + 1 == blocks.count() {
                        let row = start + (first + panel) * K::ROWS;
                        self.announce(row..row + there, column * K::COLUMNS);
                    }
                    K::multiply(&mut session, rows, columns, block.padded, there, sums);
                }
            }
            drop(session);
            let there = (panels * K::ROWS).min(count - first * K::ROWS);
            arch().dispatch(Finish::<K> {
                product: self,
                sums: &mut sums[..there * K::COLUMNS],
                row: start + first * K::ROWS,
                column: column * K::COLUMNS,
            });
        };
        let tasks = across * parts;
        if parallel {
            (0..tasks).into_par_iter().for_each_init(Vec::new, task);
        } else {
            let mut sums = Vec::new();
            (0..tasks).for_each(|index| task(&mut sums, index));
        }
    }
}

impl<K: Kernel> Product<'_, K> {
    /// Has the processor bring what [`Finish`] will touch of these rows in a column panel: pieces of rows that lie far
    /// apart, which it would wait for one by one.
    fn announce(&self, rows: Range<usize>, column: usize) {
        let width = self.target.width;
        let count = K::COLUMNS.min(width - column);
        for row in rows {
            let start = row * width + column;
            // Only an address: nothing is read.
            will_need(self.target.data.wrapping_add(start).cast(), count);
            if let Ending::Residual { x, .. } = self.ending {
                will_need(x.as_ptr().wrapping_add(start), count);
            }
        }
    }
}

/// A hint that these numbers are touched soon; they need not be there.
fn will_need(start: *const f32, count: usize) {
    #[cfg(target_arch = "x86_64")]
    for line in (0..count).step_by(64 / size_of::<f32>()) {
        // SAFETY: every processor of this kind has the instruction, which does nothing but fill caches.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(start.wrapping_add(line).cast()) };
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = (start, count);
}

/// Writes what a task has summed up.
struct Finish<'a, K: Kernel> {
    product: &'a Product<'a, K>,
    sums: &'a mut [f32],
    row: usize,
    column: usize,
}

impl<K: Kernel> pulp::NullaryFnOnce for Finish<'_, K> {
    type Output = ();

    #[inline(always)]
    fn call(self) {
        let Self { product, sums, row, column } = self;
        let width = product.target.width;
        let count = K::COLUMNS.min(width - column);
        if let Ending::Map { bias, map } = product.ending {
            if let Some(bias) = bias {
                let bias = &bias[column..column + count];
                for sums in sums.chunks_exact_mut(K::COLUMNS) {
                    for (sum, &bias) in sums.iter_mut().zip(bias) {
                        *sum += bias;
                    }
                }
            }
            if let Some(map) = map {
                map(sums);
            }
        }
        for (at, sums) in sums.chunks_exact(K::COLUMNS).enumerate() {
            let row = row + at;
            // SAFETY: this rectangle of rows and columns belongs to this task alone, and its borrow ends here.
            let out = unsafe { product.target.part(row, column, count) };
            match product.ending {
                Ending::Store | Ending::Map { .. } => {
                    for (out, &sum) in out.iter_mut().zip(sums) {
                        out.write(sum);
                    }
                }
                Ending::Add => {
                    for (out, &sum) in out.iter_mut().zip(sums) {
                        // SAFETY: whoever asks for `Add` has written all elements before.
                        let before = unsafe { out.assume_init_read() };
                        out.write(before + sum);
                    }
                }
                Ending::Residual { bias, scale, x } => {
                    let x = &x[row * width + column..][..count];
                    residual(out, sums, bias, scale, x, column);
                }
            }
        }
    }
}

/// One row's `x + scale (sums + bias)`.
#[inline(always)]
fn residual(
    out: &mut [MaybeUninit<f32>],
    sums: &[f32],
    bias: Option<&[f32]>,
    scale: Option<&[f32]>,
    x: &[f32],
    column: usize,
) {
    let count = out.len();
    let lines = out.iter_mut().zip(sums).zip(x);
    match (bias.map(|b| &b[column..column + count]), scale.map(|s| &s[column..column + count])) {
        (None, None) => lines.for_each(|((out, &sum), &x)| {
            out.write(x + sum);
        }),
        (Some(bias), None) => lines.zip(bias).for_each(|(((out, &sum), &x), &bias)| {
            out.write(x + (sum + bias));
        }),
        (None, Some(scale)) => lines.zip(scale).for_each(|(((out, &sum), &x), &scale)| {
            out.write(x + scale * sum);
        }),
        (Some(bias), Some(scale)) => {
            lines.zip(bias).zip(scale).for_each(|((((out, &sum), &x), &bias), &scale)| {
                out.write(x + scale * (sum + bias));
            });
        }
    }
}
