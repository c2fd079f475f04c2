//! The data sets known by name.

use std::path::{Path, PathBuf};

use crate::dataset::Dataset;
use crate::error::nearest;
use crate::problem::Problem;
use crate::{
    Error, Protocol, aircraft, cars, cats_dogs, cifar, dior, fashion_mnist, folder, good_bad, mnist, mvtec,
    normal_abnormal, stl10, synthetic, table, visa,
};

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

const MVTEC_SOURCE: &str = "https://www.mvtec.com/company/research/datasets";

const LOCO_ROOT: &str =
    "category folders as MVTec AD's, with several masks an image and `defects_config.json`";

const CATS_ROOT: &str = "`{Cat,Dog}/<number>.jpg`, or `train/{cat,dog}.<number>.jpg`";

const VISA_ROOT: &str = "category folders with `Data/Images/{Normal,Anomaly}` and `Data/Masks/Anomaly`";

const AIRCRAFT_ROOT: &str =
    "`variants.txt`, `images_variant_{train,val,test}.txt` and `images`, maybe in `data`";

/// A data set that lies in a directory that must be given.
const fn rooted(name: &'static str, title: &'static str, root: &'static str, protocol: Protocol) -> Entry {
    Entry { name, title, root: Some(root), default_root: None, protocol }
}

/// All of them, by name.
pub const ENTRIES: &[Entry] = &[
    rooted(
        "btad",
        "BTAD",
        "the folders `01`, `02`, `03` with `train/ok`, `test/{ok,ko}` and `ground_truth/ko`",
        Protocol::ClassSeparated,
    ),
    rooted("cats-vs-dogs", "Cats vs dogs", CATS_ROOT, Protocol::Unimodal),
    rooted("cats-vs-dogs-80-20", "Cats vs dogs, four fifths drawn", CATS_ROOT, Protocol::Unimodal),
    rooted(
        "cats-vs-dogs-release",
        "Cats vs dogs, tested on its training images",
        CATS_ROOT,
        Protocol::Unimodal,
    ),
    rooted(
        "cifar10",
        "CIFAR-10",
        "`data_batch_1.bin` to `data_batch_5.bin` and `test_batch.bin`",
        Protocol::Unimodal,
    ),
    rooted("cifar100", "CIFAR-100 (20 coarse classes)", "`train.bin` and `test.bin`", Protocol::Unimodal),
    rooted("cifar100-fine", "CIFAR-100 (100 classes)", "`train.bin` and `test.bin`", Protocol::Unimodal),
    rooted(
        "csv",
        "A list in a CSV file",
        "a CSV file with the columns `path`, `label` and maybe `mask`, `split`, `category`",
        Protocol::ClassSeparated,
    ),
    rooted(
        "dior",
        "DIOR, cropped objects",
        "`train/<class>` and `test/<class>`, or the release with `Annotations` and `ImageSets/Main`",
        Protocol::Unimodal,
    ),
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
    rooted("fgvc-aircraft", "FGVC-Aircraft, 100 variants", AIRCRAFT_ROOT, Protocol::Unimodal),
    rooted("fgvc-aircraft-10", "FGVC-Aircraft, ten variants", AIRCRAFT_ROOT, Protocol::Unimodal),
    rooted(
        "folder",
        "A folder per class",
        "`train/<class>` and `test/<class>`, or `<class>` folders to be split 80 to 20",
        Protocol::Unimodal,
    ),
    rooted(
        "good-bad",
        "Good parts, maybe bad ones",
        "the folder `good`, maybe `bad` and `masks`",
        Protocol::ClassSeparated,
    ),
    rooted("mnist", "MNIST", "the four `*-ubyte` files, plain or as `.gz`", Protocol::Multimodal),
    rooted("mpdd", "MPDD", MVTEC_ROOT, Protocol::ClassSeparated),
    rooted("mvtec", "MVTec AD, or any folder in its layout", MVTEC_ROOT, Protocol::ClassSeparated),
    rooted("mvtec-loco", "MVTec LOCO AD", LOCO_ROOT, Protocol::ClassSeparated),
    rooted(
        "mvtec-loco-first-mask",
        "MVTec LOCO AD, the first mask of each image",
        LOCO_ROOT,
        Protocol::ClassSeparated,
    ),
    rooted(
        "normal-abnormal",
        "Folders 0.normal and 1.abnormal",
        "`train/0.normal`, `test/0.normal` and `test/1.abnormal`",
        Protocol::ClassSeparated,
    ),
    rooted(
        "stanford-cars",
        "Stanford Cars",
        "`cars_train`, `cars_test` and `devkit` with the `.mat` annotations of both",
        Protocol::Unimodal,
    ),
    rooted(
        "stl10",
        "STL-10",
        "`train_X.bin`, `train_y.bin`, `test_X.bin` and `test_y.bin`",
        Protocol::OneClassAbnormal,
    ),
    Entry {
        name: synthetic::NAME,
        title: "Synthetic textures",
        root: None,
        default_root: None,
        protocol: Protocol::ClassSeparated,
    },
    rooted(
        "view",
        "Intel scenes (\"View\")",
        "`seg_train` and `seg_test`, or `train` and `test`, with folders of the six classes",
        Protocol::Unimodal,
    ),
    rooted(
        "visa",
        "VisA",
        "category folders with `Data/Images` and `Data/Masks`, and `split_csv/1cls.csv`",
        Protocol::ClassSeparated,
    ),
    rooted("visa-80-20", "VisA, the first four fifths", VISA_ROOT, Protocol::ClassSeparated),
];

