//! The kernel of bf16 for processors with `AVX512_BF16`, without tiles.

use std::arch::x86_64::{
    __m512bh, __m512i, _mm512_dpbf16_ps, _mm512_loadu_ps, _mm512_loadu_si512, _mm512_set1_epi32,
    _mm512_setzero_ps, _mm512_storeu_ps,
};
use std::mem::transmute;

use super::panels::{Half, Kernel};

/// Panels of `ROWS` rows and `VECTORS` vectors of columns.
#[derive(Clone, Copy)]
pub(super) struct Dot<const PARTS: usize>(());

impl<const PARTS: usize> Dot<PARTS> {
    /// The kernel, if this processor has the instructions.
    pub(super) fn try_new() -> Option<Self> {
        (is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("avx512bf16")).then_some(Self(()))
    }
}

const ROWS: usize = 8;
const VECTORS: usize = 3;

impl<const PARTS: usize> Kernel for Dot<PARTS> {
    type Encoding = Half<PARTS>;
    type Session = Self;
    const ROWS: usize = ROWS;
    const COLUMNS: usize = 16 * VECTORS;
    const DEPTH: usize = 512 / PARTS;
    const UNIT: usize = 2;

    fn session(self) -> Self {
        self
    }

    fn multiply(_: &mut Self, rows: &[u16], columns: &[u16], depth: usize, count: usize, sums: &mut [f32]) {
        assert!(depth <= Self::DEPTH && depth.is_multiple_of(2));
        assert!(rows.len() >= PARTS * ROWS * Self::STRIDE && columns.len() >= PARTS * depth * Self::COLUMNS);
        assert!(sums.len() >= ROWS * Self::COLUMNS);
        let parts: &[(usize, usize)] = if PARTS == 2 { &[(1, 0), (0, 1), (0, 0)] } else { &[(0, 0)] };
        for &(left, right) in parts {
            let rows = &rows[left * ROWS * Self::STRIDE..];
            let columns = &columns[right * depth * Self::COLUMNS..];
            // SAFETY: `try_new` has seen the instructions; the lengths were checked above.
            unsafe {
                if count <= ROWS / 2 {
                    panel::<{ ROWS / 2 }>(
                        rows.as_ptr(),
                        Self::STRIDE,
                        columns.as_ptr(),
                        depth,
                        sums.as_mut_ptr(),
                    );
                } else {
                    panel::<ROWS>(rows.as_ptr(), Self::STRIDE, columns.as_ptr(), depth, sums.as_mut_ptr());
                }
            }
        }
    }
}

/// One part of a block.
///
/// # Safety
/// The processor must have the features, `rows` must hold `R` rows of `depth` elements, `stride` apart, `columns`
/// `depth` times 48 elements and `sums` `R` times 48; `depth` must be even.
// Counted loops: without link-time optimisation, an iterator made in another unit is called, not unrolled, and the sums
// leave their registers (measured: ten times as long).
#[allow(clippy::needless_range_loop)]
#[target_feature(enable = "avx512f,avx512bf16")]
unsafe fn panel<const R: usize>(
    rows: *const u16,
    stride: usize,
    columns: *const u16,
    depth: usize,
    sums: *mut f32,
) {
    let mut held = [[_mm512_setzero_ps(); VECTORS]; R];
    let mut column = [_mm512_set1_epi32(0); VECTORS];
    // SAFETY: all offsets are inside of what this function's contract promises; unaligned reads are allowed.
    unsafe {
        for r in 0..R {
            for v in 0..VECTORS {
                held[r][v] = _mm512_loadu_ps(sums.add((r * VECTORS + v) * 16));
            }
        }
        for k in (0..depth).step_by(2) {
            for v in 0..VECTORS {
                column[v] = _mm512_loadu_si512(columns.add(k * 16 * VECTORS + v * 32).cast());
            }
            for r in 0..R {
                let pair = rows.add(r * stride + k).cast::<i32>().read_unaligned();
                let pair = as_bf16(_mm512_set1_epi32(pair));
                for v in 0..VECTORS {
                    held[r][v] = _mm512_dpbf16_ps(held[r][v], pair, as_bf16(column[v]));
                }
            }
        }
        for r in 0..R {
            for v in 0..VECTORS {
                _mm512_storeu_ps(sums.add((r * VECTORS + v) * 16), held[r][v]);
            }
        }
    }
}

#[inline(always)]
fn as_bf16(bits: __m512i) -> __m512bh {
    // SAFETY: both are 64 bytes of any content.
    unsafe { transmute(bits) }
}
