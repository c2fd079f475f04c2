use anomaly_core::{
    ConfigError, Criterion, Detector, FitContext, Info, Method, MethodConfig, MethodError, Selection,
    TrainingData, ValidationImages,
};
use image_prep::{Filter, Preprocess, Resize};

use crate::{Config, Error, INFO, fit};

/// VT-ADL with registers, trained from scratch: it needs no backbone.
#[derive(Debug)]
pub struct VtadlRegisters {
    config: Config,
    preprocess: Preprocess,
}

impl VtadlRegisters {
    /// The method with these settings. Images are resized by nearest neighbour at half-pixel centres, as the reference
    /// does, and left in `[0, 1]`.
    ///
    /// # Errors
    /// [`Error::Config`] if a setting is out of range, by its name.
    pub fn new(config: Config) -> Result<Self, Error> {
        config.validate()?;
        let (height, width) = config.image_size.sides();
        let resize = Resize::exact(height, width, Filter::Nearest);
        let preprocess = Preprocess { resize, crop: None, mean: [0.0; 3], std: [1.0; 3] };
        preprocess.validate().map_err(|e| ConfigError::field(Config::METHOD, "image_size", e.to_string()))?;
        Ok(Self { config, preprocess })
    }

    /// The settings.
    pub fn settings(&self) -> &Config {
        &self.config
    }
}

impl Method for VtadlRegisters {
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

    /// The reference takes the last state. An honest choice looks at normal images that were held out.
    fn selection(&self) -> Selection {
        Selection {
            faithful: Criterion::Last,
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
