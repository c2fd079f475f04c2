//! Scoring, saving and loading.

use std::collections::BTreeMap;

use anomaly_core::{
    Detector, DetectorReader, DetectorWriter, Images, Info, Maps, MethodConfig, MethodError, Picture,
    Prediction,
};
use candle_core::{D, DType, Device, Tensor};
use density_heads::TokenMap;
use vit_ops::NamedTensors;

use crate::association::{token_discrepancies, weighted};
use crate::config::{ImageScore, MapScore};
use crate::error::finite;
use crate::loss::{LossWeights, Losses, mse_per_image, ssim_per_image};
use crate::network::Network;
use crate::{Config, Error, INFO};

/// What a fit of `ADViT` gives.
///
/// An image's score is the squared error of its reconstruction minus their structural similarity plus the largest
/// negative log-likelihood of its patches (terms `mse`, `dissimilarity`, which is minus the similarity, and
/// `likelihood`); the map is that of the patches.
#[derive(Debug)]
pub struct AdvitDetector {
    config: Config,
    tensors: NamedTensors,
    network: Network,
    device: Device,
}

impl AdvitDetector {
    /// Of frozen tensors.
    pub(crate) fn new(config: Config, tensors: NamedTensors, device: &Device) -> Result<Self, Error> {
        let network = Network::new(&config.architecture(), &tensors)?;
        Ok(Self { config, tensors, network, device: device.clone() })
    }

    /// The detector in an open directory, on `device`. Its scores are those of the one that was saved, to the bit, on the
    /// same device.
    ///
    /// # Errors
    /// If the directory holds a detector of another method, or a part of it is missing or of another shape.
    pub fn load(reader: &DetectorReader, device: &Device) -> Result<Self, MethodError> {
        reader.expect_method(INFO.name)?;
        let config: Config = reader.config()?;
        config.validate()?;
        let moved = |(name, tensor): (&String, &Tensor)| Ok((name.clone(), tensor.to_device(device)?));
        let tensors = reader.tensors().iter().map(moved).collect::<Result<NamedTensors, Error>>()?;
        Ok(Self::new(config, tensors, device)?)
    }

    /// The settings it was trained with.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// The validation loss over normal images: the training loss without noise and association.
    pub(crate) fn loss(&self, images: &Images) -> Result<f64, Error> {
        let pixels = self.pixels(images)?;
        let found = self.network.autoencoder.evaluate(&pixels, None)?;
        let likelihood = self.network.density.score(&found.encoded, self.config.likelihood.into())?;
        let losses = Losses::new(&pixels, &found.reconstruction, &likelihood, &[])?;
        Ok(losses.values(&self.config.loss_weights())?.total)
    }

    fn pixels(&self, images: &Images) -> Result<Tensor, Error> {
        let (_, _, height, width) = images.pixels().dims4()?;
        let expected = self.config.image_size;
        if (height, width) != (expected, expected) {
            return Err(Error::ImageSize { expected, height, width });
        }
        Ok(images.pixels().to_device(&self.device)?)
    }

    fn predict(&self, images: &Images) -> Result<Prediction, Error> {
        let pixels = self.pixels(images)?;
        let size = (self.config.image_size, self.config.image_size);
        if images.is_empty() {
            let maps = Some(Maps { height: size.0, width: size.1, data: vec![] });
            return Ok(Prediction { maps, ..Prediction::default() });
        }
        let found = self.network.autoencoder.evaluate(&pixels, None)?;
        let likelihood = self.network.density.score(&found.encoded, self.config.likelihood.into())?;
        let mse = numbers(&mse_per_image(&found.reconstruction, &pixels)?)?;
        let similarity = numbers(&ssim_per_image(&found.reconstruction, &pixels)?)?;
        let largest = numbers(&likelihood.max(D::Minus1)?)?;
        let mut scores = Vec::with_capacity(images.len());
        for (index, id) in images.ids().iter().enumerate() {
            let sign = match self.config.image_score {
                ImageScore::SignFixed => -1.0,
                ImageScore::Reference => 1.0,
            };
            let score = mse[index] + sign * similarity[index] + largest[index];
            scores.push(finite(|| format!("the score of image `{id}`"), score)?);
        }
        let patches = match (self.config.map, token_discrepancies(&found.associations)?) {
            (MapScore::Association, Some(discrepancy)) => {
                weighted(&likelihood, &discrepancy, self.config.association.temperature)?
            }
            _ => likelihood,
        };
        let smoothing = TokenMap { sigma: self.config.map_sigma, ..TokenMap::default() };
        let map = smoothing.map(&patches, self.config.grid(), size)?;
        let data = map.to_dtype(DType::F32)?.flatten_all()?.to_vec1::<f32>()?;
        let picture = found.reconstruction.clamp(0_f32, 1_f32)?.to_device(&Device::Cpu)?;
        let terms = BTreeMap::from([
            ("mse".to_owned(), mse),
            ("dissimilarity".to_owned(), similarity.iter().map(|s| -s).collect()),
            ("likelihood".to_owned(), largest),
        ]);
        Ok(Prediction {
            scores,
            maps: Some(Maps { height: size.0, width: size.1, data }),
            terms,
            pictures: vec![Picture { name: "reconstruction".to_owned(), images: picture }],
        })
    }
}

fn numbers(tensor: &Tensor) -> Result<Vec<f64>, Error> {
    Ok(tensor.to_dtype(DType::F64)?.to_vec1::<f64>()?)
}

impl Config {
    pub(crate) fn loss_weights(&self) -> LossWeights {
        LossWeights {
            mse: self.mse_weight,
            ssim: self.ssim_weight,
            nll: self.nll_weight,
            association: self.association.lambda,
        }
    }
}

impl Detector for AdvitDetector {
    fn info(&self) -> &Info {
        &INFO
    }

    fn score(&self, images: &Images) -> Result<Prediction, MethodError> {
        images.require_finite()?;
        Ok(self.predict(images)?)
    }

    fn save(&self, writer: &mut DetectorWriter) -> Result<(), MethodError> {
        writer.config(&self.config)?;
        for (name, tensor) in self.tensors.iter() {
            writer.tensor(name, tensor)?;
        }
        Ok(())
    }
}
