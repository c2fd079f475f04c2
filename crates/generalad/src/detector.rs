//! Scoring, saving and loading.

use std::collections::BTreeMap;
use std::sync::Arc;

use anomaly_core::{
    Detector, DetectorReader, DetectorWriter, FeatureStore, Images, Info, Maps, MethodConfig, MethodError,
    Prediction,
};
use candle_core::Tensor;
use image_prep::PatchMaps;
use vit_backbone::Vit;

use crate::error::finite;
use crate::features::Extractor;
use crate::fit::{DISCRIMINATOR, sizes};
use crate::network::Discriminator;
use crate::score::{image_scores, maps, rows};
use crate::{Config, Error, GeneralAd, INFO};

/// What a fit of `GeneralAD` gives.
///
/// An image's score is the mean of its highest patch logits; its map is all of them, brought to the network's input size
/// and smoothed.
pub struct GeneralAdDetector {
    config: Config,
    extractor: Extractor,
    discriminator: Discriminator,
    /// The discriminator's weights by the reference's names.
    tensors: BTreeMap<String, Tensor>,
    maps: PatchMaps,
    store: Option<Arc<dyn FeatureStore>>,
}

impl std::fmt::Debug for GeneralAdDetector {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("GeneralAdDetector").field("config", &self.config).finish_non_exhaustive()
    }
}

impl GeneralAdDetector {
    pub(crate) fn new(
        config: Config,
        extractor: Extractor,
        tensors: BTreeMap<String, Tensor>,
    ) -> Result<Self, Error> {
        let discriminator =
            Discriminator::new(sizes(&config, &extractor), |name| tensors.get(name).cloned())?;
        let maps = maps(&config, extractor.grid(&config))?;
        Ok(Self { config, extractor, discriminator, tensors, maps, store: None })
    }

    /// Features of images whose content is known are kept in `store` and taken from it.
    pub(crate) fn keep_features_in(&mut self, store: Arc<dyn FeatureStore>) {
        self.store = Some(store);
    }

    /// The detector in an open directory, with `backbone` as its backbone. Its scores are those of the one that was
    /// saved, to the bit, on the same device.
    ///
    /// # Errors
    /// If the directory holds a detector of another method or backbone (both by name), or a part of it is missing or
    /// of another shape.
    pub fn load(reader: &DetectorReader, backbone: Arc<Vit>) -> Result<Self, MethodError> {
        reader.expect_method(INFO.name)?;
        reader.expect_backbone(&backbone.identity().name, &backbone.identity().sha256)?;
        let config: Config = reader.config()?;
        config.validate()?;
        let device = backbone.device().clone();
        let method = GeneralAd::new(config.clone(), backbone)?;
        let tensors = reader
            .tensors()
            .iter()
            .filter_map(|(name, tensor)| Some((name.strip_prefix(DISCRIMINATOR)?.to_owned(), tensor)))
            .map(|(name, tensor)| Ok((name, tensor.to_device(&device)?)))
            .collect::<Result<_, Error>>()?;
        Ok(Self::new(config, method.into_extractor(), tensors)?)
    }

    /// The settings it was trained with.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Logits of every patch, `(B, N)` row by row: higher is more anomalous.
    ///
    /// # Errors
    /// As [`Detector::score`].
    pub fn patch_logits(&self, images: &Images) -> Result<Vec<Vec<f32>>, MethodError> {
        images.require_finite()?;
        let (_, _, height, width) = images.pixels().dims4().map_err(Error::from)?;
        let expected = self.config.image_size;
        if (height, width) != (expected, expected) {
            return Err(Error::ImageSize { expected, height, width }.into());
        }
        let mut logits = Vec::with_capacity(images.len());
        let batch = self.config.batch_size;
        for start in (0..images.len()).step_by(batch) {
            let count = batch.min(images.len() - start);
            let pixels = images.pixels().narrow(0, start, count).map_err(Error::from)?;
            let features = match (&self.store, images.keys()) {
                (Some(store), Some(keys)) => {
                    let keys = &keys[start..start + count];
                    self.extractor.features_once(&**store, keys, &mut |places| {
                        let places: Vec<u32> = places.iter().map(|place| *place as u32).collect();
                        let places = Tensor::new(places, pixels.device()).map_err(Error::from)?;
                        Ok(pixels
                            .contiguous()
                            .and_then(|p| p.index_select(&places, 0))
                            .map_err(Error::from)?)
                    })?
                }
                _ => self.extractor.features(&pixels)?,
            };
            logits.extend(rows(&self.discriminator.logits(&features.features, None)?)?);
        }
        Ok(logits)
    }
}

impl Detector for GeneralAdDetector {
    fn info(&self) -> &Info {
        &INFO
    }

    fn score(&self, images: &Images) -> Result<Prediction, MethodError> {
        let logits = self.patch_logits(images)?;
        let scores = image_scores(&logits, self.config.top_k);
        for (id, score) in images.ids().iter().zip(&scores) {
            finite(|| format!("the score of image `{id}`"), *score)?;
        }
        let (height, width) = self.maps.to_size();
        let data = self.maps.apply(&logits.concat()).map_err(Error::from)?;
        Ok(Prediction { maps: Some(Maps { height, width, data }), ..Prediction::from_scores(scores) })
    }

    fn save(&self, writer: &mut DetectorWriter) -> Result<(), MethodError> {
        writer.config(&self.config)?;
        let identity = self.extractor.vit().identity();
        writer.backbone(&identity.name, &identity.sha256);
        for (name, tensor) in &self.tensors {
            writer.tensor(&format!("{DISCRIMINATOR}{name}"), tensor)?;
        }
        Ok(())
    }
}
