//! Whitening of the pre-trained descriptors, in f64.

use faer::{Mat, MatRef, Side};

use crate::Error;
use crate::error::finite;

/// Principal directions of training descriptors, scaled to unit variance.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Whitening {
    /// Mean of the training rows, D numbers.
    pub(crate) mean: Vec<f64>,
    /// One direction a row, k x D; its sign is arbitrary.
    pub(crate) components: Mat<f64>,
    /// Variance along each direction (divisor n - 1), k numbers, falling.
    pub(crate) variances: Vec<f64>,
}

/// What [`Whitening::fit`] saw on its way.
#[derive(Debug, Clone)]
pub(crate) struct Spectrum {
    /// Share of the variance in the first 1, 2, …, D directions.
    #[cfg_attr(not(feature = "conformance"), allow(dead_code))]
    pub(crate) cumulative_share: Vec<f64>,
}

impl Whitening {
    /// Keeps as many directions as have a cumulative share of at most `threshold`, that is one fewer than are needed
    /// to exceed it, as in the reference; but at least one (the reference fails with none), at most D - 1 (if D > 1),
    /// and none without variance.
    pub(crate) fn fit(rows: MatRef<'_, f64>, threshold: f64) -> Result<(Self, Spectrum), Error> {
        let (count, width) = (rows.nrows(), rows.ncols());
        if count < 2 {
            return Err(Error::TooFewImages(count));
        }
        let mean = column_means(rows)?;
        let centred = Mat::from_fn(count, width, |i, j| rows[(i, j)] - mean[j]);
        let mut covariance = centred.transpose() * &centred;
        covariance /= faer::Scale((count - 1) as f64);
        // The reference uses a solver for general matrices, which gives complex numbers when there are fewer images
        // than dimensions.
        let eigen = covariance.self_adjoint_eigen(Side::Lower).map_err(|e| Error::Decomposition {
            what: "covariance of the pre-trained descriptors",
            problem: format!("{e:?}"),
        })?;
        // Rising in faer; tiny negative ones are rounding.
        let values: Vec<f64> = (0..width).rev().map(|j| eigen.S()[j].max(0.0)).collect();
        let total: f64 = values.iter().sum();
        finite(|| "the variance of the pre-trained descriptors".to_owned(), total)?;
        let noise = values[0] * width.max(count) as f64 * f64::EPSILON;
        if total <= 0.0 || values[0] <= f64::MIN_POSITIVE {
            return Err(Error::NoSpread(count));
        }
        let mut sum = 0.0;
        let cumulative_share: Vec<f64> = values
            .iter()
            .map(|value| {
                sum += value;
                sum / total
            })
            .collect();
        let below = cumulative_share.iter().filter(|share| **share <= threshold).count();
        let rank = values.iter().filter(|value| **value > noise).count();
        let kept = below.min(width - 1).min(rank).max(1);
        let vectors = eigen.U();
        let components = Mat::from_fn(kept, width, |i, j| vectors[(j, width - 1 - i)]);
        let whitening = Self { mean, components, variances: values[..kept].to_vec() };
        Ok((whitening, Spectrum { cumulative_share }))
    }

    /// Rows `(n, D)` to rows `(n, k)`.
    pub(crate) fn apply(&self, rows: MatRef<'_, f64>) -> Result<Mat<f64>, Error> {
        if rows.ncols() != self.mean.len() {
            return Err(Error::Width { expected: self.mean.len(), found: rows.ncols() });
        }
        // One row at a time, in a fixed order: a row's result does not depend on its company.
        Ok(Mat::from_fn(rows.nrows(), self.variances.len(), |i, j| {
            let along: f64 =
                (0..self.mean.len()).map(|d| (rows[(i, d)] - self.mean[d]) * self.components[(j, d)]).sum();
            along / self.variances[j].sqrt()
        }))
    }
}

