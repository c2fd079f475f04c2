//! One vector for each place of an image, from the frozen network.

use std::sync::Arc;

use anomaly_core::{
    ConfigError, ContentKey, FeatureSource, FeatureStore, MethodConfig, MethodError, Precision,
};
use candle_core::{D, Tensor};
use cnn_backbone::{RunningStatistics, neighbourhoods};
use image_prep::{Filter, IMAGENET_MEAN, IMAGENET_STD, Preprocess};
use vit_backbone::Outputs;

use crate::{Backbone, Config, Error};

/// Side of the images of a residual network, unless the settings say otherwise.
const RESNET_SIZE: usize = 224;
/// Stages of a residual network, unless the settings say otherwise.
const RESNET_STAGES: [usize; 2] = [2, 3];

/// The frozen network with what is taken from it.
#[derive(Debug, Clone)]
pub(crate) struct Extractor {
    pub(crate) backbone: Backbone,
    /// As the settings list them.
    layers: Vec<usize>,
    pool_size: usize,
    pub(crate) image_size: usize,
    pub(crate) preprocess: Preprocess,
}

impl Extractor {
    /// Checks that settings and backbone fit together, and fills in image size and layers.
    pub(crate) fn new(config: &mut Config, backbone: Backbone) -> Result<Self, Error> {
        let refuse = |field: &str, problem: String| {
            Err(Error::Config(ConfigError::field(Config::METHOD, field, problem)))
        };
        let (size, layers, last, what) = match &backbone {
            Backbone::Vit(vit) => (vit.config().trained_size.0, vec![vit.depth()], vit.depth(), "blocks"),
            Backbone::ResNet(_) => (RESNET_SIZE, RESNET_STAGES.to_vec(), 4, "stages"),
        };
        let image_size = *config.image_size.get_or_insert(size);
        let layers = config.layers.get_or_insert(layers).clone();
        if let Some(beyond) = layers.iter().find(|layer| **layer > last) {
            return refuse("layers", format!("expected {what} 1 to {last}, found {beyond}"));
        }
        match &backbone {
            Backbone::Vit(vit) => {
                let (ph, pw) = vit.patch();
                if image_size < ph.max(pw) {
                    let problem = format!("expected at least one patch of {ph} x {pw}, found {image_size}");
                    return refuse("image_size", problem);
                }
                if config.batch_statistics {
                    let problem =
                        "expected false for a Vision Transformer, which has no batch norm, found true";
                    return refuse("batch_statistics", problem.to_owned());
                }
                // Fails here rather than in the first batch if the position table can't be brought to this grid.
                vit.position_table(image_size, image_size)?;
            }
            Backbone::ResNet(_) => {}
        }
        // Lanczos and ImageNet's statistics whatever the backbone, as the reference has it.
        let preprocess = Preprocess::square(image_size, Filter::Lanczos, IMAGENET_MEAN, IMAGENET_STD);
        Ok(Self { backbone, layers, pool_size: config.pool_size, image_size, preprocess })
    }

    fn ascending(&self) -> Vec<usize> {
        let mut layers = self.layers.clone();
        layers.sort_unstable();
        layers
    }

    /// Rows and columns of places, their product N.
    pub(crate) fn grid(&self) -> (usize, usize) {
        let size = (self.image_size, self.image_size);
        match &self.backbone {
            Backbone::Vit(vit) => vit.grid(size.0, size.1),
            Backbone::ResNet(network) => {
                network.config().map_size(self.layers.first().copied().unwrap_or(1), size)
            }
        }
    }

    /// Width D of a place's vector.
    pub(crate) fn width(&self) -> usize {
        match &self.backbone {
            Backbone::Vit(vit) => vit.dim() * self.layers.len(),
            Backbone::ResNet(network) => {
                self.layers.iter().map(|stage| network.config().channels(*stage)).sum()
            }
        }
    }

