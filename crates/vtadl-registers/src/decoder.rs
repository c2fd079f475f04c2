//! The convolutional decoder.

use candle_core::Tensor;
use vit_ops::{
    BatchStatistics, Gelu, NamedTensors, NetworkWeights, RunningVariance, batch_norm, batch_norm_train,
    conv_transpose2d, gelu,
};

use crate::Error;
use crate::architecture::{Architecture, Norms};

/// Stages of a transposed convolution, GELU and batch norm, in this order, the last stage too: the reconstruction has no
/// bounds.
#[derive(Debug)]
pub(crate) struct Decoder {
    stages: Vec<Stage>,
    stride: usize,
    norms: Norms,
}

#[derive(Debug)]
struct Stage {
    /// In front of its norm's tensors' names.
    name: String,
    kernel: Tensor,
    kernel_bias: Tensor,
    weight: Tensor,
    bias: Tensor,
    moving_mean: Tensor,
    moving_variance: Tensor,
}

/// A batch norm's name and what it saw of a batch.
pub(crate) type Seen = Vec<(String, BatchStatistics)>;

impl Decoder {
    /// Of the tensors `decoder.*`.
    pub(crate) fn new(architecture: &Architecture, named: &NamedTensors) -> Result<Self, Error> {
        let stages = (0..architecture.filters.len()).map(|index| {
            let (conv, name) = (format!("decoder.{index}.conv"), format!("decoder.{index}.norm"));
            let part = |part: &str| named.get(&format!("{name}.{part}"));
            Ok(Stage {
                kernel: named.get(&format!("{conv}.weight"))?,
                kernel_bias: named.get(&format!("{conv}.bias"))?,
                weight: part("weight")?,
                bias: part("bias")?,
                moving_mean: part("running_mean")?,
                moving_variance: part("running_var")?,
                name,
            })
        });
        let stages = stages.collect::<Result<_, Error>>()?;
        Ok(Self { stages, stride: architecture.stride, norms: architecture.norms })
    }

    /// The reconstruction `(B, 3, H, W)` of `latent` `(B, D, rows, columns)`, with moving statistics.
    pub(crate) fn forward(&self, latent: &Tensor) -> Result<Tensor, Error> {
        self.run(latent, |stage, x| {
            let (mean, variance) = (&stage.moving_mean, &stage.moving_variance);
            Ok(batch_norm(x, &stage.weight, &stage.bias, mean, variance, self.norms.batch_eps)?)
        })
    }

    /// The same with the batch's own statistics, which are returned beside it.
    pub(crate) fn forward_train(&self, latent: &Tensor) -> Result<(Tensor, Seen), Error> {
        let mut seen = Vec::new();
        let Norms { batch_eps, gradient, .. } = self.norms;
        let images = self.run(latent, |stage, x| {
            let normed = batch_norm_train(x, &stage.weight, &stage.bias, batch_eps, gradient)?;
            seen.push((stage.name.clone(), normed.statistics));
            Ok(normed.y)
        })?;
        Ok((images, seen))
    }

    fn run(
        &self,
        latent: &Tensor,
        mut normalise: impl FnMut(&Stage, &Tensor) -> Result<Tensor, Error>,
    ) -> Result<Tensor, Error> {
        let mut x = latent.clone();
        for stage in &self.stages {
            x = conv_transpose2d(&x, &stage.kernel, Some(&stage.kernel_bias), self.stride, 0)?;
            x = normalise(stage, &gelu(&x, Gelu::Erf)?)?;
        }
        Ok(x)
    }
}

/// Blends what was seen of a batch into the moving statistics; the biased variance, as Keras does.
pub(crate) fn follow(weights: &NetworkWeights, seen: &Seen, kept: f64) -> Result<(), Error> {
    for (name, statistics) in seen {
        let mean = weights.running(&format!("{name}.running_mean"))?;
        let variance = weights.running(&format!("{name}.running_var"))?;
        let (new_mean, new_variance) =
            statistics.blend(mean, variance, 1.0 - kept, RunningVariance::Biased)?;
        mean.set(&new_mean)?;
        variance.set(&new_variance)?;
    }
    Ok(())
}
