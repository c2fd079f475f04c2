//! MNIST and the sets in its form: four idx files.

use std::path::Path;

use crate::dataset::{Card, Class, Part};
use crate::idx::Idx;
use crate::packed::{Packed, Samples};
use crate::{Error, Protocol};

const DIGITS: [&str; 10] = ["0", "1", "2", "3", "4", "5", "6", "7", "8", "9"];

/// MNIST in `root`, or in its folder `MNIST/raw`, its files plain or gzipped.
pub(crate) fn open(root: &Path) -> Result<Packed, Error> {
    let card = Card {
        name: "mnist".into(),
        title: "MNIST".into(),
        licence: "CC BY-SA 3.0 as commonly stated; copyright Yann LeCun and Corinna Cortes".into(),
        source: "http://yann.lecun.com/exdb/mnist".into(),
        protocol: Protocol::Multimodal,
    };
    let inner = root.join("MNIST").join("raw");
    let folder = if inner.is_dir() { inner } else { root.to_owned() };
    assemble(card, &DIGITS, &folder, read(&folder)?)
}

/// The four files in `folder`: images and labels of the training part, then of the test part.
pub(crate) fn read(folder: &Path) -> Result<[Idx; 4], Error> {
    Ok([
        Idx::read(folder, "train-images-idx3-ubyte", 3)?,
        Idx::read(folder, "train-labels-idx1-ubyte", 1)?,
        Idx::read(folder, "t10k-images-idx3-ubyte", 3)?,
        Idx::read(folder, "t10k-labels-idx1-ubyte", 1)?,
    ])
}

/// The data set of four files.
pub(crate) fn assemble(
    card: Card,
    classes: &[&str],
    folder: &Path,
    files: [Idx; 4],
) -> Result<Packed, Error> {
    let [train_images, train_labels, test_images, test_labels] = files;
    let &[_, height, width] = train_images.shape.as_slice() else {
        return Err(Error::content(folder, "images with 3 axes", format!("{:?}", train_images.shape)));
    };
    let mut set = Packed::new(card, Class::numbered(classes), height, width, Samples::Grey);
    for (part, images, labels) in
        [(Part::Train, &train_images, &train_labels), (Part::Test, &test_images, &test_labels)]
    {
        let found = format!("{:?} images and {:?} labels", images.shape, labels.shape);
        if images.shape != [labels.data.len(), height, width] || set.stride() == 0 {
            let expected = format!("one label an image and images of {height} x {width} pixels");
            return Err(Error::content(folder, expected, found));
        }
        for (pixels, &label) in images.data.chunks_exact(set.stride()).zip(&labels.data) {
            if usize::from(label) >= classes.len() {
                let expected = format!("labels of 0 to {}", classes.len() - 1);
                return Err(Error::content(folder, expected, label.to_string()));
            }
            set.push(part, label.into(), pixels);
        }
    }
    set.check_classes(folder);
    Ok(set)
}
