//! A folder per class: `train/<class>/*` and `test/<class>/*`, or `<class>/*` alone.

use std::path::Path;

use anomaly_core::Streams;

use crate::dataset::{Card, Class, Item, Part};
use crate::file_set::{FileSet, Files};
use crate::files::{Entry, folders, images};
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
    let mut listed = Vec::new();
    if train.is_dir() && test.is_dir() {
        let mut names: Vec<String> = Vec::new();
        let parts = [(Part::Train, "train", folders(&train)?), (Part::Test, "test", folders(&test)?)];
        names.extend(parts.iter().flat_map(|(_, _, classes)| classes.iter().map(|class| class.name.clone())));
        names.sort();
        names.dedup();
        for (part, prefix, classes) in &parts {
            for class in classes {
                let number = names.partition_point(|name| *name < class.name);
                let found = of_class(class)?;
                listed.extend(
                    found
                        .into_iter()
                        .map(|image| item(&format!("{prefix}/{}", class.name), *part, number, image)),
                );
            }
        }
        return build(card, root, names, listed);
    }
    let classes = folders(root)?;
    for (number, class) in classes.iter().enumerate() {
        let found = of_class(class)?;
        let mut stream = Streams::new(0).stream(&format!("folder-split/{}", class.name));
        let drawn = stream.permutation(found.len());
        let train = found.len() * TRAIN_PERCENT / 100;
        let mut parts = vec![Part::Test; found.len()];
        drawn[..train].iter().for_each(|&at| parts[at] = Part::Train);
        listed
            .extend(found.into_iter().zip(parts).map(|(image, part)| item(&class.name, part, number, image)));
    }
    build(card, root, classes.into_iter().map(|class| class.name).collect(), listed)
}

fn build(card: Card, root: &Path, names: Vec<String>, listed: Vec<(Item, Files)>) -> Result<FileSet, Error> {
    if names.is_empty() {
        return Err(Error::content(
            root,
            "a folder per class, or `train` and `test` with those",
            "no folder",
        ));
    }
    FileSet::new(card, names.into_iter().map(Class::named).collect(), listed, false)
}

fn of_class(class: &Entry) -> Result<Vec<Entry>, Error> {
    let found = images(&class.path)?;
    if found.is_empty() {
        return Err(Error::EmptyClass { path: class.path.clone(), class: class.name.clone() });
    }
    Ok(found)
}

fn item(prefix: &str, part: Part, class: usize, image: Entry) -> (Item, Files) {
    let id = format!("{prefix}/{}", image.name);
    (Item { id, part, class, defect: None }, Files { image: image.path, masks: Vec::new() })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::Dataset;

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
    fn faults_are_found_when_opening() {
        let root = tempfile::tempdir().unwrap();
        let message = |root: &Path| open(root).unwrap_err().to_string();
        assert!(message(root.path()).contains("a folder per class"));
        assert!(message(&root.path().join("none")).contains("none"));
        std::fs::create_dir(root.path().join("empty")).unwrap();
        assert!(message(root.path()).contains("class `empty` has no images"));
        std::fs::write(root.path().join("empty/text.png"), b"no image").unwrap();
        let found = message(root.path());
        assert!(found.contains("empty/text.png"), "{found}");
    }
}
