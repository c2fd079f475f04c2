//! The kernel of f32, for every instruction set that `pulp` knows.

use std::marker::PhantomData;

use pulp::Simd;

use super::panels::{ElementOf, Encoding, Kernel};

/// With so many, a block's columns and one row panel share the first cache, or nearly so.
const DEPTH: usize = 256;

/// A kernel of panels of `ROWS` rows and `VECTORS` vectors of columns; `HALF` is half of `ROWS`, for a last panel with
/// few.
#[derive(Clone, Copy)]
pub(super) struct Float<S, E, const ROWS: usize, const HALF: usize, const VECTORS: usize> {
    simd: S,
    encoding: PhantomData<E>,
}

impl<S: Simd, E, const ROWS: usize, const HALF: usize, const VECTORS: usize>
    Float<S, E, ROWS, HALF, VECTORS>
{
    pub(super) fn new(simd: S) -> Self {
        Self { simd, encoding: PhantomData }
    }
}

impl<S: Simd, E: Encoding<Element = f32>, const ROWS: usize, const HALF: usize, const VECTORS: usize> Kernel
    for Float<S, E, ROWS, HALF, VECTORS>
{
    type Encoding = E;
    type Session = Self;
    const ROWS: usize = ROWS;
    const COLUMNS: usize = VECTORS * S::F32_LANES;
    const DEPTH: usize = DEPTH;
    const UNIT: usize = 1;

    fn session(self) -> Self {
        self
    }

    fn multiply(
        session: &mut Self,
        rows: &[ElementOf<Self>],
        columns: &[ElementOf<Self>],
        depth: usize,
        count: usize,
        sums: &mut [f32],
    ) {
        let (row_part, column_part) = (Self::ROWS * Self::STRIDE, depth * Self::COLUMNS);
        // All products of parts but that of the two low ones, which is below what f32 sums resolve.
        let parts: &[(usize, usize)] = if E::PARTS == 2 { &[(1, 0), (0, 1), (0, 0)] } else { &[(0, 0)] };
        for &(left, right) in parts {
            let rows = &rows[left * row_part..];
            let columns = &columns[right * column_part..];
            let rows = rows.as_chunks().0;
            if count <= HALF {
                session.simd.vectorize(Panel::<HALF, VECTORS> { rows, columns, depth, sums });
            } else {
                session.simd.vectorize(Panel::<ROWS, VECTORS> { rows, columns, depth, sums });
            }
        }
    }
}

/// The elements between rows, as [`Kernel::STRIDE`] has them.
const STRIDE: usize = DEPTH + 16;

struct Panel<'a, const ROWS: usize, const VECTORS: usize> {
    rows: &'a [[f32; STRIDE]],
    columns: &'a [f32],
    depth: usize,
    sums: &'a mut [f32],
}

impl<const ROWS: usize, const VECTORS: usize> pulp::WithSimd for Panel<'_, ROWS, VECTORS> {
    type Output = ();

    // One index for several arrays, so that all of them unroll alike, and copies that stay in registers.
    #[allow(clippy::needless_range_loop, clippy::manual_memcpy)]
    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self { rows, columns, depth, sums } = self;
        let columns = &S::as_simd_f32s(columns).0.as_chunks::<VECTORS>().0[..depth];
        let sums = &mut S::as_mut_simd_f32s(sums).0.as_chunks_mut::<VECTORS>().0[..ROWS];
        // These two make the reads below safe without a test each.
        let rows = &rows[..ROWS];
        assert!(depth <= STRIDE);
        // In registers throughout.
        let mut held = [[simd.splat_f32s(0.0); VECTORS]; ROWS];
        for r in 0..ROWS {
            held[r] = sums[r];
        }
        for k in 0..depth {
            let column = columns[k];
            for r in 0..ROWS {
                let value = simd.splat_f32s(rows[r][k]);
                for v in 0..VECTORS {
                    held[r][v] = simd.mul_add_e_f32s(value, column[v], held[r][v]);
                }
            }
        }
        for r in 0..ROWS {
            sums[r] = held[r];
        }
    }
}
