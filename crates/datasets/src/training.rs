//! Normal images to learn from.

use std::sync::{Arc, OnceLock};

use anomaly_core::{Batch, ContentKey, DataError, EpochPlan, Images, TrainingData};
use image_prep::Preprocess;

use crate::Error;
use crate::dataset::Dataset;
use crate::loader::{LoadOptions, Loader, ReadAhead};

/// Some items of a data set as a method learns from them: without labels, masks, or the rest.
///
/// Serves training, held-out and validation images alike. Index `i` is the `i`-th of the items it was made of.
pub struct TrainingSet {
    loader: Arc<Loader>,
    keys: Vec<OnceLock<ContentKey>>,
}

impl TrainingSet {
    /// The items (indices into [`Dataset::items`]) of `dataset`, preprocessed for a method.
    ///
    /// # Errors
    /// If the preprocessing is not valid or an index is beyond the data set.
    pub fn new(dataset: Arc<dyn Dataset>, items: Vec<usize>, preprocess: Preprocess) -> Result<Self, Error> {
        let keys = items.iter().map(|_| OnceLock::new()).collect();
        let loader = Loader::new(dataset, items, preprocess, LoadOptions::default())?;
        Ok(Self { loader: Arc::new(loader), keys })
    }

    /// The same images, loaded in another way.
    ///
    /// # Errors
    /// [`Error::Option`] for no threads, or more than the system starts.
    pub fn with_options(self, options: LoadOptions) -> Result<Self, Error> {
        Ok(Self { loader: Arc::new(self.loader.with_options(options)?), keys: self.keys })
    }
}

impl TrainingData for TrainingSet {
    fn len(&self) -> usize {
        self.keys.len()
    }

    fn key(&self, index: usize) -> Result<ContentKey, DataError> {
        if let Some(key) = self.keys[index].get() {
            return Ok(*key);
        }
        let key = self.loader.key(index)?;
        Ok(*self.keys[index].get_or_init(|| key))
    }

    fn get(&self, indices: &[usize]) -> Result<Images, DataError> {
        Ok(self.loader.images(indices)?)
    }

    fn epoch<'a>(
        &'a self,
        mut plan: EpochPlan<'_>,
    ) -> Box<dyn Iterator<Item = Result<Batch, DataError>> + 'a> {
        let batches = plan.batches(self.len());
        let ahead = ReadAhead::new(Arc::clone(&self.loader), batches);
        Box::new(ahead.map(|batch| {
            let (indices, images) = batch?;
            Ok(Batch { indices, images })
        }))
    }
}
