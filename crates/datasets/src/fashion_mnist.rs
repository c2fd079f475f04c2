//! Fashion-MNIST: the whole from a directory of idx files, or the embedded sample.

use std::path::Path;

use crate::dataset::Card;
use crate::mnist::{assemble, read};
use crate::packed::Packed;
use crate::{Error, Protocol};

/// Where Debian's package `dataset-fashion-mnist` puts the files.
pub(crate) const DEBIAN_FOLDER: &str = "/usr/share/datasets/fashion-mnist";

const CLASSES: [&str; 10] = [
    "T-shirt/top",
    "Trouser",
    "Pullover",
    "Dress",
    "Coat",
    "Sandal",
    "Shirt",
    "Sneaker",
    "Bag",
    "Ankle boot",
];

fn card(name: &str, title: &str) -> Card {
    Card {
        name: name.into(),
        title: title.into(),
        licence: "MIT, copyright 2017 Zalando SE".into(),
        source: "https://github.com/zalandoresearch/fashion-mnist".into(),
        protocol: Protocol::Unimodal,
    }
}

/// The data set in `folder`, its files plain or gzipped.
pub(crate) fn open(folder: &Path) -> Result<Packed, Error> {
    assemble(card("fashion-mnist", "Fashion-MNIST"), &CLASSES, folder, read(folder)?)
}

/// The embedded sample: name in the asset folder, pinned sha256, axes, bytes.
#[cfg(feature = "sample")]
const SAMPLE: [(&str, &str, usize, &[u8]); 4] = [
    (
        "train-images-idx3-ubyte.gz",
        "06d2bdc4ebec620314eee85ddeae7181f9690b97c4bbc54f363a6e989f247264",
        3,
        include_bytes!("../../../assets/fashion-mnist-sample/train-images-idx3-ubyte.gz"),
    ),
    (
        "train-labels-idx1-ubyte.gz",
        "131387379173605d5c5fa9a1fc119c316a2e92c2e40aca9996f7bbe8470f6fa3",
        1,
        include_bytes!("../../../assets/fashion-mnist-sample/train-labels-idx1-ubyte.gz"),
    ),
    (
        "t10k-images-idx3-ubyte.gz",
        "04516f9d284037ea6cce7310aafaed77e8f8c1547f1127ef4aa754c46f47f8f5",
        3,
        include_bytes!("../../../assets/fashion-mnist-sample/t10k-images-idx3-ubyte.gz"),
    ),
    (
        "t10k-labels-idx1-ubyte.gz",
        "540f63e62544edb8406d1292429a47e6cdb42e4fa2eaa233f072b34e1f6bc46c",
        1,
        include_bytes!("../../../assets/fashion-mnist-sample/t10k-labels-idx1-ubyte.gz"),
    ),
];

/// The embedded sample, its files checked against their pinned sha256.
#[cfg(feature = "sample")]
pub(crate) fn open_sample() -> Result<Packed, Error> {
    use crate::idx::Idx;
    use anomaly_core::hex;
    use sha2::{Digest, Sha256};

    let folder = Path::new("assets/fashion-mnist-sample");
    let checked = |(name, pinned, rank, bytes): (&str, &str, usize, &[u8])| {
        let found = hex(&Sha256::digest(bytes));
        if found != pinned {
            return Err(Error::content(folder.join(name), format!("sha256 {pinned}"), found));
        }
        Idx::parse(&folder.join(name), bytes, rank)
    };
    let [a, b, c, d] = SAMPLE;
    let files = [checked(a)?, checked(b)?, checked(c)?, checked(d)?];
    assemble(card("fashion-mnist-sample", "Fashion-MNIST, bundled sample"), &CLASSES, folder, files)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::Dataset;
    use crate::idx::Idx;

    #[cfg(feature = "sample")]
    #[test]
    fn the_sample_has_its_images_of_every_class() {
        use crate::Part;

        let set = open_sample().unwrap();
        for class in 0..10 {
            let count = |part| set.items().iter().filter(|i| i.part == part && i.class == class).count();
            assert_eq!((count(Part::Train), count(Part::Test)), (200, 100));
        }
        assert_eq!(
            (set.items()[0].id.as_str(), set.items()[2000].id.as_str()),
            ("train/00000", "test/00000")
        );
        // The first image of the data set is an ankle boot, the first trouser is image 16 of it.
        assert_eq!(set.items()[0].class, 9);
        let image = set.image(0).unwrap();
        assert_eq!((image.height, image.width), (28, 28));
        let mean = image.data.iter().map(|&v| f64::from(v)).sum::<f64>() / image.data.len() as f64;
        assert!((mean - 97.25).abs() < 0.01, "{mean}");
    }

    #[test]
    fn counts_and_labels_that_do_not_fit_are_refused() {
        let idx = |shape: &[usize], fill: u8| Idx {
            shape: shape.to_vec(),
            data: vec![fill; shape.iter().product()],
        };
        let assembled =
            |files| assemble(card("x", "x"), &CLASSES, Path::new("a/folder"), files).map(|_| ()).unwrap_err();
        let short = assembled([idx(&[2, 4, 4], 0), idx(&[3], 0), idx(&[1, 4, 4], 0), idx(&[1], 0)]);
        assert!(short.to_string().contains("[2, 4, 4] images and [3] labels"), "{short}");
        let label = assembled([idx(&[1, 4, 4], 0), idx(&[1], 10), idx(&[1, 4, 4], 0), idx(&[1], 0)]);
        assert!(label.to_string().contains("found 10"), "{label}");
        let files = [idx(&[1, 4, 4], 0), idx(&[1], 0), idx(&[1, 4, 4], 0), idx(&[1], 0)];
        let set = assemble(card("x", "x"), &CLASSES, Path::new("a/folder"), files).unwrap();
        let class = set.problems()[0].to_string();
        assert!(class.contains("Trouser") && class.contains("a/folder"), "{class}");
        assert_eq!(set.problems().len(), 18);
    }
}
