//! A folder per class: `train/<class>/*` and `test/<class>/*`, or `<class>/*` alone.

use std::collections::BTreeSet;
use std::path::Path;

use anomaly_core::Streams;

use crate::dataset::{Card, Class, Item, Part};
use crate::file_set::{FileSet, Files};
use crate::files::{Entry, folders, images};
use crate::listing::Listing;
use crate::problem::{Problem, looks_like};
use crate::{Error, Protocol};

/// Of a folder without splits, the share of each class that trains.
const TRAIN_PERCENT: usize = 80;

/// The data set below `root`.
///
/// Without `train` and `test` folders, 80 % of each class (rounded down) are for training, drawn once and for all by the
/// sorted file names: everybody has the same split.
pub(crate) fn open(root: &Path) -> Result<FileSet, Error> {
    let card = Card {
        name: "folder".into(),
        title: "A folder per class".into(),
        licence: "the folder's own".into(),
        source: "a local folder".into(),
        protocol: Protocol::Unimodal,
    };
    let (train, test) = (root.join("train"), root.join("test"));
    let listing = if train.is_dir() && test.is_dir() {
        two_parts((&train, "train"), (&test, "test"), &[])?
    } else {
        one_part(root)?
    };
    if listing.classes.is_empty() {
        return Err(Error::content(
            root,
            "a folder per class, or `train` and `test` with those",
            "no folder",
        ));
    }
    Ok(FileSet::new(card, listing))
}

/// The Intel scenes below `root`: `seg_train` and `seg_test`, as in the archive, each maybe within a folder of its own
/// name, or `train` and `test`, with folders of the six classes.
pub(crate) fn open_scenes(root: &Path) -> Result<FileSet, Error> {
    const CLASSES: [&str; 6] = ["buildings", "forest", "glacier", "mountain", "sea", "street"];
    let part = |name: &str, archived: &str| {
        let places = [root.join(archived).join(archived), root.join(archived), root.join(name)];
        places.iter().find(|place| place.is_dir()).unwrap_or(&places[2]).clone()
    };
    let card = Card {
        name: "view".into(),
        title: "Intel scenes (\"View\")".into(),
        licence: "none stated by its publisher".into(),
        source: "https://www.kaggle.com/datasets/puneet6060/intel-image-classification".into(),
        protocol: Protocol::Unimodal,
    };
    let (train, test) = (part("train", "seg_train"), part("test", "seg_test"));
    Ok(FileSet::new(card, two_parts((&train, "train"), (&test, "test"), &CLASSES)?))
}

/// Folders of classes in a folder for training and one for testing, each with the first part of its ids. With `expected`
/// classes, there are these and no others; without, those of both folders.
pub(crate) fn two_parts(
    (train, train_name): (&Path, &str),
    (test, test_name): (&Path, &str),
    expected: &[&str],
) -> Result<Listing, Error> {
    let parts =
        [(Part::Train, train, train_name, folders(train)?), (Part::Test, test, test_name, folders(test)?)];
    let mut names: BTreeSet<&str> = expected.iter().copied().collect();
    if expected.is_empty() {
        names.extend(parts.iter().flat_map(|(.., classes)| classes.iter().map(|class| class.name.as_str())));
    }
    let names: Vec<&str> = names.into_iter().collect();
    let mut listing = Listing::of(names.iter().copied().map(Class::named).collect());
    for (part, root, prefix, classes) in &parts {
        for class in classes {
            let Ok(number) = names.binary_search(&class.name.as_str()) else {
                listing.problems.push(Problem::folder_name(&class.path, &names));
                continue;
            };
            // Two folders that were meant to be one would be two classes.
            let others: Vec<&str> = names.iter().copied().filter(|name| *name != class.name).collect();
            let twin = others.iter().find(|name| name.eq_ignore_ascii_case(&class.name));
            if let Some(twin) =
                twin.or(looks_like_the_other_part(&class.name, &others, &parts, *part).as_ref())
            {
                listing.problems.push(Problem::folder_name(&class.path, &[twin]));
            }
            for image in of_class(class, &mut listing) {
                listing.add_image(&format!("{prefix}/{}", class.name), *part, number, image);
            }
        }
        if *part == Part::Train || !expected.is_empty() {
            for name in expected.iter().filter(|name| !classes.iter().any(|class| class.name == **name)) {
                listing.empty(&root.join(name), name);
            }
        }
    }
    Ok(listing)
}

/// The class of the other part alone that `name`, of this part alone, may have been meant to be.
fn looks_like_the_other_part<'n>(
    name: &str,
    others: &[&'n str],
    parts: &[(Part, &Path, &str, Vec<Entry>); 2],
    part: Part,
) -> Option<&'n str> {
    let (own, other) =
        if part == Part::Train { (&parts[0].3, &parts[1].3) } else { (&parts[1].3, &parts[0].3) };
    let has = |classes: &[Entry], name: &str| classes.iter().any(|class| class.name == name);
    let lonely: Vec<&str> =
        others.iter().copied().filter(|other_name| has(other, other_name) && !has(own, other_name)).collect();
    if has(other, name) { None } else { looks_like(name, &lonely) }
}

