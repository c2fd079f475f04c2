//! CIFAR-10 and CIFAR-100 in their binary form.

use std::path::Path;

use crate::dataset::{Card, Class, Part};
use crate::packed::{Packed, Samples};
use crate::{Error, Protocol};

const SIDE: usize = 32;

/// The classes of CIFAR-10.
const CIFAR10: [&str; 10] =
    ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"];

/// The coarse classes of CIFAR-100, which one-class papers use.
const CIFAR100: [&str; 20] = [
    "aquatic mammals",
    "fish",
    "flowers",
    "food containers",
    "fruit and vegetables",
    "household electrical devices",
    "household furniture",
    "insects",
    "large carnivores",
    "large man-made outdoor things",
    "large natural outdoor scenes",
    "large omnivores and herbivores",
    "medium-sized mammals",
    "non-insect invertebrates",
    "people",
    "reptiles",
    "small mammals",
    "trees",
    "vehicles 1",
    "vehicles 2",
];

/// The 100 classes of CIFAR-100.
#[rustfmt::skip]
const CIFAR100_FINE: [&str; 100] = [
    "apple", "aquarium fish", "baby", "bear", "beaver", "bed", "bee", "beetle",
    "bicycle", "bottle", "bowl", "boy", "bridge", "bus", "butterfly", "camel",
    "can", "castle", "caterpillar", "cattle", "chair", "chimpanzee", "clock", "cloud",
    "cockroach", "couch", "crab", "crocodile", "cup", "dinosaur", "dolphin", "elephant",
    "flatfish", "forest", "fox", "girl", "hamster", "house", "kangaroo", "keyboard",
    "lamp", "lawn mower", "leopard", "lion", "lizard", "lobster", "man", "maple tree",
    "motorcycle", "mountain", "mouse", "mushroom", "oak tree", "orange", "orchid", "otter",
    "palm tree", "pear", "pickup truck", "pine tree", "plain", "plate", "poppy", "porcupine",
    "possum", "rabbit", "raccoon", "ray", "road", "rocket", "rose", "sea",
    "seal", "shark", "shrew", "skunk", "skyscraper", "snail", "snake", "spider",
    "squirrel", "streetcar", "sunflower", "sweet pepper", "table", "tank", "telephone", "television",
    "tiger", "tractor", "train", "trout", "tulip", "turtle", "wardrobe", "whale",
    "willow tree", "wolf", "woman", "worm",
];

/// How one of them lies on disk.
struct Form {
    name: &'static str,
    title: &'static str,
    classes: &'static [&'static str],
    /// The archive's own folder.
    folder: &'static str,
    train: &'static [&'static str],
    test: &'static [&'static str],
    /// Label bytes before the pixels.
    label_bytes: usize,
    /// Which of them is the class.
    label: usize,
}

/// CIFAR-10 in `root` or in its folder `cifar-10-batches-bin`.
pub(crate) fn open_10(root: &Path) -> Result<Packed, Error> {
    form_10().open(root)
}

fn form_10() -> Form {
    Form {
        name: "cifar10",
        title: "CIFAR-10",
        classes: &CIFAR10,
        folder: "cifar-10-batches-bin",
        train: &[
            "data_batch_1.bin",
            "data_batch_2.bin",
            "data_batch_3.bin",
            "data_batch_4.bin",
            "data_batch_5.bin",
        ],
        test: &["test_batch.bin"],
        label_bytes: 1,
        label: 0,
    }
}

/// CIFAR-100 with its 20 coarse classes, in `root` or in its folder `cifar-100-binary`.
pub(crate) fn open_100(root: &Path) -> Result<Packed, Error> {
    form_100().open(root)
}

fn form_100() -> Form {
    Form {
        name: "cifar100",
        title: "CIFAR-100 (20 coarse classes)",
        classes: &CIFAR100,
        folder: "cifar-100-binary",
        train: &["train.bin"],
        test: &["test.bin"],
        label_bytes: 2,
        label: 0,
    }
}

/// CIFAR-100 with its 100 classes, in `root` or in its folder `cifar-100-binary`.
pub(crate) fn open_100_fine(root: &Path) -> Result<Packed, Error> {
    form_100_fine().open(root)
}

fn form_100_fine() -> Form {
    Form {
        name: "cifar100-fine",
        title: "CIFAR-100 (100 classes)",
        classes: &CIFAR100_FINE,
        folder: "cifar-100-binary",
        train: &["train.bin"],
        test: &["test.bin"],
        label_bytes: 2,
        label: 1,
    }
}

impl Form {
    fn empty(&self) -> Packed {
        let card = Card {
            name: self.name.into(),
            title: self.title.into(),
            licence: "none stated by its publisher; research use is customary".into(),
            source: "https://www.cs.toronto.edu/~kriz/cifar.html".into(),
            protocol: Protocol::Unimodal,
        };
        Packed::new(card, Class::numbered(self.classes), SIDE, SIDE, Samples::Planes)
    }

    fn open(&self, root: &Path) -> Result<Packed, Error> {
        let inner = root.join(self.folder);
        let folder = if inner.is_dir() { inner } else { root.to_owned() };
        let mut set = self.empty();
        for (part, files) in [(Part::Train, self.train), (Part::Test, self.test)] {
            for file in files {
                self.read(&folder.join(file), part, &mut set)?;
            }
        }
        set.check_classes(&folder);
        Ok(set)
    }

