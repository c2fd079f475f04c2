//! The discriminator: convolutions down to one vector of features, and a classifier of it.

use std::collections::HashMap;

use candle_core::{DType, Device, Tensor, Var};
use vit_ops::{
    BatchStatistics, ChannelsLastConv, RunningVariance, batch_norm_rows, batch_norm_rows_train, leaky_relu,
};

use crate::Error;
use crate::parameters::{Initial, Parameters};
use crate::sizes::check_image;

/// Sizes of a discriminator.
#[derive(Debug, Clone, Copy)]
pub(crate) struct DiscriminatorConfig {
    /// Side of the images in pixels, a power of two from 16 on.
    pub(crate) size: usize,
    pub(crate) channels: usize,
    /// Channels of the first convolution.
    pub(crate) width: usize,
    /// Numbers of the feature vector.
    pub(crate) features: usize,
    pub(crate) eps: f64,
    /// The share of a new batch in the running statistics.
    pub(crate) momentum: f64,
    /// Slope below 0.
    pub(crate) leak: f64,
}

impl DiscriminatorConfig {
    pub(crate) fn of(config: &crate::Config) -> Self {
        Self {
            size: config.image_size,
            channels: 3,
            width: config.discriminator_width,
            features: config.feature_size,
            ..Self::default()
        }
    }
}

impl Default for DiscriminatorConfig {
    fn default() -> Self {
        Self { size: 32, channels: 3, width: 64, features: 100, eps: 1e-5, momentum: 0.1, leak: 0.2 }
    }
}

/// What batch norms go by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    /// The batch at hand.
    Batch,
    /// The running statistics: each image by itself.
    Running,
}

/// What the discriminator says of a batch of B images.
pub(crate) struct Judgement {
    /// Before the sigmoid, `(B,)`.
    #[cfg_attr(not(feature = "conformance"), allow(dead_code))]
    pub(crate) logit: Tensor,
    /// That the images are real, `(B,)`.
    pub(crate) probability: Tensor,
    /// `(B, nz)`.
    pub(crate) feature: Tensor,
    /// Of each norm, in [`Mode::Batch`].
    pub(crate) statistics: Vec<BatchStatistics>,
}

/// The discriminator. Its tensors have graphs, if it is trained.
#[derive(Debug, Clone)]
pub(crate) struct Discriminator {
    config: DiscriminatorConfig,
    first: ChannelsLastConv,
    pyramid: Vec<Stage>,
    last: ChannelsLastConv,
    classifier: ChannelsLastConv,
}

#[derive(Debug, Clone)]
struct Stage {
    convolution: ChannelsLastConv,
    weight: Tensor,
    bias: Tensor,
    /// The norm's name.
    name: String,
    running: Running,
}

/// What scoring normalises by, `(C,)` each, and how many batches went into it.
#[derive(Debug, Clone)]
struct Running {
    mean: Tensor,
    variance: Tensor,
    batches: i64,
}

