//! The association discrepancy: how far attention is from a Gaussian around each patch.
//!
//! After Xu et al., "Anomaly Transformer" (ICLR 2022, arXiv 2110.02642), on a grid of patches. `ADViT` claims it and its
//! public code has none of it, so there is nothing of its own to be compared with.

use candle_core::{D, Tensor};
use serde::{Deserialize, Serialize};
use vit_ops::softmax;

use crate::Error;

/// Added to both arguments of a logarithm.
const GUARD: f64 = 1e-4;

/// How far apart two patches are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Distance {
    /// Euclidean on the patch grid.
    #[default]
    Grid2d,
    /// The difference of their row-major indices: the time-series form, in which the end of a row is a neighbour of the
    /// next row's start.
    Index1d,
}

impl Distance {
    /// Squared distances of all pairs of patches of a grid of `(rows, columns)`, `(n, n)`, like `like`.
    pub(crate) fn squared(self, grid: (usize, usize), like: &Tensor) -> Result<Tensor, Error> {
        let n = grid.0 * grid.1;
        let place = |i: usize| ((i / grid.1) as f32, (i % grid.1) as f32);
        let mut all = Vec::with_capacity(n * n);
        for i in 0..n {
            for j in 0..n {
                all.push(match self {
                    Self::Index1d => (i.abs_diff(j) as f32).powi(2),
                    Self::Grid2d => {
                        let ((a, b), (c, d)) = (place(i), place(j));
                        (a - c).powi(2) + (b - d).powi(2)
                    }
                });
            }
        }
        Ok(Tensor::from_vec(all, (n, n), like.device())?.to_dtype(like.dtype())?)
    }
}

/// What one layer's attention and its prior say of n patches.
#[derive(Debug, Clone)]
pub(crate) struct Association {
    /// The prior's width at each patch, `(B, h, n)`.
    pub(crate) sigma: Tensor,
    /// `(B, h, n, n)`, rows sum to 1.
    pub(crate) prior: Tensor,
    /// `(B, h, n, n)`, rows sum to 1.
    pub(crate) series: Tensor,
}

impl Association {
    /// Of raw widths `(B, n, h)`, attention probabilities `(B, h, N, N)` and squared distances `(n, n)`. With one token
    /// more than patches, the first is the class token: its row and column are left out and the rest renormalised.
    pub(crate) fn new(raw: &Tensor, attention: &Tensor, squared: &Tensor) -> Result<Self, Error> {
        let patches = raw.dim(1)?;
        let class = attention.dim(D::Minus1)? - patches;
        let series = if class == 0 {
            attention.clone()
        } else {
            let inner = attention.narrow(2, class, patches)?.narrow(3, class, patches)?;
            inner.broadcast_div(&inner.sum_keepdim(D::Minus1)?)?
        };
        // 3^(sigmoid(5 raw) + 1e-5) - 1; the logistic function as a tanh, whose gradient is finite everywhere.
        let logistic = (raw.transpose(1, 2)?.contiguous()? * 2.5)?.tanh()?.affine(0.5, 0.5)?;
        let sigma = ((logistic.affine(3_f64.ln(), 1e-5 * 3_f64.ln()))?.exp()? - 1.0)?;
        // As a softmax the prior is never 0/0, however narrow.
        let narrowness = (sigma.sqr()? * 2.0)?.recip()?.unsqueeze(D::Minus1)?;
        let prior = softmax(&narrowness.broadcast_mul(squared)?.neg()?)?;
        Ok(Self { sigma, prior, series })
    }

    /// `KL(P, S) + KL(S, P)` of each patch, averaged over the heads: `(B, n)`.
    pub(crate) fn token_discrepancy(&self) -> Result<Tensor, Error> {
        Ok(symmetric(&self.prior, &self.series)?.mean(1)?)
    }

    /// The mean discrepancy with a constant series: moves the prior. A scalar.
    pub(crate) fn of_prior(&self) -> Result<Tensor, Error> {
        Ok(symmetric(&self.prior, &self.series.detach())?.mean_all()?)
    }

    /// The mean discrepancy with a constant prior: moves the attention. A scalar of the same value.
    pub(crate) fn of_series(&self) -> Result<Tensor, Error> {
        Ok(symmetric(&self.prior.detach(), &self.series)?.mean_all()?)
    }
}

/// Of probabilities `(.., n)`: `(..)`.
fn symmetric(p: &Tensor, q: &Tensor) -> Result<Tensor, Error> {
    // KL(p, q) + KL(q, p) = sum (p - q)(ln p - ln q).
    let logs = ((p + GUARD)?.log()? - (q + GUARD)?.log()?)?;
    Ok(((p - q)? * logs)?.sum(D::Minus1)?)
}

