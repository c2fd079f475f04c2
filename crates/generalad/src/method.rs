use std::sync::Arc;

use anomaly_core::{
    ConfigError, Criterion, Detector, FitContext, Info, Method, MethodConfig, MethodError, Selection,
    TrainingData, ValidationImages,
};
use image_prep::{Filter, IMAGENET_MEAN, IMAGENET_STD, Preprocess};
use vit_backbone::Vit;

use crate::config::Honest;
use crate::features::Extractor;
use crate::{Config, Error, INFO, fit};

/// `GeneralAD` (Strater et al. 2024, arXiv 2407.12427) over a frozen backbone.
#[derive(Debug)]
pub struct GeneralAd {
    config: Config,
    extractor: Extractor,
    preprocess: Preprocess,
}

impl GeneralAd {
    /// The method with these settings, on this backbone.
    ///
    /// Images are resized to a square with Pillow's Lanczos on 8 bits and normalised with `ImageNet`'s mean and deviation,
    /// whatever the backbone was trained with: so it is published.
    ///
    /// # Errors
    /// If a setting is out of range, or does not fit the backbone; by its name.
    pub fn new(config: Config, backbone: Arc<Vit>) -> Result<Self, Error> {
        config.validate()?;
        let preprocess = Preprocess::square(config.image_size, Filter::Lanczos, IMAGENET_MEAN, IMAGENET_STD);
        let extractor = Extractor::new(&config, backbone, &preprocess)?;
        let (width, heads) = (extractor.width(), config.dsc_heads);
        if !width.is_multiple_of(heads) {
            let problem = format!("expected a divisor of the features' width {width}, found {heads}");
            return Err(ConfigError::field(Config::METHOD, "dsc_heads", problem).into());
        }
        Ok(Self { config, extractor, preprocess })
    }

    /// The settings.
    pub fn settings(&self) -> &Config {
        &self.config
    }

    /// The backbone.
    pub fn backbone(&self) -> &Arc<Vit> {
        self.extractor.vit()
    }

    #[cfg(feature = "conformance")]
    pub(crate) fn extractor(&self) -> &Extractor {
        &self.extractor
    }

    pub(crate) fn into_extractor(self) -> Extractor {
        self.extractor
    }
}

impl Method for GeneralAd {
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
            // The reference compares figures that its logger has rounded.
            faithful: Criterion::HighestOnTest { metric: self.config.monitor.metric(), decimals: Some(3) },
            honest: match self.config.honest {
                Honest::Last => Criterion::Last,
                Honest::HeldOut => Criterion::LowestValidationLoss {
                    on: ValidationImages::HeldOut,
                    batch: self.config.batch_size,
                    min_delta: 0.0,
                },
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
