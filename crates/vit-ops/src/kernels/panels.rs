//! Matrices cut into the panels that kernels read.
//!
//! A product's inner length, the depth, is cut into blocks of [`Kernel::DEPTH`]. The left factor's rows lie in panels
//! of [`Kernel::ROWS`], the right factor's columns in panels of [`Kernel::COLUMNS`]; what a panel has too many is zero.
//!
//! - A row panel: block by block, part by part, row by row with [`Kernel::STRIDE`] elements between rows.
//! - A column panel: block by block, part by part, then along the depth, all columns of one depth side by side; where
//!   [`Encoding::PAIR`] is 2, each column's two neighbours in depth lie together (Intel calls that VNNI).

use std::cell::RefCell;
use std::thread::LocalKey;

use rayon::prelude::*;

use crate::lanes::arch;

/// The panels of one matrix.
#[derive(Clone)]
pub(super) enum Panels {
    Float(Vec<f32>),
    Half(Vec<u16>),
}

/// The type of the elements of panels.
pub(super) trait Element: Copy + Default + Send + Sync + 'static {
    fn wrap(panels: Vec<Self>) -> Panels;
    /// The panels, if they are of this type.
    fn unwrap(panels: &Panels) -> Option<&[Self]>;
    /// Memory that a thread keeps from one product to the next.
    fn scratch() -> &'static LocalKey<RefCell<Vec<Vec<Self>>>>;
}

macro_rules! element {
    ($type:ty, $variant:ident) => {
        impl Element for $type {
            fn wrap(panels: Vec<Self>) -> Panels {
                Panels::$variant(panels)
            }
            fn unwrap(panels: &Panels) -> Option<&[Self]> {
                match panels {
                    Panels::$variant(panels) => Some(panels),
                    _ => None,
                }
            }
            fn scratch() -> &'static LocalKey<RefCell<Vec<Vec<Self>>>> {
                thread_local!(static SCRATCH: RefCell<Vec<Vec<$type>>> = const { RefCell::new(Vec::new()) });
                &SCRATCH
            }
        }
    };
}
element!(f32, Float);
element!(u16, Half);

/// Elements that a thread keeps for later: what the layers of networks need.
const KEPT: usize = 1 << 22;

/// Lends `length` elements, of any value, to `f`.
pub(super) fn with_scratch<E: Element, R>(length: usize, f: impl FnOnce(&mut [E]) -> R) -> R {
    // Taken out meanwhile: a product may need several, and the thread may start another one while it waits.
    let mut memory = E::scratch().with_borrow_mut(Vec::pop).unwrap_or_default();
    if memory.len() < length {
        memory.clear();
        memory.resize(length, E::default());
    }
    let result = f(&mut memory[..length]);
    if memory.len() <= KEPT {
        E::scratch().with_borrow_mut(|kept| kept.push(memory));
    }
    result
}

/// How numbers are kept in panels.
pub(super) trait Encoding: Copy + Send + Sync + 'static {
    /// What is kept.
    type Element: Element;
    /// Elements a number: 1, or 2 that add up to it.
    const PARTS: usize;
    /// Neighbours in depth that lie together in a column panel: 1 or 2.
    const PAIR: usize;
    /// The elements of a number; the second counts only where there are two parts.
    fn split(value: f32) -> (Self::Element, Self::Element);
    /// The number of such elements.
    fn join(high: Self::Element, low: Self::Element) -> f32;
    /// Panels as numbers, if they hold those as they are, one behind the other.
    #[inline(always)]
    fn numbers(_: &mut [Self::Element]) -> Option<&mut [f32]> {
        None
    }
}

/// Numbers as they are.
#[derive(Clone, Copy)]
pub(super) struct Plain;

impl Encoding for Plain {
    type Element = f32;
    const PARTS: usize = 1;
    const PAIR: usize = 1;
    #[inline(always)]
    fn split(value: f32) -> (f32, f32) {
        (value, 0.0)
    }
    #[inline(always)]
    fn join(high: f32, _: f32) -> f32 {
        high
    }
    #[inline(always)]
    fn numbers(panels: &mut [f32]) -> Option<&mut [f32]> {
        Some(panels)
    }
}

/// bf16, two and two in depth, for kernels that multiply it.
#[derive(Clone, Copy)]
pub(super) struct Half<const PARTS: usize>;

