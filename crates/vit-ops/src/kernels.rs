//! All unsafe code of the crate: raw writes to disjoint parts of one result, vector instructions behind a test for
//! them, tiles by assembly, and products of strided matrices.
//!
//! The layers' products are here ([`Packed`], [`product`]). The processor is looked at when the program runs ([`Path`]).
#![allow(unsafe_code)]
// A kernel is compiled for an instruction set only where all of it is inlined into the function that was dispatched to.
#![allow(clippy::inline_always)]

mod board;
mod double;
mod float;
#[cfg(target_arch = "x86_64")]
mod half;
mod panels;
mod product;
mod strided;
#[cfg(test)]
mod tests;
#[cfg(any(test, all(target_arch = "x86_64", target_os = "linux")))]
mod tiles;
mod written;

use std::mem::MaybeUninit;

pub(crate) use board::Board;
pub(crate) use double::product as double_product;
pub(crate) use panels::Matrix;
pub(crate) use product::Ending;
pub(crate) use strided::{View, multiply};
pub(crate) use written::{BLOCK, written};

use crate::Precision;
use float::Float;
use panels::{
    Element, ElementOf, Kernel, Panels, Plain, Rounded, columns_length, pack_columns, unpack_columns,
    with_scratch,
};

/// The instructions to use; each has those before it too.
#[cfg_attr(
    any(not(target_arch = "x86_64"), feature = "portable"),
    allow(dead_code, reason = "only the portable path is ever chosen")
)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Path {
    /// None in particular.
    Portable,
    /// AVX2 and FMA.
    Avx2,
    /// AVX-512.
    Avx512,
    /// AVX-512 with products of bf16.
    Avx512Bf16,
    /// Tiles of bf16.
    Amx,
    /// A model of tiles, slow.
    #[cfg(test)]
    ModelOfTiles,
}

impl Path {
    /// The best that this machine has.
    pub(crate) fn best() -> Self {
        #[cfg(all(target_arch = "x86_64", not(feature = "portable")))]
        {
            if has_tiles() {
                return Self::Amx;
            }
            if half::Dot::<1>::try_new().is_some() && pulp::x86::V4::try_new().is_some() {
                return Self::Avx512Bf16;
            }
            if pulp::x86::V4::try_new().is_some() {
                return Self::Avx512;
            }
            if pulp::x86::V3::try_new().is_some() {
                return Self::Avx2;
            }
        }
        Self::Portable
    }

    /// All that this machine has.
    #[cfg(test)]
    pub(crate) fn all() -> impl Iterator<Item = Self> {
        [Self::Portable, Self::Avx2, Self::Avx512, Self::Avx512Bf16, Self::Amx]
            .into_iter()
            .filter(|path| *path <= Self::best())
            .chain([Self::ModelOfTiles])
    }
}

/// Whether products of bf16 are so much faster here than those of f32 that three of them are worth while.
pub(crate) fn has_tiles() -> bool {
    #[cfg(all(target_arch = "x86_64", target_os = "linux", not(feature = "portable")))]
    return tiles::hardware::is_available() && pulp::x86::V4::try_new().is_some();
    #[cfg(not(all(target_arch = "x86_64", target_os = "linux", not(feature = "portable"))))]
    false
}

/// Something to do with a kernel of whatever type.
trait WithKernel {
    type Output;
    fn run<K: Kernel>(self, kernel: K) -> Self::Output;
}