impl Discriminator {
    /// With weights of `parameters`, under the reference's names.
    pub(crate) fn new(parameters: &mut Parameters<'_>, config: &DiscriminatorConfig) -> Result<Self, Error> {
        let DiscriminatorConfig { size, channels, width, features, .. } = *config;
        check_image(size)?;
        let mut convolution = |name: &str, shape: [usize; 4], stride, padding| -> Result<_, Error> {
            let weight = parameters.tensor(&format!("{name}.weight"), &shape, Initial::Weight)?;
            Ok(ChannelsLastConv::new(&weight, stride, padding)?)
        };
        let name = format!("feat.initial-conv-{channels}-{width}");
        let first = convolution(&name, [width, channels, 4, 4], 2, 1)?;
        let mut convolutions = Vec::new();
        let (mut side, mut wide) = (size / 2, width);
        while side > 4 {
            let name = format!("feat.pyramid-{wide}-{}-conv", 2 * wide);
            convolutions.push((convolution(&name, [2 * wide, wide, 4, 4], 2, 1)?, 2 * wide));
            (side, wide) = (side / 2, 2 * wide);
        }
        // The name's "1" is the reference's.
        let last = convolution(&format!("feat.final-{wide}-1-conv"), [features, wide, 4, 4], 1, 0)?;
        // Of its nine taps only the one in the middle meets anything on a map of one pixel.
        let classifier = convolution("clas.classifier", [1, features, 3, 3], 1, 1)?;
        let mut pyramid = Vec::new();
        for (convolution, wide) in convolutions {
            let name = format!("feat.pyramid-{wide}-batchnorm");
            let buffer = |what: &str, shape: &[usize]| parameters.buffer(&format!("{name}.{what}"), shape);
            let given = (buffer("running_mean", &[wide])?, buffer("running_var", &[wide])?);
            let batches = buffer("num_batches_tracked", &[])?;
            let running = match (given, batches) {
                ((Some(mean), Some(variance)), Some(batches)) => {
                    Running { mean, variance, batches: count(&batches)? }
                }
                _ => Running {
                    mean: Tensor::zeros(wide, DType::F32, parameters.device())?,
                    variance: Tensor::ones(wide, DType::F32, parameters.device())?,
                    batches: 0,
                },
            };
            pyramid.push(Stage {
                convolution,
                weight: parameters.tensor(&format!("{name}.weight"), &[wide], Initial::AroundOne)?,
                bias: parameters.tensor(&format!("{name}.bias"), &[wide], Initial::Zeros)?,
                name,
                running,
            });
        }
        Ok(Self { config: *config, first, pyramid, last, classifier })
    }

    /// With given weights that stay.
    pub(crate) fn frozen(
        tensors: &HashMap<String, Tensor>,
        config: &DiscriminatorConfig,
        device: &Device,
    ) -> Result<Self, Error> {
        Self::new(&mut Parameters::frozen(tensors, device), config)
    }

    /// What it says of images with their channels last, `(B, S, S, nc)`.
    pub(crate) fn forward(&self, images: &Tensor, mode: Mode) -> Result<Judgement, Error> {
        self.judge(&self.activations(images)?, mode)
    }

    /// The first stage's activations, `(B, S / 2, S / 2, width)`.
    pub(crate) fn activations(&self, images: &Tensor) -> Result<Tensor, Error> {
        Ok(leaky_relu(&self.first.forward(images)?, self.config.leak)?)
    }

    /// What it says of images with these activations of the first stage.
    pub(crate) fn judge(&self, activations: &Tensor, mode: Mode) -> Result<Judgement, Error> {
        let DiscriminatorConfig { eps, leak, .. } = self.config;
        let mut statistics = Vec::new();
        let mut x = activations.clone();
        for Stage { convolution, weight, bias, running, .. } in &self.pyramid {
            let map = convolution.forward(&x)?;
            let normed = match mode {
                Mode::Batch => {
                    let normed = batch_norm_rows_train(&map, weight, bias, eps)?;
                    statistics.push(normed.statistics);
                    normed.y
                }
                Mode::Running => batch_norm_rows(&map, weight, bias, &running.mean, &running.variance, eps)?,
            };
            x = leaky_relu(&normed, leak)?;
        }
        let batch = x.dim(0)?;
        let feature = self.last.forward(&x)?;
        let logit = self.classifier.forward(&feature)?.reshape(batch)?;
        let probability = candle_nn::ops::sigmoid(&logit)?;
        Ok(Judgement { probability, logit, feature: feature.reshape((batch, ()))?, statistics })
    }

    /// Takes the statistics of a batch into the running ones.
    pub(crate) fn remember(&mut self, statistics: &[BatchStatistics]) -> Result<(), Error> {
        let momentum = self.config.momentum;
        for (Stage { running, .. }, batch) in self.pyramid.iter_mut().zip(statistics) {
            (running.mean, running.variance) =
                batch.blend(&running.mean, &running.variance, momentum, RunningVariance::Unbiased)?;
            running.batches += 1;
        }
        Ok(())
    }