impl<const PARTS: usize> Encoding for Half<PARTS> {
    type Element = u16;
    const PARTS: usize = PARTS;
    const PAIR: usize = 2;
    #[inline(always)]
    fn split(value: f32) -> (u16, u16) {
        let high = to_bf16(value);
        (high, if PARTS == 2 { to_bf16(value - from_bf16(high)) } else { 0 })
    }
    #[inline(always)]
    fn join(high: u16, low: u16) -> f32 {
        if PARTS == 2 { from_bf16(high) + from_bf16(low) } else { from_bf16(high) }
    }
}

/// bf16 in the upper half of f32, for processors that multiply f32 only: the same numbers, and so the same products.
#[derive(Clone, Copy)]
pub(super) struct Rounded<const PARTS: usize>;

impl<const PARTS: usize> Encoding for Rounded<PARTS> {
    type Element = f32;
    const PARTS: usize = PARTS;
    const PAIR: usize = 1;
    #[inline(always)]
    fn split(value: f32) -> (f32, f32) {
        let (high, low) = Half::<PARTS>::split(value);
        (from_bf16(high), from_bf16(low))
    }
    #[inline(always)]
    fn join(high: f32, low: f32) -> f32 {
        if PARTS == 2 { high + low } else { high }
    }
}

/// The nearest bf16, ties to even; a NaN stays one.
#[inline(always)]
pub(super) fn to_bf16(value: f32) -> u16 {
    let bits = value.to_bits();
    let rounded = (bits.wrapping_add(0x7fff + (bits >> 16 & 1)) >> 16) as u16;
    if value.is_nan() { (bits >> 16) as u16 | 0x40 } else { rounded }
}

#[inline(always)]
pub(super) fn from_bf16(bits: u16) -> f32 {
    f32::from_bits(u32::from(bits) << 16)
}

/// Multiplies a row panel by a column panel.
pub(super) trait Kernel: Copy + Send + Sync {
    /// How it wants its numbers.
    type Encoding: Encoding;
    /// What a thread needs while it multiplies.
    type Session;
    /// Rows of a row panel.
    const ROWS: usize;
    /// Columns of a column panel.
    const COLUMNS: usize;
    /// Numbers of the depth that a block has.
    const DEPTH: usize;
    /// The depth of a block is a multiple of this; zeros fill it up.
    const UNIT: usize;
    /// Elements from one row of a row panel to the next: more than `DEPTH`, so that rows share no cache lines' places.
    const STRIDE: usize = Self::DEPTH + 64 / size_of::<<Self::Encoding as Encoding>::Element>();

    /// For the thread that asks.
    fn session(self) -> Self::Session;

    /// Adds the product of one block to `sums`, `ROWS` x `COLUMNS` row by row. Of `rows`, all or fewer, the sums are
    /// right; the other rows' are anything.
    fn multiply(
        session: &mut Self::Session,
        rows: &[ElementOf<Self>],
        columns: &[ElementOf<Self>],
        depth: usize,
        count: usize,
        sums: &mut [f32],
    );
}

/// What a kernel's panels are of.
pub(super) type ElementOf<K> = <<K as Kernel>::Encoding as Encoding>::Element;

/// A matrix in memory, by rows or by columns.
#[derive(Clone, Copy)]
pub(crate) struct Matrix<'a, T = f32> {
    pub(super) data: &'a [T],
    pub(super) rows: usize,
    pub(super) columns: usize,
    pub(super) by_rows: bool,
}

impl<'a, T> Matrix<'a, T> {
    /// Of `columns` columns, row by row.
    pub(crate) fn by_rows(data: &'a [T], columns: usize) -> Self {
        Self { data, rows: data.len() / columns.max(1), columns, by_rows: true }
    }

    /// Of `rows` rows, column by column.
    pub(crate) fn by_columns(data: &'a [T], rows: usize) -> Self {
        Self { data, rows, columns: data.len() / rows.max(1), by_rows: false }
    }
}

impl<'a> Matrix<'a> {
    /// Some of the columns.
    pub(super) fn columns(self, start: usize, count: usize) -> View<'a> {
        View { matrix: self, start: (0, start), rows: self.rows, columns: count }
    }

    /// Some of the rows.
    pub(super) fn rows(self, start: usize, count: usize) -> View<'a> {
        View { matrix: self, start: (start, 0), rows: count, columns: self.columns }
    }
}

/// A part of a matrix.
#[derive(Clone, Copy)]
pub(super) struct View<'a> {
    matrix: Matrix<'a>,
    start: (usize, usize),
    pub(super) rows: usize,
    pub(super) columns: usize,
}

