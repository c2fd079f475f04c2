//! A cell's images: what its method learns from, and what it is judged by.

use std::path::Path;
use std::sync::Arc;

use anomaly_core::{DataError, EvalSpec, Images, MethodError, ValidationImages};
use datasets::{Dataset, Protocol, Split, SplitOptions, TrainingSet};
use image_prep::{Mask, Preprocess, Rgb8};
use serde::Serialize;

use crate::test_set::{Batches, TestSet};
use crate::{Error, Identity};

/// A data set, opened.
#[derive(Clone)]
pub(crate) struct Source {
    pub(crate) dataset: Arc<dyn Dataset>,
}

impl Source {
    /// Opens the data set registered as `name` in `root`.
    pub(crate) fn open(name: &str, root: Option<&Path>) -> Result<Self, Error> {
        Ok(Self { dataset: datasets::open(name, root)?.into() })
    }

    /// The split that `identity` describes.
    pub(crate) fn split(&self, identity: &Identity) -> Result<Split, Error> {
        let protocol = protocol(&identity.protocol)?;
        let options = SplitOptions {
            train_limit: identity.train_limit,
            test_limit: identity.test_limit,
            held_out_share: identity.held_out,
            seed: identity.seed,
        };
        Ok(Split::new(&*self.dataset, protocol, &identity.category, &options)?)
    }
}

/// The protocol called `name`.
pub(crate) fn protocol(name: &str) -> Result<Protocol, Error> {
    const ALL: [Protocol; 3] = [Protocol::Unimodal, Protocol::Multimodal, Protocol::ClassSeparated];
    ALL.into_iter().find(|protocol| protocol.name() == name).ok_or_else(|| {
        let known = ALL.map(Protocol::name).join(", ");
        Error::unfit("protocol", format!("one of {known}"), format!("`{name}`"))
    })
}

/// The images of one cell, prepared for its method.
pub(crate) struct CellImages {
    source: Source,
    split: Split,
    preprocess: Preprocess,
    test: datasets::TestSet,
}

/// `split.json`: the ids of a cell's images, in the order the method and the metrics see them.
#[derive(Debug, Serialize)]
pub(crate) struct SplitList<'a> {
    train: Vec<&'a str>,
    held_out: Vec<&'a str>,
    test: Vec<&'a str>,
}

impl CellImages {
    /// The images of `split`, prepared by `preprocess`.
    pub(crate) fn new(source: Source, split: Split, preprocess: &Preprocess) -> Result<Self, Error> {
        let test = datasets::TestSet::new(source.dataset.clone(), &split, preprocess.clone())?;
        Ok(Self { source, split, preprocess: preprocess.clone(), test })
    }

    /// What the method learns from.
    pub(crate) fn training(&self) -> Result<TrainingSet, Error> {
        let items = self.split.train.clone();
        Ok(TrainingSet::new(self.source.dataset.clone(), items, self.preprocess.clone())?)
    }

    /// Whether there are images that the fit does not see.
    pub(crate) fn has_held_out(&self) -> bool {
        !self.split.held_out.is_empty()
    }

    /// Batches of the held-out images, or of the normal test images, in order.
    pub(crate) fn validation(
        &self,
        images: ValidationImages,
        batch: usize,
    ) -> Result<Box<dyn Iterator<Item = Result<Images, MethodError>>>, MethodError> {
        let items = match images {
            ValidationImages::HeldOut => self.split.held_out.clone(),
            ValidationImages::TestNormals => self.split.test_normals(),
        };
        let chosen = Split { test: items, anomalous: Vec::new(), ..self.split.clone() };
        let images = datasets::TestSet::new(self.source.dataset.clone(), &chosen, self.preprocess.clone())
            .map_err(DataError::new)?;
        Ok(Box::new(images.batches(batch).map(|images| Ok(images.map_err(DataError::new)?))))
    }

    /// Numbers of training images, test images, and anomalous ones among these.
    pub(crate) fn counts(&self) -> (usize, usize, usize) {
        let anomalous = self.split.anomalous.iter().filter(|anomalous| **anomalous).count();
        (self.split.train.len(), self.split.test.len(), anomalous)
    }

    /// The ids of all images.
    pub(crate) fn list(&self) -> SplitList<'_> {
        let ids =
            |items: &[usize]| items.iter().map(|&i| self.source.dataset.items()[i].id.as_str()).collect();
        SplitList {
            train: ids(&self.split.train),
            held_out: ids(&self.split.held_out),
            test: ids(&self.split.test),
        }
    }
}

impl TestSet for CellImages {
    fn len(&self) -> usize {
        self.test.len()
    }

    fn id(&self, index: usize) -> &str {
        self.test.truth().id(index)
    }

    fn anomalous(&self, index: usize) -> bool {
        self.split.anomalous[index]
    }

    fn batches(&self, batch: usize) -> Batches<'_> {
        Box::new(self.test.batches(batch).map(|images| images.map_err(DataError::new)))
    }

    fn original(&self, index: usize) -> Result<Rgb8, DataError> {
        self.source.dataset.image(self.split.test[index]).map_err(DataError::new)
    }

    fn has_masks(&self) -> bool {
        self.test.truth().has_masks()
    }

    fn mask(&self, index: usize, eval: EvalSpec) -> Result<Mask, DataError> {
        self.test.truth().mask(index, &eval).map_err(DataError::new)
    }
}
