//! A data set whose items are image files.

use std::path::{Path, PathBuf};

use image_prep::{DecodeOptions, Mask, Rgb8, decode_file, decode_mask_file, image_file_size};
use rayon::prelude::*;
use sha2::{Digest, Sha256};

use crate::Error;
use crate::dataset::{Card, Class, Dataset, Item};

/// The files of one item.
#[derive(Debug)]
pub(crate) struct Files {
    pub(crate) image: PathBuf,
    pub(crate) masks: Vec<PathBuf>,
}

/// A data set whose items are image files, some with mask files.
#[derive(Debug)]
pub(crate) struct FileSet {
    card: Card,
    classes: Vec<Class>,
    items: Vec<Item>,
    files: Vec<Files>,
    has_masks: bool,
}

impl FileSet {
    /// The data set of these items, training items first. Looks at the header of every file.
    pub(crate) fn new(
        card: Card,
        classes: Vec<Class>,
        mut listed: Vec<(Item, Files)>,
        has_masks: bool,
    ) -> Result<Self, Error> {
        // Stable: within a part the order stays as it was listed.
        listed.sort_by_key(|(item, _)| item.part);
        // The first fault in order, whichever thread finds one first.
        if let Some(fault) = listed.par_iter().find_map_first(|(item, files)| check(item, files).err()) {
            return Err(fault);
        }
        let (items, files) = listed.into_iter().unzip();
        Ok(Self { card, classes, items, files, has_masks })
    }

    fn failed(&self, index: usize) -> impl Fn(image_prep::Error) -> Error + '_ {
        move |source| Error::Image { id: self.items[index].id.clone(), source }
    }
}

/// Finds what is no image, and masks of another size than their image, before anything is trained on them.
fn check(item: &Item, files: &Files) -> Result<(), Error> {
    let size =
        |path: &Path| image_file_size(path).map_err(|source| Error::Image { id: item.id.clone(), source });
    let image = size(&files.image)?;
    for mask in &files.masks {
        let found = size(mask)?;
        if found != image {
            let expected = format!("a mask of {} x {} like {}", image.0, image.1, files.image.display());
            return Err(Error::content(mask, expected, format!("{} x {}", found.0, found.1)));
        }
    }
    Ok(())
}

impl Dataset for FileSet {
    fn card(&self) -> &Card {
        &self.card
    }

    fn classes(&self) -> &[Class] {
        &self.classes
    }

    fn items(&self) -> &[Item] {
        &self.items
    }

    fn image(&self, index: usize) -> Result<Rgb8, Error> {
        decode_file(&self.files[index].image, &DecodeOptions::default()).map_err(self.failed(index))
    }

    fn masks(&self, index: usize) -> Result<Vec<Mask>, Error> {
        let masks = self.files[index].masks.iter();
        masks.map(|path| decode_mask_file(path).map_err(self.failed(index))).collect()
    }

    fn has_masks(&self) -> bool {
        self.has_masks
    }

    fn size(&self, index: usize) -> Result<(usize, usize), Error> {
        image_file_size(&self.files[index].image).map_err(self.failed(index))
    }

    fn digest(&self, index: usize) -> Result<[u8; 32], Error> {
        let files = &self.files[index];
        let mut hash = Sha256::new();
        for path in std::iter::once(&files.image).chain(&files.masks) {
            let bytes = std::fs::read(path).map_err(|source| Error::Read { path: path.clone(), source })?;
            hash.update(Sha256::digest(&bytes));
        }
        Ok(hash.finalize().into())
    }
}
