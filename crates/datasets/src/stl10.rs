//! STL-10 in its binary form: the labelled training and test images.

use std::path::Path;

use crate::dataset::{Card, Class, Part};
use crate::packed::{Packed, Samples};
use crate::{Error, Protocol};

const SIDE: usize = 96;

const CLASSES: [&str; 10] =
    ["airplane", "bird", "car", "cat", "deer", "dog", "horse", "monkey", "ship", "truck"];

/// STL-10 in `root` or in its folder `stl10_binary`. The unlabelled images are not read.
pub(crate) fn open(root: &Path) -> Result<Packed, Error> {
    let inner = root.join("stl10_binary");
    let folder = if inner.is_dir() { inner } else { root.to_owned() };
    let card = Card {
        name: "stl10".into(),
        title: "STL-10".into(),
        licence: "ImageNet's terms: non-commercial research and education".into(),
        source: "https://cs.stanford.edu/~acoates/stl10".into(),
        protocol: Protocol::OneClassAbnormal,
    };
    // Stored column by column, as MATLAB does.
    let mut set = Packed::new(card, Class::numbered(&CLASSES), SIDE, SIDE, Samples::Columns);
    for (part, name) in [(Part::Train, "train"), (Part::Test, "test")] {
        let path = |what| folder.join(format!("{name}_{what}.bin"));
        let bytes =
            |path: &Path| std::fs::read(path).map_err(|source| Error::Read { path: path.to_owned(), source });
        let (images_path, labels_path) = (path("X"), path("y"));
        let (images, labels) = (bytes(&images_path)?, bytes(&labels_path)?);
        read(&mut set, part, (&images_path, &images), (&labels_path, &labels))?;
    }
    set.check_classes(&folder);
    Ok(set)
}

/// Adds the images and labels of one part; paths are for messages.
fn read(
    set: &mut Packed,
    part: Part,
    (images_path, images): (&Path, &[u8]),
    (labels_path, labels): (&Path, &[u8]),
) -> Result<(), Error> {
    let stride = set.stride();
    if images.len() % stride != 0 || images.len() / stride != labels.len() {
        let expected = format!("{stride} bytes for each of {} labels", labels.len());
        return Err(Error::content(images_path, expected, format!("{} bytes", images.len())));
    }
    for (number, (pixels, &label)) in images.chunks_exact(stride).zip(labels).enumerate() {
        let class =
            usize::from(label).checked_sub(1).filter(|&class| class < CLASSES.len()).ok_or_else(|| {
                Error::content(labels_path, "labels of 1 to 10", format!("{label} at {number}"))
            })?;
        set.push(part, class, pixels);
    }
    Ok(())
}

/// What a fuzzer calls: both files of a part from arbitrary bytes.
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) fn parse(images: &[u8], labels: &[u8]) -> Result<usize, Error> {
    use crate::Dataset;

    let card = Card {
        name: String::new(),
        title: String::new(),
        licence: String::new(),
        source: String::new(),
        protocol: Protocol::Unimodal,
    };
    let mut set = Packed::new(card, Class::numbered(&CLASSES), SIDE, SIDE, Samples::Columns);
    read(&mut set, Part::Train, (Path::new("images"), images), (Path::new("labels"), labels))?;
    for index in 0..set.items().len() {
        set.image(index)?;
    }
    Ok(set.items().len())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn counts_and_labels_that_do_not_fit_name_their_file() {
        let message = |images: usize, labels: &[u8]| parse(&vec![0; images], labels).unwrap_err().to_string();
        assert_eq!(parse(&vec![7; 2 * 3 * SIDE * SIDE], &[1, 10]).unwrap(), 2);
        assert!(message(100, &[1]).starts_with("images: expected 27648 bytes for each of 1 labels"));
        assert!(message(27648, &[11]).starts_with("labels: expected labels of 1 to 10, found 11 at 0"));
        assert!(message(27648, &[0]).contains("found 0"));
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(
            images in 0usize..4,
            extra in 0usize..3,
            labels in prop::collection::vec(any::<u8>(), 0..4),
        ) {
            let read = parse(&vec![9; images * 3 * SIDE * SIDE + extra], &labels);
            let fits = extra == 0 && images == labels.len() && labels.iter().all(|label| (1..=10).contains(label));
            prop_assert_eq!(read.is_ok(), fits);
        }
    }
}
