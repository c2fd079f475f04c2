//! Made-up surfaces and parts with made-up defects and exact masks, in the spirit of MVTec AD.

mod camera;
mod category;
mod defect;
mod material;
mod noise;
mod point;
mod surface;

use anomaly_core::{Stream, Streams};
use image_prep::{Mask, Rgb8};

use self::camera::Camera;
use self::category::{Category, Kind};
use self::defect::Defect;
use self::surface::Product;
use crate::dataset::{Card, Class, Dataset, Item, Part};
use crate::{Error, Protocol};

/// The name it is registered by.
pub(crate) const NAME: &str = "synthetic-textures";

/// The largest side and the largest number of images of a kind that are allowed.
const LARGEST: usize = 2048;
const MOST: usize = 10_000;

/// How many images, how large, and from which seed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SyntheticOptions {
    /// Two seeds give two makes of every product, and no image in common.
    pub seed: u64,
    /// Side of the square images in pixels, 16 to 2048.
    pub size: usize,
    /// Normal training images of a category.
    pub train: usize,
    /// Normal test images of a category.
    pub test_good: usize,
    /// Test images of each of a category's five kinds of defect.
    pub test_each: usize,
}

impl Default for SyntheticOptions {
    fn default() -> Self {
        Self { seed: 0, size: 224, train: 60, test_good: 30, test_each: 10 }
    }
}

/// Eight categories (capsule, cloth, leather, metal, nut, print, tiles, wood), five kinds of defect each (deformed,
/// foreign, missing, scratch, stain) with pixel masks, drawn whenever they are asked for.
///
/// Every image differs from the others by the piece, its place and angle, the light and the sensor's noise. Of each kind
/// of defect the images range evenly from hardly seen to plain. An image depends on the seed, the size and its own id
/// only, not on how many others there are, and has the same bits on every machine: whole-number hashes and the exact
/// operations of IEEE arithmetic are all that it is made of. Ids and masks are as in MVTec's layout.
///
/// ```
/// use datasets::{Dataset, Synthetic, SyntheticOptions};
///
/// let options = SyntheticOptions { size: 32, train: 2, test_good: 1, test_each: 1, ..Default::default() };
/// let set = Synthetic::new(&options)?;
/// assert_eq!(set.classes().len(), 8);
/// let scratched = set.items().iter().position(|item| item.id == "cloth/test/scratch/000.png").unwrap();
/// assert_eq!(set.image(scratched)?.width, 32);
/// assert!(set.masks(scratched)?[0].any());
/// # Ok::<(), datasets::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Synthetic {
    card: Card,
    classes: Vec<Class>,
    items: Vec<Item>,
    /// What each item shows.
    scenes: Vec<Scene>,
    seed: u64,
    size: usize,
}

/// What one image shows.
#[derive(Clone, Copy, Debug)]
struct Scene {
    category: Category,
    /// The kind of its defect and its number among those.
    defect: Option<(Kind, usize)>,
}

impl Synthetic {
    /// The data set of these options.
    ///
    /// # Errors
    /// [`Error::Option`] for a size or a number of images that is zero or beyond reason.
    pub fn new(options: &SyntheticOptions) -> Result<Self, Error> {
        check("size", options.size, 16, LARGEST)?;
        for (field, count) in
            [("train", options.train), ("test_good", options.test_good), ("test_each", options.test_each)]
        {
            check(field, count, 1, MOST)?;
        }
        let card = Card {
            name: NAME.into(),
            title: "Synthetic textures".into(),
            licence: "made by this program: yours".into(),
            source: format!("seed {}", options.seed),
            protocol: Protocol::ClassSeparated,
        };
        let classes = Category::ALL.map(|category| Class::named(category.name())).to_vec();
        let mut set =
            Self { card, classes, items: vec![], scenes: vec![], seed: options.seed, size: options.size };
        for part in [Part::Train, Part::Test] {
            for (class, category) in Category::ALL.into_iter().enumerate() {
                set.list(part, class, category, options);
            }
        }
        Ok(set)
    }

