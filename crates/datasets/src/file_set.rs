//! A data set whose items are image files.

use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use image_prep::{DecodeOptions, Header, Mask, Rgb8, decode_file, decode_mask_file, image_file_header};
use rayon::prelude::*;
use sha2::{Digest, Sha256};

use crate::Error;
use crate::dataset::{Card, Class, Dataset, Item, Saturation};
use crate::listing::Listing;
use crate::problem::{Problem, ProblemKind};

/// The files of one item.
#[derive(Clone, Debug, Default)]
pub(crate) struct Files {
    pub(crate) image: PathBuf,
    /// The part of the image that is the item; all of it if `None`.
    pub(crate) crop: Option<Region>,
    pub(crate) masks: Vec<PathBuf>,
}

impl Files {
    /// An image by itself.
    pub(crate) fn image(image: PathBuf) -> Self {
        Self { image, ..Self::default() }
    }
}

/// A rectangle of an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Region {
    pub(crate) top: usize,
    pub(crate) left: usize,
    pub(crate) height: usize,
    pub(crate) width: usize,
}

/// A data set whose items are image files, some with mask files.
#[derive(Debug)]
pub(crate) struct FileSet {
    card: Card,
    classes: Vec<Class>,
    items: Vec<Item>,
    files: Vec<Files>,
    digests: Vec<OnceLock<[u8; 32]>>,
    problems: Vec<Problem>,
    has_masks: bool,
    /// A table of saturation thresholds for each class, where the data set has them.
    saturations: Vec<Vec<Saturation>>,
}

impl FileSet {
    /// The data set of what was listed, training items first. Looks at the header of every file.
    pub(crate) fn new(card: Card, mut listing: Listing) -> Self {
        // Stable: within a part the order stays as it was listed.
        listing.entries.sort_by_key(|(item, _)| item.part);
        let found: Vec<Vec<Problem>> =
            listing.entries.par_iter().map(|(item, files)| check(item, files, listing.has_masks)).collect();
        let mut problems = listing.problems;
        problems.extend(found.into_iter().flatten());
        let (items, files): (Vec<_>, Vec<_>) = listing.entries.into_iter().unzip();
        let digests = items.iter().map(|_| OnceLock::new()).collect();
        Self {
            card,
            classes: listing.classes,
            items,
            files,
            digests,
            problems,
            has_masks: listing.has_masks,
            saturations: Vec::new(),
        }
    }

    /// The same with a table of saturation thresholds for each class.
    pub(crate) fn with_saturations(mut self, saturations: Vec<Vec<Saturation>>) -> Self {
        self.saturations = saturations;
        self
    }

    fn failed(&self, index: usize) -> impl Fn(image_prep::Error) -> Error + '_ {
        move |source| Error::Image { id: self.items[index].id.clone(), source }
    }

    fn header(&self, index: usize) -> Result<Header, Error> {
        image_file_header(&self.files[index].image).map_err(self.failed(index))
    }
}

/// Finds what is no image, and masks that are missing or of another size than their image, before anything is trained
/// on them.
fn check(item: &Item, files: &Files, has_masks: bool) -> Vec<Problem> {
    let mut problems = Vec::new();
    let unreadable = |path: &Path, error: &image_prep::Error| {
        Problem::new(ProblemKind::Unreadable, path, error.to_string()).without(&item.id)
    };
    let image = match image_file_header(&files.image) {
        Ok(header) => header,
        Err(error) => return vec![unreadable(&files.image, &error)],
    };
    if let Some(region) = files.crop
        && (region.top + region.height > image.height || region.left + region.width > image.width)
    {
        let message = format!(
            "expected an object within the image of {} x {}, found one at row {}, column {} of {} x {}",
            image.height, image.width, region.top, region.left, region.height, region.width
        );
        problems.push(Problem::new(ProblemKind::Layout, &files.image, message).without(&item.id));
    }
    if has_masks && item.defect.is_some() && files.masks.is_empty() {
        let message = "an anomalous image without a mask";
        problems.push(Problem::new(ProblemKind::MissingMask, &files.image, message).without(&item.id));
    }
    for mask in &files.masks {
        match image_file_header(mask) {
            Ok(found) if (found.height, found.width) == (image.height, image.width) => {}
            Ok(found) => {
                let message = format!(
                    "expected a mask of {} x {} like {}, found {} x {}",
                    image.height,
                    image.width,
                    files.image.display(),
                    found.height,
                    found.width
                );
                problems.push(Problem::new(ProblemKind::MaskSize, mask, message).without(&item.id));
            }
            Err(error) => problems.push(unreadable(mask, &error)),
        }
    }
    problems
}

impl Region {
    /// The part of `image` that it covers.
    fn of(self, image: &Rgb8) -> Result<Rgb8, image_prep::Error> {
        // Of a region beyond the image nothing is left, which `Rgb8::new` refuses.
        let rows = image.data.chunks_exact(3 * image.width).skip(self.top).take(self.height);
        let columns = 3 * self.left..3 * (self.left + self.width);
        let data = rows.filter_map(|row| row.get(columns.clone())).flatten().copied().collect();
        Rgb8::new(self.height, self.width, data)
    }
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
        let files = &self.files[index];
        let image = decode_file(&files.image, &DecodeOptions::default()).map_err(self.failed(index))?;
        match files.crop {
            Some(region) => region.of(&image).map_err(self.failed(index)),
            None => Ok(image),
        }
    }

    fn masks(&self, index: usize) -> Result<Vec<Mask>, Error> {
        let masks = self.files[index].masks.iter();
        masks.map(|path| decode_mask_file(path).map_err(self.failed(index))).collect()
    }

    fn has_masks(&self) -> bool {
        self.has_masks
    }

    fn size(&self, index: usize) -> Result<(usize, usize), Error> {
        match self.files[index].crop {
            Some(region) => Ok((region.height, region.width)),
            None => self.header(index).map(|header| (header.height, header.width)),
        }
    }

    fn channels(&self, index: usize) -> Result<usize, Error> {
        self.header(index).map(|header| header.channels.into())
    }

    fn digest(&self, index: usize) -> Result<[u8; 32], Error> {
        if let Some(digest) = self.digests[index].get() {
            return Ok(*digest);
        }
        let files = &self.files[index];
        let mut hash = Sha256::new();
        for path in std::iter::once(&files.image).chain(&files.masks) {
            let bytes = std::fs::read(path).map_err(|source| Error::Read { path: path.clone(), source })?;
            hash.update(Sha256::digest(&bytes));
        }
        if let Some(region) = files.crop {
            for side in [region.top, region.left, region.height, region.width] {
                hash.update((side as u64).to_le_bytes());
            }
        }
        let digest = hash.finalize().into();
        Ok(*self.digests[index].get_or_init(|| digest))
    }

    fn problems(&self) -> &[Problem] {
        &self.problems
    }

    fn path(&self, index: usize) -> Option<&Path> {
        Some(&self.files[index].image)
    }

    fn mask_paths(&self, index: usize) -> Vec<PathBuf> {
        self.files[index].masks.clone()
    }

    fn saturations(&self, class: usize) -> &[Saturation] {
        self.saturations.get(class).map_or(&[], Vec::as_slice)
    }
}