impl View<'_> {
    /// Copies the rectangle of `rows` x `columns` at `(row, column)` into `out`, whose rows are `stride` long; what the
    /// matrix doesn't have is zero.
    #[inline(always)]
    fn copy(
        &self,
        (row, column): (usize, usize),
        (rows, columns): (usize, usize),
        out: &mut [f32],
        stride: usize,
    ) {
        let there = (rows.min(self.rows - row), columns.min(self.columns - column));
        let (row, column) = (row + self.start.0, column + self.start.1);
        let data = self.matrix.data;
        if self.matrix.by_rows {
            let width = self.matrix.columns;
            for (r, out) in out.chunks_mut(stride).take(there.0).enumerate() {
                let from = (row + r) * width + column;
                out[..there.1].copy_from_slice(&data[from..from + there.1]);
                out[there.1..columns].fill(0.0);
            }
        } else {
            let height = self.matrix.rows;
            // Squares, so that what is written stays in the cache until its neighbours come.
            for first in (0..there.1).step_by(16) {
                for c in first..there.1.min(first + 16) {
                    let from = (column + c) * height + row;
                    for (r, &value) in data[from..from + there.0].iter().enumerate() {
                        out[r * stride + c] = value;
                    }
                }
            }
            for out in out.chunks_mut(stride).take(there.0) {
                out[there.1..columns].fill(0.0);
            }
        }
        for out in out.chunks_mut(stride).skip(there.0).take(rows - there.0) {
            out[..columns].fill(0.0);
        }
    }
}

/// Where blocks lie in the panels of a kernel, for one depth.
pub(super) struct Blocks {
    depth: usize,
    block: usize,
    unit: usize,
}

/// One block of the depth.
#[derive(Clone, Copy)]
pub(super) struct Block {
    pub(super) start: usize,
    /// A multiple of the kernel's unit.
    pub(super) padded: usize,
}

impl Blocks {
    pub(super) fn of<K: Kernel>(depth: usize) -> Self {
        Self { depth, block: K::DEPTH, unit: K::UNIT }
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = Block> + '_ {
        (0..self.depth).step_by(self.block).map(|start| Block {
            start,
            padded: self.block.min((self.depth - start).next_multiple_of(self.unit)),
        })
    }

    /// How many there are.
    pub(super) fn count(&self) -> usize {
        self.depth.div_ceil(self.block)
    }

    /// Elements of a whole row panel.
    pub(super) fn row_panel<K: Kernel>(&self) -> usize {
        self.count() * Self::rows_of_block::<K>()
    }

    /// Elements of one block of a row panel, of whatever depth.
    pub(super) fn rows_of_block<K: Kernel>() -> usize {
        K::Encoding::PARTS * K::ROWS * K::STRIDE
    }

    /// Elements of a whole column panel.
    pub(super) fn column_panel<K: Kernel>(&self) -> usize {
        K::Encoding::PARTS * K::COLUMNS * self.depth.next_multiple_of(self.unit)
    }

    /// Where the columns of a block lie in their panel.
    pub(super) fn columns_of_block<K: Kernel>(block: Block) -> std::ops::Range<usize> {
        let numbers = K::Encoding::PARTS * K::COLUMNS;
        numbers * block.start..numbers * (block.start + block.padded)
    }
}

/// Writes the row panel that starts at row `first`.
pub(super) fn pack_rows<K: Kernel>(left: View<'_>, first: usize, out: &mut [ElementOf<K>]) {
    struct Pack<'a, K: Kernel> {
        left: View<'a>,
        first: usize,
        out: &'a mut [ElementOf<K>],
        /// A block before it is encoded.
        numbers: &'a mut [f32],
    }
    impl<K: Kernel> pulp::NullaryFnOnce for Pack<'_, K> {
        type Output = ();
        #[inline(always)]
        fn call(self) {
            let Self { left, first, out, numbers } = self;
            let blocks = Blocks::of::<K>(left.columns);
            let part = K::ROWS * K::STRIDE;
            for (block, out) in blocks.iter().zip(out.chunks_exact_mut(Blocks::rows_of_block::<K>())) {
                let (place, size) = ((first, block.start), (K::ROWS, block.padded));
                if let Some(out) = K::Encoding::numbers(out) {
                    left.copy(place, size, out, K::STRIDE);
                    continue;
                }
                left.copy(place, size, numbers, K::STRIDE);
                let (high, low) = out.split_at_mut(part);
                for r in 0..K::ROWS {
                    let row = r * K::STRIDE..r * K::STRIDE + block.padded;
                    let numbers = &numbers[row.clone()];
                    for (out, &number) in high[row.clone()].iter_mut().zip(numbers) {
                        *out = K::Encoding::split(number).0;
                    }
                    if K::Encoding::PARTS == 2 {
                        for (out, &number) in low[row].iter_mut().zip(numbers) {
                            *out = K::Encoding::split(number).1;
                        }
                    }
                }
            }
        }
    }
    with_scratch(K::ROWS * K::STRIDE, |numbers: &mut [f32]| {
        arch().dispatch(Pack::<K> { left, first, out, numbers });
    });
}

