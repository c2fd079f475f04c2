//! Scoring, saving and loading.

use std::sync::Arc;

use anomaly_core::{Detector, DetectorReader, DetectorWriter, Images, Info, MethodError, Prediction};
use candle_core::Device;
use vit_backbone::Vit;

use crate::features::Extractor;
use crate::neighbours::Bank;
use crate::{Config, Error, Features, INFO, Metric};

/// Name of the bank in a detector's file.
const BANK: &str = "bank";

/// The vectors of normal images, and how to make more of them.
pub(crate) struct Neighbours {
    pub(crate) extractor: Extractor,
    pub(crate) bank: Bank,
}

impl Detector for Neighbours {
    fn info(&self) -> &Info {
        &INFO
    }

    fn score(&self, images: &Images) -> Result<Prediction, MethodError> {
        let Config { k, metric, .. } = self.extractor.config;
        let vectors = self.extractor.vectors(images, self.bank.vectors().device())?;
        let distance = |squared: f64| match metric {
            Metric::L2 => squared.sqrt(),
            Metric::Cosine => squared / 2.0,
        };
        let mean =
            |squared: Vec<f64>| squared.iter().map(|s| distance(*s)).sum::<f64>() / squared.len() as f64;
        let scores = self.bank.nearest(&vectors, k)?.into_iter().map(mean).collect();
        Ok(Prediction::from_scores(scores))
    }

    fn save(&self, writer: &mut DetectorWriter) -> Result<(), MethodError> {
        writer.config(&self.extractor.config)?;
        if let Some(vit) = &self.extractor.vit {
            writer.backbone(&vit.identity().name, &vit.identity().sha256);
        }
        Ok(writer.tensor(BANK, self.bank.vectors())?)
    }
}

/// Loads a saved detector; with the backbone it names, if it names one.
///
/// # Errors
/// If it is of another method or another backbone, or its files are not whole.
pub fn load(
    reader: &DetectorReader,
    vit: Option<Arc<Vit>>,
    device: &Device,
) -> Result<Box<dyn Detector>, MethodError> {
    reader.expect_method(INFO.name)?;
    let extractor = Extractor::new(reader.config::<Config>()?, vit)?;
    if let (Features::Tokens, Some(vit)) = (extractor.config.features, &extractor.vit) {
        reader.expect_backbone(&vit.identity().name, &vit.identity().sha256)?;
    }
    let vectors = reader.tensor(BANK)?.to_device(device).map_err(Error::from)?;
    Ok(Box::new(Neighbours { extractor, bank: Bank::new(vectors)? }))
}
