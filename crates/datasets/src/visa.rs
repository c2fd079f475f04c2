//! `VisA` in its own layout, by its publisher's split or by GeneralAD's.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::dataset::{Card, Class, Item, Part};
use crate::file_set::{FileSet, Files};
use crate::files::{Entry, folders, images};
use crate::listing::Listing;
use crate::problem::{Problem, ProblemKind};
use crate::table::Table;
use crate::{Error, Protocol, mvtec};

/// Which normal images train.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Division {
    /// `split_csv/1cls.csv`.
    Official,
    /// The first four fifths (rounded down) of the normal images by name: GeneralAD's, but for the order of its file
    /// system.
    FirstFourFifths,
}

/// `VisA` in `root`: `<category>/Data/Images/{Normal,Anomaly}`, `<category>/Data/Masks/Anomaly` and, for the official
/// division, `split_csv/1cls.csv`; or, for the latter, what the publisher's script makes of it: MVTec's layout.
pub(crate) fn open(name: &str, title: &str, division: Division, root: &Path) -> Result<FileSet, Error> {
    let licence = "CC BY 4.0";
    let card = mvtec::card(name, title, licence, "https://github.com/amazon-science/spot-diff");
    let categories: Vec<Entry> = folders(root)?
        .into_iter()
        .filter(|folder| folder.path.join("Data").join("Images").is_dir())
        .collect();
    if categories.is_empty() {
        if division == Division::Official
            && folders(root)?.iter().any(|folder| mvtec::is_category(&folder.path))
        {
            return mvtec::open(card, root, mvtec::Options::default());
        }
        return Err(Error::content(root, "category folders that hold `Data/Images`", "none"));
    }
    let listing = match division {
        Division::Official => official(root, &categories)?,
        Division::FirstFourFifths => four_fifths(&categories),
    };
    Ok(FileSet::new(Card { protocol: Protocol::ClassSeparated, ..card }, listing))
}

fn named(categories: &[Entry]) -> Vec<Class> {
    categories.iter().map(|category| Class::named(category.name.clone())).collect()
}

/// By the columns `object,split,label,image,mask` of the publisher's file.
fn official(root: &Path, categories: &[Entry]) -> Result<Listing, Error> {
    let path = root.join("split_csv").join("1cls.csv");
    let table = Table::read(&path, &["object", "split", "label", "image"], &["mask"])?;
    let mut listing = Listing { classes: named(categories), has_masks: true, ..Listing::default() };
    let mut wrong = Vec::new();
    for row in table.rows() {
        let mut problem = |column: &str, expected: &str| {
            let message =
                format!("line {}: `{column}`: expected {expected}, found `{}`", row.line(), row.get(column));
            wrong.push(Problem::new(ProblemKind::Layout, &path, message));
        };
        let Some(class) = categories.iter().position(|category| category.name == row.get("object")) else {
            problem("object", "a category's folder");
            continue;
        };
        let part = match row.get("split") {
            "train" => Part::Train,
            "test" => Part::Test,
            _ => {
                problem("split", "`train` or `test`");
                continue;
            }
        };
        let defect = match row.get("label") {
            "normal" => None,
            "anomaly" => Some("anomaly".to_owned()),
            _ => {
                problem("label", "`normal` or `anomaly`");
                continue;
            }
        };
        let Some(image) = row.path_below("image", root) else {
            problem("image", "a path below the root");
            continue;
        };
        let mask = row.path_below("mask", root);
        if mask.is_none() && !row.get("mask").is_empty() {
            problem("mask", "a path below the root");
            continue;
        }
        let masks = mask.into_iter().collect();
        let id = row.get("image").to_owned();
        listing.add(Item { id, part, class, defect }, Files { image, crop: None, masks });
    }
    listing.problems.extend(wrong);
    listing.entries.sort_by(|(a, _), (b, _)| a.id.as_bytes().cmp(b.id.as_bytes()));
    Ok(listing)
}

fn four_fifths(categories: &[Entry]) -> Listing {
    let mut listing = Listing { classes: named(categories), has_masks: true, ..Listing::default() };
    for (class, category) in categories.iter().enumerate() {
        let data = category.path.join("Data");
        let (normal, anomaly) = (data.join("Images").join("Normal"), data.join("Images").join("Anomaly"));
        let found = images(&normal);
        let normals = listing.take(&normal, found);
        let found = images(&anomaly);
        let anomalies = listing.take(&anomaly, found);
        for (folder, found) in [(&normal, &normals), (&anomaly, &anomalies)] {
            if found.is_empty() {
                listing.empty(folder, &category.name);
            }
        }
        let folder = data.join("Masks").join("Anomaly");
        let found = images(&folder);
        let found = listing.take(&folder, found);
        let mut masks: BTreeMap<String, PathBuf> =
            found.into_iter().map(|mask| (mask.stem().to_owned(), mask.path)).collect();
        let train = normals.len() * 4 / 5;
        for (at, image) in normals.into_iter().enumerate() {
            let part = if at < train { Part::Train } else { Part::Test };
            let id = format!("{}/Data/Images/Normal/{}", category.name, image.name);
            listing.add(Item { id, part, class, defect: None }, Files::image(image.path));
        }
        for image in anomalies {
            let masks = masks.remove(image.stem()).into_iter().collect();
            let id = format!("{}/Data/Images/Anomaly/{}", category.name, image.name);
            let item = Item { id, part: Part::Test, class, defect: Some("anomaly".into()) };
            listing.add(item, Files { image: image.path, crop: None, masks });
        }
        for mask in masks.values() {
            listing.problem(ProblemKind::UnpairedMask, mask, "a mask without an anomalous image of its name");
        }
    }
    listing
}
