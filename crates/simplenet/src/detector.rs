//! Scoring, saving and loading.

use std::sync::Arc;

use anomaly_core::{
    Detector, DetectorReader, DetectorWriter, FeatureStore, Images, Info, Maps, MethodConfig, MethodError,
    Precision, Prediction,
};
use candle_core::Tensor;
use cnn_backbone::RunningStatistics;
use image_prep::PatchMaps;

use crate::error::finite;
use crate::features::Extractor;
use crate::fit::{sizes, statistics_of, statistics_tensors};
use crate::network::{Network, State};
use crate::{Backbone, Config, Error, INFO};

/// What a fit of `SimpleNet` gives. An image's score is the largest output of the discriminator at any place; its map is
/// those outputs at the size of the network's input, smoothed.
pub struct SimpleNetDetector {
    config: Config,
    extractor: Extractor,
    network: Network,
    state: State,
    /// Of a residual network whose batch norms were in training mode; else none.
    drifted: RunningStatistics,
    maps: PatchMaps,
    /// Where features of images are kept, and in which precision they are computed.
    store: Option<(Arc<dyn FeatureStore>, Precision)>,
}

impl std::fmt::Debug for SimpleNetDetector {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SimpleNetDetector").field("config", &self.config).finish_non_exhaustive()
    }
}

impl SimpleNetDetector {
    /// `extractor` has `drifted` inside.
    pub(crate) fn new(
        config: Config,
        extractor: Extractor,
        state: State,
        drifted: RunningStatistics,
    ) -> Result<Self, Error> {
        let network = Network::new(&sizes(&config, &extractor), &state.weights)?;
        let side = extractor.image_size;
        let (sigma, radius) = (config.smoothing_sigma, config.smoothing_radius);
        let maps = PatchMaps::smoothed(extractor.grid(), (side, side), sigma, radius)?;
        Ok(Self { config, extractor, network, state, drifted, maps, store: None })
    }

    /// Features of images whose content is known are kept in `store` and taken from it.
    pub(crate) fn keep_features_in(&mut self, store: Arc<dyn FeatureStore>, precision: Precision) {
        self.store = Some((store, precision));
    }

    /// The detector in an open directory, on `backbone`. Its scores are those of the one that was saved, to the bit, on
    /// the same device.
    ///
    /// # Errors
    /// If it is of another method or another backbone, or a weight is missing or of another shape.
    pub fn load(reader: &DetectorReader, backbone: Backbone) -> Result<Self, MethodError> {
        reader.expect_method(INFO.name)?;
        let (name, sha256) = backbone.identity();
        reader.expect_backbone(name, sha256)?;
        let mut config: Config = reader.config()?;
        config.validate()?;
        let extractor = Extractor::new(&mut config, backbone)?;
        let device = extractor.backbone.device();
        let state = State::read(&sizes(&config, &extractor), reader.tensors(), device)?;
        let mut drifted = statistics_of(reader.tensors());
        for (mean, variance) in drifted.0.values_mut() {
            *mean = mean.to_device(device).map_err(Error::from)?;
            *variance = variance.to_device(device).map_err(Error::from)?;
        }
        Ok(Self::new(config, extractor.with_statistics(&drifted)?, state, drifted)?)
    }

    /// The settings it was trained with.
    pub fn config(&self) -> &Config {
        &self.config
    }

    fn features(&self, images: &Images) -> Result<Tensor, MethodError> {
        let (Some((store, precision)), Some(keys)) = (&self.store, images.keys()) else {
            return Ok(self.extractor.features(images.pixels())?);
        };
        self.extractor.once(&**store, *precision, keys, &mut |places| {
            let pixels = images.pixels();
            let places: Vec<u32> = places.iter().map(|place| *place as u32).collect();
            let chosen = Tensor::new(places, pixels.device()).and_then(|at| pixels.index_select(&at, 0));
            Ok(chosen.map_err(Error::from)?)
        })
    }

    fn predict(&self, images: &Images, features: &Tensor) -> Result<Prediction, Error> {
        let side = self.extractor.image_size;
        let places = self.network.scores(features, &self.state.running)?.to_vec2::<f32>()?;
        let scores = places
            .iter()
            .zip(images.ids())
            .map(|(places, id)| {
                let largest = places.iter().copied().max_by(f32::total_cmp).unwrap_or(f32::NAN);
                finite(|| format!("the score of image `{id}`"), f64::from(largest))
            })
            .collect::<Result<Vec<f64>, _>>()?;
        let data = self.maps.apply(&places.concat())?;
        let maps = Maps { height: side, width: side, data };
        Ok(Prediction { maps: Some(maps), ..Prediction::from_scores(scores) })
    }
}

impl Detector for SimpleNetDetector {
    fn info(&self) -> &Info {
        &INFO
    }

    fn score(&self, images: &Images) -> Result<Prediction, MethodError> {
        images.require_finite()?;
        let (_, _, height, width) = images.pixels().dims4().map_err(Error::from)?;
        let side = self.extractor.image_size;
        if (height, width) != (side, side) {
            return Err(Error::ImageSize { expected: side, height, width }.into());
        }
        if images.is_empty() {
            let maps = Maps { height: side, width: side, data: Vec::new() };
            return Ok(Prediction { maps: Some(maps), ..Prediction::default() });
        }
        Ok(self.predict(images, &self.features(images)?)?)
    }

    fn save(&self, writer: &mut DetectorWriter) -> Result<(), MethodError> {
        writer.config(&self.config)?;
        let (name, sha256) = self.extractor.backbone.identity();
        writer.backbone(name, sha256);
        for (name, tensor) in self.state.tensors()? {
            writer.tensor(&name, &tensor)?;
        }
        for (name, tensor) in statistics_tensors(&self.drifted) {
            writer.tensor(&name, tensor)?;
        }
        Ok(())
    }
}
