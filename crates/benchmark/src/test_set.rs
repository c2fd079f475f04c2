//! The test images as the harness sees them: with the truth that methods never see.

use anomaly_core::{DataError, EvalSpec, Images};
use image_prep::{Mask, Rgb8};

use crate::evaluate::Defects;

/// Batches of preprocessed images, in order.
pub(crate) type Batches<'a> = Box<dyn Iterator<Item = Result<Images, DataError>> + 'a>;

/// Test images, by index.
pub(crate) trait TestSet {
    /// Number of images.
    fn len(&self) -> usize;

    /// The image's name in records.
    fn id(&self, index: usize) -> &str;

    /// Whether it is anomalous.
    fn anomalous(&self, index: usize) -> bool;

    /// Preprocessed images in order, `batch` at a time.
    fn batches(&self, batch: usize) -> Batches<'_>;

    /// The image as it is in the data set.
    fn original(&self, index: usize) -> Result<Rgb8, DataError>;

    /// Whether the data set says where its anomalies are.
    fn has_masks(&self) -> bool;

    /// Where the image is anomalous, 0 or 1, at the resolution and by the rule of `eval`; all 0 for a normal image.
    fn mask(&self, index: usize, eval: EvalSpec) -> Result<Mask, DataError>;

    /// The kind of the image's defect, where the data set says how much of a defect has to be found.
    fn graded_defect(&self, _index: usize) -> Option<String> {
        None
    }

    /// The image's defects with how much of each has to be found; `None` where the data set does not say so.
    fn defects(&self, _index: usize) -> Result<Option<Defects>, DataError> {
        Ok(None)
    }
}
