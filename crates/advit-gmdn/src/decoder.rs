//! The convolutional decoder.

use candle_core::Tensor;
use vit_ops::{
    BatchStatistics, NamedTensors, NetworkWeights, RunningVariance, VarianceGradient, batch_norm,
    batch_norm_train, conv_transpose2d, relu,
};

use crate::Error;
use crate::architecture::{Architecture, DecoderLayer};

const NORM_EPS: f64 = 1e-5;
/// The share of the new batch in running statistics.
const MOMENTUM: f64 = 0.1;

/// Transposed convolutions, each but the last followed by batch norm and `ReLU`, the last by tanh.
#[derive(Debug)]
pub(crate) struct Decoder {
    layers: Vec<Layer>,
}

#[derive(Debug)]
struct Layer {
    stride: usize,
    padding: usize,
    weight: Tensor,
    bias: Tensor,
    norm: Option<Norm>,
}

#[derive(Debug)]
struct Norm {
    /// In front of its tensors' names.
    name: String,
    weight: Tensor,
    bias: Tensor,
    running_mean: Tensor,
    running_var: Tensor,
}

/// A batch norm's name and what it saw of a batch.
pub(crate) type Seen = Vec<(String, BatchStatistics)>;

impl Decoder {
    /// Of the tensors `<prefix>decoder2.<index>.*`.
    pub(crate) fn new(shape: &Architecture, named: &NamedTensors, prefix: &str) -> Result<Self, Error> {
        Self::of_layers(&shape.decoder, named, prefix)
    }

    pub(crate) fn of_layers(
        layers: &[DecoderLayer],
        named: &NamedTensors,
        prefix: &str,
    ) -> Result<Self, Error> {
        let made = layers.iter().enumerate().map(|(index, [_, _, _, stride, padding])| {
            let at = format!("{prefix}decoder2.{}", 3 * index);
            let norm = if index + 1 == layers.len() {
                None
            } else {
                let name = format!("{prefix}decoder2.{}", 3 * index + 1);
                let tensor = |part: &str| named.get(&format!("{name}.{part}"));
                Some(Norm {
                    weight: tensor("weight")?,
                    bias: tensor("bias")?,
                    running_mean: tensor("running_mean")?,
                    running_var: tensor("running_var")?,
                    name,
                })
            };
            let (weight, bias) = (named.get(&format!("{at}.weight"))?, named.get(&format!("{at}.bias"))?);
            Ok(Layer { stride: *stride, padding: *padding, weight, bias, norm })
        });
        Ok(Self { layers: made.collect::<Result<_, Error>>()? })
    }

    /// The reconstruction `(B, 3, H, W)`, between -1 and 1, of `latent` `(B, C, h, w)`, with running statistics.
    pub(crate) fn forward(&self, latent: &Tensor) -> Result<Tensor, Error> {
        self.run(latent, |norm, x| {
            let (mean, variance) = (&norm.running_mean, &norm.running_var);
            Ok(batch_norm(x, &norm.weight, &norm.bias, mean, variance, NORM_EPS)?)
        })
    }

    /// The same with the batch's own statistics, which are returned beside it.
    pub(crate) fn forward_train(&self, latent: &Tensor) -> Result<(Tensor, Seen), Error> {
        let mut seen = Vec::new();
        let images = self.run(latent, |norm, x| {
            let normed = batch_norm_train(x, &norm.weight, &norm.bias, NORM_EPS, VarianceGradient::True)?;
            seen.push((norm.name.clone(), normed.statistics));
            Ok(normed.y)
        })?;
        Ok((images, seen))
    }

    fn run(
        &self,
        latent: &Tensor,
        mut normalise: impl FnMut(&Norm, &Tensor) -> Result<Tensor, Error>,
    ) -> Result<Tensor, Error> {
        let mut x = latent.clone();
        for layer in &self.layers {
            x = conv_transpose2d(&x, &layer.weight, Some(&layer.bias), layer.stride, layer.padding)?;
            x = match &layer.norm {
                Some(norm) => relu(&normalise(norm, &x)?)?,
                None => x.tanh()?,
            };
        }
        Ok(x)
    }
}

/// Blends what was seen of a batch into the running statistics; the unbiased variance, as `PyTorch` does.
pub(crate) fn follow(weights: &NetworkWeights, seen: &Seen) -> Result<(), Error> {
    for (name, statistics) in seen {
        let mean = weights.running(&format!("{name}.running_mean"))?;
        let variance = weights.running(&format!("{name}.running_var"))?;
        let (new_mean, new_variance) =
            statistics.blend(mean, variance, MOMENTUM, RunningVariance::Unbiased)?;
        mean.set(&new_mean)?;
        variance.set(&new_variance)?;
    }
    Ok(())
}