    /// Lists one category's images of one part, by name of their folder.
    fn list(&mut self, part: Part, class: usize, category: Category, options: &SyntheticOptions) {
        let mut folders = vec![("good", None)];
        if part == Part::Test {
            folders.extend(Kind::ALL.map(|kind| (kind.name(), Some(kind))));
        }
        folders.sort_by_key(|(name, _)| *name);
        for (folder, kind) in folders {
            let (name, count) = match kind {
                Some(_) => ("test", options.test_each),
                None if part == Part::Train => ("train", options.train),
                None => ("test", options.test_good),
            };
            for number in 0..count {
                let id = format!("{}/{name}/{folder}/{number:03}.png", category.name());
                let defect = kind.map(|_| folder.to_owned());
                self.items.push(Item { id, part, class, defect });
                self.scenes.push(Scene { category, defect: kind.map(|kind| (kind, number)) });
            }
        }
    }

    fn stream(&self, name: &str) -> Stream {
        Streams::new(self.seed).stream(&format!("{NAME}/{name}"))
    }

    /// The camera, the piece and the defect of an item, drawn from the item's own stream.
    fn scene(&self, index: usize) -> (Camera, surface::Surface, Option<Defect>) {
        let Scene { category, defect } = self.scenes[index];
        let product = Product::draw(category, &mut self.stream(category.name()));
        let mut stream = self.stream(&self.items[index].id);
        let camera = Camera::draw(category, self.size, &mut stream);
        let surface = product.piece(&mut stream);
        let defect = defect.map(|(kind, number)| Defect::draw(kind, category, spread(number), &mut stream));
        (camera, surface, defect)
    }
}

/// Numbers in `[0, 1)` of which every run of consecutive ones is spread evenly: the bits of `number` mirrored (van der
/// Corput's sequence).
fn spread(number: usize) -> f32 {
    ((number as u32).reverse_bits() >> 8) as f32 * (1.0 / (1 << 24) as f32)
}

fn check(field: &'static str, found: usize, least: usize, most: usize) -> Result<(), Error> {
    if (least..=most).contains(&found) {
        return Ok(());
    }
    Err(Error::Option { field, expected: format!("{least} to {most}"), found: found.to_string() })
}