/// Folders of classes, each split the same way for everybody.
fn one_part(root: &Path) -> Result<Listing, Error> {
    let classes = folders(root)?;
    let named = classes.iter().map(|class| Class::named(class.name.clone())).collect();
    let mut listing = Listing::of(named);
    for folder in &classes {
        if looks_like(&folder.name, &["train", "test"]).is_some() {
            listing.problems.push(Problem::folder_name(&folder.path, &["train", "test"]));
        }
    }
    for (number, class) in classes.iter().enumerate() {
        let found = of_class(class, &mut listing);
        let parts = divide(found.len(), &format!("folder-split/{}", class.name));
        for (image, part) in found.into_iter().zip(parts) {
            listing.add_image(&class.name, part, number, image);
        }
    }
    Ok(listing)
}

/// Which of `count` sorted images train: 80 %, drawn by the stream's name alone.
pub(crate) fn divide(count: usize, stream: &str) -> Vec<Part> {
    let drawn = Streams::new(0).stream(stream).permutation(count);
    let mut parts = vec![Part::Test; count];
    drawn[..count * TRAIN_PERCENT / 100].iter().for_each(|&at| parts[at] = Part::Train);
    parts
}

fn of_class(class: &Entry, listing: &mut Listing) -> Vec<Entry> {
    let found = images(&class.path);
    let found = listing.take(&class.path, found);
    if found.is_empty() {
        listing.empty(&class.path, &class.name);
    }
    found
}

impl Listing {
    fn add_image(&mut self, prefix: &str, part: Part, class: usize, image: Entry) {
        let id = format!("{prefix}/{}", image.name);
        self.add(Item { id, part, class, defect: None }, Files::image(image.path));
    }
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
        image::RgbImage::from_pixel(4, 3, image::Rgb([1, 2, 3])).save(path).unwrap();
    }

    #[test]
    fn splits_are_read_as_they_are() {
        let root = tempfile::tempdir().unwrap();
        for name in
            ["train/0.normal/b.png", "train/0.normal/a.png", "test/1.abnormal/x.png", "test/0.normal/y.png"]
        {
            write(root.path(), name);
        }
        let set = open(root.path()).unwrap();
        let ids: Vec<_> = set.items().iter().map(|i| (i.id.as_str(), i.class)).collect();
        assert_eq!(
            ids,
            [
                ("train/0.normal/a.png", 0),
                ("train/0.normal/b.png", 0),
                ("test/0.normal/y.png", 0),
                ("test/1.abnormal/x.png", 1),
            ]
        );
        assert_eq!(set.size(3).unwrap(), (3, 4));
        assert_eq!(set.image(3).unwrap().data[..3], [1, 2, 3]);
    }

    #[test]
    fn a_folder_without_splits_is_split_the_same_way_every_time() {
        let root = tempfile::tempdir().unwrap();
        for class in ["cat", "dog"] {
            for number in 0..10 {
                write(root.path(), &format!("{class}/{number}.png"));
            }
        }
        let (a, b) = (open(root.path()).unwrap(), open(root.path()).unwrap());
        assert_eq!(a.items(), b.items());
        let train = a.items().iter().filter(|i| i.part == Part::Train);
        assert_eq!(train.clone().count(), 16);
        assert_eq!(train.filter(|i| i.class == 1).count(), 8);
    }

    #[test]
    fn faults_are_found_when_opening_all_of_them() {
        let root = tempfile::tempdir().unwrap();
        let message = |root: &Path| open(root).unwrap_err().to_string();
        assert!(message(root.path()).contains("a folder per class"));
        assert!(message(&root.path().join("none")).contains("none"));
        std::fs::create_dir(root.path().join("empty")).unwrap();
        write(root.path(), "full/0.png");
        std::fs::write(root.path().join("full/text.png"), b"no image").unwrap();
        let set = open(root.path()).unwrap();
        let found = told(set.problems());
        assert!(found.contains("class `empty` has no images") && found.contains("full/text.png"), "{found}");
        assert_eq!(found.lines().count(), 2);
    }

    #[test]
    fn a_class_that_is_written_in_two_ways_is_told() {
        let root = tempfile::tempdir().unwrap();
        for name in ["train/forest/0.png", "train/glacier/0.png", "test/Forest/0.png", "test/glaciers/0.png"]
        {
            write(root.path(), name);
        }
        let set = open(root.path()).unwrap();
        let found = told(set.problems());
        assert!(found.contains("test/Forest: expected a folder called `forest`"), "{found}");
        assert!(found.contains("test/glaciers: expected a folder called `glacier`"), "{found}");
        let set = open_scenes(root.path()).unwrap();
        let empty = set.problems().iter().filter(|problem| problem.message.contains("has no images")).count();
        assert_eq!(empty, 4 + 6);
    }
}