/// Runs `with` on the kernel of `path` for products in `precision`.
fn dispatch<W: WithKernel>(path: Path, precision: Precision, with: W) -> W::Output {
    #[cfg(test)]
    if path == Path::ModelOfTiles {
        // SAFETY: the model runs everywhere.
        unsafe {
            match precision {
                Precision::F32 => {}
                Precision::Bf16x3 => return with.run(tiles::Tiles::<tiles::model::Model, 2>::new()),
                Precision::Bf16 => return with.run(tiles::Tiles::<tiles::model::Model, 1>::new()),
            }
        }
    }
    #[cfg(all(target_arch = "x86_64", target_os = "linux"))]
    if path >= Path::Amx && has_tiles() {
        use tiles::{Tiles, hardware::Hardware};
        // SAFETY: the processor and the system were asked just now.
        unsafe {
            match precision {
                Precision::F32 => {}
                Precision::Bf16x3 => return with.run(Tiles::<Hardware, 2>::new()),
                Precision::Bf16 => return with.run(Tiles::<Hardware, 1>::new()),
            }
        }
    }
    #[cfg(target_arch = "x86_64")]
    {
        if path >= Path::Avx512Bf16 {
            match (precision, half::Dot::try_new(), half::Dot::try_new()) {
                (Precision::Bf16, Some(one), _) => return with.run::<half::Dot<1>>(one),
                (Precision::Bf16x3, _, Some(two)) => return with.run::<half::Dot<2>>(two),
                _ => {}
            }
        }
        if path >= Path::Avx512
            && let Some(simd) = pulp::x86::V4::try_new()
        {
            return match precision {
                Precision::F32 => with.run(Float::<_, Plain, 8, 4, 3>::new(simd)),
                Precision::Bf16x3 => with.run(Float::<_, Rounded<2>, 8, 4, 3>::new(simd)),
                Precision::Bf16 => with.run(Float::<_, Rounded<1>, 8, 4, 3>::new(simd)),
            };
        }
        if path >= Path::Avx2
            && let Some(simd) = pulp::x86::V3::try_new()
        {
            return match precision {
                Precision::F32 => with.run(Float::<_, Plain, 6, 3, 2>::new(simd)),
                Precision::Bf16x3 => with.run(Float::<_, Rounded<2>, 6, 3, 2>::new(simd)),
                Precision::Bf16 => with.run(Float::<_, Rounded<1>, 6, 3, 2>::new(simd)),
            };
        }
    }
    let _ = path;
    // Eight numbers that the compiler may put into whatever vectors the target has for certain.
    let simd = pulp::Scalar;
    match precision {
        Precision::F32 => with.run(Float::<_, Plain, 4, 2, 8>::new(simd)),
        Precision::Bf16x3 => with.run(Float::<_, Rounded<2>, 4, 2, 8>::new(simd)),
        Precision::Bf16 => with.run(Float::<_, Rounded<1>, 4, 2, 8>::new(simd)),
    }
}

/// A matrix that many products have for their right factor, in the panels of one kernel.
#[derive(Clone)]
pub(crate) struct Packed {
    path: Path,
    precision: Precision,
    depth: usize,
    columns: usize,
    panels: Panels,
}

