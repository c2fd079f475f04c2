//! The layout of MVTec AD, which most industrial data sets share.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::dataset::{Card, Class, Item, Part};
use crate::file_set::{FileSet, Files};
use crate::files::{Entry, folders, images};
use crate::{Error, Protocol};

/// What normal images lie under: MVTec's name and BTAD's.
const NORMAL: [&str; 2] = ["good", "ok"];

/// The data set below `root`: category folders, or one category's folder itself.
///
/// `train/good/*`, `test/{good,<defect>}/*`, `ground_truth/<defect>/<stem>_mask.png`, or `<stem>.png`, or a folder
/// `<stem>/` of several masks as in MVTec LOCO. Without any `ground_truth` folder the data set has no masks; with one,
/// every anomalous image must have its own.
pub(crate) fn open(card: Card, root: &Path) -> Result<FileSet, Error> {
    let categories = if is_category(root) {
        let whole =
            std::fs::canonicalize(root).map_err(|source| Error::Read { path: root.to_owned(), source })?;
        let name = whole.file_name().and_then(|name| name.to_str()).unwrap_or("category").to_owned();
        vec![Entry { name, path: root.to_owned() }]
    } else {
        folders(root)?.into_iter().filter(|folder| is_category(&folder.path)).collect()
    };
    if categories.is_empty() {
        let expected = "category folders that hold `train` and `test`";
        return Err(Error::content(root, expected, "none"));
    }
    let mut listed = Vec::new();
    let mut has_masks = true;
    for (class, category) in categories.iter().enumerate() {
        has_masks &= list(class, category, &mut listed)?;
    }
    if !has_masks {
        tracing::warn!(root = %root.display(), "a category has no `ground_truth` folder: no pixel metrics");
    }
    let classes = categories.into_iter().map(|category| Class::named(category.name)).collect();
    FileSet::new(card, classes, listed, has_masks)
}

/// The card of a data set in this layout.
pub(crate) fn card(name: &str, title: &str, licence: &str, source: &str) -> Card {
    Card {
        name: name.into(),
        title: title.into(),
        licence: licence.into(),
        source: source.into(),
        protocol: Protocol::ClassSeparated,
    }
}

fn is_category(folder: &Path) -> bool {
    folder.join("train").is_dir() && folder.join("test").is_dir()
}

/// Lists one category; whether it has masks.
fn list(class: usize, category: &Entry, listed: &mut Vec<(Item, Files)>) -> Result<bool, Error> {
    let truth = category.path.join("ground_truth");
    let has_masks = truth.is_dir();
    for (part, name) in [(Part::Train, "train"), (Part::Test, "test")] {
        let folder = category.path.join(name);
        let kinds = folders(&folder)?;
        if kinds.is_empty() {
            return Err(Error::content(folder, "folders of images, one a kind of defect", "none"));
        }
        for kind in kinds {
            let defect = (!NORMAL.contains(&kind.name.as_str())).then(|| kind.name.clone());
            if part == Part::Train && defect.is_some() {
                return Err(Error::content(kind.path, "only normal images (`good`) to train on", kind.name));
            }
            let found = images(&kind.path)?;
            if found.is_empty() {
                return Err(Error::EmptyClass { path: kind.path, class: kind.name });
            }
            let mut masks = match &defect {
                Some(defect) if has_masks => masks_by_stem(&truth.join(defect))?,
                _ => BTreeMap::new(),
            };
            for image in found {
                let own = masks.remove(image.stem()).unwrap_or_default();
                if own.is_empty() && has_masks && defect.is_some() {
                    let expected = truth.join(&kind.name).join(format!("{}_mask.png", image.stem()));
                    return Err(Error::NoMask { image: image.path, expected });
                }
                let id = format!("{}/{name}/{}/{}", category.name, kind.name, image.name);
                let item = Item { id, part, class, defect: defect.clone() };
                listed.push((item, Files { image: image.path, masks: own }));
            }
            for stem in masks.keys() {
                tracing::warn!(folder = %truth.join(&kind.name).display(), %stem, "a mask without an image");
            }
        }
    }
    Ok(has_masks)
}