pub(crate) fn column_means(rows: MatRef<'_, f64>) -> Result<Vec<f64>, Error> {
    (0..rows.ncols())
        .map(|j| {
            let mean = (0..rows.nrows()).map(|i| rows[(i, j)]).sum::<f64>() / rows.nrows() as f64;
            finite(|| format!("the mean of column {j} of the training descriptors"), mean)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::Whitening;
    use crate::Error;
    use crate::density::Gaussian;
    use anomaly_core::Streams;
    use faer::Mat;

    fn rows(count: usize, scales: &[f64]) -> Mat<f64> {
        let mut stream = Streams::new(3).stream("test");
        let mut rows = Mat::zeros(count, scales.len());
        for i in 0..count {
            for (j, scale) in scales.iter().enumerate() {
                rows[(i, j)] = f64::from(stream.normal()) * scale + j as f64;
            }
        }
        rows
    }

    #[test]
    fn whitened_training_rows_have_unit_covariance_and_the_closed_form_holds() {
        let train = rows(200, &[5.0, 3.0, 2.0, 1.0, 0.5]);
        let (whitening, spectrum) = Whitening::fit(train.as_ref(), 0.95).unwrap();
        let kept = spectrum.cumulative_share.iter().filter(|s| **s <= 0.95).count();
        assert_eq!(whitening.variances.len(), kept);
        let white = whitening.apply(train.as_ref()).unwrap();
        for a in 0..kept {
            for b in 0..kept {
                let sum: f64 = (0..200).map(|i| white[(i, a)] * white[(i, b)]).sum::<f64>() / 199.0;
                assert!((sum - if a == b { 1.0 } else { 0.0 }).abs() < 1e-10);
            }
        }
        // The density of whitened rows: a multiple of the identity (divisor n, not n - 1).
        let gaussian = Gaussian::fit(white.as_ref(), 1e-6).unwrap();
        let a = 199.0_f64 / 200.0 + 1e-6;
        let test = whitening.apply(rows(3, &[4.0; 5]).as_ref()).unwrap();
        for i in 0..3 {
            let row: Vec<f64> = (0..kept).map(|j| test[(i, j)]).collect();
            let k = kept as f64;
            let square: f64 = row.iter().map(|z| z * z).sum();
            let wanted = -0.5 * (k * std::f64::consts::TAU.ln() + k * a.ln() + square / a);
            assert!((gaussian.log_density(&row).unwrap() - wanted).abs() < 1e-8);
        }
    }

    #[test]
    fn one_direction_is_kept_even_if_it_exceeds_the_threshold() {
        let (whitening, _) = Whitening::fit(rows(50, &[100.0, 0.1, 0.1]).as_ref(), 0.9).unwrap();
        assert_eq!(whitening.variances.len(), 1);
        let (single, _) = Whitening::fit(rows(50, &[1.0]).as_ref(), 0.9).unwrap();
        assert_eq!(single.variances.len(), 1);
    }

    #[test]
    fn fewer_images_than_dimensions_are_legal() {
        let train = rows(4, &[1.0; 9]);
        let (whitening, _) = Whitening::fit(train.as_ref(), 1.0).unwrap();
        assert!(whitening.variances.len() <= 3, "{}", whitening.variances.len());
        let white = whitening.apply(train.as_ref()).unwrap();
        assert!((0..4).all(|i| (0..white.ncols()).all(|j| white[(i, j)].abs() < 3.0)));
    }

    #[test]
    fn what_has_no_spread_is_refused() {
        assert!(matches!(Whitening::fit(rows(1, &[1.0]).as_ref(), 0.9), Err(Error::TooFewImages(1))));
        let same = Mat::from_fn(5, 2, |_, j| j as f64);
        assert!(matches!(Whitening::fit(same.as_ref(), 0.9), Err(Error::NoSpread(5))));
        let nan = Mat::from_fn(5, 2, |i, _| if i == 2 { f64::NAN } else { 1.0 });
        assert!(matches!(Whitening::fit(nan.as_ref(), 0.9), Err(Error::NotFinite { .. })));
    }
}
