//! A test before the test: held-out normal images, and the same with defects pasted into them.
//!
//! For choosing settings. It is made of a split's training images alone, so whatever is chosen by it has seen no test image.
//! Defects are a piece of the same image at another place, as in `CutPaste` (Li et al. 2021, arXiv 2104.04015, section 2), or a
//! blob of noise.

use std::path::Path;
use std::sync::Arc;

use anomaly_core::{Stream, Streams};
use image_prep::{Mask, Rgb8};

use crate::Error;
use crate::dataset::{Card, Class, Dataset, Item, Part};
use crate::split::Split;

/// What the pasted defects are called.
const PASTED: &str = "pasted";
/// Shares of the image's area that a defect takes, and the sides' ratios.
const AREA: (f32, f32) = (0.01, 0.08);
const RATIO: (f32, f32) = (0.3, 3.3);
/// How far a piece must differ from what it covers, in levels a sample, to be a defect at all.
const LEAST_CHANGE: f32 = 8.0;
/// How often a piece is drawn until it does.
const TRIES: usize = 16;

/// The training images of `split` as a data set of their own: those it trains on to learn from, and to be judged by those
/// it holds out, each as it is and with a defect pasted into it. `seed` draws the defects.
///
/// # Errors
/// [`Error::Split`] if nothing is held out.
pub fn rehearsal(
    dataset: &Arc<dyn Dataset>,
    split: &Split,
    seed: u64,
) -> Result<(Arc<dyn Dataset>, Split), Error> {
    if split.held_out.is_empty() {
        return Err(Error::Split {
            dataset: split.dataset.clone(),
            category: split.category.clone(),
            field: "held_out",
            expected: "held-out images for a rehearsal".to_owned(),
            found: "none".to_owned(),
        });
    }
    let all = dataset.items();
    let item = |index: usize, part: Part| Item { part, class: 0, defect: None, ..all[index].clone() };
    let mut items: Vec<Item> = split.train.iter().map(|&index| item(index, Part::Train)).collect();
    items.extend(split.held_out.iter().map(|&index| item(index, Part::Test)));
    items.extend(split.held_out.iter().map(|&index| {
        let normal = item(index, Part::Test);
        Item { id: format!("{}#{PASTED}", normal.id), defect: Some(PASTED.to_owned()), ..normal }
    }));
    let kept = [&split.train[..], &split.held_out, &split.held_out].concat();
    let (train, count) = (split.train.len(), items.len());
    let own = Split {
        train: (0..train).collect(),
        held_out: Vec::new(),
        test: (train..count).collect(),
        anomalous: items[train..].iter().map(|item| item.defect.is_some()).collect(),
        ..split.clone()
    };
    let classes = vec![Class::named(split.category.clone())];
    let rehearsal = Rehearsal { dataset: dataset.clone(), classes, kept, items, streams: Streams::new(seed) };
    Ok((Arc::new(rehearsal), own))
}

struct Rehearsal {
    dataset: Arc<dyn Dataset>,
    classes: Vec<Class>,
    /// Indices into the whole data set.
    kept: Vec<usize>,
    items: Vec<Item>,
    streams: Streams,
}

impl Rehearsal {
    /// The image with its defect, if it has one, and where that is.
    fn drawn(&self, index: usize) -> Result<(Rgb8, Option<Mask>), Error> {
        let mut image = self.dataset.image(self.kept[index])?;
        let item = &self.items[index];
        if item.defect.is_none() {
            return Ok((image, None));
        }
        let mask = paste(&mut image, &mut self.streams.stream(&format!("pasted into {}", item.id)));
        Ok((image, Some(mask)))
    }
}

impl Dataset for Rehearsal {
    fn card(&self) -> &Card {
        self.dataset.card()
    }

    fn classes(&self) -> &[Class] {
        &self.classes
    }

    fn items(&self) -> &[Item] {
        &self.items
    }

