//! What a data set is to the rest of the project.

use anomaly_core::ContentKey;
use image_prep::{Mask, Rgb8};
use sha2::{Digest, Sha256};

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

    /// Its items: those of the training split first, each split in the data set's order.
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
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Part {
    /// For training.
    Train,
    /// For testing.
    Test,
}
