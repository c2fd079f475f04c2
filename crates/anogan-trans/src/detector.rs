//! Scoring, saving and loading.

use std::collections::{BTreeMap, HashMap};

use anomaly_core::{
    Detector, DetectorReader, DetectorWriter, Images, Info, Maps, MethodConfig, MethodError, Picture,
    Prediction,
};
use candle_core::{Device, Tensor};

use crate::config::{MapKind, Scoring};
use crate::discriminator::{DiscriminatorConfig, Mode};
use crate::generator::GeneratorConfig;
use crate::heat::{blurred, gradient_map};
use crate::scoring::{Networks, Scored, min_max};
use crate::{Config, Error, INFO};

/// What a fit of `AnoTrans` gives.
///
/// An image's score is the weighted sum of two terms: the mean squared difference of image and reconstruction (`pixel`)
/// and that of what the discriminator makes of both (`feature`). There are maps of the pixel error, and pictures of the
/// reconstructions.
#[derive(Debug)]
pub struct AnoTransDetector {
    config: Config,
    networks: Networks,
    /// As they are saved.
    tensors: BTreeMap<String, Tensor>,
}

impl AnoTransDetector {
    /// From the tensors of [`Trainer::named_tensors`](crate::Trainer::named_tensors).
    pub(crate) fn new(
        config: &Config,
        tensors: BTreeMap<String, Tensor>,
        device: &Device,
    ) -> Result<Self, Error> {
        let by_name: HashMap<String, Tensor> =
            tensors.iter().map(|(name, tensor)| (name.clone(), tensor.clone())).collect();
        let networks =
            Networks::new(&by_name, &GeneratorConfig::of(config), &DiscriminatorConfig::of(config), device)?;
        Ok(Self { config: config.clone(), networks, tensors })
    }

    /// The detector in an open directory, computing on `device`. Its scores are those of the one that was saved, to the
    /// bit, on the same device.
    ///
    /// # Errors
    /// If the directory holds a detector of another method (by name), or a part of it is missing or of another shape.
    pub fn load(reader: &DetectorReader, device: &Device) -> Result<Self, MethodError> {
        reader.expect_method(INFO.name)?;
        let config: Config = reader.config()?;
        config.validate()?;
        Ok(Self::new(&config, reader.tensors().clone(), device)?)
    }

    /// The settings it was trained with.
    pub fn config(&self) -> &Config {
        &self.config
    }

    pub(crate) fn networks(&self) -> &Networks {
        &self.networks
    }

    fn check_size(&self, images: &Images) -> Result<(), Error> {
        let (_, _, height, width) = images.pixels().dims4()?;
        let expected = self.config.image_size;
        if (height, width) == (expected, expected) {
            Ok(())
        } else {
            Err(Error::ImageSize { expected, height, width })
        }
    }

    /// What the networks say of `pixels` `(B, 3, S, S)`, in the batches that count.
    fn scored(&self, pixels: &Tensor) -> Result<Vec<(Tensor, Scored)>, Error> {
        let count = pixels.dim(0)?;
        match self.config.scoring {
            Scoring::Running => Ok(vec![(pixels.clone(), self.networks.score_each(pixels)?)]),
            Scoring::Batch => {
                // The running statistics that scoring moves are a copy's, and play no part in these scores.
                let mut networks = self.networks.clone();
                (0..count)
                    .step_by(self.config.batch_size)
                    .map(|start| {
                        let batch = pixels.narrow(0, start, self.config.batch_size.min(count - start))?;
                        let scored = networks.score(&batch, Mode::Batch)?;
                        Ok((batch, scored))
                    })
                    .collect()
            }
        }
    }

    /// Adds what the networks said of a batch.
    fn append(&self, out: &mut Gathered, pixels: &Tensor, scored: &Scored) -> Result<(), Error> {
        let size = self.config.image_size;
        let batch = pixels.dim(0)?;
        let maps = match self.config.map {
            MapKind::Error => scored.error.reshape((batch, size, size))?,
            MapKind::Gradient => gradient_map(&self.networks, pixels, &scored.painted)?,
        };
        let maps = blurred(&maps, self.config.map_blur)?.flatten_all()?.to_vec1::<f32>()?;
        let (mean, std) = (f64::from(self.config.mean), f64::from(self.config.std));
        let shown = scored.painted.affine(std, mean)?.clamp(0_f64, 1_f64)?.permute((0, 3, 1, 2))?;
        out.painted.push(shown.contiguous()?.to_device(&Device::Cpu)?);
        let grey: Vec<f32> = maps
            .chunks_exact(size * size)
            .flat_map(|map| min_max(&map.iter().copied().map(f64::from).collect::<Vec<_>>()))
            .map(|value| value as f32)
            .collect();
        let grey = Tensor::from_vec(grey, (batch, 1, size, size), &Device::Cpu)?;
        out.maps_shown.push(grey.broadcast_as((batch, 3, size, size))?.contiguous()?);
        out.maps.extend(maps);
        out.pixel.extend_from_slice(&scored.pixel);
        out.feature.extend_from_slice(&scored.feature);
        Ok(())
    }
}

/// What is said of all images of a call.
#[derive(Default)]
struct Gathered {
    pixel: Vec<f64>,
    feature: Vec<f64>,
    maps: Vec<f32>,
    painted: Vec<Tensor>,
    maps_shown: Vec<Tensor>,
}

impl Detector for AnoTransDetector {
    fn info(&self) -> &Info {
        &INFO
    }

    fn score(&self, images: &Images) -> Result<Prediction, MethodError> {
        images.require_finite()?;
        self.check_size(images)?;
        let mut all = Gathered::default();
        if !images.is_empty() {
            for (pixels, scored) in self.scored(images.pixels())? {
                self.append(&mut all, &pixels, &scored)?;
            }
        }
        let mut scores = Vec::with_capacity(images.len());
        for ((id, pixel), feature) in images.ids().iter().zip(&all.pixel).zip(&all.feature) {
            let value = self.config.pixel_score_weight * pixel + self.config.feature_score_weight * feature;
            if !value.is_finite() {
                return Err(Error::NotFinite { what: format!("the score of image `{id}`"), value }.into());
            }
            scores.push(value);
        }
        let picture = |name: &str, parts: &[Tensor]| -> Result<Option<Picture>, Error> {
            if parts.is_empty() {
                return Ok(None);
            }
            Ok(Some(Picture { name: name.to_owned(), images: Tensor::cat(parts, 0)? }))
        };
        let size = self.config.image_size;
        let map_name = match self.config.map {
            MapKind::Error => "squared error",
            MapKind::Gradient => "gradient map",
        };
        Ok(Prediction {
            maps: Some(Maps { height: size, width: size, data: all.maps }),
            terms: BTreeMap::from([("pixel".to_owned(), all.pixel), ("feature".to_owned(), all.feature)]),
            pictures: [picture("reconstruction", &all.painted)?, picture(map_name, &all.maps_shown)?]
                .into_iter()
                .flatten()
                .collect(),
            ..Prediction::from_scores(scores)
        })
    }

    fn save(&self, writer: &mut DetectorWriter) -> Result<(), MethodError> {
        writer.config(&self.config)?;
        for (name, tensor) in &self.tensors {
            writer.tensor(name, tensor)?;
        }
        Ok(())
    }
}
