//! Exact nearest neighbours by brute force.

use candle_core::{D, DType, Tensor};

use crate::Error;

/// Vectors compared in one matrix product.
const BLOCK: usize = 4096;
/// Unit roundoff of f32.
const ROUNDOFF: f64 = 1.0 / (1 << 24) as f64;

/// Vectors to look for neighbours among.
pub(crate) struct Bank {
    /// `(N, F)`, f32.
    vectors: Tensor,
    /// Squared length of each, `(N,)`.
    squared: Vec<f64>,
}

impl Bank {
    /// A bank of the rows of `vectors`, `(N, F)`.
    pub(crate) fn new(vectors: Tensor) -> Result<Self, Error> {
        let squared = squared_lengths(&vectors)?;
        Ok(Self { vectors, squared })
    }

    /// The vectors, `(N, F)`.
    pub(crate) fn vectors(&self) -> &Tensor {
        &self.vectors
    }

    /// For each row of `queries`, `(B, F)`: the squared Euclidean distances to its `k` nearest vectors, ascending.
    ///
    /// `|a - b|^2 = |a|^2 + |b|^2 - 2ab` is fast, as one matrix product, and wrong in its last digits, all of them for
    /// near vectors. So it only narrows down: every vector whose distance could be among the `k` smallest within the
    /// product's error bound is measured again, difference by difference in f64. The result is exact and does not
    /// depend on the batch.
    pub(crate) fn nearest(&self, queries: &Tensor, k: usize) -> Result<Vec<Vec<f64>>, Error> {
        let (width, found) = (self.vectors.dim(1)?, queries.dim(1)?);
        if width != found {
            return Err(Error::Width { expected: width, found });
        }
        let rough = self.rough(queries)?;
        let lengths = squared_lengths(queries)?;
        let mut nearest = Vec::with_capacity(lengths.len());
        for (index, (rough, length)) in rough.into_iter().zip(lengths).enumerate() {
            let query = queries.get(index)?.to_vec1::<f32>()?;
            let mut exact = Vec::new();
            for row in self.candidates(&rough, length, width, k) {
                let vector = self.vectors.get(row)?.to_vec1::<f32>()?;
                exact.push(squared_distance(&query, &vector));
            }
            exact.sort_unstable_by(f64::total_cmp);
            exact.truncate(k);
            nearest.push(exact);
        }
        Ok(nearest)
    }

    /// Inner products of each query with each vector, `(B, N)`.
    fn rough(&self, queries: &Tensor) -> Result<Vec<Vec<f32>>, Error> {
        let count = self.squared.len();
        let mut products = vec![Vec::with_capacity(count); queries.dim(0)?];
        for start in (0..count).step_by(BLOCK) {
            let block = self.vectors.narrow(0, start, BLOCK.min(count - start))?;
            for (row, part) in products.iter_mut().zip(queries.matmul(&block.t()?)?.to_vec2::<f32>()?) {
                row.extend(part);
            }
        }
        Ok(products)
    }

    /// The vectors that may be among the `k` nearest of a query of squared length `length`.
    fn candidates(&self, products: &[f32], length: f64, width: usize, k: usize) -> Vec<usize> {
        // An inner product of F numbers is off by at most F u |a| |b| (to first order; twice that, to be safe).
        let error = |squared: f64| 4.0 * width as f64 * ROUNDOFF * (length * squared).sqrt();
        let bounds: Vec<(f64, f64)> = products
            .iter()
            .zip(&self.squared)
            .map(|(product, squared)| {
                let middle = length + squared - 2.0 * f64::from(*product);
                (middle - error(*squared), middle + error(*squared))
            })
            .collect();
        let mut upper: Vec<f64> = bounds.iter().map(|(_, upper)| *upper).collect();
        let Some(last) = k.min(upper.len()).checked_sub(1) else { return Vec::new() };
        // At least k vectors are no farther than this.
        let (_, reach, _) = upper.select_nth_unstable_by(last, f64::total_cmp);
        let reach = *reach;
        (0..bounds.len()).filter(|row| bounds[*row].0 <= reach).collect()
    }
}

fn squared_lengths(vectors: &Tensor) -> Result<Vec<f64>, Error> {
    let mut lengths = Vec::with_capacity(vectors.dim(0)?);
    // In blocks: a copy of a whole bank in f64 would take twice its memory.
    for start in (0..vectors.dim(0)?).step_by(BLOCK) {
        let block = vectors.narrow(0, start, BLOCK.min(vectors.dim(0)? - start))?;
        lengths.extend(block.to_dtype(DType::F64)?.sqr()?.sum(D::Minus1)?.to_vec1::<f64>()?);
    }
    Ok(lengths)
}

fn squared_distance(a: &[f32], b: &[f32]) -> f64 {
    a.iter().zip(b).map(|(a, b)| (f64::from(*a) - f64::from(*b)).powi(2)).sum()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use candle_core::{Device, Tensor};
    use proptest::prelude::*;

    use super::{Bank, squared_distance};

    fn tensor(rows: &[Vec<f32>]) -> Tensor {
        Tensor::from_vec(rows.concat(), (rows.len(), rows[0].len()), &Device::Cpu).unwrap()
    }

    proptest! {
        #[test]
        fn the_nearest_are_those_of_a_full_search(
            rows in prop::collection::vec(prop::collection::vec(-1.0_f32..1.0, 5), 1..40),
            query in prop::collection::vec(-1.0_f32..1.0, 5),
            k in 1_usize..6,
            far in prop::sample::select(vec![0.0_f32, 1e4]),
        ) {
            // Far from the origin the matrix product has no digit of these distances right.
            let moved = |v: &Vec<f32>| v.iter().map(|x| x + far).collect::<Vec<_>>();
            let rows: Vec<Vec<f32>> = rows.iter().map(moved).collect();
            let query = moved(&query);
            let mut all: Vec<f64> = rows.iter().map(|row| squared_distance(&query, row)).collect();
            all.sort_unstable_by(f64::total_cmp);
            all.truncate(k);
            let found = Bank::new(tensor(&rows)).unwrap().nearest(&tensor(&[query]), k).unwrap();
            prop_assert_eq!(&found, &[all]);
        }
    }

    #[test]
    fn few_vectors_are_measured_again() {
        let rows: Vec<Vec<f32>> = (0..100).map(|i| vec![i as f32, 1.0, -2.0]).collect();
        let bank = Bank::new(tensor(&rows)).unwrap();
        let query = tensor(&[vec![30.2, 1.0, -2.0]]);
        let products = bank.rough(&query).unwrap();
        let length = super::squared_lengths(&query).unwrap()[0];
        assert_eq!(bank.candidates(&products[0], length, 3, 2), [30, 31]);
        let found = bank.nearest(&query, 2).unwrap();
        assert!((found[0][0] - 0.04).abs() < 1e-5 && (found[0][1] - 0.64).abs() < 1e-5, "{found:?}");
    }

    #[test]
    fn vectors_of_another_length_are_refused_with_both() {
        let bank = Bank::new(tensor(&[vec![1.0, 2.0]])).unwrap();
        let message = bank.nearest(&tensor(&[vec![1.0]]), 1).unwrap_err().to_string();
        assert!(message.contains("of 2 numbers, found 1"), "{message}");
    }
}
