//! Images to be judged by, and the truth about them, kept apart.

use std::sync::Arc;

use anomaly_core::{EvalSpec, Images, MaskRule, Resolution};
use image_prep::{Mask, MaskResize, Preprocess};

use crate::dataset::{Dataset, Saturation};
use crate::loader::{LoadOptions, Loader, ReadAhead};
use crate::{Error, Split};

/// The test images of a split: pixels for detectors from [`TestSet::batches`], the truth for the harness from
/// [`TestSet::truth`].
pub struct TestSet {
    loader: Arc<Loader>,
    truth: Truth,
}

/// What is known about the test images. No method ever sees it.
pub struct Truth {
    loader: Arc<Loader>,
    anomalous: Vec<bool>,
}

impl TestSet {
    /// The test images of `split`, preprocessed for a method.
    ///
    /// # Errors
    /// If the preprocessing is not valid or the split is of another data set.
    pub fn new(dataset: Arc<dyn Dataset>, split: &Split, preprocess: Preprocess) -> Result<Self, Error> {
        let loader = Loader::new(dataset, split.test.clone(), preprocess, LoadOptions::default())?;
        Ok(Self::of(loader, split.anomalous.clone()))
    }

    fn of(loader: Loader, anomalous: Vec<bool>) -> Self {
        let loader = Arc::new(loader);
        let truth = Truth { loader: Arc::clone(&loader), anomalous };
        Self { loader, truth }
    }

    /// The same images, loaded in another way.
    ///
    /// # Errors
    /// [`Error::Option`] for no threads, or more than the system starts.
    pub fn with_options(self, options: LoadOptions) -> Result<Self, Error> {
        Ok(Self::of(self.loader.with_options(options)?, self.truth.anomalous))
    }

    /// Number of images.
    pub fn len(&self) -> usize {
        self.loader.items.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.loader.items.is_empty()
    }

    /// All images in their order, at most `batch` (and at least 1) at a time, read ahead with bounded memory.
    pub fn batches(&self, batch: usize) -> impl Iterator<Item = Result<Images, Error>> + use<> {
        let positions: Vec<usize> = (0..self.len()).collect();
        let batches = positions.chunks(batch.max(1)).map(<[usize]>::to_vec).collect();
        ReadAhead::new(Arc::clone(&self.loader), batches).map(|batch| Ok(batch?.1))
    }

    /// The images at `positions` of the test set, in this order.
    ///
    /// # Errors
    /// If one can't be decoded, with its path.
    pub fn get(&self, positions: &[usize]) -> Result<Images, Error> {
        self.loader.images(positions)
    }

    /// What is known about them, in their order.
    pub fn truth(&self) -> &Truth {
        &self.truth
    }
}

impl Truth {
    /// Of each image, whether it is anomalous.
    pub fn anomalous(&self) -> &[bool] {
        &self.anomalous
    }

    /// The id of image `position`.
    pub fn id(&self, position: usize) -> &str {
        self.loader.id(position)
    }

    /// What image `position` shows: its defect, or the title of its class.
    pub fn kind(&self, position: usize) -> &str {
        let item = &self.loader.dataset.items()[self.loader.items[position]];
        item.defect.as_deref().unwrap_or(&self.loader.dataset.classes()[item.class].title)
    }

    /// Whether there are masks to judge maps by.
    pub fn has_masks(&self) -> bool {
        self.loader.dataset.has_masks()
    }

    /// The stored masks of image `position`, with their stored values: what region metrics of MVTec LOCO need.
    ///
    /// # Errors
    /// If one can't be decoded, with its path.
    pub fn stored_masks(&self, position: usize) -> Result<Vec<Mask>, Error> {
        self.loader.dataset.masks(self.loader.items[position])
    }

    /// What the stored mask values of image `position` mean; empty where the data set does not say.
    pub fn saturations(&self, position: usize) -> &[Saturation] {
        let dataset = &self.loader.dataset;
        dataset.saturations(dataset.items()[self.loader.items[position]].class)
    }

    /// The `(height, width)` of the stored image `position`.
    ///
    /// # Errors
    /// If it can't be read.
    pub fn size(&self, position: usize) -> Result<(usize, usize), Error> {
        self.loader.dataset.size(self.loader.items[position])
    }

    /// One mask of 0 and 1 for image `position`, its stored masks united, at the resolution and by the rule of `spec`.
    /// A normal image's is all 0.
    ///
    /// # Errors
    /// If the image or a mask can't be read.
    pub fn mask(&self, position: usize, spec: &EvalSpec) -> Result<Mask, Error> {
        let failed = |source| Error::Image { id: self.id(position).to_owned(), source };
        let stored = self.stored_masks(position)?;
        let stored = if stored.is_empty() {
            let (height, width) = self.size(position)?;
            Mask::empty(height, width)
        } else if stored.len() == 1 {
            // With its values: a smooth rule sees how strong a sample is.
            stored.into_iter().next().unwrap_or_else(|| Mask::empty(1, 1))
        } else {
            let mut united = Mask::union(&stored).map_err(failed)?;
            united.data.iter_mut().for_each(|sample| *sample *= 255);
            united
        };
        if spec.resolution == Resolution::Original {
            return Ok(stored.binary(0));
        }
        let rule = match spec.mask {
            MaskRule::LanczosNonzero => MaskResize::LanczosAnyNonzero,
            _ => MaskResize::NearestTensor,
        };
        Ok(self.loader.preprocess.apply_to_mask(&stored, rule).map_err(failed)?.binary(0))
    }
}