/// Opens the data set called `name` in the directory `root`. Without a root, the entry's default place is looked at
/// (Debian's `/usr/share/datasets/fashion-mnist` for `fashion-mnist`).
///
/// # Errors
/// [`Error::UnknownDataset`] with the nearest name; [`Error::NoRoot`] and [`Error::UnusedRoot`]; and what is wrong with
/// its files, as far as that shows without decoding all of them: [`Error::Problems`] with all of it.
pub fn open(name: &str, root: Option<&Path>) -> Result<Box<dyn Dataset>, Error> {
    let dataset = open_unchecked(name, root)?;
    if dataset.problems().iter().any(Problem::is_fault) {
        let problems = dataset.problems().to_vec();
        return Err(Error::Problems { dataset: name.to_owned(), problems });
    }
    Ok(dataset)
}

/// As [`open`], but what is wrong with single files or folders is left to [`Dataset::problems`]: for whoever checks a
/// data set, or uses what is left of it ([`crate::without`]).
///
/// # Errors
/// As [`open`], where nothing can be listed at all.
pub fn open_unchecked(name: &str, root: Option<&Path>) -> Result<Box<dyn Dataset>, Error> {
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
            None if name == synthetic::NAME => {
                Ok(Box::new(synthetic::Synthetic::new(&synthetic::SyntheticOptions::default())?))
            }
            None => open_embedded(),
        };
    };
    let default = entry.default_root.map(PathBuf::from);
    let found = root.map(Path::to_owned).or_else(|| default.clone().filter(|place| place.is_dir()));
    let Some(root) = found else {
        return Err(Error::NoRoot { dataset: name.to_owned(), expected, looked_in_default: default });
    };
    open_rooted(entry, &root)
}

fn open_rooted(entry: &Entry, root: &Path) -> Result<Box<dyn Dataset>, Error> {
    let (name, title) = (entry.name, entry.title);
    let in_mvtec_layout = |licence, source, options: mvtec::Options| {
        mvtec::open(mvtec::card(name, title, licence, source), root, options)
    };
    let plain = mvtec::Options::default();
    Ok(match name {
        "btad" => {
            Box::new(in_mvtec_layout("CC BY-NC-SA 4.0", "https://github.com/pankajmishra000/VT-ADL", plain)?)
        }
        "cats-vs-dogs" => Box::new(cats_dogs::open(name, title, cats_dogs::Division::ByNumber, root)?),
        "cats-vs-dogs-80-20" => Box::new(cats_dogs::open(name, title, cats_dogs::Division::Drawn, root)?),
        "cats-vs-dogs-release" => Box::new(cats_dogs::open(name, title, cats_dogs::Division::Release, root)?),
        "cifar10" => Box::new(cifar::open_10(root)?),
        "cifar100" => Box::new(cifar::open_100(root)?),
        "cifar100-fine" => Box::new(cifar::open_100_fine(root)?),
        "csv" => Box::new(table::open(root)?),
        "dior" => Box::new(dior::open(root)?),
        "fashion-mnist" => Box::new(fashion_mnist::open(root)?),
        "fgvc-aircraft" => Box::new(aircraft::open(name, title, false, root)?),
        "fgvc-aircraft-10" => Box::new(aircraft::open(name, title, true, root)?),
        "folder" => Box::new(folder::open(root)?),
        "good-bad" => Box::new(good_bad::open(root)?),
        "mnist" => Box::new(mnist::open(root)?),
        "mpdd" => Box::new(in_mvtec_layout("CC BY-NC-SA 4.0", "https://github.com/stepanje/MPDD", plain)?),
        "mvtec-loco" | "mvtec-loco-first-mask" => {
            let first_mask_only = name == "mvtec-loco-first-mask";
            let options = mvtec::Options { saturations: !first_mask_only, first_mask_only };
            Box::new(in_mvtec_layout("CC BY-NC-SA 4.0", MVTEC_SOURCE, options)?)
        }
        "normal-abnormal" => Box::new(normal_abnormal::open(root)?),
        "stanford-cars" => Box::new(cars::open(root)?),
        "stl10" => Box::new(stl10::open(root)?),
        "view" => Box::new(folder::open_scenes(root)?),
        "visa" => Box::new(visa::open(name, title, visa::Division::Official, root)?),
        "visa-80-20" => Box::new(visa::open(name, title, visa::Division::FirstFourFifths, root)?),
        _ => Box::new(in_mvtec_layout(MVTEC_LICENCE, MVTEC_SOURCE, plain)?),
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
