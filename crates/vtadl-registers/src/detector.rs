//! Scoring, saving and loading.

use std::collections::BTreeMap;

use anomaly_core::{
    Detector, DetectorReader, DetectorWriter, Images, Info, Maps, MethodConfig, MethodError, Picture,
    Prediction, Streams,
};
use candle_core::{D, DType, Device, Tensor};
use density_heads::TokenMap;
use vit_ops::NamedTensors;

use crate::architecture::RegisterKind;
use crate::calibration::Calibration;
use crate::config::MapKind;
use crate::error::finite;
use crate::loss::{Losses, density_loss, reconstruction_error};
use crate::network::{Network, Output, draw_registers};
use crate::residual::{l1_map, mask, ssim_map};
use crate::{Config, Error, INFO};

/// What a fit of VT-ADL with registers gives.
///
/// The map is the chosen one of the L1 residual, the structural dissimilarity, the density head's, or their sum; an
/// image's score is the map's largest value. The largest values of all maps are the terms `l1`, `ssim` and `gmdn`; the term
/// `reconstruction` is 5 times the mean squared error plus half of one minus the structural similarity, whatever the loss
/// weights, so that its mean over normal images compares fits.
#[derive(Debug)]
pub struct VtadlRegistersDetector {
    pub(crate) finished: Finished,
    calibration: Calibration,
}

/// A network that is trained no more.
#[derive(Debug)]
pub(crate) struct Finished {
    pub(crate) config: Config,
    tensors: NamedTensors,
    network: Network,
    /// The registers of every image, `(1, R, D)`, if they are drawn.
    registers: Option<Tensor>,
    device: Device,
}

/// The maps of a batch, `(B, H, W)` each, smoothed.
pub(crate) type MapsByKind = BTreeMap<MapKind, Tensor>;

impl Finished {
    pub(crate) fn new(config: Config, tensors: NamedTensors, device: &Device) -> Result<Self, Error> {
        let architecture = config.architecture();
        let network = Network::new(&architecture, &tensors)?;
        let registers = evaluation_registers(&config, device)?;
        Ok(Self { config, tensors, network, registers, device: device.clone() })
    }

    fn pixels(&self, images: &Images) -> Result<Tensor, Error> {
        let (_, _, height, width) = images.pixels().dims4()?;
        let expected = self.config.image_size.sides();
        if (height, width) != expected {
            return Err(Error::ImageSize { expected, height, width });
        }
        Ok(images.pixels().to_device(&self.device)?)
    }

    fn output(&self, pixels: &Tensor) -> Result<Output, Error> {
        self.network.evaluate(pixels, self.registers.as_ref())
    }

    /// The loss over normal images in evaluation, without noise.
    pub(crate) fn loss(&self, images: &Images) -> Result<f64, Error> {
        let pixels = self.pixels(images)?;
        let output = self.output(&pixels)?;
        let form = self.config.likelihood();
        let density = match &self.network.density {
            Some(head) => Some(density_loss(&head.score(&output.features, form)?, form)?),
            None => None,
        };
        let losses = Losses::new(&output.reconstruction, &pixels, density)?;
        Ok(losses.values(&self.config.loss_weights())?.total)
    }

    /// All maps of images `(B, 3, H, W)`, and the reconstruction.
    fn maps(&self, pixels: &Tensor) -> Result<(MapsByKind, Tensor), Error> {
        let output = self.output(pixels)?;
        let smoothing = TokenMap { sigma: self.config.map_sigma, ..TokenMap::default() };
        let mut maps = BTreeMap::from([
            (MapKind::L1, smoothing.smooth(&l1_map(pixels, &output.reconstruction)?)?),
            (MapKind::Ssim, smoothing.smooth(&ssim_map(pixels, &output.reconstruction)?)?),
        ]);
        if let Some(head) = &self.network.density {
            let values = head.score(&output.features, self.config.likelihood())?;
            let grid = self.config.architecture().grid;
            maps.insert(MapKind::Gmdn, smoothing.map(&values, grid, self.config.image_size.sides())?);
        }
        Ok((maps, output.reconstruction))
    }

    /// The maps of images that were not checked yet.
    pub(crate) fn maps_of(&self, images: &Images) -> Result<MapsByKind, Error> {
        Ok(self.maps(&self.pixels(images)?)?.0)
    }