/// The masks in a folder by their image's stem; nothing if there is no such folder.
fn masks_by_stem(folder: &Path) -> Result<BTreeMap<String, Vec<PathBuf>>, Error> {
    let mut masks: BTreeMap<String, Vec<PathBuf>> = BTreeMap::new();
    if !folder.is_dir() {
        return Ok(masks);
    }
    for mask in images(folder)? {
        let stem = mask.stem().strip_suffix("_mask").unwrap_or(mask.stem()).to_owned();
        masks.entry(stem).or_default().push(mask.path);
    }
    for several in folders(folder)? {
        let paths = images(&several.path)?.into_iter().map(|mask| mask.path);
        masks.entry(several.name).or_default().extend(paths);
    }
    Ok(masks)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use image::{GrayImage, Luma};

    use super::*;
    use crate::Dataset;

    fn write(root: &Path, name: &str, value: u8) {
        let path = root.join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        GrayImage::from_pixel(4, 3, Luma([value])).save(path).unwrap();
    }

    fn open_here(root: &Path) -> Result<FileSet, Error> {
        open(card("mvtec", "MVTec", "own", "here"), root)
    }

    #[test]
    fn categories_defects_and_masks_of_both_forms_are_found() {
        let root = tempfile::tempdir().unwrap();
        for name in ["train/good/001.png", "train/good/000.png", "test/good/000.png", "test/cut/007.png"] {
            write(root.path(), &format!("cable/{name}"), 90);
            write(root.path(), &format!("bottle/{name}"), 90);
        }
        write(root.path(), "bottle/ground_truth/cut/007_mask.png", 255);
        write(root.path(), "cable/ground_truth/cut/007/000.png", 7);
        write(root.path(), "cable/ground_truth/cut/007/001.png", 9);
        std::fs::create_dir(root.path().join("notes")).unwrap();
        let set = open_here(root.path()).unwrap();
        assert!(set.has_masks());
        assert_eq!(set.classes(), [Class::named("bottle"), Class::named("cable")]);
        let ids: Vec<_> = set.items().iter().map(|i| i.id.as_str()).collect();
        assert_eq!(
            ids,
            [
                "bottle/train/good/000.png",
                "bottle/train/good/001.png",
                "cable/train/good/000.png",
                "cable/train/good/001.png",
                "bottle/test/cut/007.png",
                "bottle/test/good/000.png",
                "cable/test/cut/007.png",
                "cable/test/good/000.png",
            ]
        );
        assert_eq!(set.items()[6].defect.as_deref(), Some("cut"));
        let values: Vec<u8> = set.masks(6).unwrap().iter().map(|mask| mask.data[0]).collect();
        assert_eq!(values, [7, 9]);
        assert!(set.masks(5).unwrap().is_empty());
        assert_ne!(set.digest(4).unwrap(), set.digest(5).unwrap());

        let one = open_here(&root.path().join("bottle")).unwrap();
        assert_eq!((one.classes()[0].key.as_str(), one.items().len()), ("bottle", 4));
    }

    #[test]
    fn faults_are_found_when_opening() {
        let root = tempfile::tempdir().unwrap();
        let message = || open_here(root.path()).unwrap_err().to_string();
        assert!(message().contains("category folders"));
        for name in ["train/good/0.png", "test/good/0.png", "test/cut/0.png"] {
            write(root.path(), &format!("nut/{name}"), 90);
        }
        assert!(!open_here(root.path()).unwrap().has_masks());
        std::fs::create_dir_all(root.path().join("nut/ground_truth/cut")).unwrap();
        assert!(message().contains("0_mask.png"), "{}", message());
        let mask = root.path().join("nut/ground_truth/cut/0_mask.png");
        GrayImage::from_pixel(5, 3, Luma([255])).save(&mask).unwrap();
        assert!(message().contains("a mask of 3 x 4") && message().contains("3 x 5"), "{}", message());
        std::fs::write(&mask, b"").unwrap();
        assert!(message().contains("0_mask.png"), "{}", message());
        write(root.path(), "nut/ground_truth/cut/0_mask.png", 255);
        open_here(root.path()).unwrap();
        write(root.path(), "nut/train/cut/0.png", 90);
        assert!(message().contains("only normal images"), "{}", message());
        std::fs::remove_dir_all(root.path().join("nut/train/cut")).unwrap();
        std::fs::create_dir(root.path().join("nut/test/bent")).unwrap();
        assert!(message().contains("`bent` has no images"), "{}", message());
    }
}
