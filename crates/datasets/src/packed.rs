//! Small images of one size that lie together in memory.

use std::path::Path;

use image_prep::Rgb8;

use crate::Error;
use crate::dataset::{Card, Class, Dataset, Item, Part};

/// How the samples of one image lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Samples {
    /// One grey plane.
    Grey,
    /// A red, a green and a blue plane.
    Planes,
}

/// A data set of small images of one size, all in memory.
pub(crate) struct Packed {
    card: Card,
    classes: Vec<Class>,
    items: Vec<Item>,
    train_items: usize,
    height: usize,
    width: usize,
    samples: Samples,
    pixels: Vec<u8>,
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
        Self { card, classes, items: Vec::new(), train_items: 0, height, width, samples, pixels: Vec::new() }
    }

    /// Bytes of one image.
    pub(crate) fn stride(&self) -> usize {
        let planes = match self.samples {
            Samples::Grey => 1,
            Samples::Planes => 3,
        };
        self.height * self.width * planes
    }

    /// Adds the next image of `part`: its id is its number within the part. Nothing may be added to the training part
    /// after the test part.
    pub(crate) fn push(&mut self, part: Part, class: usize, pixels: &[u8]) {
        let (name, number) = match part {
            Part::Train => ("train", self.items.len()),
            Part::Test => ("test", self.items.len() - self.train_items),
        };
        self.train_items += usize::from(part == Part::Train);
        self.items.push(Item { id: format!("{name}/{number:05}"), part, class, defect: None });
        self.pixels.extend_from_slice(pixels);
    }

    /// Refuses a set that lacks a class in either part; `path` is for the message.
    pub(crate) fn check_classes(&self, path: &Path) -> Result<(), Error> {
        for part in [Part::Train, Part::Test] {
            let mut counts = vec![0usize; self.classes.len()];
            self.items.iter().filter(|item| item.part == part).for_each(|item| counts[item.class] += 1);
            if let Some(empty) = counts.iter().position(|&count| count == 0) {
                let class = format!("{} ({part:?} split)", self.classes[empty].title);
                return Err(Error::EmptyClass { path: path.to_owned(), class });
            }
        }
        Ok(())
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
        let pixels = &self.pixels[index * self.stride()..(index + 1) * self.stride()];
        let area = self.height * self.width;
        let image = match self.samples {
            Samples::Grey => Rgb8::from_grey(self.height, self.width, pixels),
            Samples::Planes => {
                let data =
                    (0..area).flat_map(|at| [pixels[at], pixels[area + at], pixels[2 * area + at]]).collect();
                Rgb8::new(self.height, self.width, data)
            }
        };
        image.map_err(|source| Error::Image { id: self.items[index].id.clone(), source })
    }
}