    /// The vectors `(B, N, D)` of images `(B, 3, S, S)`.
    pub(crate) fn features(&self, images: &Tensor) -> Result<Tensor, Error> {
        let images = images.to_device(self.backbone.device())?;
        match &self.backbone {
            Backbone::Vit(vit) => {
                let blocks = self.ascending().into_iter().map(|block| block - 1);
                let features = vit.forward(&images, &Outputs::normed_blocks(blocks))?;
                let patches = features
                    .normed_blocks
                    .iter()
                    .map(|tokens| features.patches(tokens))
                    .collect::<Result<Vec<_>, _>>()?;
                Ok(Tensor::cat(&patches, D::Minus1)?.contiguous()?)
            }
            Backbone::ResNet(network) => self.pooled(&network.stages(&images, &self.ascending())?),
        }
    }

    /// The same with a residual network's batch norms in training mode.
    pub(crate) fn features_of_batch(
        &self,
        images: &Tensor,
        running: &mut RunningStatistics,
    ) -> Result<Tensor, Error> {
        match &self.backbone {
            Backbone::Vit(_) => self.features(images),
            Backbone::ResNet(network) => {
                let images = images.to_device(network.device())?;
                self.pooled(&network.stages_of_batch(&images, &self.ascending(), running)?)
            }
        }
    }

    /// `maps` of the stages in ascending order.
    fn pooled(&self, maps: &[Tensor]) -> Result<Tensor, Error> {
        let first = self.layers.first().copied().unwrap_or(1);
        let grid = self.ascending().iter().position(|stage| *stage == first).unwrap_or(0);
        Ok(neighbourhoods(maps, grid, self.pool_size)?)
    }

    /// The vectors `(B, N, D)` of `images`, from `store` as far as it has them. `load` is given the places in `images` of
    /// those that are missing, and gives their pixels; their vectors are kept from then on, if there is room.
    pub(crate) fn once(
        &self,
        store: &dyn FeatureStore,
        precision: Precision,
        images: &[ContentKey],
        load: &mut dyn FnMut(&[usize]) -> Result<Tensor, MethodError>,
    ) -> Result<Tensor, MethodError> {
        let compute = &mut |places: &[usize]| Ok(self.features(&load(places)?)?);
        self.source(precision)?.once(store, images, self.backbone.device(), compute)
    }

    /// All that these depend on but the image.
    pub(crate) fn source(&self, precision: Precision) -> Result<FeatureSource, Error> {
        Ok(FeatureSource {
            weights: self.backbone.identity().1.to_owned(),
            output: self.output()?,
            preprocess: serde_json::to_string(&self.preprocess)?,
            precision,
        })
    }

    /// What is taken from the backbone and how it is computed, for the feature store.
    fn output(&self) -> Result<String, Error> {
        let device = if self.backbone.device().is_cpu() { "host" } else { "GPU" };
        let (what, sizes, revision) = match &self.backbone {
            Backbone::Vit(vit) => (
                format!("patches of normed blocks {:?}", self.ascending()),
                serde_json::to_string(vit.config())?,
                format!("vit-backbone {}", vit_backbone::REVISION),
            ),
            Backbone::ResNet(network) => (
                format!("stages {:?}, neighbourhoods of {}", self.layers, self.pool_size),
                serde_json::to_string(network.config())?,
                format!("cnn-backbone {}", cnn_backbone::REVISION),
            ),
        };
        Ok(format!(
            "simplenet: {what}; {sizes}; {revision}, image-prep {}, on the {device}",
            image_prep::REVISION
        ))
    }

    /// The same with other running statistics in a residual network.
    pub(crate) fn with_statistics(&self, running: &RunningStatistics) -> Result<Self, Error> {
        let backbone = match &self.backbone {
            Backbone::ResNet(network) if !running.0.is_empty() => {
                Backbone::ResNet(Arc::new(network.with_statistics(running)?))
            }
            other => other.clone(),
        };
        Ok(Self { backbone, ..self.clone() })
    }
}
