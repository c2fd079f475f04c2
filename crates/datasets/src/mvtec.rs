//! The layout of MVTec AD, which most industrial data sets share.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use crate::dataset::{Card, Class, Item, Part, Saturation};
use crate::file_set::{FileSet, Files};
use crate::files::{Entry, folders, images};
use crate::listing::Listing;
use crate::problem::{Problem, ProblemKind, looks_like};
use crate::{Error, Protocol};

/// What normal images lie under: MVTec's name and BTAD's.
const NORMAL: [&str; 2] = ["good", "ok"];

/// The folders of a category.
const FOLDERS: [&str; 4] = ["ground_truth", "test", "train", "validation"];

/// Where the layout's users differ.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Options {
    /// Whether there is a `defects_config.json` that says what mask values mean, as in MVTec LOCO AD.
    pub(crate) saturations: bool,
    /// Whether only the first of several masks of an image is read, as GeneralAD did, which leaves anomalous pixels
    /// unmarked.
    pub(crate) first_mask_only: bool,
}

/// The data set below `root`: category folders, or one category's folder itself.
///
/// `train/good/*`, maybe `validation/good/*`, `test/{good,<defect>}/*`, `ground_truth/<defect>/<stem>_mask.png`, or
/// `<stem>.png`, or a folder `<stem>/` of several masks as in MVTec LOCO. Without any `ground_truth` folder the data set
/// has no masks; with one, every anomalous image must have its own.
pub(crate) fn open(card: Card, root: &Path, options: Options) -> Result<FileSet, Error> {
    let mut listing = Listing { has_masks: true, ..Listing::default() };
    let categories = if is_category(root) {
        let whole =
            std::fs::canonicalize(root).map_err(|source| Error::Read { path: root.to_owned(), source })?;
        let name = whole.file_name().and_then(|name| name.to_str()).unwrap_or("category").to_owned();
        vec![Entry { name, path: root.to_owned() }]
    } else {
        let (categories, others): (Vec<_>, Vec<_>) =
            folders(root)?.into_iter().partition(|folder| is_category(&folder.path));
        for other in others {
            // A folder of something else is nobody's fault; one that was meant to be a category is.
            for inner in folders(&other.path)? {
                if FOLDERS.contains(&inner.name.as_str()) || looks_like(&inner.name, &FOLDERS).is_some() {
                    listing.problems.push(misnamed_category(&other.path, &inner));
                    break;
                }
            }
        }
        categories
    };
    if categories.is_empty() {
        if !listing.problems.is_empty() {
            return Err(Error::Problems { dataset: card.name, problems: listing.problems });
        }
        let expected = "category folders that hold `train` and `test`";
        return Err(Error::content(root, expected, "none"));
    }
    for (class, category) in categories.iter().enumerate() {
        listing.has_masks &= list(class, category, options, &mut listing)?;
    }
    if !listing.has_masks {
        tracing::warn!(root = %root.display(), "a category has no `ground_truth` folder: no pixel metrics");
    }
    let mut saturations = Vec::new();
    if options.saturations {
        for category in &categories {
            let path = category.path.join("defects_config.json");
            let table = read_saturations(&path);
            saturations.push(listing.take(&path, table));
        }
    }
    listing.classes = categories.into_iter().map(|category| Class::named(category.name)).collect();
    Ok(FileSet::new(card, listing).with_saturations(saturations))
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

pub(crate) fn is_category(folder: &Path) -> bool {
    folder.join("train").is_dir() && folder.join("test").is_dir()
}

/// A folder with some of a category's folders but without `train` or `test`.
fn misnamed_category(category: &Path, inner: &Entry) -> Problem {
    match looks_like(&inner.name, &FOLDERS) {
        Some(_) => Problem::folder_name(&inner.path, &FOLDERS),
        None => Problem::new(
            ProblemKind::Layout,
            category,
            "expected a category with `train` and `test`, found one without",
        ),
    }
}

/// Lists one category; whether it has masks.
fn list(class: usize, category: &Entry, options: Options, listing: &mut Listing) -> Result<bool, Error> {
    let truth = category.path.join("ground_truth");
    let has_masks = truth.is_dir();
    for folder in folders(&category.path)? {
        if looks_like(&folder.name, &FOLDERS).is_some() {
            listing.problems.push(Problem::folder_name(&folder.path, &FOLDERS));
        }
    }
    let mut defects = BTreeSet::new();
    for (part, name) in [(Part::Train, "train"), (Part::Validation, "validation"), (Part::Test, "test")] {
        let folder = category.path.join(name);
        if part == Part::Validation && !folder.is_dir() {
            continue;
        }
        let found = folders(&folder);
        let kinds = listing.take(&folder, found);
        if !kinds.iter().any(|kind| NORMAL.contains(&kind.name.as_str())) {
            let message = "expected a folder `good` with normal images, found none";
            listing.problem(ProblemKind::EmptyClass, &folder, message);
        }
        for kind in kinds {
            let defect = (!NORMAL.contains(&kind.name.as_str())).then(|| kind.name.clone());
            if defect.is_some() && (part != Part::Test || looks_like(&kind.name, &NORMAL).is_some()) {
                listing.problems.push(Problem::folder_name(&kind.path, &NORMAL));
                continue;
            }
            let found = images(&kind.path);
            let found = listing.take(&kind.path, found);
            if found.is_empty() {
                listing.empty(&kind.path, &kind.name);
            }
            let mut masks = match &defect {
                Some(defect) if has_masks => {
                    defects.insert(defect.clone());
                    let folder = truth.join(defect);
                    let masks = masks_by_stem(&folder);
                    listing.take(&folder, masks)
                }
                _ => BTreeMap::new(),
            };
            for image in found {
                let mut own = masks.remove(image.stem()).unwrap_or_default();
                if options.first_mask_only {
                    own.truncate(1);
                }
                let id = format!("{}/{name}/{}/{}", category.name, kind.name, image.name);
                let item = Item { id, part, class, defect: defect.clone() };
                listing.add(item, Files { image: image.path, crop: None, masks: own });
            }
            for mask in masks.values().flatten() {
                listing.problem(ProblemKind::UnpairedMask, mask, "a mask without an image of its name");
            }
        }
    }
    if has_masks {
        let known: Vec<&str> = defects.iter().map(String::as_str).collect();
        let found = folders(&truth);
        for kind in listing.take(&truth, found) {
            // Some sets keep empty masks of their normal images.
            if !known.contains(&kind.name.as_str()) && !NORMAL.contains(&kind.name.as_str()) {
                listing.problems.push(Problem::folder_name(&kind.path, &known));
            }
        }
    }
    Ok(has_masks)
}

/// The masks in a folder by their image's stem; nothing if there is no such folder.
pub(crate) fn masks_by_stem(folder: &Path) -> Result<BTreeMap<String, Vec<PathBuf>>, Error> {
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

/// MVTec LOCO AD's `defects_config.json`.
fn read_saturations(path: &Path) -> Result<Vec<Saturation>, Error> {
    let text = std::fs::read(path).map_err(|source| Error::Read { path: path.to_owned(), source })?;
    parse_saturations(&text).map_err(|found| Error::content(path, "a table of saturation thresholds", found))
}

/// The rows of a saturation table. The error says what was found.
pub(crate) fn parse_saturations(text: &[u8]) -> Result<Vec<Saturation>, String> {
    let table: Vec<Saturation> = serde_json::from_slice(text).map_err(|e| e.to_string())?;
    let mut values = BTreeSet::new();
    for row in &table {
        let Saturation { defect_name, pixel_value, saturation_threshold, relative_saturation } = row;
        if *pixel_value == 0 || !values.insert(*pixel_value) {
            return Err(format!("`{defect_name}` with pixel value {pixel_value}, which is 0 or another's"));
        }
        let most = if *relative_saturation { 1.0 } else { f64::MAX };
        if !(*saturation_threshold > 0.0 && *saturation_threshold <= most) {
            return Err(format!("`{defect_name}` with a threshold of {saturation_threshold}"));
        }
    }
    Ok(table)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use image::{GrayImage, Luma};

    use super::*;
    use crate::Dataset;
    use crate::problem::told;

    fn write(root: &Path, name: &str, value: u8) {
        let path = root.join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        GrayImage::from_pixel(4, 3, Luma([value])).save(path).unwrap();
    }

    fn open_here(root: &Path) -> Result<FileSet, Error> {
        open(card("mvtec", "MVTec", "own", "here"), root, Options::default())
    }

    fn faults(root: &Path) -> String {
        told(open_here(root).unwrap().problems())
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
    fn faults_are_found_when_opening_all_of_them() {
        let root = tempfile::tempdir().unwrap();
        assert!(open_here(root.path()).unwrap_err().to_string().contains("category folders"));
        for name in ["train/good/0.png", "test/good/0.png", "test/cut/0.png"] {
            write(root.path(), &format!("nut/{name}"), 90);
        }
        assert!(!open_here(root.path()).unwrap().has_masks());
        std::fs::create_dir_all(root.path().join("nut/ground_truth/cut")).unwrap();
        assert!(faults(root.path()).contains("cut/0.png: an anomalous image without a mask"));
        let mask = root.path().join("nut/ground_truth/cut/0_mask.png");
        GrayImage::from_pixel(5, 3, Luma([255])).save(&mask).unwrap();
        let found = faults(root.path());
        assert!(found.contains("a mask of 3 x 4") && found.contains("3 x 5"), "{found}");
        std::fs::write(&mask, b"").unwrap();
        assert!(faults(root.path()).contains("0_mask.png: the file is empty"), "{}", faults(root.path()));
        write(root.path(), "nut/ground_truth/cut/0_mask.png", 255);
        assert_eq!(faults(root.path()), "");
        write(root.path(), "nut/train/cut/0.png", 90);
        write(root.path(), "nut/Validation/good/0.png", 90);
        write(root.path(), "nut/test/Good/1.png", 90);
        write(root.path(), "nut/ground_truth/cut/9_mask.png", 255);
        write(root.path(), "nut/ground_truth/cutt/0_mask.png", 255);
        write(root.path(), "bolt/trian/good/0.png", 90);
        std::fs::create_dir(root.path().join("nut/test/bent")).unwrap();
        let found = faults(root.path());
        for expected in [
            "nut/train/cut: expected a folder called `good`, `ok`, found `cut`",
            "nut/Validation: expected a folder called `ground_truth`, `test`, `train`, `validation`, found \
             `Validation`, did you mean `validation`?",
            "nut/test/Good: expected a folder called `good`, `ok`, found `Good`, did you mean `good`?",
            "9_mask.png: a mask without an image of its name",
            "nut/ground_truth/cutt: expected a folder called `bent`, `cut`, found `cutt`, did you mean `cut`?",
            "bolt/trian: expected a folder called",
            "nut/test/bent: class `bent` has no images",
        ] {
            assert!(found.contains(expected), "{expected}\n{found}");
        }
        assert_eq!(found.lines().count(), 7, "{found}");
    }

    #[test]
    fn validation_images_and_saturation_tables_are_read() {
        let root = tempfile::tempdir().unwrap();
        for name in ["train/good/0.png", "validation/good/0.png", "test/good/0.png", "test/cut/0.png"] {
            write(root.path(), &format!("nut/{name}"), 90);
        }
        write(root.path(), "nut/ground_truth/cut/0/000.png", 7);
        write(root.path(), "nut/ground_truth/cut/0/001.png", 9);
        let text = r#"[{"defect_name": "cut", "pixel_value": 7, "saturation_threshold": 0.5, "relative_saturation": true}]"#;
        std::fs::write(root.path().join("nut/defects_config.json"), text).unwrap();
        let open = |options| open(card("x", "X", "own", "here"), root.path(), options).unwrap();
        let set = open(Options { saturations: true, first_mask_only: false });
        assert_eq!(set.problems(), []);
        assert_eq!(set.items()[1].part, Part::Validation);
        assert_eq!((set.saturations(0).len(), set.saturations(0)[0].saturation_threshold), (1, 0.5));
        assert_eq!(set.masks(2).unwrap().len(), 2);
        let first = open(Options { saturations: false, first_mask_only: true });
        assert_eq!((first.masks(2).unwrap().len(), first.saturations(0).len()), (1, 0));
        std::fs::remove_file(root.path().join("nut/defects_config.json")).unwrap();
        let set = open(Options { saturations: true, first_mask_only: false });
        assert!(set.problems()[0].to_string().contains("defects_config.json"));
    }

    #[test]
    fn tables_that_mean_nothing_are_refused() {
        let row = |value: &str, threshold: &str, relative: bool| {
            format!(
                r#"{{"defect_name": "a", "pixel_value": {value}, "saturation_threshold": {threshold}, "relative_saturation": {relative}}}"#
            )
        };
        let parse = |rows: &[String]| parse_saturations(format!("[{}]", rows.join(",")).as_bytes());
        assert_eq!(parse(&[row("255", "640", false), row("254", "1.0", true)]).unwrap().len(), 2);
        assert!(parse(&[row("0", "1", false)]).unwrap_err().contains("pixel value 0"));
        assert!(parse(&[row("5", "1", false), row("5", "1", false)]).unwrap_err().contains("another's"));
        assert!(parse(&[row("5", "1.5", true)]).unwrap_err().contains("1.5"));
        assert!(parse(&[row("256", "1", false)]).is_err());
        assert!(parse(&[row("5", "0", false)]).is_err());
    }
}
