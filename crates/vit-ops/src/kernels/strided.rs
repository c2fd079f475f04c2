//! Small products of strided matrices in one thread.

use gemm::{Parallelism, gemm};

use crate::lanes::Real;

/// Part of a matrix in memory: rows and columns lie at fixed distances.
#[derive(Debug, Clone, Copy)]
pub(crate) struct View<'a, T> {
    numbers: &'a [T],
    rows: usize,
    columns: usize,
    row_stride: usize,
    column_stride: usize,
}

impl<'a, T> View<'a, T> {
    /// Rows of neighbouring numbers, each `row_stride` behind the one before.
    ///
    /// # Panics
    /// If the numbers are too few.
    pub(crate) fn of_rows(numbers: &'a [T], (rows, columns): (usize, usize), row_stride: usize) -> Self {
        let end = if rows == 0 || columns == 0 { 0 } else { (rows - 1) * row_stride + columns };
        assert!(end <= numbers.len());
        Self { numbers, rows, columns, row_stride, column_stride: 1 }
    }

    pub(crate) fn transposed(self) -> Self {
        Self {
            rows: self.columns,
            columns: self.rows,
            row_stride: self.column_stride,
            column_stride: self.row_stride,
            ..self
        }
    }
}

/// `scale * a b` into the rows of `out`, which are `row_stride` apart; added to what is there, if `add`.
///
/// # Panics
/// If the sizes do not fit.
pub(crate) fn multiply<T: Real>(
    out: &mut [T],
    row_stride: usize,
    a: View<'_, T>,
    b: View<'_, T>,
    scale: T,
    add: bool,
) {
    let (m, n, k) = (a.rows, b.columns, a.columns);
    assert_eq!(b.rows, k);
    if m == 0 || n == 0 {
        return;
    }
    assert!(n <= row_stride && (m - 1) * row_stride + n <= out.len());
    // SAFETY: the views and the assertion keep every index inside of its slice, and `out` is borrowed by us alone.
    unsafe {
        gemm(
            m,
            n,
            k,
            out.as_mut_ptr(),
            1,
            row_stride as isize,
            add,
            a.numbers.as_ptr(),
            a.column_stride as isize,
            a.row_stride as isize,
            b.numbers.as_ptr(),
            b.column_stride as isize,
            b.row_stride as isize,
            T::ONE,
            scale,
            false,
            false,
            false,
            Parallelism::None,
        );
    }
}

#[cfg(test)]
mod tests {
    use super::{View, multiply};

    #[test]
    fn strides_are_kept() {
        // A 2 x 3 matrix in rows of 4, the transpose of a 2 x 3 one in rows of 5.
        let a = [1., 2., 3., 9., 4., 5., 6.];
        let b = [1., 0., 2., 9., 9., 0., 1., 1.];
        let mut out = [100., 100., 7., 100., 100.];
        let a = View::of_rows(&a, (2, 3), 4);
        let b = View::of_rows(&b, (2, 3), 5).transposed();
        multiply(&mut out, 3, a, b, 2., false);
        assert_eq!(out, [14., 10., 7., 32., 22.]);
        multiply(&mut out, 3, a, b, 1., true);
        assert_eq!(out, [21., 15., 7., 48., 33.]);
    }

    #[test]
    #[should_panic(expected = "assertion")]
    fn a_view_beyond_its_numbers_is_refused() {
        View::of_rows(&[0_f32; 7], (2, 4), 4);
    }
}
