//! A folder of good parts and maybe one of bad ones.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::dataset::{Card, Class, Item, Part};
use crate::file_set::{FileSet, Files};
use crate::files::{Entry, folders, images};
use crate::folder::divide;
use crate::listing::Listing;
use crate::mvtec::masks_by_stem;
use crate::problem::{Problem, ProblemKind, looks_like};
use crate::{Error, Protocol};

const GOOD: [&str; 3] = ["good", "normal", "ok"];
const BAD: [&str; 4] = ["bad", "abnormal", "defect", "ko"];
const MASKS: [&str; 3] = ["masks", "mask", "ground_truth"];

/// The data set below `root`, of one category, called as the folder is: `good`, maybe `bad`, maybe `masks`.
///
/// `bad` holds images, or folders of them, one a kind of defect; `masks` the same, by the images' stems. With bad ones, a
/// fifth of the good ones (drawn once and for all by their names) is for testing; without, all are for training, and what
/// is learned can be used but not judged.
pub(crate) fn open(root: &Path) -> Result<FileSet, Error> {
    let whole =
        std::fs::canonicalize(root).map_err(|source| Error::Read { path: root.to_owned(), source })?;
    let name = whole.file_name().and_then(|name| name.to_str()).unwrap_or("parts").to_owned();
    let mut listing = Listing::of(vec![Class::named(name)]);
    let found = folders(root)?;
    let valid = [&GOOD[..], &BAD, &MASKS].concat();
    for other in found.iter().filter(|folder| !valid.contains(&folder.name.as_str())) {
        if looks_like(&other.name, &valid).is_some() {
            listing.problems.push(Problem::folder_name(&other.path, &valid));
        }
    }
    let one = |names: &[&str]| found.iter().find(|folder| names.contains(&folder.name.as_str()));
    let Some(good) = one(&GOOD) else {
        return Err(if listing.problems.is_empty() {
            Error::content(root, "a folder `good` with images of good parts", "none")
        } else {
            Error::Problems { dataset: "good-bad".into(), problems: listing.problems }
        });
    };
    let (bad, masks) = (one(&BAD), one(&MASKS));
    let images_in = images(&good.path);
    let normals = listing.take(&good.path, images_in);
    if normals.is_empty() {
        listing.empty(&good.path, &good.name);
    }
    let parts = if bad.is_some() {
        divide(normals.len(), "good-bad-split")
    } else {
        vec![Part::Train; normals.len()]
    };
    for (image, part) in normals.into_iter().zip(parts) {
        let id = format!("{}/{}", good.name, image.name);
        listing.add(Item { id, part, class: 0, defect: None }, Files::image(image.path));
    }
    let Some(bad) = bad else {
        if let Some(masks) = masks {
            listing.problem(ProblemKind::UnpairedMask, &masks.path, "masks without a folder `bad` of images");
        }
        return Ok(FileSet::new(card(), listing));
    };
    listing.has_masks = masks.is_some();
    let inner = folders(&bad.path);
    let kinds = listing.take(&bad.path, inner);
    // The folder itself first, then its folders.
    let mut any = add_kind(bad, "", masks.map(|masks| masks.path.as_path()), kinds.is_empty(), &mut listing);
    for kind in &kinds {
        let folder = masks.map(|masks| masks.path.join(&kind.name));
        any |= add_kind(kind, &kind.name, folder.as_deref(), true, &mut listing);
    }
    if !any && kinds.is_empty() {
        listing.empty(&bad.path, &bad.name);
    }
    Ok(FileSet::new(card(), listing))
}

fn card() -> Card {
    Card {
        name: "good-bad".into(),
        title: "Good parts, maybe bad ones".into(),
        licence: "the folder's own".into(),
        source: "a local folder".into(),
        protocol: Protocol::ClassSeparated,
    }
}

/// Adds the images of one kind of defect; whether there are any. `deep` says whether folders among the masks belong to
/// single images.
fn add_kind(folder: &Entry, kind: &str, masks: Option<&Path>, deep: bool, listing: &mut Listing) -> bool {
    let found = images(&folder.path);
    let found = listing.take(&folder.path, found);
    if found.is_empty() && !kind.is_empty() {
        listing.empty(&folder.path, kind);
    }
    let mut own: BTreeMap<String, Vec<PathBuf>> = BTreeMap::new();
    if let Some(path) = masks {
        let by_stem = masks_by_stem(path);
        own = listing.take(path, by_stem);
        if !deep {
            // Folders here are kinds of defects, whose masks are taken with those.
            own.retain(|_, masks| masks.iter().any(|mask| mask.parent() == Some(path)));
        }
    }
    let any = !found.is_empty();
    for image in found {
        let masks = own.remove(image.stem()).unwrap_or_default();
        let id = if kind.is_empty() {
            format!("bad/{}", image.name)
        } else {
            format!("bad/{kind}/{}", image.name)
        };
        let defect = Some(if kind.is_empty() { "bad" } else { kind }.to_owned());
        listing.add(
            Item { id, part: Part::Test, class: 0, defect },
            Files { image: image.path, crop: None, masks },
        );
    }
    for mask in own.values().flatten() {
        listing.problem(ProblemKind::UnpairedMask, mask, "a mask without an image of its name");
    }
    any
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::Dataset;
    use crate::problem::told;

    fn write(root: &Path, name: &str) {
        let path = root.join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        image::GrayImage::from_pixel(3, 3, image::Luma([200])).save(path).unwrap();
    }

    fn count(set: &FileSet, part: Part) -> usize {
        set.items().iter().filter(|item| item.part == part).count()
    }

    #[test]
    fn good_parts_alone_are_all_for_training() {
        let root = tempfile::tempdir().unwrap();
        assert!(open(root.path()).unwrap_err().to_string().contains("a folder `good`"));
        for number in 0..5 {
            write(root.path(), &format!("ok/{number}.png"));
        }
        let set = open(root.path()).unwrap();
        assert_eq!((count(&set, Part::Train), count(&set, Part::Test), set.problems().len()), (5, 0, 0));
        assert!(!set.has_masks());
    }

    #[test]
    fn bad_parts_are_tested_on_with_a_fifth_of_the_good_ones() {
        let root = tempfile::tempdir().unwrap();
        for number in 0..10 {
            write(root.path(), &format!("good/{number}.png"));
        }
        write(root.path(), "bad/loose.png");
        write(root.path(), "bad/bent/0.png");
        let set = open(root.path()).unwrap();
        assert_eq!((count(&set, Part::Train), count(&set, Part::Test), set.problems().len()), (8, 4, 0));
        assert!(!set.has_masks());
        write(root.path(), "masks/loose.png");
        write(root.path(), "masks/bent/0_mask.png");
        let set = open(root.path()).unwrap();
        assert!(set.has_masks());
        assert_eq!(set.problems(), []);
        let bad: Vec<_> =
            set.items().iter().filter_map(|i| Some((i.id.as_str(), i.defect.as_deref()?))).collect();
        assert_eq!(bad, [("bad/loose.png", "bad"), ("bad/bent/0.png", "bent")]);
        write(root.path(), "masks/bent/7.png");
        write(root.path(), "Bad/0.png");
        std::fs::remove_file(root.path().join("masks/loose.png")).unwrap();
        let set = open(root.path()).unwrap();
        let found = told(set.problems());
        for expected in ["bent/7.png: a mask without", "did you mean `bad`?", "loose.png: an anomalous image"]
        {
            assert!(found.contains(expected), "{found}");
        }
    }
}
