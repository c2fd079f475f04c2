use std::sync::Arc;

use anomaly_core::{
    Criterion, Detector, FitContext, Info, Method, MethodConfig, MethodError, Selection, TrainingData,
    ValidationImages,
};
use image_prep::{Filter, Preprocess};
use vit_backbone::Vit;

use crate::{Config, Error, INFO, fit};

/// Transformaly (Cohen and Avidan 2022, arXiv 2112.04185) over a frozen backbone.
#[derive(Debug)]
pub struct Transformaly {
    config: Config,
    teacher: Arc<Vit>,
    preprocess: Preprocess,
}

impl Transformaly {
    /// The method with these settings, on this backbone: the published one, or any other with more blocks than
    /// `config.skip_blocks`.
    ///
    /// Images are resized to a square as published (Pillow's bilinear, on 8 bits) and normalised as the backbone was
    /// trained.
    ///
    /// # Errors
    /// If a setting is out of range (by its name), the backbone has too few blocks, or images of this size don't fit
    /// it.
    pub fn new(config: Config, backbone: Arc<Vit>) -> Result<Self, Error> {
        config.validate()?;
        let (depth, skipped) = (backbone.depth(), config.skip_blocks);
        if depth <= skipped {
            let name = backbone.identity().name.clone();
            return Err(Error::TooFewBlocks { name, depth, skipped });
        }
        let (size, patch) = (config.image_size, backbone.patch());
        if size < patch.0.max(patch.1) {
            let problem = format!("expected at least one patch of {} x {}, found {size}", patch.0, patch.1);
            return Err(anomaly_core::ConfigError::field(Config::METHOD, "image_size", problem).into());
        }
        // Fails here rather than in the first batch if the position table can't be brought to this grid.
        backbone.position_table(size, size)?;
        let own = backbone.preprocess();
        let preprocess = Preprocess::square(size, Filter::Bilinear, own.mean, own.std);
        Ok(Self { config, teacher: backbone, preprocess })
    }

    /// The settings.
    pub fn settings(&self) -> &Config {
        &self.config
    }

    /// The backbone.
    pub fn backbone(&self) -> &Arc<Vit> {
        &self.teacher
    }
}

impl Method for Transformaly {
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
        let lowest = |on| Criterion::LowestValidationLoss {
            on,
            batch: self.config.batch_size,
            min_delta: self.config.min_delta,
        };
        Selection {
            faithful: lowest(ValidationImages::TestNormals),
            honest: lowest(ValidationImages::HeldOut),
        }
    }

    fn fit(
        &self,
        data: &mut dyn TrainingData,
        context: &mut FitContext<'_>,
    ) -> Result<Box<dyn Detector>, MethodError> {
        fit::fit(&self.config, &self.teacher, data, context)
    }
}
