use std::sync::Arc;

use anomaly_core::{
    Criterion, Detector, FitContext, Info, Method, MethodConfig, MethodError, Selection, TestMetric,
    TrainingData, ValidationImages,
};
use image_prep::Preprocess;
use vit_backbone::Vit;

use crate::teacher::Teacher;
use crate::{Config, Error, INFO, fit};

/// KDAD over a frozen backbone.
#[derive(Debug)]
pub struct Kdad {
    config: Config,
    teacher: Teacher,
}

impl Kdad {
    /// The method with these settings and this teacher.
    ///
    /// Images are resized to a square as in the reference (Pillow's Lanczos, on 8 bits) and normalised with `ImageNet`'s
    /// statistics, whatever the backbone.
    ///
    /// # Errors
    /// If a setting is out of range or doesn't fit the backbone, by its name.
    pub fn new(mut config: Config, backbone: Arc<Vit>) -> Result<Self, Error> {
        config.validate()?;
        let teacher = Teacher::new(&mut config, backbone)?;
        Ok(Self { config, teacher })
    }

    /// The settings, the image size filled in.
    pub fn settings(&self) -> &Config {
        &self.config
    }

    /// The teacher.
    pub fn backbone(&self) -> &Arc<Vit> {
        &self.teacher.vit
    }

    #[cfg(feature = "conformance")]
    pub(crate) fn teacher(&self) -> &Teacher {
        &self.teacher
    }
}

impl Method for Kdad {
    fn info(&self) -> &Info {
        &INFO
    }

    fn preprocess(&self) -> &Preprocess {
        &self.teacher.preprocess
    }

    fn config(&self) -> serde_json::Value {
        // Numbers, booleans and fixed names always have a JSON form.
        serde_json::to_value(&self.config).unwrap_or_default()
    }

    /// The reference keeps the epoch with the best image AUROC on the test set; honest is the lowest loss on held-out
    /// images, or the last epoch where none are held out.
    fn selection(&self) -> Selection {
        Selection {
            faithful: Criterion::HighestOnTest { metric: TestMetric::ImageAuroc, decimals: Some(3) },
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
        fit::fit(&self.config, &self.teacher, data, context)
    }
}
