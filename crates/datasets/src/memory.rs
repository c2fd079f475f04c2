//! A data set that a program makes up, for tests and experiments.

use image_prep::{Mask, Rgb8};

use crate::dataset::{Card, Class, Dataset, Item, Part};
use crate::{Error, Protocol};

/// One image of an [`InMemory`] data set.
#[derive(Clone, Debug)]
pub struct MemoryImage {
    /// The split it belongs to.
    pub part: Part,
    /// Its class.
    pub class: String,
    /// The kind of its defect, if it shows one.
    pub defect: Option<String>,
    /// Its pixels.
    pub image: Rgb8,
    /// Its masks.
    pub masks: Vec<Mask>,
}

/// A data set in memory.
///
/// ```
/// use datasets::{Dataset, InMemory, MemoryImage, Part};
/// use image_prep::Rgb8;
///
/// let image = |part, class: &str| MemoryImage {
///     part, class: class.into(), defect: None, image: Rgb8::filled(4, 4, [9, 9, 9]), masks: vec![],
/// };
/// let set = InMemory::new("toy", vec![image(Part::Train, "a"), image(Part::Test, "b")]);
/// assert_eq!(set.items()[1].id, "test/00000");
/// ```
#[derive(Clone, Debug)]
pub struct InMemory {
    card: Card,
    classes: Vec<Class>,
    items: Vec<Item>,
    images: Vec<(Rgb8, Vec<Mask>)>,
}

impl InMemory {
    /// The data set of these images. Classes are in the order of their first appearance; ids count within each part. Its
    /// usual protocol is class-separated if any image has a defect, otherwise unimodal.
    pub fn new(name: &str, mut images: Vec<MemoryImage>) -> Self {
        images.sort_by_key(|image| image.part);
        let defects = images.iter().any(|image| image.defect.is_some());
        let card = Card {
            name: name.into(),
            title: name.into(),
            licence: "made up".into(),
            source: "memory".into(),
            protocol: if defects { Protocol::ClassSeparated } else { Protocol::Unimodal },
        };
        let mut set = Self { card, classes: Vec::new(), items: Vec::new(), images: Vec::new() };
        let mut counts = [0_usize; 3];
        for image in images {
            let class = set.classes.iter().position(|class| class.key == image.class).unwrap_or_else(|| {
                set.classes.push(Class::named(image.class));
                set.classes.len() - 1
            });
            let number = counts[image.part as usize];
            counts[image.part as usize] += 1;
            let id = format!("{}/{number:05}", image.part.name());
            set.items.push(Item { id, part: image.part, class, defect: image.defect });
            set.images.push((image.image, image.masks));
        }
        set
    }
}

impl Dataset for InMemory {
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
        Ok(self.images[index].0.clone())
    }

    fn masks(&self, index: usize) -> Result<Vec<Mask>, Error> {
        Ok(self.images[index].1.clone())
    }

    fn has_masks(&self) -> bool {
        let anomalous = self.items.iter().zip(&self.images).filter(|(item, _)| item.defect.is_some());
        let mut masks = anomalous.map(|(_, (_, masks))| !masks.is_empty()).peekable();
        masks.peek().is_some() && masks.all(|has| has)
    }
}
