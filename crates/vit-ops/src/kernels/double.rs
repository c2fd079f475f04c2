//! Products in f64, which tests of gradients compute in.

use gemm::{Parallelism, gemm};

use super::panels::Matrix;

/// `left` times `right`, row by row.
pub(crate) fn product(left: Matrix<'_, f64>, right: Matrix<'_, f64>) -> Vec<f64> {
    let (m, k, n) = (left.rows, left.columns, right.columns);
    assert_eq!(k, right.rows);
    assert!(left.data.len() >= m * k && right.data.len() >= k * n);
    let mut out = vec![0.0; m * n];
    // From one column to the next, from one row to the next.
    let strides = |matrix: Matrix<'_, f64>| {
        if matrix.by_rows { (1, matrix.columns as isize) } else { (matrix.rows as isize, 1) }
    };
    let ((left_column, left_row), (right_column, right_row)) = (strides(left), strides(right));
    let (to, left, right) = (out.as_mut_ptr(), left.data.as_ptr(), right.data.as_ptr());
    // SAFETY: all three are as long as their sizes and strides reach, the result is borrowed by nobody else.
    unsafe {
        gemm(
            m,
            n,
            k,
            to,
            1,
            n as isize,
            false,
            left,
            left_column,
            left_row,
            right,
            right_column,
            right_row,
            0.0,
            1.0,
            false,
            false,
            false,
            Parallelism::Rayon(0),
        );
    }
    out
}
