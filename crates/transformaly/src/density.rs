//! A Gaussian by maximum likelihood, in f64.

use faer::{Mat, MatRef, Side};

use crate::Error;
use crate::whitening::column_means;

/// A Gaussian of k dimensions.
#[derive(Debug, Clone)]
pub(crate) struct Gaussian {
    pub(crate) mean: Vec<f64>,
    /// k x k, with the regularisation on its diagonal.
    pub(crate) covariance: Mat<f64>,
    /// Lower triangle L with covariance = L L^T.
    factor: Mat<f64>,
    log_determinant: f64,
}

impl Gaussian {
    /// Mean, and covariance with divisor n, of `rows` `(n, k)`; `regularisation` is added to the covariance's diagonal.
    pub(crate) fn fit(rows: MatRef<'_, f64>, regularisation: f64) -> Result<Self, Error> {
        let (count, width) = (rows.nrows(), rows.ncols());
        if count < 2 {
            return Err(Error::TooFewImages(count));
        }
        let mean = column_means(rows)?;
        let centred = Mat::from_fn(count, width, |i, j| rows[(i, j)] - mean[j]);
        let mut covariance = centred.transpose() * &centred;
        covariance /= faer::Scale(count as f64);
        for j in 0..width {
            covariance[(j, j)] += regularisation;
        }
        Self::new(mean, covariance)
    }

    /// A Gaussian of this mean and covariance; its density is the same to the bit wherever it is made.
    pub(crate) fn new(mean: Vec<f64>, covariance: Mat<f64>) -> Result<Self, Error> {
        let factor = covariance
            .llt(Side::Lower)
            .map_err(|e| Error::Decomposition {
                what: "covariance of a Gaussian",
                problem: format!("{e:?}"),
            })?
            .L()
            .to_owned();
        let log_determinant = 2.0 * (0..mean.len()).map(|j| factor[(j, j)].ln()).sum::<f64>();
        Ok(Self { mean, covariance, factor, log_determinant })
    }

    /// Squared Mahalanobis distance of `row` to the mean.
    pub(crate) fn mahalanobis_squared(&self, row: &[f64]) -> Result<f64, Error> {
        if row.len() != self.mean.len() {
            return Err(Error::Width { expected: self.mean.len(), found: row.len() });
        }
        // Forward substitution: the squared length of L^-1 (row - mean).
        let mut solved = vec![0.0; row.len()];
        for i in 0..row.len() {
            let known: f64 = (0..i).map(|j| self.factor[(i, j)] * solved[j]).sum();
            solved[i] = (row[i] - self.mean[i] - known) / self.factor[(i, i)];
        }
        Ok(solved.iter().map(|v| v * v).sum())
    }

    /// Log density at `row`, with all constants: the sum of two such needs their right scale.
    pub(crate) fn log_density(&self, row: &[f64]) -> Result<f64, Error> {
        let constant = row.len() as f64 * std::f64::consts::TAU.ln();
        Ok(-0.5 * (constant + self.log_determinant + self.mahalanobis_squared(row)?))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::Gaussian;
    use crate::Error;
    use faer::Mat;

    #[test]
    fn two_dimensions_by_hand() {
        // Rows (0,0), (2,0), (0,2), (2,2): mean (1,1), covariance the identity (divisor n).
        let rows = Mat::from_fn(4, 2, |i, j| if (i >> j) & 1 == 1 { 2.0 } else { 0.0 });
        let gaussian = Gaussian::fit(rows.as_ref(), 0.5).unwrap();
        assert_eq!(gaussian.mean, [1.0, 1.0]);
        assert_eq!(gaussian.covariance, Mat::from_fn(2, 2, |i, j| if i == j { 1.5 } else { 0.0 }));
        let distance = gaussian.mahalanobis_squared(&[4.0, 1.0]).unwrap();
        assert!((distance - 9.0 / 1.5).abs() < 1e-12);
        let wanted = -(std::f64::consts::TAU.ln()) - 1.5_f64.ln() - distance / 2.0;
        assert!((gaussian.log_density(&[4.0, 1.0]).unwrap() - wanted).abs() < 1e-12);
    }

    #[test]
    fn correlation_counts() {
        let covariance = Mat::from_fn(2, 2, |i, j| if i == j { 2.0 } else { 1.0 });
        let gaussian = Gaussian::new(vec![0.0, 0.0], covariance).unwrap();
        // The inverse is (2, -1; -1, 2) / 3.
        assert!((gaussian.mahalanobis_squared(&[1.0, 1.0]).unwrap() - 2.0 / 3.0).abs() < 1e-12);
        assert!((gaussian.mahalanobis_squared(&[1.0, -1.0]).unwrap() - 2.0).abs() < 1e-12);
    }

    #[test]
    fn bad_input_is_refused() {
        let one = Mat::from_fn(1, 2, |_, _| 1.0);
        assert!(matches!(Gaussian::fit(one.as_ref(), 1e-6), Err(Error::TooFewImages(1))));
        let not_positive = Mat::from_fn(2, 2, |_, _| -1.0);
        assert!(matches!(Gaussian::new(vec![0.0; 2], not_positive), Err(Error::Decomposition { .. })));
        let gaussian = Gaussian::new(vec![0.0], Mat::from_fn(1, 1, |_, _| 1.0)).unwrap();
        assert!(matches!(gaussian.log_density(&[1.0, 2.0]), Err(Error::Width { expected: 1, found: 2 })));
    }
}
