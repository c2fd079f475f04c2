//! Looking at every image of a data set before anything is learned from it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anomaly_core::{ContentKey, hex};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::Error;
use crate::catalogue::open_unchecked;
use crate::counts::{deviations, published_counts};
use crate::dataset::{Dataset, Part};
use crate::problem::{Problem, ProblemKind};

/// Raised whenever a check finds something that it did not find before: a stored [`CheckReport`] of another one is of no
/// use.
pub const CHECK_REVISION: u32 = 1;

/// What a check found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CheckReport {
    /// The data set's registered name.
    pub dataset: String,
    /// Images looked at.
    pub images: usize,
    /// Everything found, by kind, then path.
    pub problems: Vec<Problem>,
}

impl CheckReport {
    /// Whether a run may start: nothing was found that is a fault.
    pub fn passed(&self) -> bool {
        self.faults().next().is_none()
    }

    /// What keeps a run from starting.
    pub fn faults(&self) -> impl Iterator<Item = &Problem> {
        self.problems.iter().filter(|problem| problem.is_fault())
    }

    /// What is only told.
    pub fn notes(&self) -> impl Iterator<Item = &Problem> {
        self.problems.iter().filter(|problem| !problem.is_fault())
    }

    /// The ids of the items that can't be used: what is left out if the problems are accepted.
    pub fn unusable(&self) -> Vec<String> {
        let mut ids: Vec<String> =
            self.problems.iter().filter_map(|problem| problem.unusable.clone()).collect();
        ids.sort();
        ids.dedup();
        ids
    }
}

/// Checks the data set called `name` in `root`: what is wrong with its files and folders, and every image and mask,
/// decoded. Never fails: a data set that can't be opened at all is a report of why.
///
/// ```
/// let root = tempfile::tempdir()?;
/// let report = datasets::check("mvtec", Some(root.path()));
/// assert!(!report.passed());
/// assert!(report.problems[0].message.contains("category folders"));
/// # Ok::<(), std::io::Error>(())
/// ```
pub fn check(name: &str, root: Option<&Path>) -> CheckReport {
    match open_unchecked(name, root) {
        Ok(dataset) => {
            let mut report = check_content(&*dataset);
            report.problems.extend_from_slice(dataset.problems());
            report.problems.sort();
            report.problems.dedup();
            report
        }
        Err(Error::Problems { problems, .. }) => CheckReport { dataset: name.into(), images: 0, problems },
        Err(error) => {
            let path = root.map_or_else(|| PathBuf::from(name), Path::to_owned);
            let problems = vec![Problem::new(ProblemKind::Layout, path, error.to_string())];
            CheckReport { dataset: name.into(), images: 0, problems }
        }
    }
}

/// Checks what the items of an opened data set hold: decodes every image and mask. What was found on opening it is in
/// [`Dataset::problems`].
pub fn check_content(dataset: &dyn Dataset) -> CheckReport {
    let indices: Vec<usize> = (0..dataset.items().len()).collect();
    let looked: Vec<Looked> = indices.par_iter().map(|&index| look(dataset, index)).collect();
    let mut problems: Vec<Problem> =
        looked.iter().flat_map(|looked| looked.problems.iter().cloned()).collect();
    let name = &dataset.card().name;
    let deviations = deviations(dataset);
    let whole = deviations.is_empty() && !published_counts(name).is_empty();
    duplicates(dataset, &looked, whole, &mut problems);
    mixtures(dataset, &looked, &mut problems);
    problems.extend(deviations.into_iter().map(|(what, published, found)| {
        let message = format!("{what}: {published} were published, found {found}");
        Problem::new(ProblemKind::Counts, name, message)
    }));
    if indices.is_empty() {
        problems.push(Problem::new(ProblemKind::EmptyClass, name, "no images at all"));
    }
    problems.sort();
    problems.dedup();
    CheckReport { dataset: dataset.card().name.clone(), images: indices.len(), problems }
}

/// A hash of the ids and contents of all items: the key under which a [`CheckReport`] of [`check_content`] can be kept.
/// Reads every file.
///
/// # Errors
/// If one can't be read.
pub fn content_fingerprint(dataset: &dyn Dataset) -> Result<String, Error> {
    let indices: Vec<usize> = (0..dataset.items().len()).collect();
    let digests: Vec<_> = indices.par_iter().map(|&index| dataset.digest(index)).collect();
    let mut hash = Sha256::new();
    hash.update(CHECK_REVISION.to_le_bytes());
    for text in std::iter::once(&dataset.card().name).chain(dataset.items().iter().map(|item| &item.id)) {
        hash.update((text.len() as u64).to_le_bytes());
        hash.update(text);
    }
    for digest in digests {
        hash.update(digest?);
    }
    Ok(hex(&hash.finalize()))
}

/// One item, decoded.
struct Looked {
    /// Of its pixels; nothing if they can't be had.
    key: Option<ContentKey>,
    size: Option<(usize, usize)>,
    channels: Option<usize>,
    problems: Vec<Problem>,
}

