use anomaly_core::{
    Criterion, Detector, FitContext, Info, Method, MethodConfig, MethodError, Selection, TrainingData,
    ValidationImages,
};
use image_prep::{Crop, Filter, Preprocess};

use crate::{Config, Error, INFO, fit};

/// `ADViT` (VT-ADL with the association discrepancy), trained from scratch: it needs no backbone.
#[derive(Debug)]
pub struct Advit {
    config: Config,
    preprocess: Preprocess,
}

impl Advit {
    /// The method with these settings. Images are resized to a square as published (Pillow's bilinear, on 8 bits),
    /// cropped at the centre and left in `[0, 1]`.
    ///
    /// # Errors
    /// [`Error::Config`] if a setting is out of range, by its name.
    pub fn new(config: Config) -> Result<Self, Error> {
        config.validate()?;
        let preprocess = Preprocess::square(config.resized(), Filter::Bilinear, [0.0; 3], [1.0; 3])
            .with_crop(Crop::square(config.image_size));
        preprocess
            .validate()
            .map_err(|e| anomaly_core::ConfigError::field(Config::METHOD, "resize", e.to_string()))?;
        Ok(Self { config, preprocess })
    }

    /// The settings.
    pub fn settings(&self) -> &Config {
        &self.config
    }
}

impl Method for Advit {
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

    /// The reference keeps the epoch with the lowest training loss. An honest one looks at normal images that were held
    /// out.
    fn selection(&self) -> Selection {
        Selection {
            faithful: Criterion::LowestTrainingLoss,
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
