use anomaly_core::{
    Criterion, Detector, FitContext, Info, Method, MethodConfig, MethodError, Selection, TestMetric,
    TrainingData, ValidationImages,
};
use image_prep::{Crop, Filter, Preprocess, Resize};

use crate::{Config, Error, INFO, fit};

/// `AnoTrans` (ICANN 2022), trained from scratch.
#[derive(Debug)]
pub struct AnoTrans {
    config: Config,
    preprocess: Preprocess,
}

impl AnoTrans {
    /// The method with these settings.
    ///
    /// # Errors
    /// If a setting is out of range, by its name; sizes that the networks can't take with the nearest that they can.
    pub fn new(config: Config) -> Result<Self, Error> {
        config.validate()?;
        let size = config.image_size;
        let (resize, crop) = if config.crop {
            (Resize::shorter_edge(size, Filter::Bilinear), Some(Crop::square(size)))
        } else {
            (Resize::exact(size, size, Filter::Bilinear), None)
        };
        let preprocess = Preprocess { resize, crop, mean: [config.mean; 3], std: [config.std; 3] };
        Ok(Self { config, preprocess })
    }

    /// The settings.
    pub fn settings(&self) -> &Config {
        &self.config
    }
}

impl Method for AnoTrans {
    fn info(&self) -> &Info {
        &INFO
    }

    fn preprocess(&self) -> &Preprocess {
        &self.preprocess
    }

    fn config(&self) -> serde_json::Value {
        // Numbers, booleans and fixed names always have a JSON form.
        serde_json::to_value(&self.config).unwrap_or_default()
    }

    fn selection(&self) -> Selection {
        Selection {
            // The reference tests after every epoch and reports the best area found.
            faithful: Criterion::HighestOnTest { metric: TestMetric::ImageAuroc, decimals: None },
            honest: Criterion::LowestValidationLoss {
                on: ValidationImages::HeldOut,
                batch: self.config.batch_size,
                min_delta: 0.0,
            },
        }
    }

    fn fit(
        &self,
        data: &mut dyn TrainingData,
        context: &mut FitContext<'_>,
    ) -> Result<Box<dyn Detector>, MethodError> {
        fit::fit(&self.config, data, context)
    }
}
