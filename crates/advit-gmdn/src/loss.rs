//! What is minimised.

use candle_core::{D, DType, Tensor};
use vit_ops::{Border, SsimOptions, squared_error, ssim};

use crate::Error;
use crate::association::{Association, discrepancies};

/// The parts of a training loss, scalars with graphs.
pub(crate) struct Losses {
    pub(crate) mse: Tensor,
    /// Minus the mean structural similarity.
    pub(crate) neg_ssim: Tensor,
    /// The sum over patches of the negative log-likelihoods, the mean over images.
    pub(crate) nll: Tensor,
    /// Both discrepancies, equal in value: with constant series, with constant prior.
    pub(crate) association: Option<(Tensor, Tensor)>,
}

/// The factors of the parts.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct LossWeights {
    pub(crate) mse: f64,
    pub(crate) ssim: f64,
    pub(crate) nll: f64,
    pub(crate) association: f64,
}

/// SSIM as the reference has it: zeros beyond the border, which biases it there.
fn ssim_options() -> SsimOptions {
    SsimOptions { border: Border::Zero, ..SsimOptions::default() }
}

/// The structural similarity of each of `x` and `y` `(B, 3, H, W)`: `(B,)`.
pub(crate) fn ssim_per_image(x: &Tensor, y: &Tensor) -> Result<Tensor, Error> {
    Ok(ssim(x, y, &ssim_options())?.mean((1, 2, 3))?)
}

/// The mean squared difference of each of `x` and `y` `(B, 3, H, W)`: `(B,)`.
pub(crate) fn mse_per_image(x: &Tensor, y: &Tensor) -> Result<Tensor, Error> {
    // Rows first: one long f32 sum would lose digits.
    Ok(squared_error(x, y)?.mean((1, 2))?)
}

impl Losses {
    /// Of images and their reconstructions `(B, 3, H, W)`, likelihoods `(B, n)` and the layers' associations.
    pub(crate) fn new(
        images: &Tensor,
        reconstruction: &Tensor,
        likelihood: &Tensor,
        associations: &[Association],
    ) -> Result<Self, Error> {
        Ok(Self {
            mse: mse_per_image(reconstruction, images)?.mean_all()?,
            neg_ssim: ssim_per_image(reconstruction, images)?.mean_all()?.neg()?,
            nll: likelihood.sum(D::Minus1)?.mean_all()?,
            association: discrepancies(associations)?,
        })
    }

    /// The weighted sum. The association's part, `lambda (D_prior - D_series)`, is 0 in value: its gradient pulls the
    /// prior to the attention and pushes the attention away from the prior, both in one backward pass.
    pub(crate) fn total(&self, weights: &LossWeights) -> Result<Tensor, Error> {
        let base =
            (((&self.mse * weights.mse)? + (&self.neg_ssim * weights.ssim)?)? + (&self.nll * weights.nll)?)?;
        Ok(match &self.association {
            Some((of_prior, of_series)) => (base + ((of_prior - of_series)? * weights.association)?)?,
            None => base,
        })
    }

    /// Their values.
    pub(crate) fn values(&self, weights: &LossWeights) -> Result<Values, Error> {
        let of = |t: &Tensor| -> Result<f64, Error> { Ok(t.to_dtype(DType::F64)?.to_scalar::<f64>()?) };
        Ok(Values {
            mse: of(&self.mse)?,
            neg_ssim: of(&self.neg_ssim)?,
            nll: of(&self.nll)?,
            total: of(&self.total(weights)?)?,
            d_prior: self.association.as_ref().map(|(d, _)| of(d)).transpose()?,
            d_series: self.association.as_ref().map(|(_, d)| of(d)).transpose()?,
        })
    }
}

/// The parts of a loss in numbers.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Values {
    pub(crate) mse: f64,
    pub(crate) neg_ssim: f64,
    pub(crate) nll: f64,
    pub(crate) total: f64,
    pub(crate) d_prior: Option<f64>,
    pub(crate) d_series: Option<f64>,
}

impl Values {
    /// Those that are told of, under their names.
    pub(crate) fn named(&self) -> Vec<(&'static str, f64)> {
        let always = [
            ("loss", self.total),
            ("mse", self.mse),
            ("negative ssim", self.neg_ssim),
            ("negative log-likelihood", self.nll),
        ];
        always.into_iter().chain(self.d_prior.map(|d| ("association discrepancy", d))).collect()
    }
}