impl Dataset for Synthetic {
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
        let (camera, surface, defect) = self.scene(index);
        let materials = match &defect {
            None => camera.scan(|p| surface.at(p)),
            Some(defect) => camera.scan(|p| defect.show(&surface, p).material),
        };
        Ok(camera.expose(&materials))
    }

    fn masks(&self, index: usize) -> Result<Vec<Mask>, Error> {
        let (camera, surface, defect) = self.scene(index);
        let Some(defect) = defect else { return Ok(Vec::new()) };
        let covers = camera.scan(|p| defect.show(&surface, p).cover);
        Ok(vec![Mask { height: self.size, width: self.size, data: camera.mask(&covers) }])
    }

    fn has_masks(&self) -> bool {
        true
    }

    fn size(&self, _index: usize) -> Result<(usize, usize), Error> {
        Ok((self.size, self.size))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use anomaly_core::ContentKey;

    use super::*;

    fn small(size: usize) -> SyntheticOptions {
        SyntheticOptions { size, train: 2, test_good: 2, test_each: 4, ..SyntheticOptions::default() }
    }

    /// Mean absolute difference of two images' samples, in levels.
    fn distance(a: &Rgb8, b: &Rgb8) -> f64 {
        let sum: f64 = a.data.iter().zip(&b.data).map(|(a, b)| f64::from(a.abs_diff(*b))).sum();
        sum / a.data.len() as f64
    }

    #[test]
    fn every_image_is_another_and_each_the_same_again() {
        let (set, more) = (
            Synthetic::new(&small(48)).unwrap(),
            Synthetic::new(&SyntheticOptions { train: 9, ..small(48) }).unwrap(),
        );
        let mut images: Vec<(usize, Rgb8)> = Vec::new();
        for (index, item) in set.items().iter().enumerate().filter(|(_, item)| item.defect.is_none()) {
            let image = set.image(index).unwrap();
            // Not by its number in a list, but by its id.
            let there = more.items().iter().position(|other| other.id == item.id).unwrap();
            assert_eq!(image, more.image(there).unwrap(), "{}", item.id);
            for (class, other) in &images {
                let far = distance(&image, other);
                assert!(far > if *class == item.class { 1.0 } else { 8.0 }, "{}: {far}", item.id);
            }
            images.push((item.class, image));
        }
        assert_eq!(images.len(), 8 * 4);
        let other = Synthetic::new(&SyntheticOptions { seed: 1, ..small(48) }).unwrap();
        assert!(distance(&other.image(0).unwrap(), &images[0].1) > 1.0);
    }

    #[test]
    fn defects_change_the_image_where_their_masks_say() {
        let set = Synthetic::new(&SyntheticOptions { test_each: 6, ..small(96) }).unwrap();
        for (index, item) in set.items().iter().enumerate().filter(|(_, item)| item.defect.is_some()) {
            let (camera, surface, defect) = set.scene(index);
            let defect = defect.unwrap();
            let whole = camera.expose(&camera.scan(|p| surface.at(p)));
            let image = set.image(index).unwrap();
            let mask = &set.masks(index).unwrap()[0];
            let share = mask.area() as f64 / mask.data.len() as f64;
            assert!((0.0002..0.25).contains(&share), "{}: {share} of the image", item.id);
            let change = |inside: bool| {
                let pixels =
                    image.data.as_chunks::<3>().0.iter().zip(whole.data.as_chunks::<3>().0).zip(&mask.data);
                let chosen = pixels.filter(|(_, mask)| (**mask > 0) == inside);
                let changes: Vec<f64> = chosen
                    .map(|((a, b), _)| (0..3).map(|c| f64::from(a[c].abs_diff(b[c]))).sum::<f64>() / 3.0)
                    .collect();
                changes.iter().sum::<f64>() / changes.len() as f64
            };
            let (inside, outside) = (change(true), change(false));
            assert!(
                inside > 2.0 && outside < 1.0 && inside > 20.0 * outside,
                "{}: {inside} {outside} {defect:?}",
                item.id
            );
        }
    }

    #[test]
    fn bits_are_fixed_for_ever() {
        // A change of these changes every figure that was ever computed on the images: raise `REVISION` with it.
        let set = Synthetic::new(&small(32)).unwrap();
        let mut all = Vec::new();
        for index in (0..set.items().len()).step_by(7) {
            let image = set.image(index).unwrap();
            all.extend(ContentKey::of_pixels(32, 32, &image.data).0);
            for mask in set.masks(index).unwrap() {
                all.extend(ContentKey::of_pixels(32, 32, &mask.data).0);
            }
        }
        let found = anomaly_core::hex(&ContentKey::of_pixels(1, all.len(), &all).0);
        assert_eq!(found, "90af5db67c660001e84b6c7dbed0303018830af79c1a90690c101395c520ea8d");
    }

    #[test]
    fn items_are_those_of_the_layout_on_disk() {
        let set = Synthetic::new(&small(16)).unwrap();
        let tests: Vec<_> =
            set.items().iter().filter(|item| item.part == Part::Test && item.class == 1).collect();
        assert_eq!(tests.len(), 5 * 4 + 2);
        assert_eq!(tests[0].id, "cloth/test/deformed/000.png");
        assert_eq!((tests[8].id.as_str(), tests[8].defect.as_deref()), ("cloth/test/good/000.png", None));
        assert!(set.items().is_sorted_by_key(|item| (item.part, item.id.clone())));
        assert!((0..8).map(spread).all(|s| (0.0..1.0).contains(&s)) && spread(1) == 0.5 && spread(3) == 0.75);
    }

    #[test]
    fn options_beyond_reason_are_refused_by_name() {
        let message = |options| Synthetic::new(&options).unwrap_err().to_string();
        assert!(message(small(15)).contains("`size`: expected 16 to 2048, found 15"));
        assert!(message(SyntheticOptions { test_each: 0, ..small(32) }).contains("`test_each`"));
    }
}