    fn image(&self, index: usize) -> Result<Rgb8, Error> {
        self.drawn(index).map(|(image, _)| image)
    }

    fn masks(&self, index: usize) -> Result<Vec<Mask>, Error> {
        Ok(self.drawn(index)?.1.into_iter().collect())
    }

    fn has_masks(&self) -> bool {
        true
    }

    fn size(&self, index: usize) -> Result<(usize, usize), Error> {
        self.dataset.size(self.kept[index])
    }

    fn channels(&self, index: usize) -> Result<usize, Error> {
        self.dataset.channels(self.kept[index])
    }

    fn path(&self, index: usize) -> Option<&Path> {
        // A pasted image is in no file.
        self.items[index].defect.is_none().then(|| self.dataset.path(self.kept[index])).flatten()
    }
}

/// A rectangle of pixels.
#[derive(Clone, Copy)]
struct Place {
    top: usize,
    left: usize,
    height: usize,
    width: usize,
}

/// Pastes a defect into `image` and says where, 255 in the defect.
fn paste(image: &mut Rgb8, stream: &mut Stream) -> Mask {
    let place = place(image, stream);
    if stream.uniform() < 0.5 {
        for _ in 0..TRIES {
            if move_piece(image, place, stream) {
                return mask(image, place, |_, _| true);
            }
        }
    }
    // A plain image has no piece that would show.
    let inside = |y: usize, x: usize| {
        let from_centre = |at: usize, side: usize| (2 * at + 1) as f32 / side as f32 - 1.0;
        from_centre(y, place.height).powi(2) + from_centre(x, place.width).powi(2) <= 1.0
    };
    for y in 0..place.height {
        for x in 0..place.width {
            let at = 3 * ((place.top + y) * image.width + place.left + x);
            for sample in &mut image.data[at..at + 3] {
                let level = stream.below(256) as u8;
                if inside(y, x) {
                    *sample = level;
                }
            }
        }
    }
    mask(image, place, inside)
}

/// Where the defect is to be, at least 2 x 2 pixels where the image has so many.
fn place(image: &Rgb8, stream: &mut Stream) -> Place {
    let between = |(low, high): (f32, f32), share: f32| low + (high - low) * share;
    let area = between(AREA, stream.uniform()) * (image.height * image.width) as f32;
    // Evenly in the ratio's logarithm, so that none is more often tall than wide.
    let ratio = between((RATIO.0.ln(), RATIO.1.ln()), stream.uniform()).exp();
    let side = |length: f32, most: usize| (length.round() as usize).clamp(2.min(most), most);
    let height = side((area * ratio).sqrt(), image.height);
    let width = side((area / ratio).sqrt(), image.width);
    let (top, left) = (stream.below(image.height - height + 1), stream.below(image.width - width + 1));
    Place { top, left, height, width }
}

/// Puts a piece of the image's own to `place`; `false`, and nothing changed, if it would hardly show there.
fn move_piece(image: &mut Rgb8, place: Place, stream: &mut Stream) -> bool {
    let Place { top, left, height, width } = place;
    let (from_top, from_left) =
        (stream.below(image.height - height + 1), stream.below(image.width - width + 1));
    let row = |top: usize, left: usize, y: usize| 3 * ((top + y) * image.width + left);
    let piece: Vec<u8> =
        (0..height).flat_map(|y| image.data[row(from_top, from_left, y)..][..3 * width].to_vec()).collect();
    let covered = (0..height).flat_map(|y| &image.data[row(top, left, y)..][..3 * width]);
    let change: u64 = covered.zip(&piece).map(|(&old, &new)| u64::from(old.abs_diff(new))).sum();
    if (change as f32) < LEAST_CHANGE * piece.len() as f32 {
        return false;
    }
    for (y, line) in piece.chunks_exact(3 * width).enumerate() {
        let at = 3 * ((top + y) * image.width + left);
        image.data[at..at + 3 * width].copy_from_slice(line);
    }
    true
}

