//! The data sets known by name.

use std::path::{Path, PathBuf};

use crate::dataset::Dataset;
use crate::error::nearest;
use crate::{Error, Protocol, cifar, fashion_mnist, folder, mvtec};

/// A registered data set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its name in profiles.
    pub name: &'static str,
    /// Its name for people.
    pub title: &'static str,
    /// What its root directory holds; nothing where it is embedded.
    pub root: Option<&'static str>,
    /// Where it is looked for when no root is given.
    pub default_root: Option<&'static str>,
    /// The protocol its users usually mean.
    pub protocol: Protocol,
}

const MVTEC_ROOT: &str = "category folders with `train/good`, `test/<defect>` and `ground_truth/<defect>`";

const MVTEC_LICENCE: &str = "CC BY-NC-SA 4.0 for MVTec's own; otherwise the folder's own";

/// All of them, by name.
pub const ENTRIES: &[Entry] = &[
    Entry {
        name: "btad",
        title: "BTAD",
        root: Some("the folders `01`, `02`, `03` with `train/ok`, `test/{ok,ko}` and `ground_truth/ko`"),
        default_root: None,
        protocol: Protocol::ClassSeparated,
    },
    Entry {
        name: "cifar10",
        title: "CIFAR-10",
        root: Some("`data_batch_1.bin` to `data_batch_5.bin` and `test_batch.bin`"),
        default_root: None,
        protocol: Protocol::Unimodal,
    },
    Entry {
        name: "cifar100",
        title: "CIFAR-100 (20 coarse classes)",
        root: Some("`train.bin` and `test.bin`"),
        default_root: None,
        protocol: Protocol::Unimodal,
    },
    Entry {
        name: "fashion-mnist",
        title: "Fashion-MNIST",
        root: Some("the four `*-ubyte` files, plain or as `.gz`"),
        default_root: Some(fashion_mnist::DEBIAN_FOLDER),
        protocol: Protocol::Unimodal,
    },
    #[cfg(feature = "sample")]
    Entry {
        name: "fashion-mnist-sample",
        title: "Fashion-MNIST, bundled sample",
        root: None,
        default_root: None,
        protocol: Protocol::Unimodal,
    },
    Entry {
        name: "folder",
        title: "A folder per class",
        root: Some("`train/<class>` and `test/<class>`, or `<class>` folders to be split 80 to 20"),
        default_root: None,
        protocol: Protocol::Unimodal,
    },
    Entry {
        name: "mvtec",
        title: "MVTec AD, or any folder in its layout",
        root: Some(MVTEC_ROOT),
        default_root: None,
        protocol: Protocol::ClassSeparated,
    },
    Entry {
        name: "mvtec-loco",
        title: "MVTec LOCO AD",
        root: Some(MVTEC_ROOT),
        default_root: None,
        protocol: Protocol::ClassSeparated,
    },
];

/// Opens the data set called `name` in the directory `root`. Without a root, the entry's default place is looked at
/// (Debian's `/usr/share/datasets/fashion-mnist` for `fashion-mnist`).
///
/// # Errors
/// [`Error::UnknownDataset`] with the nearest name; [`Error::NoRoot`] and [`Error::UnusedRoot`]; and what is wrong with
/// its files, as far as that shows without decoding all of them.
pub fn open(name: &str, root: Option<&Path>) -> Result<Box<dyn Dataset>, Error> {
    let Some(entry) = ENTRIES.iter().find(|entry| entry.name == name) else {
        let names = || ENTRIES.iter().map(|entry| entry.name);
        return Err(Error::UnknownDataset {
            name: name.to_owned(),
            nearest: nearest(name, names()),
            known: names().collect::<Vec<_>>().join(", "),
        });
    };
    let Some(expected) = entry.root else {
        return match root {
            Some(root) => Err(Error::UnusedRoot { dataset: name.to_owned(), root: root.to_owned() }),
            None => open_embedded(),
        };
    };
    let default = entry.default_root.map(PathBuf::from);
    let found = root.map(Path::to_owned).or_else(|| default.clone().filter(|place| place.is_dir()));
    let Some(root) = found else {
        return Err(Error::NoRoot { dataset: name.to_owned(), expected, looked_in_default: default });
    };
    Ok(match name {
        "cifar10" => Box::new(cifar::open_10(&root)?),
        "cifar100" => Box::new(cifar::open_100(&root)?),
        "fashion-mnist" => Box::new(fashion_mnist::open(&root)?),
        "folder" => Box::new(folder::open(&root)?),
        "btad" => {
            let licence = "CC BY-NC-SA 4.0";
            let card = mvtec::card(name, entry.title, licence, "https://github.com/pankajmishra000/VT-ADL");
            Box::new(mvtec::open(card, &root)?)
        }
        _ => {
            let source = "https://www.mvtec.com/company/research/datasets";
            Box::new(mvtec::open(mvtec::card(name, entry.title, MVTEC_LICENCE, source), &root)?)
        }
    })
}

#[cfg(feature = "sample")]
fn open_embedded() -> Result<Box<dyn Dataset>, Error> {
    Ok(Box::new(fashion_mnist::open_sample()?))
}

/// No entry without a root exists then.
#[cfg(not(feature = "sample"))]
fn open_embedded() -> Result<Box<dyn Dataset>, Error> {
    Err(Error::UnknownDataset { name: "(embedded)".into(), nearest: None, known: String::new() })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn message(name: &str, root: Option<&Path>) -> String {
        open(name, root).map(|_| ()).unwrap_err().to_string()
    }

    #[test]
    fn names_are_sorted_and_misses_are_helped() {
        assert!(ENTRIES.is_sorted_by_key(|entry| entry.name));
        let miss = message("fashon-mnist", None);
        assert!(miss.contains("did you mean `fashion-mnist`?") && miss.contains("cifar100"), "{miss}");
        assert!(!message("zzzzzzzzzzzz", None).contains("did you mean"));
    }

    #[test]
    fn roots_are_asked_for_and_refused() {
        assert!(message("cifar10", None).contains("data_batch_1.bin"));
        let folder = tempfile::tempdir().unwrap();
        for entry in ENTRIES.iter().filter(|entry| entry.root.is_some()) {
            let empty = message(entry.name, Some(folder.path()));
            assert!(empty.contains(folder.path().to_str().unwrap()), "{empty}");
        }
        #[cfg(feature = "sample")]
        assert!(message("fashion-mnist-sample", Some(folder.path())).contains("embedded"));
    }

    #[cfg(feature = "sample")]
    #[test]
    fn cards_agree_with_their_entries() {
        let entry = ENTRIES.iter().find(|entry| entry.root.is_none()).unwrap();
        let set = open(entry.name, None).unwrap();
        assert_eq!((set.card().name.as_str(), set.card().title.as_str()), (entry.name, entry.title));
        assert_eq!(set.card().protocol, entry.protocol);
        assert!(set.card().licence.starts_with("MIT"));
    }
}
