#![allow(clippy::unwrap_used)]

use random_streams::Streams;

use super::panels::{from_bf16, to_bf16};
use super::{Ending, Matrix, Packed, Path, product};
use crate::Precision;

const PRECISIONS: [Precision; 3] = [Precision::F32, Precision::Bf16x3, Precision::Bf16];

/// Rows, depth, columns: none, one and more of each kernel's panels, blocks and units, whole and not.
const SHAPES: [(usize, usize, usize); 12] = [
    (1, 1, 1),
    (1, 768, 5),
    (3, 33, 49),
    (8, 256, 48),
    (9, 257, 97),
    (16, 64, 32),
    (17, 31, 33),
    (31, 300, 15),
    (33, 513, 64),
    (65, 20, 129),
    (257, 47, 50),
    (520, 70, 34),
];

fn numbers(count: usize, seed: u64) -> Vec<f32> {
    let mut numbers = vec![0.0; count];
    Streams::new(seed).stream("test").fill_normal(&mut numbers);
    numbers
}

/// The definition: numbers as the precision keeps them, their products in f64, `left` (m, k) times the transpose of
/// `right` (n, k).
fn reference(precision: Precision, left: &[f32], right: &[f32], depth: usize) -> Vec<f64> {
    let parts = |value: f32| {
        let high = from_bf16(to_bf16(value));
        (f64::from(high), f64::from(from_bf16(to_bf16(value - high))))
    };
    let term = |a: f32, b: f32| {
        let ((a_high, a_low), (b_high, b_low)) = (parts(a), parts(b));
        match precision {
            Precision::F32 => f64::from(a) * f64::from(b),
            Precision::Bf16x3 => a_high * b_high + a_high * b_low + a_low * b_high,
            Precision::Bf16 => a_high * b_high,
        }
    };
    let mut out = Vec::new();
    for a in left.chunks_exact(depth) {
        for b in right.chunks_exact(depth) {
            out.push(a.iter().zip(b).map(|(&a, &b)| term(a, b)).sum());
        }
    }
    out
}

/// As close as sums of `depth` terms in f32 are.
#[track_caller]
fn close(found: &[f32], wanted: &[f64], depth: usize, what: &str) {
    assert_eq!(found.len(), wanted.len());
    let bound = 1e-6 * (depth as f64).sqrt() + 1e-6;
    for (at, (&found, &wanted)) in found.iter().zip(wanted).enumerate() {
        let difference = (f64::from(found) - wanted).abs();
        assert!(difference <= bound * (1.0 + wanted.abs()), "{what}, element {at}: {found} for {wanted}");
    }
}

#[test]
fn every_path_computes_what_its_precision_means() {
    for (m, k, n) in SHAPES {
        let (x, weight) = (numbers(m * k, 1), numbers(n * k, 2));
        for precision in PRECISIONS {
            let wanted = reference(precision, &x, &weight, k);
            for path in Path::all() {
                let packed = Packed::transposed(path, precision, &weight, k);
                let what = format!("{m} x {k} x {n}, {precision:?}, {path:?}");
                close(&packed.multiply(&x, Ending::Store), &wanted, k, &what);
            }
        }
    }
}

#[test]
fn every_ending_is_applied_to_every_element() {
    fn halve(values: &mut [f32]) {
        for value in values {
            *value *= 0.5;
        }
    }
    for (m, k, n) in [(1, 7, 3), (37, 40, 101)] {
        let (x, weight, before) = (numbers(m * k, 1), numbers(n * k, 2), numbers(m * n, 3));
        let (bias, scale) = (numbers(n, 4), numbers(n, 5));
        for path in Path::all() {
            let packed = Packed::transposed(path, Precision::F32, &weight, k);
            let plain = reference(Precision::F32, &x, &weight, k);
            for (has_bias, has_scale) in [(false, false), (true, false), (false, true), (true, true)] {
                let of = |there: bool, row: &[f32], at: usize, or: f64| {
                    if there { row[at % n].into() } else { or }
                };
                let biased = |at: usize| plain[at] + of(has_bias, &bias, at, 0.0);
                let (bias, scale) = (has_bias.then_some(&bias[..]), has_scale.then_some(&scale[..]));
                let found = packed.multiply(&x, Ending::Map { bias, map: Some(halve) });
                close(&found, &(0..m * n).map(|at| 0.5 * biased(at)).collect::<Vec<_>>(), k, "map");
                let found = packed.multiply(&x, Ending::Residual { bias, scale, x: &before });
                let wanted = (0..m * n).map(|at| {
                    f64::from(before[at]) + biased(at) * of(has_scale, scale.unwrap_or_default(), at, 1.0)
                });
                close(&found, &wanted.collect::<Vec<_>>(), k, "residual");
            }
        }
    }
}

