//! The transformer GAN's folders: `train/0.normal`, `test/0.normal`, `test/1.abnormal`.

use std::path::Path;

use crate::dataset::{Card, Class, Item, Part};
use crate::file_set::{FileSet, Files};
use crate::files::{folders, images};
use crate::listing::Listing;
use crate::problem::{Problem, ProblemKind};
use crate::{Error, Protocol};

/// The data set below `root`, of one category, called as the folder is.
pub(crate) fn open(root: &Path) -> Result<FileSet, Error> {
    let whole =
        std::fs::canonicalize(root).map_err(|source| Error::Read { path: root.to_owned(), source })?;
    let name = whole.file_name().and_then(|name| name.to_str()).unwrap_or("category").to_owned();
    let mut listing = Listing::of(vec![Class::named(name)]);
    let parts =
        [(Part::Train, "train", &["0.normal"][..]), (Part::Test, "test", &["0.normal", "1.abnormal"])];
    if parts.iter().all(|(_, part, _)| !root.join(part).is_dir()) {
        let expected = "`train/0.normal`, `test/0.normal` and `test/1.abnormal`";
        return Err(Error::content(root, expected, "neither `train` nor `test`"));
    }
    for (part, folder, kinds) in parts {
        let folder = root.join(folder);
        let found = folders(&folder);
        for other in listing.take(&folder, found).iter().filter(|f| !kinds.contains(&f.name.as_str())) {
            listing.problems.push(Problem::folder_name(&other.path, kinds));
        }
        for kind in kinds {
            let path = folder.join(kind);
            if !path.is_dir() {
                listing.problem(ProblemKind::Layout, &path, "expected a folder of images, found none");
                continue;
            }
            let found = images(&path);
            let found = listing.take(&path, found);
            if found.is_empty() {
                listing.empty(&path, kind);
            }
            let defect = (*kind == "1.abnormal").then(|| "abnormal".to_owned());
            for image in found {
                let id = format!("{}/{kind}/{}", part.name(), image.name);
                listing.add(Item { id, part, class: 0, defect: defect.clone() }, Files::image(image.path));
            }
        }
    }
    let card = Card {
        name: "normal-abnormal".into(),
        title: "Folders 0.normal and 1.abnormal".into(),
        licence: "the folder's own".into(),
        source: "a local folder".into(),
        protocol: Protocol::ClassSeparated,
    };
    Ok(FileSet::new(card, listing))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::Dataset;

    #[test]
    fn wrong_names_are_told_with_the_right_ones() {
        let root = tempfile::tempdir().unwrap();
        assert!(open(root.path()).unwrap_err().to_string().contains("train/0.normal"));
        for name in ["train/0.normal", "test/0.normal", "test/1.abnormal", "test/1.abnorm"] {
            std::fs::create_dir_all(root.path().join(name)).unwrap();
            let path = root.path().join(name).join("0.png");
            image::RgbImage::from_pixel(3, 3, image::Rgb([1, 2, 3])).save(path).unwrap();
        }
        let set = open(root.path()).unwrap();
        let found = set.problems()[0].to_string();
        assert!(found.contains("did you mean `1.abnormal`?"), "{found}");
        assert_eq!(set.problems().len(), 1);
        let ids: Vec<_> = set.items().iter().map(|i| (i.id.as_str(), i.defect.as_deref())).collect();
        assert_eq!(
            ids,
            [
                ("train/0.normal/0.png", None),
                ("test/0.normal/0.png", None),
                ("test/1.abnormal/0.png", Some("abnormal")),
            ]
        );
    }
}
