//! What a data set is to the rest of the project.

use std::path::{Path, PathBuf};

use anomaly_core::ContentKey;
use image_prep::{Mask, Rgb8};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::problem::Problem;
use crate::{Error, Protocol, error::nearest};

/// A data set: a list of items, and their pixels on demand.
///
/// Opening one lists and checks as much as can be checked without decoding every image. The list is sorted and does not
/// depend on the file system.
pub trait Dataset: Send + Sync {
    /// What it is and whose.
    fn card(&self) -> &Card;

    /// Its classes, in their order. An item's `class` is an index into them.
    fn classes(&self) -> &[Class];

    /// Its items: those of the training part first, then those of the validation part, then the test part; each in the
    /// data set's order.
    fn items(&self) -> &[Item];

    /// The pixels of `items()[index]`.
    ///
    /// # Errors
    /// [`Error::Image`] if it can't be decoded, with the path where it is a file.
    fn image(&self, index: usize) -> Result<Rgb8, Error>;

    /// The stored masks of `items()[index]`, with their stored values: one as a rule, several in MVTec LOCO, none for a
    /// normal image or where the data set has no masks (see [`Dataset::has_masks`]).
    ///
    /// # Errors
    /// [`Error::Image`] if one can't be decoded.
    fn masks(&self, _index: usize) -> Result<Vec<Mask>, Error> {
        Ok(Vec::new())
    }

    /// Whether every anomalous item of the class-separated protocol has a mask.
    fn has_masks(&self) -> bool {
        false
    }

    /// The `(height, width)` of the stored image.
    ///
    /// # Errors
    /// If it can't be read.
    fn size(&self, index: usize) -> Result<(usize, usize), Error> {
        self.image(index).map(|image| (image.height, image.width))
    }

    /// How many channels the stored image has: 1, 3, or more with alpha. [`Dataset::image`] always gives 3.
    ///
    /// # Errors
    /// If it can't be read.
    fn channels(&self, _index: usize) -> Result<usize, Error> {
        Ok(3)
    }

    /// What was found wrong when it was opened.
    fn problems(&self) -> &[Problem] {
        &[]
    }

    /// The file that holds the image, where it is one by itself.
    fn path(&self, _index: usize) -> Option<&Path> {
        None
    }

    /// The files that hold the masks, where they are files.
    fn mask_paths(&self, _index: usize) -> Vec<PathBuf> {
        Vec::new()
    }

    /// What the mask values of a class mean for region metrics: the table of MVTec LOCO. Empty where there is none.
    fn saturations(&self, _class: usize) -> &[Saturation] {
        &[]
    }

    /// A sha256 of what the item holds, masks included: of its files' bytes, or of its pixels where many items share a
    /// file.
    ///
    /// # Errors
    /// If it can't be read.
    fn digest(&self, index: usize) -> Result<[u8; 32], Error> {
        let image = self.image(index)?;
        let mut hash = Sha256::new();
        hash.update(ContentKey::of_pixels(image.height, image.width, &image.data).0);
        for mask in self.masks(index)? {
            hash.update(ContentKey::of_pixels(mask.height, mask.width, &mask.data).0);
        }
        Ok(hash.finalize().into())
    }

    /// The class whose key or title is `category`.
    ///
    /// # Errors
    /// [`Error::UnknownCategory`] with the nearest one.
    fn class_index(&self, category: &str) -> Result<usize, Error> {
        let classes = self.classes();
        classes.iter().position(|c| c.key == category || c.title == category).ok_or_else(|| {
            let names = classes.iter().flat_map(|c| [c.key.as_str(), c.title.as_str()]);
            Error::UnknownCategory {
                dataset: self.card().name.clone(),
                category: category.to_owned(),
                nearest: nearest(category, names),
                known: classes.iter().map(|c| c.key.as_str()).collect::<Vec<_>>().join(", "),
            }
        })
    }
}

/// What a data set is, for reports and records.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Card {
    /// The registered name.
    pub name: String,
    /// Its name for people.
    pub title: String,
    /// Its licence in one line.
    pub licence: String,
    /// Where it comes from.
    pub source: String,
    /// The protocol its users usually mean.
    pub protocol: Protocol,
}

/// A class of a data set: what the figures of a protocol range over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Class {
    /// Its name in profiles and records.
    pub key: String,
    /// Its name for people; the same where there is no other.
    pub title: String,
}

impl Class {
    /// A class that is called the same everywhere.
    pub fn named(name: impl Into<String>) -> Self {
        let key = name.into();
        Self { title: key.clone(), key }
    }

    /// Classes whose keys are their numbers.
    pub(crate) fn numbered(titles: &[&str]) -> Vec<Self> {
        titles.iter().enumerate().map(|(i, &t)| Self { key: i.to_string(), title: t.to_owned() }).collect()
    }
}

/// How much of a defect must be found for it to count as found: a row of MVTec LOCO's `defects_config.json`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Saturation {
    /// The kind of defect.
    pub defect_name: String,
    /// The value of its mask's samples, 1 to 255.
    pub pixel_value: u8,
    /// In pixels, or, if relative, as a share in (0, 1] of the defect's area.
    pub saturation_threshold: f64,
    /// Whether the threshold is a share.
    pub relative_saturation: bool,
}

/// One image of a data set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Item {
    /// Its id: for a file, its path below the root with `/` between parts. Unique in the data set, the same everywhere.
    pub id: String,
    /// The split it belongs to.
    pub part: Part,
    /// Its class, an index into [`Dataset::classes`].
    pub class: usize,
    /// The kind of its defect, if it shows one: what the class-separated protocol calls anomalous.
    pub defect: Option<String>,
}

/// The official split.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Part {
    /// For training.
    Train,
    /// For choosing among what training gives.
    Validation,
    /// For testing.
    Test,
}

impl Part {
    /// Its name in ids and reports.
    pub fn name(self) -> &'static str {
        match self {
            Self::Train => "train",
            Self::Validation => "validation",
            Self::Test => "test",
        }
    }
}
