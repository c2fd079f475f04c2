//! Fitting: the vectors of the normal images are kept.

use std::sync::Arc;

use anomaly_core::{ConfigError, Detector, Event, FitContext, Info, Method, MethodError, TrainingData};
use image_prep::Preprocess;
use vit_backbone::Vit;

use crate::detector::Neighbours;
use crate::features::Extractor;
use crate::neighbours::Bank;
use crate::{Config, Error, INFO};

/// The baseline, configured.
pub struct PixelKnn {
    extractor: Extractor,
    /// The configuration as records show it.
    record: serde_json::Value,
}

impl PixelKnn {
    /// The baseline with `config`; with a backbone if it looks at tokens (one that is not needed is not used).
    ///
    /// # Errors
    /// [`Error::Config`] if a value makes no sense, with this backbone or without one.
    pub fn new(config: Config, vit: Option<Arc<Vit>>) -> Result<Self, Error> {
        let extractor = Extractor::new(config, vit)?;
        let record = serde_json::to_value(&extractor.config)?;
        Ok(Self { extractor, record })
    }
}

impl Method for PixelKnn {
    fn info(&self) -> &Info {
        &INFO
    }

    fn preprocess(&self) -> &Preprocess {
        &self.extractor.preprocess
    }

    fn config(&self) -> serde_json::Value {
        self.record.clone()
    }

    fn fit(
        &self,
        data: &mut dyn TrainingData,
        context: &mut FitContext<'_>,
    ) -> Result<Box<dyn Detector>, MethodError> {
        let config = &self.extractor.config;
        context.cancellation.check()?;
        if config.k > data.len() && !data.is_empty() {
            let problem =
                format!("expected at most {}, the number of training images, found {}", data.len(), config.k);
            return Err(ConfigError::field(INFO.name, "k", problem).into());
        }
        let steps = Some(data.len().div_ceil(config.batch));
        context.tell(&Event::Phase { name: "features".into(), steps });
        let bank = Bank::new(self.extractor.bank(data, context)?)?;
        Ok(Box::new(Neighbours { extractor: self.extractor.clone(), bank }))
    }
}