    fn read(&self, path: &Path, part: Part, set: &mut Packed) -> Result<(), Error> {
        let bytes = std::fs::read(path).map_err(|source| Error::Read { path: path.to_owned(), source })?;
        self.add(path, &bytes, part, set)
    }

    /// Adds the records of a file; `path` is for messages.
    fn add(&self, path: &Path, bytes: &[u8], part: Part, set: &mut Packed) -> Result<(), Error> {
        let record = self.label_bytes + set.stride();
        if bytes.is_empty() || !bytes.len().is_multiple_of(record) {
            let expected = format!("a whole number of records of {record} bytes");
            return Err(Error::content(path, expected, format!("{} bytes", bytes.len())));
        }
        for (number, record) in bytes.chunks_exact(record).enumerate() {
            let label = usize::from(record[self.label]);
            if label >= self.classes.len() {
                let expected = format!("labels of 0 to {}", self.classes.len() - 1);
                return Err(Error::content(path, expected, format!("{label} in record {number}")));
            }
            set.push(part, label, &record[self.label_bytes..]);
        }
        Ok(())
    }
}

/// The records in `bytes`, in each of the three forms: how many, or nothing where they are none.
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) fn parse(bytes: &[u8]) -> [Option<usize>; 3] {
    use crate::Dataset;

    [form_10(), form_100(), form_100_fine()].map(|form| {
        let mut set = form.empty();
        form.add(Path::new("records"), bytes, Part::Train, &mut set).ok()?;
        (0..set.items().len()).all(|index| set.image(index).is_ok()).then(|| set.items().len())
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use proptest::prelude::*;

    use super::*;
    use crate::Dataset;

    fn records(classes: u8, label_bytes: usize) -> Vec<u8> {
        let record = |class: u8| {
            let mut bytes = vec![class];
            bytes.resize(label_bytes, 99);
            for plane in [10, 20, 30] {
                bytes.extend([plane + class; SIDE * SIDE]);
            }
            bytes
        };
        (0..classes).flat_map(record).collect()
    }

    #[test]
    fn both_forms_are_read_and_planes_become_pixels() {
        let root = tempfile::tempdir().unwrap();
        let ten = root.path().join("cifar-10-batches-bin");
        std::fs::create_dir(&ten).unwrap();
        for file in
            ["data_batch_1", "data_batch_2", "data_batch_3", "data_batch_4", "data_batch_5", "test_batch"]
        {
            std::fs::write(ten.join(format!("{file}.bin")), records(10, 1)).unwrap();
        }
        let set = open_10(root.path()).unwrap();
        assert_eq!(set.items().len(), 60);
        assert_eq!((set.items()[53].id.as_str(), set.items()[53].class), ("test/00003", 3));
        assert_eq!(set.image(53).unwrap().data[..6], [13, 23, 33, 13, 23, 33]);
        assert_eq!(set.class_index("cat").unwrap(), 3);
        assert!(set.class_index("catt").unwrap_err().to_string().contains("did you mean `cat`?"));

        for file in ["train.bin", "test.bin"] {
            std::fs::write(root.path().join(file), records(20, 2)).unwrap();
        }
        let set = open_100(root.path()).unwrap();
        assert_eq!((set.classes().len(), set.items().len(), set.items()[39].class), (20, 40, 19));
        let set = open_100_fine(root.path()).unwrap();
        assert_eq!(
            (set.classes().len(), set.classes()[99].title.as_str(), set.items()[0].class),
            (100, "worm", 99)
        );
        assert_eq!(set.problems().len(), 2 * 99);
    }

    #[test]
    fn cut_files_and_wild_labels_name_the_file() {
        let root = tempfile::tempdir().unwrap();
        std::fs::write(root.path().join("train.bin"), &records(20, 2)[1..]).unwrap();
        let message = open_100(root.path()).map(|_| ()).unwrap_err().to_string();
        assert!(message.contains("train.bin") && message.contains("3074"), "{message}");
        std::fs::write(root.path().join("train.bin"), records(21, 2)).unwrap();
        let message = open_100(root.path()).map(|_| ()).unwrap_err().to_string();
        assert!(message.contains("train.bin") && message.contains("20 in record 20"), "{message}");
    }

    proptest! {
        #[test]
        fn arbitrary_records_never_panic(
            records in 0usize..3,
            extra in 0usize..3,
            labels in prop::collection::vec(any::<u8>(), 6),
        ) {
            for (label_bytes, form) in [(1, 0), (2, 1), (2, 2)] {
                let record = |at: usize| [&labels[2 * at..2 * at + label_bytes], &[7; 3 * SIDE * SIDE]].concat();
                let mut bytes: Vec<u8> = (0..records).flat_map(record).collect();
                bytes.extend(vec![0; extra]);
                let read = parse(&bytes)[form];
                let most = [10, 20, 100][form];
                let fits = (0..records).all(|at| labels[2 * at + usize::from(form == 2)] < most);
                prop_assert_eq!(read.is_some(), records > 0 && extra == 0 && fits);
            }
        }
    }
}
