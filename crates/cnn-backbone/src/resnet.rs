//! The network: stem and four stages.

use std::collections::HashMap;

use candle_core::{DType, Device, Tensor};
use image_prep::{Filter, IMAGENET_MEAN, IMAGENET_STD, Preprocess};
use pretrained::Weights;
use random_streams::Stream;
use vit_ops::PoolWindows;

use crate::batch_norm::{BatchNorm, Mode};
use crate::block::{Block, Convolution};
use crate::tensors::Tensors;
use crate::{BlockKind, Error, ResNetConfig, RunningStatistics};

/// Which weights a network has, for records and for keys of cached features.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// Catalogue name, hub id or path it was loaded by.
    pub name: String,
    /// SHA-256 of the weight files; for weights made in memory, of their names, shapes and values.
    pub sha256: String,
    /// Where the weights came from: a path, or `owner/name@revision`.
    pub origin: String,
    /// Licence of the weights, as far as the catalogue knows.
    pub licence: String,
}

/// A frozen residual network without its classification head: plain tensors, so that no pass keeps a graph.
#[derive(Debug, Clone)]
pub struct ResNet {
    config: ResNetConfig,
    identity: Identity,
    device: Device,
    stem: Convolution,
    stages: [Vec<Block>; 4],
}

impl ResNet {
    /// A network of `weights` under the names of torchvision and timm; its sizes are read off the tensors.
    ///
    /// # Errors
    /// [`Error::Weight`] for a tensor that is missing or of another shape than the rest of the network asks for.
    pub fn from_weights(weights: &Weights, device: &Device) -> Result<Self, Error> {
        let identity = Identity {
            name: weights.origin().to_owned(),
            sha256: weights.sha256().to_owned(),
            origin: weights.origin().to_owned(),
            licence: "not stated".to_owned(),
        };
        Self::read(&Tensors::Weights(weights, device), identity, device)
    }

    /// A network of these tensors, under the names of torchvision and timm.
    ///
    /// # Errors
    /// As [`ResNet::from_weights`].
    pub fn from_tensors(tensors: &HashMap<String, Tensor>) -> Result<Self, Error> {
        let identity = Identity {
            name: "given tensors".to_owned(),
            sha256: Weights::from_tensors(tensors.clone())?.sha256().to_owned(),
            origin: "memory".to_owned(),
            licence: "not stated".to_owned(),
        };
        let device = tensors.values().next().map_or(Device::Cpu, |tensor| tensor.device().clone());
        Self::read(&Tensors::Memory(tensors), identity, &device)
    }

    /// A network with random weights, for tests: convolutions `N(0, 2/fan_in)`, norms 1 and 0 with mean 0 and variance 1.
    ///
    /// # Errors
    /// If the configuration is none.
    pub fn random(config: ResNetConfig, stream: &mut Stream, device: &Device) -> Result<Self, Error> {
        config.validate()?;
        let mut tensors = HashMap::new();
        let mut convolution = |conv: &str, norm: &str, (outputs, inputs, side): (usize, usize, usize)| {
            let shape = (outputs, inputs, side, side);
            let weight = vit_ops::init::kaiming_normal(shape, inputs * side * side, stream, device)?;
            tensors.insert(format!("{conv}.weight"), weight);
            for (part, value) in [("weight", 1.0), ("bias", 0.0), ("running_mean", 0.0), ("running_var", 1.0)]
            {
                tensors.insert(format!("{norm}.{part}"), Tensor::full(value as f32, outputs, device)?);
            }
            Ok::<_, Error>(())
        };
        convolution("conv1", "bn1", (config.stem, 3, 7))?;
        let mut inputs = config.stem;
        for stage in 1..=4 {
            let (inner, outputs) = (config.inner(stage), config.channels(stage));
            for block in 0..config.blocks[stage - 1] {
                let name = |part: &str| format!("layer{stage}.{block}.{part}");
                let shapes = match config.kind {
                    BlockKind::Basic => vec![(outputs, inputs, 3), (outputs, outputs, 3)],
                    BlockKind::Bottleneck => {
                        vec![(inner, inputs, 1), (inner, inner, 3), (outputs, inner, 1)]
                    }
                };
                for (number, shape) in (1..).zip(shapes) {
                    convolution(&name(&format!("conv{number}")), &name(&format!("bn{number}")), shape)?;
                }
                if (stage > 1 && block == 0) || inputs != outputs {
                    convolution(&name("downsample.0"), &name("downsample.1"), (outputs, inputs, 1))?;
                }
                inputs = outputs;
            }
        }
        let mut network = Self::from_tensors(&tensors)?;
        network.identity = Identity {
            name: "random".to_owned(),
            origin: "random weights".to_owned(),
            licence: "none needed".to_owned(),
            ..network.identity
        };
        Ok(network)
    }

    fn read(tensors: &Tensors<'_>, identity: Identity, device: &Device) -> Result<Self, Error> {
        let prefix = tensors.prefix();
        let config = tensors.config(prefix)?;
        let source = (tensors, prefix);
        let stem = Convolution::read(source, ("conv1", "bn1"), (config.stem, 3, 7), 2)?;
        let mut inputs = config.stem;
        let mut stage = |stage: usize| {
            let block = |index: usize| {
                let block = Block::read(source, &config, (stage, index), inputs)?;
                inputs = config.channels(stage);
                Ok(block)
            };
            (0..config.blocks[stage - 1]).map(block).collect::<Result<Vec<_>, Error>>()
        };
        let stages = [stage(1)?, stage(2)?, stage(3)?, stage(4)?];
        Ok(Self { config, identity, device: device.clone(), stem, stages })
    }

