//! Small images of one size that lie together in memory.

use std::path::Path;
use std::sync::OnceLock;

use anomaly_core::ContentKey;
use image_prep::Rgb8;
use sha2::{Digest, Sha256};

use crate::Error;
use crate::dataset::{Card, Class, Dataset, Item, Part};
use crate::problem::{Problem, ProblemKind};

/// How the samples of one image lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Samples {
    /// One grey plane.
    Grey,
    /// A red, a green and a blue plane, each row by row.
    Planes,
    /// A red, a green and a blue plane, each column by column.
    Columns,
}

/// A data set of small images of one size, all in memory.
pub(crate) struct Packed {
    card: Card,
    classes: Vec<Class>,
    items: Vec<Item>,
    /// Items of each part.
    counts: [usize; 3],
    height: usize,
    width: usize,
    samples: Samples,
    pixels: Vec<u8>,
    digests: Vec<OnceLock<[u8; 32]>>,
    problems: Vec<Problem>,
}

impl Packed {
    /// An empty set of images of `height` x `width`.
    pub(crate) fn new(
        card: Card,
        classes: Vec<Class>,
        height: usize,
        width: usize,
        samples: Samples,
    ) -> Self {
        Self {
            card,
            classes,
            items: Vec::new(),
            counts: [0; 3],
            height,
            width,
            samples,
            pixels: Vec::new(),
            digests: Vec::new(),
            problems: Vec::new(),
        }
    }

    /// Bytes of one image.
    pub(crate) fn stride(&self) -> usize {
        let planes = match self.samples {
            Samples::Grey => 1,
            Samples::Planes | Samples::Columns => 3,
        };
        self.height * self.width * planes
    }

    /// Adds the next image of `part`: its id is its number within the part. No part may follow a later one.
    pub(crate) fn push(&mut self, part: Part, class: usize, pixels: &[u8]) {
        let number = self.counts[part as usize];
        let name = part.name();
        self.counts[part as usize] += 1;
        self.digests.push(OnceLock::new());
        self.items.push(Item { id: format!("{name}/{number:05}"), part, class, defect: None });
        self.pixels.extend_from_slice(pixels);
    }

    /// Notes which classes either part lacks; `path` is for the message.
    pub(crate) fn check_classes(&mut self, path: &Path) {
        for part in [Part::Train, Part::Test] {
            let mut counts = vec![0usize; self.classes.len()];
            self.items.iter().filter(|item| item.part == part).for_each(|item| counts[item.class] += 1);
            let empty = counts.iter().zip(&self.classes).filter(|(count, _)| **count == 0);
            self.problems.extend(empty.map(|(_, class)| {
                let message = format!("class `{}` has no images in the {part:?} part", class.title);
                Problem::new(ProblemKind::EmptyClass, path, message)
            }));
        }
    }

    /// Bytes of `items[index]`.
    fn samples(&self, index: usize) -> &[u8] {
        &self.pixels[index * self.stride()..(index + 1) * self.stride()]
    }
}

impl Dataset for Packed {
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
        let pixels = self.samples(index);
        let (height, width) = (self.height, self.width);
        let area = height * width;
        let from_planes = |at: &dyn Fn(usize) -> usize| {
            (0..area).flat_map(|pixel| [0, 1, 2].map(|plane| pixels[plane * area + at(pixel)])).collect()
        };
        let image = match self.samples {
            Samples::Grey => Rgb8::from_grey(height, width, pixels),
            Samples::Planes => Rgb8::new(height, width, from_planes(&|pixel| pixel)),
            Samples::Columns => {
                let transposed = |pixel| pixel % width * height + pixel / width;
                Rgb8::new(height, width, from_planes(&transposed))
            }
        };
        image.map_err(|source| Error::Image { id: self.items[index].id.clone(), source })
    }

    fn channels(&self, _index: usize) -> Result<usize, Error> {
        Ok(if self.samples == Samples::Grey { 1 } else { 3 })
    }

    fn size(&self, _index: usize) -> Result<(usize, usize), Error> {
        Ok((self.height, self.width))
    }

    fn digest(&self, index: usize) -> Result<[u8; 32], Error> {
        if let Some(digest) = self.digests[index].get() {
            return Ok(*digest);
        }
        let image = self.image(index)?;
        let digest = Sha256::digest(ContentKey::of_pixels(image.height, image.width, &image.data).0).into();
        Ok(*self.digests[index].get_or_init(|| digest))
    }

    fn problems(&self) -> &[Problem] {
        &self.problems
    }
}
