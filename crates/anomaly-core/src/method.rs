//! Methods and detectors.

use image_prep::Preprocess;
use serde::Serialize;

use crate::{DetectorWriter, FitContext, Images, MethodError, Prediction, Selection, TrainingData};

/// Where a method was published.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Paper {
    /// Title.
    pub title: &'static str,
    /// Year.
    pub year: u16,
    /// Where it can be read.
    pub url: &'static str,
}

/// What a method is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Info {
    /// Its name in profiles and records, in kebab case: the crate's name.
    pub name: &'static str,
    /// Its name for people.
    pub title: &'static str,
    /// Where it was published; `None` for baselines.
    pub paper: Option<Paper>,
    /// Whether its predictions hold anomaly maps.
    pub makes_maps: bool,
    /// The backbone of its published results, by catalogue name; `None` if it needs none.
    pub default_backbone: Option<&'static str>,
    /// Raised whenever the method's numbers change; part of every cell's id.
    pub revision: u32,
}

/// An anomaly-detection method: configured, with its resources inside, ready to learn.
pub trait Method: Send + Sync {
    /// What it is.
    fn info(&self) -> &Info;

    /// How images must be prepared for it, in `fit` as in `score`.
    fn preprocess(&self) -> &Preprocess;

    /// The resolved configuration, for records.
    fn config(&self) -> serde_json::Value;

    /// How the reference chooses among the epochs it passes through, and an honest way.
    fn selection(&self) -> Selection {
        Selection::LAST
    }

    /// Learns what normal images look like. The result is the last state; better ones may have been offered on the way.
    ///
    /// If the context's checkpoint store holds a checkpoint, the fit goes on from there, to the same bits.
    ///
    /// # Errors
    /// [`MethodError::Cancelled`] if asked to stop; [`MethodError::Data`] if images can't be read; otherwise the method's
    /// own error.
    fn fit(
        &self,
        data: &mut dyn TrainingData,
        context: &mut FitContext<'_>,
    ) -> Result<Box<dyn Detector>, MethodError>;
}

/// What a fit gives: scores images, and can be saved.
pub trait Detector: Send + Sync {
    /// The method it came from.
    fn info(&self) -> &Info;

    /// Scores images. An image's score does not depend on the batch it is in.
    ///
    /// # Errors
    /// Pixels that are NaN or infinite, or of a size that the method can't take; otherwise the method's own error.
    fn score(&self, images: &Images) -> Result<Prediction, MethodError>;

    /// Writes all that is needed to load it again, to the same bits.
    ///
    /// # Errors
    /// If a tensor can't be read or a value can't be written.
    fn save(&self, writer: &mut DetectorWriter) -> Result<(), MethodError>;
}