fn mask(image: &Rgb8, place: Place, inside: impl Fn(usize, usize) -> bool) -> Mask {
    let mut data = vec![0; image.height * image.width];
    for y in 0..place.height {
        for x in 0..place.width {
            if inside(y, x) {
                data[(place.top + y) * image.width + place.left + x] = 255;
            }
        }
    }
    Mask { height: image.height, width: image.width, data }
}

#[cfg(all(test, feature = "sample"))]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::collections::BTreeSet;
    use std::sync::Arc;

    use super::rehearsal;
    use crate::{Dataset, Part, Protocol, Split, SplitOptions};

    fn split(dataset: &dyn Dataset, held_out_share: f64) -> Split {
        let options = SplitOptions { train_limit: Some(60), held_out_share, ..SplitOptions::default() };
        Split::for_training(dataset, Protocol::Unimodal, "3", &options).unwrap()
    }

    #[test]
    fn it_is_made_of_training_images_alone() {
        let dataset: Arc<dyn Dataset> = crate::open("fashion-mnist-sample", None).unwrap().into();
        let split = split(&*dataset, 0.3);
        let (made, own) = rehearsal(&dataset, &split, 1).unwrap();
        let training: BTreeSet<&str> = dataset
            .items()
            .iter()
            .filter(|item| item.part == Part::Train)
            .map(|item| item.id.as_str())
            .collect();
        assert!(made.items().iter().all(|item| training.contains(item.id.trim_end_matches("#pasted"))));
        assert_eq!((own.train.len(), own.test.len()), (split.train.len(), 2 * split.held_out.len()));
        assert_eq!(own.anomalous.iter().filter(|anomalous| **anomalous).count(), split.held_out.len());
        // Nothing that is learned from is judged.
        let ids = |indices: &[usize]| -> BTreeSet<String> {
            indices.iter().map(|&i| made.items()[i].id.trim_end_matches("#pasted").to_owned()).collect()
        };
        assert!(ids(&own.train).is_disjoint(&ids(&own.test)));
        assert!(own.fingerprint(&*made).is_ok());
    }

    #[test]
    fn defects_are_where_their_masks_say_and_the_same_for_a_seed() {
        let dataset: Arc<dyn Dataset> = crate::open("fashion-mnist-sample", None).unwrap().into();
        let split = split(&*dataset, 0.5);
        let (made, own) = rehearsal(&dataset, &split, 1).unwrap();
        let (again, _) = rehearsal(&dataset, &split, 1).unwrap();
        let (other, _) = rehearsal(&dataset, &split, 2).unwrap();
        let held_out = split.held_out.len();
        let mut differs = false;
        for &index in &own.test[held_out..] {
            let (normal, pasted) = (made.image(index - held_out).unwrap(), made.image(index).unwrap());
            let [mask] = &made.masks(index).unwrap()[..] else { panic!("one mask") };
            assert!(made.masks(index - held_out).unwrap().is_empty());
            let mut inside = 0;
            for (at, (old, new)) in normal.data.chunks(3).zip(pasted.data.chunks(3)).enumerate() {
                assert!(old == new || mask.data[at] == 255, "changed outside the mask");
                inside += usize::from(old != new);
            }
            assert!(inside >= 2, "nothing changed in {}", made.items()[index].id);
            assert_eq!(pasted, again.image(index).unwrap());
            differs |= pasted != other.image(index).unwrap();
        }
        assert!(differs);
    }

    #[test]
    fn without_held_out_images_there_is_none() {
        let dataset: Arc<dyn Dataset> = crate::open("fashion-mnist-sample", None).unwrap().into();
        let error = rehearsal(&dataset, &split(&*dataset, 0.0), 1).map(|_| ()).unwrap_err().to_string();
        assert!(error.contains("held_out"), "{error}");
    }
}