    /// The chosen map of all maps.
    pub(crate) fn chosen(&self, maps: &MapsByKind, calibration: &Calibration) -> Result<Tensor, Error> {
        let of = |kind: MapKind| {
            maps.get(&kind).ok_or_else(|| Error::MissingMap(format!("the map `{}`", kind.name())))
        };
        if self.config.map != MapKind::Fused {
            return Ok(of(self.config.map)?.clone());
        }
        let mut sum: Option<Tensor> = None;
        for &kind in self.config.parts() {
            let scale = calibration.scales.get(&kind);
            let (mean, deviation) = scale.map_or((0.0, 1.0), |scale| (scale.mean, scale.deviation));
            let scaled = of(kind)?.affine(1.0 / deviation, -mean / deviation)?;
            sum = Some(match sum {
                Some(sum) => (sum + scaled)?,
                None => scaled,
            });
        }
        sum.ok_or_else(|| Error::MissingMap("any map to fuse".to_owned()))
    }

    /// The length of each patch token after the last block.
    pub(crate) fn token_lengths(&self, images: &Images) -> Result<Vec<f64>, Error> {
        let output = self.output(&self.pixels(images)?)?;
        let squares = output.representation.to_dtype(DType::F64)?.sqr()?.sum(D::Minus1)?;
        Ok(squares.sqrt()?.flatten_all()?.to_vec1::<f64>()?)
    }
}

/// The same registers for every image, from the configuration's own seed.
pub(crate) fn evaluation_registers(config: &Config, device: &Device) -> Result<Option<Tensor>, Error> {
    if config.registers == 0 || config.register_kind == RegisterKind::Learned {
        return Ok(None);
    }
    let mut stream = Streams::new(config.register_seed).stream("evaluation registers");
    Ok(Some(draw_registers(&config.architecture(), 1, &mut stream, device)?))
}

impl VtadlRegistersDetector {
    pub(crate) fn new(finished: Finished, calibration: Calibration) -> Self {
        Self { finished, calibration }
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
        Ok(Self { finished: Finished::new(config, tensors, device)?, calibration: reader.state()? })
    }

    /// The settings it was trained with.
    pub fn config(&self) -> &Config {
        &self.finished.config
    }

    /// Above this a pixel of the map is in the mask.
    pub fn threshold(&self) -> f64 {
        self.calibration.threshold
    }

    fn predict(&self, images: &Images) -> Result<Prediction, Error> {
        let pixels = self.finished.pixels(images)?;
        let (height, width) = self.finished.config.image_size.sides();
        if images.is_empty() {
            return Ok(Prediction {
                maps: Some(Maps { height, width, data: vec![] }),
                ..Prediction::default()
            });
        }
        let (maps, reconstruction) = self.finished.maps(&pixels)?;
        let map = self.finished.chosen(&maps, &self.calibration)?;
        let scores = largest(&map)?;
        for (id, score) in images.ids().iter().zip(&scores) {
            finite(|| format!("the score of image `{id}`"), *score)?;
        }
        let mut terms = BTreeMap::new();
        for (kind, map) in &maps {
            terms.insert(kind.name().to_owned(), largest(map)?);
        }
        let errors = reconstruction_error(&reconstruction, &pixels)?;
        terms.insert("reconstruction".to_owned(), errors.to_dtype(DType::F64)?.to_vec1::<f64>()?);
        let shown = mask(&map, self.calibration.threshold)?.unsqueeze(1)?;
        let shown = shown.broadcast_as((images.len(), 3, height, width))?.contiguous()?;
        let pictures = [("reconstruction", reconstruction.clamp(0_f32, 1_f32)?), ("mask", shown)];
        Ok(Prediction {
            scores,
            maps: Some(Maps { height, width, data: map.flatten_all()?.to_vec1::<f32>()? }),
            terms,
            pictures: pictures
                .into_iter()
                .map(|(name, images)| {
                    Ok(Picture { name: name.to_owned(), images: images.to_device(&Device::Cpu)? })
                })
                .collect::<Result<_, Error>>()?,
        })
    }
}

/// The largest value of each map `(B, H, W)`.
fn largest(maps: &Tensor) -> Result<Vec<f64>, Error> {
    Ok(maps.flatten_from(1)?.max(1)?.to_dtype(DType::F64)?.to_vec1::<f64>()?)
}

impl Detector for VtadlRegistersDetector {
    fn info(&self) -> &Info {
        &INFO
    }

    fn score(&self, images: &Images) -> Result<Prediction, MethodError> {
        images.require_finite()?;
        Ok(self.predict(images)?)
    }

    fn save(&self, writer: &mut DetectorWriter) -> Result<(), MethodError> {
        writer.config(&self.finished.config)?;
        writer.state(&self.calibration)?;
        for (name, tensor) in self.finished.tensors.iter() {
            writer.tensor(name, tensor)?;
        }
        Ok(())
    }
}