    /// The running statistics under the reference's names.
    pub(crate) fn running(&self, device: &Device) -> Result<Vec<(String, Tensor)>, Error> {
        let mut all = Vec::new();
        for Stage { name, running, .. } in &self.pyramid {
            all.push((format!("{name}.running_mean"), running.mean.clone()));
            all.push((format!("{name}.running_var"), running.variance.clone()));
            all.push((format!("{name}.num_batches_tracked"), Tensor::new(running.batches, device)?));
        }
        Ok(all)
    }

    /// Sets the running statistics to those of [`Discriminator::running`].
    pub(crate) fn set_running(&mut self, tensors: &HashMap<String, Tensor>) -> Result<(), Error> {
        for stage in &mut self.pyramid {
            let get = |what: &str| {
                let name = format!("{}.{what}", stage.name);
                tensors.get(&name).cloned().ok_or(Error::MissingWeight(name))
            };
            let (mean, variance) = (get("running_mean")?, get("running_var")?);
            for tensor in [&mean, &variance] {
                if tensor.dims() != stage.weight.dims() {
                    let (expected, found) = (stage.weight.dims().to_vec(), tensor.dims().to_vec());
                    return Err(Error::WeightShape { name: stage.name.clone(), expected, found });
                }
            }
            stage.running = Running { mean, variance, batches: count(&get("num_batches_tracked")?)? };
        }
        Ok(())
    }
}

/// A whole number in a tensor.
fn count(tensor: &Tensor) -> Result<i64, Error> {
    Ok(tensor.to_dtype(DType::I64)?.to_scalar::<i64>()?)
}

/// A discriminator in training, and its variables by name.
pub(crate) fn trained(
    mut parameters: Parameters<'_>,
    config: &DiscriminatorConfig,
) -> Result<(Discriminator, Vec<(String, Var)>), Error> {
    let discriminator = Discriminator::new(&mut parameters, config)?;
    Ok((discriminator, parameters.into_vars()))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::{DiscriminatorConfig, Mode, trained};
    use crate::parameters::Parameters;
    use anomaly_core::Streams;
    use candle_core::Device;

    #[test]
    fn the_published_size_has_the_reference_s_parameters() {
        let mut stream = Streams::new(0).stream("init");
        let config = DiscriminatorConfig::default();
        let (discriminator, vars) = trained(Parameters::drawn(&mut stream, &Device::Cpu), &config).unwrap();
        assert_eq!(vars.iter().map(|(_, var)| var.elem_count()).sum::<usize>(), 1_069_700);
        let images = vit_ops::init::normal((3, 32, 32, 3), 0., 1., &mut stream, &Device::Cpu).unwrap();
        let all = discriminator.forward(&images, Mode::Running).unwrap();
        assert_eq!((all.probability.dims(), all.feature.dims()), (&[3][..], &[3, 100][..]));
        assert_eq!(discriminator.forward(&images, Mode::Batch).unwrap().statistics.len(), 2);
        // An image by itself is judged as in its batch.
        let alone = discriminator.forward(&images.narrow(0, 1, 1).unwrap(), Mode::Running).unwrap();
        let bits = |judgement: &super::Judgement, index: usize| {
            judgement.feature.to_vec2::<f32>().unwrap()[index].iter().map(|v| v.to_bits()).collect::<Vec<_>>()
        };
        assert_eq!(bits(&all, 1), bits(&alone, 0));
    }

    #[test]
    fn sides_that_are_no_power_of_two_are_refused() {
        let mut stream = Streams::new(0).stream("init");
        let config = DiscriminatorConfig { size: 96, ..DiscriminatorConfig::default() };
        let refused = trained(Parameters::drawn(&mut stream, &Device::Cpu), &config).unwrap_err().to_string();
        assert!(refused.contains("64 or 128"), "{refused}");
    }
}
