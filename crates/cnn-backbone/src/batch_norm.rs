//! Batch norm over the channels of maps, without gradients: the networks here are frozen.

use std::collections::BTreeMap;

use candle_core::{D, Tensor};

use crate::Error;
use crate::tensors::Tensors;

/// Added to the variance.
const EPS: f64 = 1e-5;
/// The share of a batch in the running statistics.
const MOMENTUM: f64 = 0.1;

/// Mean and variance `(C,)` of every batch norm of a network, by the norm's name (`layer1.0.bn2`).
#[derive(Debug, Clone, Default)]
pub struct RunningStatistics(pub BTreeMap<String, (Tensor, Tensor)>);

/// One batch norm.
#[derive(Debug, Clone)]
pub(crate) struct BatchNorm {
    name: String,
    weight: Tensor,
    bias: Tensor,
    pub(crate) mean: Tensor,
    pub(crate) variance: Tensor,
}

/// By which statistics a pass normalises.
pub(crate) enum Mode<'a> {
    /// The running ones.
    Evaluation,
    /// The batch's; the running ones given are brought nearer to them.
    Batch(&'a mut RunningStatistics),
}

impl BatchNorm {
    pub(crate) fn read(
        tensors: &Tensors<'_>,
        prefix: &str,
        name: &str,
        channels: usize,
    ) -> Result<Self, Error> {
        let get = |part: &str| tensors.get(prefix, &format!("{name}.{part}"), &[channels]);
        Ok(Self {
            name: name.to_owned(),
            weight: get("weight")?,
            bias: get("bias")?,
            mean: get("running_mean")?,
            variance: get("running_var")?,
        })
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    pub(crate) fn channels(&self) -> usize {
        self.weight.elem_count()
    }

    /// Maps `(B, C, h, w)` normalised.
    pub(crate) fn forward(&self, x: &Tensor, mode: &mut Mode<'_>) -> Result<Tensor, Error> {
        match mode {
            Mode::Evaluation => self.normalise(x, &self.mean, &self.variance),
            Mode::Batch(running) => {
                let (batch, channels, height, width) = x.dims4()?;
                let count = batch * height * width;
                let rows = x.transpose(0, 1)?.contiguous()?.reshape((channels, count))?;
                let mean = rows.mean_keepdim(D::Minus1)?;
                let variance = rows.broadcast_sub(&mean)?.sqr()?.mean(D::Minus1)?;
                let mean = mean.squeeze(1)?;
                let (old_mean, old_variance) =
                    running.0.remove(&self.name).unwrap_or((self.mean.clone(), self.variance.clone()));
                // The running variance takes the unbiased estimate.
                let unbiased = (&variance * (count as f64 / (count.max(2) - 1) as f64))?;
                let moved = |old: &Tensor, new: &Tensor| (old * (1.0 - MOMENTUM))? + (new * MOMENTUM)?;
                running
                    .0
                    .insert(self.name.clone(), (moved(&old_mean, &mean)?, moved(&old_variance, &unbiased)?));
                self.normalise(x, &mean, &variance)
            }
        }
    }

    fn normalise(&self, x: &Tensor, mean: &Tensor, variance: &Tensor) -> Result<Tensor, Error> {
        let scale = self.weight.div(&(variance + EPS)?.sqrt()?)?;
        let shift = (&self.bias - (mean * &scale)?)?;
        let by_channel = |t: &Tensor| t.reshape((1, t.elem_count(), 1, 1));
        Ok(x.broadcast_mul(&by_channel(&scale)?)?.broadcast_add(&by_channel(&shift)?)?)
    }
}