/// The discrepancies of all layers: their means over layers (with constant series, with constant prior).
pub(crate) fn discrepancies(layers: &[Association]) -> Result<Option<(Tensor, Tensor)>, Error> {
    if layers.is_empty() {
        return Ok(None);
    }
    let mean = |of: fn(&Association) -> Result<Tensor, Error>| -> Result<Tensor, Error> {
        let all = layers.iter().map(of).collect::<Result<Vec<_>, _>>()?;
        Ok(Tensor::stack(&all, 0)?.mean_all()?)
    };
    Ok(Some((mean(Association::of_prior)?, mean(Association::of_series)?)))
}

/// The sum over layers of each patch's discrepancy, `(B, n)`.
pub(crate) fn token_discrepancies(layers: &[Association]) -> Result<Option<Tensor>, Error> {
    let mut sum: Option<Tensor> = None;
    for layer in layers {
        let own = layer.token_discrepancy()?;
        sum = Some(match sum {
            Some(sum) => (sum + own)?,
            None => own,
        });
    }
    Ok(sum)
}

/// `softmax over patches of -temperature * discrepancy`, times the patches' values, `(B, n)` each: brings out where an
/// image is odd, and loses how odd it is.
pub(crate) fn weighted(values: &Tensor, discrepancy: &Tensor, temperature: f64) -> Result<Tensor, Error> {
    Ok((softmax(&(discrepancy * -temperature)?)? * values)?)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use candle_core::{D, DType, Device, Tensor, Var};

    use super::{Association, Distance};

    fn even(shape: (usize, usize, usize, usize)) -> Tensor {
        (Tensor::ones(shape, DType::F64, &Device::Cpu).unwrap() / shape.3 as f64).unwrap()
    }

    #[test]
    fn the_narrowest_prior_is_the_patch_itself_and_stays_finite() {
        let raw = Var::new(&[[[-1e3_f64], [1e3]]], &Device::Cpu).unwrap();
        let like = Tensor::zeros(1, DType::F64, &Device::Cpu).unwrap();
        let squared = Distance::Grid2d.squared((1, 2), &like).unwrap();
        let found = Association::new(&raw, &even((1, 1, 2, 2)), &squared).unwrap();
        let sigma = found.sigma.flatten_all().unwrap().to_vec1::<f64>().unwrap();
        assert!((sigma[0] - 1.0986e-5).abs() < 1e-8 && (sigma[1] - 2.000_033).abs() < 1e-5, "{sigma:?}");
        let prior = found.prior.flatten_all().unwrap().to_vec1::<f64>().unwrap();
        assert_eq!(&prior[..2], [1.0, 0.0]);
        let store = found.of_prior().unwrap().backward().unwrap();
        let gradient = store.get(&raw).unwrap().flatten_all().unwrap().to_vec1::<f64>().unwrap();
        assert!(gradient.iter().all(|g| g.is_finite()), "{gradient:?}");
    }

    #[test]
    fn the_class_token_is_left_out_and_rows_sum_to_one() {
        let raw = Tensor::zeros((1, 4, 2), DType::F64, &Device::Cpu).unwrap();
        let squared = Distance::Index1d.squared((2, 2), &raw).unwrap();
        let found = Association::new(&raw, &even((1, 2, 5, 5)), &squared).unwrap();
        for rows in [&found.series, &found.prior] {
            assert_eq!(rows.dims(), [1, 2, 4, 4]);
            let sums = rows.sum(D::Minus1).unwrap().flatten_all().unwrap().to_vec1::<f64>().unwrap();
            assert!(sums.iter().all(|s| (s - 1.0).abs() < 1e-12));
        }
        assert_eq!(found.token_discrepancy().unwrap().dims(), [1, 4]);
        let (a, b) = (found.of_prior().unwrap(), found.of_series().unwrap());
        assert_eq!(a.to_scalar::<f64>().unwrap(), b.to_scalar::<f64>().unwrap());
    }

    #[test]
    fn a_grid_has_two_axes_and_an_index_one() {
        let like = Tensor::zeros(1, DType::F64, &Device::Cpu).unwrap();
        let of = |distance: Distance| distance.squared((2, 3), &like).unwrap().to_vec2::<f64>().unwrap();
        assert_eq!((of(Distance::Grid2d)[2][3], of(Distance::Index1d)[2][3]), (5.0, 1.0));
    }
}