fn path_of(dataset: &dyn Dataset, index: usize) -> PathBuf {
    dataset.path(index).map_or_else(|| PathBuf::from(&dataset.items()[index].id), Path::to_owned)
}

fn look(dataset: &dyn Dataset, index: usize) -> Looked {
    let item = &dataset.items()[index];
    let path = path_of(dataset, index);
    let unreadable = |path: &Path, error: &Error| {
        // The image's id is its path again, or is told beside it.
        let message = match error {
            Error::Image { source, .. } => source.to_string(),
            other => other.to_string(),
        };
        Problem::new(ProblemKind::Unreadable, path, message).without(&item.id)
    };
    let image = match dataset.image(index) {
        Ok(image) => image,
        Err(error) => {
            let problems = vec![unreadable(&path, &error)];
            return Looked { key: None, size: None, channels: None, problems };
        }
    };
    let mut problems = Vec::new();
    match dataset.masks(index) {
        Err(error) => {
            let path = dataset.mask_paths(index).into_iter().next().unwrap_or_else(|| path.clone());
            problems.push(unreadable(&path, &error));
        }
        Ok(masks) => {
            let paths = dataset.mask_paths(index);
            let table = dataset.saturations(item.class);
            for (at, mask) in masks.iter().enumerate() {
                let path = paths.get(at).unwrap_or(&path);
                if (mask.height, mask.width) != (image.height, image.width) {
                    let message = format!(
                        "expected a mask of {} x {} like its image, found {} x {}",
                        image.height, image.width, mask.height, mask.width
                    );
                    problems.push(Problem::new(ProblemKind::MaskSize, path, message).without(&item.id));
                }
                if !mask.any() {
                    problems.push(Problem::new(ProblemKind::EmptyMask, path, "the mask marks nothing"));
                }
                let unknown =
                    mask.data.iter().find(|&&v| v > 0 && table.iter().all(|row| row.pixel_value != v));
                if let Some(value) = unknown.filter(|_| !table.is_empty()) {
                    let message = format!("the mask's value {value} is not in the saturation table");
                    problems.push(Problem::new(ProblemKind::MaskValue, path, message));
                }
            }
            if dataset.has_masks() && item.defect.is_some() && masks.is_empty() {
                let message = "an anomalous image without a mask";
                problems.push(Problem::new(ProblemKind::MissingMask, &path, message).without(&item.id));
            }
        }
    }
    Looked {
        key: Some(ContentKey::of_pixels(image.height, image.width, &image.data)),
        size: Some((image.height, image.width)),
        channels: dataset.channels(index).ok(),
        problems,
    }
}

/// The same pixels in both parts: what a detector was trained on must not judge it. In a `whole` data set, as it was
/// published, there is nothing to be done about them.
fn duplicates(dataset: &dyn Dataset, looked: &[Looked], whole: bool, problems: &mut Vec<Problem>) {
    let kind = if whole { ProblemKind::PublishedDuplicate } else { ProblemKind::TrainTestDuplicate };
    let mut trained: BTreeMap<[u8; 32], usize> = BTreeMap::new();
    let items = dataset.items();
    for (index, looked) in looked.iter().enumerate() {
        if let Some(ContentKey(key)) = looked.key
            && items[index].part != Part::Test
        {
            trained.entry(key).or_insert(index);
        }
    }
    for (index, looked) in looked.iter().enumerate() {
        let Some(ContentKey(key)) = looked.key else { continue };
        if items[index].part != Part::Test {
            continue;
        }
        if let Some(&other) = trained.get(&key) {
            let (part, other) = (items[other].part.name(), path_of(dataset, other));
            let message = format!("a test image with the pixels of the {part} image {}", other.display());
            problems.push(Problem::new(kind, path_of(dataset, index), message));
        }
    }
}

