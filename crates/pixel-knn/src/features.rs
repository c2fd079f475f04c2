//! Images as vectors.

use std::sync::Arc;

use anomaly_core::{ConfigError, FeatureKey, FitContext, Images, MethodError, TrainingData};
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
        let mut rows = Vec::with_capacity(all.len());
        for (step, batch) in all.chunks(self.config.batch).enumerate() {
            context.cancellation.check()?;
            rows.extend(self.batch(batch, data, context)?);
            context.tell(&anomaly_core::Event::Step { step });
        }
        if rows.is_empty() {
            return Err(Error::NoImages.into());
        }
        Ok(Tensor::stack(&rows, 0).map_err(Error::from)?)
    }

    /// The vectors `(F,)` of the images at `indices`.
    fn batch(
        &self,
        indices: &[usize],
        data: &dyn TrainingData,
        context: &FitContext<'_>,
    ) -> Result<Vec<Tensor>, MethodError> {
        let row = |vectors: &Tensor, at: usize| vectors.get(at).map_err(Error::from);
        let Some(vit) = &self.vit else {
            let vectors = self.vectors(&data.get(indices)?, &context.device)?;
            return Ok((0..indices.len()).map(|at| row(&vectors, at)).collect::<Result<_, _>>()?);
        };
        let mut keys = Vec::with_capacity(indices.len());
        let mut rows = Vec::with_capacity(indices.len());
        for &index in indices {
            let key = self.key(vit, context, data.key(index)?)?;
            rows.push(context.features.get(&key)?);
            keys.push(key);
        }
        let missing: Vec<usize> = (0..indices.len()).filter(|at| rows[*at].is_none()).collect();
        if !missing.is_empty() {
            let images = data.get(&missing.iter().map(|at| indices[*at]).collect::<Vec<_>>())?;
            let vectors = self.vectors(&images, &context.device)?;
            for (from, at) in missing.into_iter().enumerate() {
                rows[at] = Some(context.features.keep(&keys[at], &row(&vectors, from)?)?);
            }
        }
        Ok(rows.into_iter().flatten().collect())
    }

    fn key(
        &self,
        vit: &Vit,
        context: &FitContext<'_>,
        image: anomaly_core::ContentKey,
    ) -> Result<FeatureKey, Error> {
        let place = self.config.block.map_or("final norm".to_owned(), |block| format!("block {block}"));
        let scale = if self.config.metric == Metric::Cosine { ", unit length" } else { "" };
        Ok(FeatureKey {
            weights: vit.identity().sha256.clone(),
            output: format!("mean patch token, {place}{scale}"),
            preprocess: serde_json::to_string(&self.preprocess)?,
            precision: context.precision,
            image,
        })
    }
}
