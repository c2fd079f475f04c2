//! Images as vectors.

use std::sync::Arc;

use anomaly_core::{ConfigError, FeatureSource, FitContext, Images, MethodError, TrainingData};
use candle_core::{D, Device, Tensor};
use image_prep::{Filter, HALF, Preprocess};
use vit_backbone::{Outputs, Vit};

use crate::{Config, Error, Features, INFO, Metric};

/// Side of images compared by pixels, unless the configuration says otherwise.
const PIXEL_SIZE: usize = 32;

/// Makes one vector of each image.
#[derive(Clone)]
pub(crate) struct Extractor {
    pub(crate) config: Config,
    /// There if and only if the configuration asks for tokens.
    pub(crate) vit: Option<Arc<Vit>>,
    pub(crate) preprocess: Preprocess,
}

impl Extractor {
    /// Checks that configuration and backbone fit together, and fills in the image size.
    pub(crate) fn new(mut config: Config, vit: Option<Arc<Vit>>) -> Result<Self, Error> {
        use anomaly_core::MethodConfig;

        config.validate()?;
        let wrong =
            |field, problem: String| Err(Error::Config(ConfigError::field(INFO.name, field, problem)));
        let vit = match (config.features, vit) {
            (Features::Pixels, _) => None,
            (Features::Tokens, Some(vit)) => Some(vit),
            (Features::Tokens, None) => {
                return wrong("features", "\"tokens\" need a backbone, found none".into());
            }
        };
        let Some(vit) = vit else {
            let size = *config.image_size.get_or_insert(PIXEL_SIZE);
            return Ok(Self {
                config,
                vit: None,
                preprocess: Preprocess::square(size, Filter::Bilinear, HALF, HALF),
            });
        };
        if let Some(block) = config.block.filter(|block| *block >= vit.depth()) {
            return wrong("block", format!("expected below {}, found {block}", vit.depth()));
        }
        let own = vit.preprocess();
        let usual = own.fixed_output_size().map_or(vit.config().trained_size.0, |(height, _)| height);
        let size = *config.image_size.get_or_insert(usual);
        let (rows, columns) = vit.grid(size, size);
        if rows * columns == 0 {
            return wrong(
                "image_size",
                format!("expected at least one patch of {:?}, found {size}", vit.patch()),
            );
        }
        let preprocess = Preprocess::square(size, Filter::Bilinear, own.mean, own.std);
        Ok(Self { config, vit: Some(vit), preprocess })
    }

    /// The vectors `(B, F)`, f32, on `device`.
    pub(crate) fn vectors(&self, images: &Images, device: &Device) -> Result<Tensor, MethodError> {
        images.require_finite()?;
        Ok(self.compute(images, device)?)
    }

    fn compute(&self, images: &Images, device: &Device) -> Result<Tensor, Error> {
        let Some(vit) = &self.vit else {
            return self.scaled(&images.pixels().flatten_from(1)?.to_device(device)?);
        };
        let wanted = self.config.block.map_or_else(Outputs::norm, |block| Outputs::blocks([block]));
        let features = vit.forward(&images.pixels().to_device(vit.device())?, &wanted)?;
        let tokens = features.norm.as_ref().or(features.blocks.first());
        let Some(tokens) = tokens else {
            let reason = "the forward pass left out what it was asked for";
            return Err(vit_backbone::Error::NoSuchOutput { output: "tokens", reason }.into());
        };
        self.scaled(&features.patches(tokens)?.mean(1)?.to_device(device)?)
    }

    /// Unit vectors for the cosine: half their squared distance is one minus the cosine, without its cancellation.
    fn scaled(&self, vectors: &Tensor) -> Result<Tensor, Error> {
        if self.config.metric == Metric::L2 {
            return Ok(vectors.contiguous()?);
        }
        let norm = vectors.sqr()?.sum_keepdim(D::Minus1)?.sqrt()?;
        // A vector of zeros stays one.
        let positive = norm.maximum(f64::from(f32::MIN_POSITIVE))?;
        Ok(vectors.broadcast_div(&positive)?)
    }

    /// The vectors of all training images, `(N, F)`, each computed at most once a feature store.
    pub(crate) fn bank(
        &self,
        data: &dyn TrainingData,
        context: &FitContext<'_>,
    ) -> Result<Tensor, MethodError> {
        let all: Vec<usize> = (0..data.len()).collect();
        let mut batches = Vec::new();
        for (step, batch) in all.chunks(self.config.batch).enumerate() {
            context.cancellation.check()?;
            batches.push(self.batch(batch, data, context)?);
            context.tell(&anomaly_core::Event::Step { step });
        }
        if batches.is_empty() {
            return Err(Error::NoImages.into());
        }
        Ok(Tensor::cat(&batches, 0).map_err(Error::from)?)
    }

    /// The vectors `(B, F)` of the images at `indices`.
    fn batch(
        &self,
        indices: &[usize],
        data: &dyn TrainingData,
        context: &FitContext<'_>,
    ) -> Result<Tensor, MethodError> {
        let Some(vit) = &self.vit else {
            return self.vectors(&data.get(indices)?, &context.device);
        };
        let keys = indices.iter().map(|index| data.key(*index)).collect::<Result<Vec<_>, _>>()?;
        self.source(vit, context)?.once(&*context.features, &keys, &context.device, &mut |places| {
            let images = data.get(&places.iter().map(|at| indices[*at]).collect::<Vec<_>>())?;
            self.vectors(&images, &context.device)
        })
    }

    fn source(&self, vit: &Vit, context: &FitContext<'_>) -> Result<FeatureSource, Error> {
        let place = self.config.block.map_or("final norm".to_owned(), |block| format!("block {block}"));
        let scale = if self.config.metric == Metric::Cosine { ", unit length" } else { "" };
        Ok(FeatureSource {
            weights: vit.identity().sha256.clone(),
            output: format!("mean patch token, {place}{scale}"),
            preprocess: serde_json::to_string(&self.preprocess)?,
            precision: context.precision,
        })
    }
}
