use anomaly_core::{
    Criterion, Detector, FitContext, Info, Method, MethodConfig, MethodError, Selection, TestMetric,
    TrainingData, ValidationImages,
};
use image_prep::Preprocess;

use crate::features::Extractor;
use crate::{Backbone, Config, Error, INFO, Monitor, fit};

/// `SimpleNet` over a frozen backbone.
#[derive(Debug)]
pub struct SimpleNet {
    config: Config,
    extractor: Extractor,
}

impl SimpleNet {
    /// The method with these settings, on this backbone.
    ///
    /// Images are resized to a square as in the reference (Pillow's Lanczos, on 8 bits) and normalised with `ImageNet`'s
    /// statistics, whatever the backbone.
    ///
    /// # Errors
    /// If a setting is out of range or doesn't fit the backbone, by its name.
    pub fn new(mut config: Config, backbone: impl Into<Backbone>) -> Result<Self, Error> {
        config.validate()?;
        let extractor = Extractor::new(&mut config, backbone.into())?;
        Ok(Self { config, extractor })
    }

    /// The settings, image size and layers filled in.
    pub fn settings(&self) -> &Config {
        &self.config
    }

    /// The frozen network.
    pub fn backbone(&self) -> &Backbone {
        &self.extractor.backbone
    }

    #[cfg(feature = "conformance")]
    pub(crate) fn extractor(&self) -> &Extractor {
        &self.extractor
    }
}

impl Method for SimpleNet {
    fn info(&self) -> &Info {
        &INFO
    }

    fn preprocess(&self) -> &Preprocess {
        &self.extractor.preprocess
    }

    fn config(&self) -> serde_json::Value {
        // Numbers, booleans and fixed names always have a JSON form.
        serde_json::to_value(&self.config).unwrap_or_default()
    }

    /// The reference keeps the best epoch on the test set; honest is the lowest loss on held-out images and their
    /// copies with noise, or the last epoch where none are held out.
    fn selection(&self) -> Selection {
        let metric = match self.config.monitor {
            Monitor::ImageAuroc => TestMetric::ImageAuroc,
            Monitor::PixelAuroc => TestMetric::PixelAuroc,
        };
        Selection {
            faithful: Criterion::HighestOnTest { metric, decimals: Some(3) },
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
        fit::fit(&self.config, &self.extractor, data, context)
    }
}