#[test]
fn factors_are_taken_by_rows_and_by_columns() {
    // The last depths are more than is packed at a time.
    for (m, k, n) in [(5, 9, 7), (40, 37, 50), (3, 300, 5000), (2, 50_000, 1)] {
        let (left, right) = (numbers(m * k, 1), numbers(n * k, 2));
        let transpose = |values: &[f32], width: usize| -> Vec<f32> {
            (0..values.len())
                .map(|at| values[at % (values.len() / width) * width + at / (values.len() / width)])
                .collect()
        };
        let (left_t, right_t) = (transpose(&left, k), transpose(&right, k));
        for precision in PRECISIONS {
            let wanted = reference(precision, &left, &right, k);
            for path in Path::all() {
                if path == Path::ModelOfTiles && k * n > 10_000 {
                    continue;
                }
                for a in [Matrix::by_rows(&left, k), Matrix::by_columns(&left_t, m)] {
                    for b in [Matrix::by_columns(&right, k), Matrix::by_rows(&right_t, n)] {
                        close(&product(path, precision, a, b), &wanted, k, "product");
                    }
                }
            }
        }
    }
    let none = product(Path::best(), Precision::F32, Matrix::by_rows(&[], 0), Matrix::by_rows(&[], 4));
    assert!(none.is_empty());
}

#[test]
fn a_weight_comes_back_as_the_precision_keeps_it() {
    for (k, n) in [(1, 1), (33, 50), (300, 7), (513, 97)] {
        let weight = numbers(n * k, 6);
        for path in Path::all() {
            for (precision, error) in PRECISIONS.into_iter().zip([0.0, 2e-5, 4e-3]) {
                let back = Packed::transposed(path, precision, &weight, k).weight();
                assert_eq!(back.len(), weight.len());
                for (&back, &weight) in back.iter().zip(&weight) {
                    assert!(
                        (back - weight).abs() <= error * weight.abs(),
                        "{path:?} {precision:?}: {back} {weight}"
                    );
                }
            }
        }
    }
}

#[test]
fn a_row_has_the_same_bits_in_whatever_company() {
    let (k, n) = (300, 70);
    let (x, weight) = (numbers(300 * k, 1), numbers(n * k, 2));
    for path in Path::all() {
        for precision in PRECISIONS {
            let packed = Packed::transposed(path, precision, &weight, k);
            let all = packed.multiply(&x, Ending::Store);
            for row in [0, 7, 41, 299] {
                let alone = packed.multiply(&x[row * k..(row + 1) * k], Ending::Store);
                assert_eq!(alone, all[row * n..(row + 1) * n], "row {row}, {precision:?}, {path:?}");
            }
        }
    }
}

#[test]
fn bf16_rounds_to_the_nearest_and_keeps_what_is_no_number() {
    let round = |value: f32| from_bf16(to_bf16(value));
    assert_eq!(round(1.0), 1.0);
    // Neighbours of 1 are 2^-7 above: the middle goes to the even one, a little more goes up.
    let step = 2_f32.powi(-8);
    assert_eq!(round(1.0 + step), 1.0);
    assert_eq!(round(1.0 + 1.01 * step), 1.0 + 2.0 * step);
    assert_eq!(round(1.0 + 3.0 * step), 1.0 + 4.0 * step);
    assert_eq!(round(-f32::MAX), f32::NEG_INFINITY);
    assert_eq!(round(f32::INFINITY), f32::INFINITY);
    assert!(round(f32::NAN).is_nan());
    assert!(round(f32::from_bits(0x7f80_0001)).is_nan());
}