    pub(crate) fn describe(&mut self, identity: Identity) {
        self.identity = identity;
    }

    /// Its sizes.
    pub fn config(&self) -> &ResNetConfig {
        &self.config
    }

    /// Which weights these are.
    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    /// Where the weights are and images have to be.
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// How torchvision's evaluation prepares images of `size` pixels: shorter edge to `size / 0.875`, bilinear, centre
    /// crop, `ImageNet`'s statistics. Methods may have their own way.
    pub fn preprocess(size: usize) -> Preprocess {
        Preprocess::timm(size, 0.875, Filter::Bilinear, IMAGENET_MEAN, IMAGENET_STD)
    }

    /// The maps `(B, C, h, w)` of the stages `wanted` (1 to 4), in ascending order, of normalised images `(B, 3, H, W)`.
    /// No stage after the last one wanted is run. Batch norms use their running statistics, so that an image's maps do
    /// not depend on the batch.
    ///
    /// # Errors
    /// If the images have another shape or type, or there is no such stage.
    pub fn stages(&self, images: &Tensor, wanted: &[usize]) -> Result<Vec<Tensor>, Error> {
        self.run(images, wanted, &mut Mode::Evaluation)
    }

    /// The same with every batch norm in training mode: maps are normalised by the batch's own mean and variance, and
    /// `running` goes a tenth of the way to them (to the unbiased variance). What `running` lacks starts from the
    /// network's own.
    ///
    /// # Errors
    /// As [`ResNet::stages`].
    pub fn stages_of_batch(
        &self,
        images: &Tensor,
        wanted: &[usize],
        running: &mut RunningStatistics,
    ) -> Result<Vec<Tensor>, Error> {
        self.run(images, wanted, &mut Mode::Batch(running))
    }

    fn run(&self, images: &Tensor, wanted: &[usize], mode: &mut Mode<'_>) -> Result<Vec<Tensor>, Error> {
        let input = |what, expected: &str, found: String| {
            Err(Error::Input { what, expected: expected.to_owned(), found })
        };
        if images.dims4().map_or(true, |(b, c, h, w)| b == 0 || c != 3 || h == 0 || w == 0)
            || images.dtype() != DType::F32
        {
            let found = format!("{:?} of shape {:?}", images.dtype(), images.dims());
            return input("images", "f32 of shape (B, 3, H, W)", found);
        }
        if wanted.is_empty() || wanted.iter().any(|stage| !(1..=4).contains(stage)) {
            return input("stages", "some of 1 to 4", format!("{wanted:?}"));
        }
        let last = wanted.iter().copied().max().unwrap_or(0);
        let x = vit_ops::relu(&self.stem.forward(images, mode)?)?;
        let mut x = vit_ops::max_pool2d(&x, PoolWindows { size: 3, stride: 2, padding: 1 })?;
        let mut maps = Vec::with_capacity(wanted.len());
        for (stage, blocks) in (1..=last).zip(&self.stages) {
            for block in blocks {
                x = block.forward(&x, mode)?;
            }
            if wanted.contains(&stage) {
                maps.push(x.clone());
            }
        }
        Ok(maps)
    }

    /// The running statistics of all batch norms.
    pub fn running_statistics(&self) -> RunningStatistics {
        let of = |norm: &BatchNorm| (norm.name().to_owned(), (norm.mean.clone(), norm.variance.clone()));
        let blocks = self.stages.iter().flatten().flat_map(Block::norms);
        RunningStatistics(std::iter::once(&self.stem.norm).chain(blocks).map(of).collect())
    }

    /// The same network with these running statistics; norms that `running` lacks keep their own. Weights are shared.
    ///
    /// # Errors
    /// [`Error::Input`] if statistics have another number of channels than their norm, or belong to none.
    pub fn with_statistics(&self, running: &RunningStatistics) -> Result<Self, Error> {
        let mut network = self.clone();
        let mut left: Vec<&String> = running.0.keys().collect();
        let blocks = network.stages.iter_mut().flatten().flat_map(Block::norms_mut);
        for norm in std::iter::once(&mut network.stem.norm).chain(blocks) {
            let Some((mean, variance)) = running.0.get(norm.name()) else { continue };
            left.retain(|name| *name != norm.name());
            if mean.dims() != [norm.channels()] || variance.dims() != [norm.channels()] {
                return Err(Error::Input {
                    what: "running statistics",
                    expected: format!("({},) for {}", norm.channels(), norm.name()),
                    found: format!("{:?} and {:?}", mean.dims(), variance.dims()),
                });
            }
            (norm.mean, norm.variance) = (mean.detach(), variance.detach());
        }
        match left.first() {
            None => Ok(network),
            Some(name) => Err(Error::Input {
                what: "running statistics",
                expected: "names of batch norms".to_owned(),
                found: (*name).clone(),
            }),
        }
    }
}
