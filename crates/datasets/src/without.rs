//! A data set without some of its items.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use image_prep::{Mask, Rgb8};

use crate::Error;
use crate::dataset::{Card, Class, Dataset, Item, Saturation};
use crate::problem::Problem;

/// `dataset` without the items of these ids: what is left when problems were accepted.
pub fn without(dataset: Arc<dyn Dataset>, ids: &[String]) -> Arc<dyn Dataset> {
    if ids.is_empty() {
        return dataset;
    }
    let gone: BTreeSet<&str> = ids.iter().map(String::as_str).collect();
    let (kept, items) = dataset
        .items()
        .iter()
        .enumerate()
        .filter(|(_, item)| !gone.contains(item.id.as_str()))
        .map(|(index, item)| (index, item.clone()))
        .unzip();
    Arc::new(Without { dataset, kept, items })
}

struct Without {
    dataset: Arc<dyn Dataset>,
    /// Indices into the whole data set.
    kept: Vec<usize>,
    items: Vec<Item>,
}

impl Dataset for Without {
    fn card(&self) -> &Card {
        self.dataset.card()
    }

    fn classes(&self) -> &[Class] {
        self.dataset.classes()
    }

    fn items(&self) -> &[Item] {
        &self.items
    }

    fn image(&self, index: usize) -> Result<Rgb8, Error> {
        self.dataset.image(self.kept[index])
    }

    fn masks(&self, index: usize) -> Result<Vec<Mask>, Error> {
        self.dataset.masks(self.kept[index])
    }

    fn has_masks(&self) -> bool {
        self.dataset.has_masks()
    }

    fn size(&self, index: usize) -> Result<(usize, usize), Error> {
        self.dataset.size(self.kept[index])
    }

    fn channels(&self, index: usize) -> Result<usize, Error> {
        self.dataset.channels(self.kept[index])
    }

    fn digest(&self, index: usize) -> Result<[u8; 32], Error> {
        self.dataset.digest(self.kept[index])
    }

    fn problems(&self) -> &[Problem] {
        self.dataset.problems()
    }

    fn path(&self, index: usize) -> Option<&Path> {
        self.dataset.path(self.kept[index])
    }

    fn mask_paths(&self, index: usize) -> Vec<PathBuf> {
        self.dataset.mask_paths(self.kept[index])
    }

    fn saturations(&self, class: usize) -> &[Saturation] {
        self.dataset.saturations(class)
    }
}