impl Packed {
    /// The transpose of `weight`, which has rows of `inputs` numbers: then [`Packed::multiply`] is what a linear layer
    /// does.
    pub(crate) fn transposed(path: Path, precision: Precision, weight: &[f32], inputs: usize) -> Self {
        struct Pack<'a>(Matrix<'a>);
        impl WithKernel for Pack<'_> {
            type Output = Panels;
            fn run<K: Kernel>(self, _: K) -> Panels {
                let Matrix { rows, columns, .. } = self.0;
                let mut panels = vec![Default::default(); columns_length::<K>(rows, columns)];
                pack_columns::<K>(self.0.rows(0, rows), &mut panels);
                ElementOf::<K>::wrap(panels)
            }
        }
        let matrix = Matrix::by_columns(weight, inputs);
        let panels = dispatch(path, precision, Pack(matrix));
        Self { path, precision, depth: inputs, columns: matrix.columns, panels }
    }

    /// `x`, which has rows as long as the matrix is high, times the matrix. What a `map` of the ending leaves is the
    /// result, row by row.
    pub(crate) fn multiply(&self, x: &[f32], ending: Ending<'_>) -> Vec<f32> {
        struct Multiply<'a> {
            packed: &'a Packed,
            left: Matrix<'a>,
            ending: Ending<'a>,
            out: &'a mut [MaybeUninit<f32>],
        }
        impl WithKernel for Multiply<'_> {
            type Output = ();
            fn run<K: Kernel>(self, kernel: K) {
                let Self { packed, left, ending, out } = self;
                // One path and precision have one kernel.
                let panels = ElementOf::<K>::unwrap(&packed.panels).expect("the panels of this kernel");
                let left = left.columns(0, packed.depth);
                product::multiply(kernel, left, panels, packed.columns, ending, out);
            }
        }
        let left = Matrix::by_rows(x, self.depth);
        filled(left.rows * self.columns, |out| {
            dispatch(self.path, self.precision, Multiply { packed: self, left, ending, out });
        })
    }

    /// The weight it was made of, as far as the precision keeps it.
    pub(crate) fn weight(&self) -> Vec<f32> {
        struct Unpack<'a>(&'a Packed);
        impl WithKernel for Unpack<'_> {
            type Output = Vec<f32>;
            fn run<K: Kernel>(self, _: K) -> Vec<f32> {
                let panels = ElementOf::<K>::unwrap(&self.0.panels).expect("the panels of this kernel");
                unpack_columns::<K>(panels, self.0.depth, self.0.columns)
            }
        }
        dispatch(self.path, self.precision, Unpack(self))
    }

    pub(crate) fn precision(&self) -> Precision {
        self.precision
    }
}

impl std::fmt::Debug for Packed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { path, precision, depth, columns, .. } = self;
        write!(f, "Packed({depth} x {columns}, {precision:?}, {path:?})")
    }
}

/// Numbers of the right factor that are packed at a time: 4 MiB, so that the panels are still near when they are read.
const PACKED: usize = 1 << 20;
/// What a right factor's width counts for at least, so that a narrow one's depth is bounded too.
const LEAST_WIDTH: usize = 48;

/// `left` times `right`, row by row.
pub(crate) fn product(path: Path, precision: Precision, left: Matrix<'_>, right: Matrix<'_>) -> Vec<f32> {
    struct Multiply<'a> {
        left: Matrix<'a>,
        right: Matrix<'a>,
        out: &'a mut [MaybeUninit<f32>],
    }
    impl WithKernel for Multiply<'_> {
        type Output = ();
        fn run<K: Kernel>(self, kernel: K) {
            let Self { left, right, out } = self;
            let (depth, width) = (right.rows, right.columns);
            // Panels are filled up to a whole number of columns, so that a narrow factor takes as much as a wide one.
            let chunk = (PACKED / width.max(LEAST_WIDTH) / K::DEPTH).max(1) * K::DEPTH;
            with_scratch(columns_length::<K>(chunk.min(depth), width), |panels: &mut [ElementOf<K>]| {
                for start in (0..depth).step_by(chunk) {
                    let count = chunk.min(depth - start);
                    let panels = &mut panels[..columns_length::<K>(count, width)];
                    pack_columns::<K>(right.rows(start, count), panels);
                    let ending = if start == 0 { Ending::Store } else { Ending::Add };
                    product::multiply(kernel, left.columns(start, count), panels, width, ending, out);
                }
            });
        }
    }
    assert_eq!(left.columns, right.rows);
    if left.columns == 0 {
        return vec![0.0; left.rows * right.columns];
    }
    filled(left.rows * right.columns, |out| dispatch(path, precision, Multiply { left, right, out }))
}

/// `length` numbers, all written by `fill`.
fn filled(length: usize, fill: impl FnOnce(&mut [MaybeUninit<f32>])) -> Vec<f32> {
    let mut out = Vec::with_capacity(length);
    fill(&mut out.spare_capacity_mut()[..length]);
    // SAFETY: as much was reserved, and `product::multiply` writes every element of what it is given.
    unsafe { out.set_len(length) };
    out
}