/// Elements that the column panels of a matrix of these sizes take.
pub(super) fn columns_length<K: Kernel>(depth: usize, columns: usize) -> usize {
    columns.div_ceil(K::COLUMNS) * Blocks::of::<K>(depth).column_panel::<K>()
}

/// Writes all column panels of a matrix.
pub(super) fn pack_columns<K: Kernel>(right: View<'_>, out: &mut [ElementOf<K>]) {
    struct Pack<'a, K: Kernel> {
        right: View<'a>,
        panel: usize,
        out: &'a mut [ElementOf<K>],
        /// A block before it is encoded.
        numbers: &'a mut [f32],
    }
    impl<K: Kernel> pulp::NullaryFnOnce for Pack<'_, K> {
        type Output = ();
        #[inline(always)]
        fn call(self) {
            let Self { right, panel, out, numbers } = self;
            for block in Blocks::of::<K>(right.rows).iter() {
                let count = block.padded * K::COLUMNS;
                let (place, size) = ((block.start, panel * K::COLUMNS), (block.padded, K::COLUMNS));
                let out = &mut out[Blocks::columns_of_block::<K>(block)];
                if let Some(out) = K::Encoding::numbers(out) {
                    right.copy(place, size, out, K::COLUMNS);
                    continue;
                }
                right.copy(place, size, &mut numbers[..count], K::COLUMNS);
                let (high, low) = out.split_at_mut(count);
                interleave::<K>(&numbers[..count], high, |number| K::Encoding::split(number).0);
                if K::Encoding::PARTS == 2 {
                    interleave::<K>(&numbers[..count], low, |number| K::Encoding::split(number).1);
                }
            }
        }
    }
    let length = Blocks::of::<K>(right.rows).column_panel::<K>();
    out.par_chunks_exact_mut(length.max(1)).enumerate().for_each(|(panel, out)| {
        with_scratch(K::DEPTH * K::COLUMNS, |numbers: &mut [f32]| {
            arch().dispatch(Pack::<K> { right, panel, out, numbers });
        });
    });
}

/// Rows of `COLUMNS` numbers, `PAIR` and `PAIR` together.
#[inline(always)]
fn interleave<K: Kernel>(numbers: &[f32], out: &mut [ElementOf<K>], part: impl Fn(f32) -> ElementOf<K>) {
    if K::Encoding::PAIR == 1 {
        for (out, &number) in out.iter_mut().zip(numbers) {
            *out = part(number);
        }
        return;
    }
    let pairs = numbers.chunks_exact(2 * K::COLUMNS);
    for (numbers, out) in pairs.zip(out.chunks_exact_mut(2 * K::COLUMNS)) {
        let (first, second) = numbers.split_at(K::COLUMNS);
        for ((out, &first), &second) in out.chunks_exact_mut(2).zip(first).zip(second) {
            out[0] = part(first);
            out[1] = part(second);
        }
    }
}

/// The matrix of `depth` x `columns` in these panels, column by column: what [`pack_columns`] was given, as far as the
/// encoding keeps it.
pub(super) fn unpack_columns<K: Kernel>(panels: &[ElementOf<K>], depth: usize, columns: usize) -> Vec<f32> {
    let blocks = Blocks::of::<K>(depth);
    let length = blocks.column_panel::<K>();
    let mut out = vec![0.0; depth * columns];
    out.par_chunks_exact_mut(depth.max(1)).enumerate().for_each(|(column, out)| {
        let (panel, column) = (&panels[column / K::COLUMNS * length..], column % K::COLUMNS);
        for block in blocks.iter() {
            let panel = &panel[Blocks::columns_of_block::<K>(block)];
            let low = if K::Encoding::PARTS == 2 { &panel[panel.len() / 2..] } else { panel };
            let end = depth.min(block.start + block.padded);
            for (at, out) in out[block.start..end].iter_mut().enumerate() {
                let pair = K::Encoding::PAIR;
                let at = (at / pair * K::COLUMNS + column) * pair + at % pair;
                *out = K::Encoding::join(panel[at], low[at]);
            }
        }
    });
    out
}
