//! Scoring, saving and loading.

use std::collections::BTreeMap;
use std::sync::Arc;

use anomaly_core::{
    Detector, DetectorReader, DetectorWriter, FeatureStore, Images, Info, MethodConfig, MethodError,
    Precision, Prediction,
};
use candle_core::Tensor;
use vit_backbone::Vit;

use crate::error::finite;
use crate::network::Network;
use crate::teacher::{Teacher, chosen};
use crate::{Config, Error, INFO, loss};

/// What a fit of KDAD gives. An image's score is the mean squared difference of the student's and the teacher's patch
/// tokens, each scaled to unit length, over tokens and channels.
pub struct KdadDetector {
    config: Config,
    teacher: Teacher,
    network: Network,
    /// The network's weights under the names of the reference's state dict.
    weights: BTreeMap<String, Tensor>,
    /// Where the teacher's tokens are kept, and in which precision they are computed.
    store: Option<(Arc<dyn FeatureStore>, Precision)>,
}

impl std::fmt::Debug for KdadDetector {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("KdadDetector").field("config", &self.config).finish_non_exhaustive()
    }
}

impl KdadDetector {
    pub(crate) fn new(
        config: Config,
        teacher: Teacher,
        weights: BTreeMap<String, Tensor>,
    ) -> Result<Self, Error> {
        let network = Network::new(&teacher.student(&config), &weights)?;
        Ok(Self { config, teacher, network, weights, store: None })
    }

    /// The teacher's tokens of images whose content is known are kept in `store` and taken from it.
    pub(crate) fn keep_tokens_in(&mut self, store: Arc<dyn FeatureStore>, precision: Precision) {
        self.store = Some((store, precision));
    }

    /// The detector in an open directory, with `backbone` as its teacher. Its scores are those of the one that was
    /// saved, to the bit, on the same device.
    ///
    /// # Errors
    /// If it is of another method or another backbone, or a weight is missing or of another shape.
    pub fn load(reader: &DetectorReader, backbone: Arc<Vit>) -> Result<Self, MethodError> {
        reader.expect_method(INFO.name)?;
        reader.expect_backbone(&backbone.identity().name, &backbone.identity().sha256)?;
        let mut config: Config = reader.config()?;
        config.validate()?;
        let teacher = Teacher::new(&mut config, backbone)?;
        let moved =
            |(name, tensor): (&String, &Tensor)| Ok((name.clone(), tensor.to_device(teacher.vit.device())?));
        let weights = reader.tensors().iter().map(moved).collect::<Result<_, Error>>()?;
        Ok(Self::new(config, teacher, weights)?)
    }

    /// The settings it was trained with.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// The teacher's tokens `(B, N, D)`.
    fn tokens(&self, images: &Images) -> Result<Tensor, MethodError> {
        let (Some((store, precision)), Some(keys)) = (&self.store, images.keys()) else {
            return Ok(self.teacher.tokens(images.pixels())?);
        };
        let load = &mut |places: &[usize]| Ok(chosen(images.pixels(), places)?);
        self.teacher.once(&**store, *precision, keys, load)
    }

    fn scores(&self, images: &Images, tokens: &Tensor) -> Result<Vec<f64>, Error> {
        let pixels = images.pixels().to_device(self.teacher.vit.device())?;
        let scores = loss::image_scores(&self.network.forward(&pixels, &mut None)?, tokens)?;
        let named = scores.into_iter().zip(images.ids());
        named.map(|(score, id)| finite(|| format!("the score of image `{id}`"), score)).collect()
    }
}

impl Detector for KdadDetector {
    fn info(&self) -> &Info {
        &INFO
    }

    fn score(&self, images: &Images) -> Result<Prediction, MethodError> {
        images.require_finite()?;
        let (_, _, height, width) = images.pixels().dims4().map_err(Error::from)?;
        let expected = self.teacher.image_size;
        if (height, width) != (expected, expected) {
            return Err(Error::ImageSize { expected, height, width }.into());
        }
        if images.is_empty() {
            return Ok(Prediction::default());
        }
        Ok(Prediction::from_scores(self.scores(images, &self.tokens(images)?)?))
    }

    fn save(&self, writer: &mut DetectorWriter) -> Result<(), MethodError> {
        writer.config(&self.config)?;
        let identity = self.teacher.vit.identity();
        writer.backbone(&identity.name, &identity.sha256);
        for (name, tensor) in &self.weights {
            writer.tensor(name, tensor)?;
        }
        Ok(())
    }
}