/// Several sizes or numbers of channels in one class.
fn mixtures(dataset: &dyn Dataset, looked: &[Looked], problems: &mut Vec<Problem>) {
    // Of each class, how many images of each form there are, and the first of them.
    type Forms<K> = BTreeMap<K, (usize, usize)>;
    fn told<K>(forms: &Forms<K>, name: impl Fn(&K) -> String) -> Option<(usize, String)> {
        // The rarest form is the likely mistake: its first image is the place.
        let (_, &(_, first)) = forms.iter().min_by_key(|(_, (count, first))| (*count, *first))?;
        let list = forms.iter().take(8).map(|(form, (count, _))| format!("{count} of {}", name(form)));
        let mut list = list.collect::<Vec<_>>().join(", ");
        if forms.len() > 8 {
            list.push_str(", …");
        }
        (forms.len() > 1).then_some((first, list))
    }
    for (class, own) in dataset.classes().iter().enumerate() {
        let (mut sizes, mut channels) = (Forms::new(), Forms::new());
        for (index, looked) in looked.iter().enumerate().filter(|(i, _)| dataset.items()[*i].class == class) {
            if let Some(size) = looked.size {
                sizes.entry(size).or_insert((0, index)).0 += 1;
            }
            if let Some(count) = looked.channels {
                channels.entry(count).or_insert((0, index)).0 += 1;
            }
        }
        let found = [
            (ProblemKind::MixedSizes, "sizes", told(&sizes, |(h, w): &(usize, usize)| format!("{h} x {w}"))),
            (
                ProblemKind::MixedChannels,
                "channels",
                told(&channels, |count: &usize| format!("{count} channels")),
            ),
        ];
        for (kind, what, told) in found {
            if let Some((first, list)) = told {
                let message = format!("class `{}` has images of different {what}: {list}", own.title);
                problems.push(Problem::new(kind, path_of(dataset, first), message));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use image_prep::{Mask, Rgb8};

    use super::*;
    use crate::{InMemory, MemoryImage};

    fn image(part: Part, defect: Option<&str>, level: u8, side: usize, masks: Vec<Mask>) -> MemoryImage {
        let image = Rgb8::filled(side, side, [level, 0, 0]);
        MemoryImage { part, class: "nut".into(), defect: defect.map(str::to_owned), image, masks }
    }

    fn kinds(report: &CheckReport) -> Vec<(ProblemKind, &str)> {
        report.problems.iter().map(|p| (p.kind, p.path.to_str().unwrap())).collect()
    }

    #[test]
    fn what_items_hold_is_compared() {
        let good = Mask::new(2, 2, vec![0, 0, 0, 9]).unwrap();
        let whole = vec![
            image(Part::Train, None, 1, 2, vec![]),
            image(Part::Test, None, 2, 2, vec![]),
            image(Part::Test, Some("cut"), 3, 2, vec![good.clone()]),
        ];
        let report = check_content(&InMemory::new("x", whole.clone()));
        assert_eq!((report.images, kinds(&report)), (3, vec![]));
        assert!(report.passed());
        let mut wrong = whole;
        wrong.push(image(Part::Test, None, 1, 2, vec![]));
        wrong.push(image(Part::Test, Some("cut"), 4, 3, vec![good]));
        wrong.push(image(Part::Test, Some("cut"), 5, 2, vec![Mask::empty(2, 2)]));
        let report = check_content(&InMemory::new("x", wrong));
        assert_eq!(
            kinds(&report),
            [
                (ProblemKind::MaskSize, "test/00003"),
                (ProblemKind::TrainTestDuplicate, "test/00002"),
                (ProblemKind::EmptyMask, "test/00004"),
                (ProblemKind::MixedSizes, "test/00003"),
            ]
        );
        assert_eq!((report.faults().count(), report.notes().count()), (2, 2));
        assert_eq!(report.unusable(), ["test/00003"]);
        assert!(report.problems[1].message.contains("train image train/00000"), "{report:?}");
        let stored = serde_json::to_string(&report).unwrap();
        assert_eq!(serde_json::from_str::<CheckReport>(&stored).unwrap(), report);
    }

    #[test]
    fn what_a_publisher_did_twice_is_only_told() {
        // As many images as the sample has, two of them the same.
        let images = (0..3000).map(|at: usize| {
            let level = if at == 2999 { 0 } else { at };
            let image = Rgb8::new(1, 1, vec![(level % 256) as u8, (level / 256) as u8, 7]).unwrap();
            let part = if at < 2000 { Part::Train } else { Part::Test };
            MemoryImage { part, class: (at % 10).to_string(), defect: None, image, masks: vec![] }
        });
        let images: Vec<_> = images.collect();
        let report = check_content(&InMemory::new("fashion-mnist-sample", images.clone()));
        assert_eq!(kinds(&report), [(ProblemKind::PublishedDuplicate, "test/00999")]);
        assert!(report.passed());
        let few = check_content(&InMemory::new("fashion-mnist-sample", images[..2999].to_vec()));
        assert_eq!(few.problems.iter().map(|p| p.kind).collect::<Vec<_>>(), [ProblemKind::Counts]);
        assert!(!check_content(&InMemory::new("other", images)).passed());
    }

    #[test]
    fn the_fingerprint_follows_contents_and_ids() {
        let of = |name: &str, level| {
            let set = InMemory::new(name, vec![image(Part::Train, None, level, 2, vec![])]);
            content_fingerprint(&set).unwrap()
        };
        assert_eq!(of("x", 1), of("x", 1));
        assert_ne!(of("x", 1), of("x", 2));
        assert_ne!(of("x", 1), of("y", 1));
    }

    #[cfg(feature = "sample")]
    #[test]
    fn the_sample_passes_with_the_counts_it_should_have() {
        let report = check("fashion-mnist-sample", None);
        assert_eq!((report.images, report.problems), (3000, vec![]));
    }
}
