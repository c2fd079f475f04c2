//! Cats against dogs, in the forms it is handed on and with the three splits it was used with.

use std::path::Path;

use anomaly_core::Streams;

use crate::dataset::{Card, Class, Item, Part};
use crate::file_set::{FileSet, Files};
use crate::files::{Entry, folders, images};
use crate::folder;
use crate::listing::Listing;
use crate::{Error, Protocol};

/// Which images train.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Division {
    /// By number: the first four fifths of each class (10 000 of 12 500), the usual one.
    ByNumber,
    /// Four fifths of all images, drawn once and for all. The reference (GeneralAD) drew anew in every run, before it set
    /// its seed, so that a model that was loaded again was tested on images it had learned from.
    Drawn,
    /// All of them, and all are tested on too: the release of Transformaly, whose figures are contaminated by it.
    Release,
}

/// The data set in `root`: `{Cat,Dog}/<number>.jpg`, or `train/{cat,dog}.<number>.jpg`, or, for the usual division,
/// `train/{cat,dog}` and `test/{cat,dog}`.
pub(crate) fn open(name: &str, title: &str, division: Division, root: &Path) -> Result<FileSet, Error> {
    let card = Card {
        name: name.into(),
        title: title.into(),
        licence: "none stated by its publisher".into(),
        source: "https://www.microsoft.com/en-us/download/details.aspx?id=54765".into(),
        protocol: Protocol::Unimodal,
    };
    let (train, test) = (root.join("train"), root.join("test"));
    if division == Division::ByNumber && train.is_dir() && test.is_dir() && !folders(&test)?.is_empty() {
        return Ok(FileSet::new(
            card,
            folder::two_parts((&train, "train"), (&test, "test"), &["cat", "dog"])?,
        ));
    }
    let mut listing = Listing::of(vec![Class::named("cat"), Class::named("dog")]);
    let mut found = Vec::new();
    for class in 0..2 {
        let own = of_class(root, &listing.classes[class].key)?;
        if own.is_empty() {
            let key = listing.classes[class].key.clone();
            listing.empty(root, &key);
        }
        found.push(own);
    }
    let parts = divide(division, [found[0].len(), found[1].len()]);
    for (class, (own, parts)) in found.into_iter().zip(parts).enumerate() {
        for ((id, file), parts) in own.into_iter().zip(parts) {
            for &part in parts {
                let id =
                    if division == Division::Release { format!("{}/{id}", part.name()) } else { id.clone() };
                listing.add(Item { id, part, class, defect: None }, Files::image(file.path.clone()));
            }
        }
    }
    Ok(FileSet::new(card, listing))
}

/// Of each image of each class, the parts it is in.
fn divide(division: Division, counts: [usize; 2]) -> [Vec<&'static [Part]>; 2] {
    let share = |count: usize| count * 4 / 5;
    match division {
        Division::ByNumber => counts.map(|count| {
            (0..count).map(|at| if at < share(count) { &[Part::Train][..] } else { &[Part::Test] }).collect()
        }),
        Division::Drawn => {
            let all = counts[0] + counts[1];
            let mut parts = vec![&[Part::Test][..]; all];
            let drawn = Streams::new(0).stream("cats-vs-dogs/80-20").permutation(all);
            drawn[..share(all)].iter().for_each(|&at| parts[at] = &[Part::Train]);
            let dogs = parts.split_off(counts[0]);
            [parts, dogs]
        }
        Division::Release => counts.map(|count| vec![&[Part::Train, Part::Test][..]; count]),
    }
}

/// The images of a class by their numbers, with their ids.
fn of_class(root: &Path, class: &str) -> Result<Vec<(String, Entry)>, Error> {
    let mut found = Vec::new();
    for folder in folders(root)? {
        if folder.name.eq_ignore_ascii_case(class) {
            let own = images(&folder.path)?;
            found.extend(own.into_iter().map(|file| (format!("{class}/{}", file.name), file)));
        }
    }
    let train = root.join("train");
    if found.is_empty() {
        let flat = if train.is_dir() { images(&train)? } else { images(root)? };
        let prefix = format!("{class}.");
        let own = flat.into_iter().filter(|file| file.name.starts_with(&prefix));
        found.extend(own.map(|file| (format!("train/{}", file.name), file)));
    }
    // Numbers in their order, whatever their digits; names without one come last, by name.
    found.sort_by_cached_key(|(_, file)| {
        let number = file.stem().rsplit('.').next().and_then(|digits| digits.parse::<u64>().ok());
        (number.is_none(), number, file.name.clone())
    });
    Ok(found)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::Dataset;

    fn write(root: &Path, name: &str) {
        let path = root.join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        image::RgbImage::from_pixel(3, 3, image::Rgb([1, 2, 3])).save(path).unwrap();
    }

    fn ids(set: &FileSet, part: Part) -> Vec<&str> {
        set.items().iter().filter(|item| item.part == part).map(|item| item.id.as_str()).collect()
    }

    #[test]
    fn numbers_are_sorted_as_numbers_and_the_last_fifth_is_tested_on() {
        let root = tempfile::tempdir().unwrap();
        for number in 0..10 {
            write(root.path(), &format!("Cat/{}.jpg", number * 3));
            write(root.path(), &format!("Dog/{}.jpg", number * 3));
        }
        let open = |division| open("x", "X", division, root.path()).unwrap();
        let usual = open(Division::ByNumber);
        assert_eq!(ids(&usual, Part::Test), ["cat/24.jpg", "cat/27.jpg", "dog/24.jpg", "dog/27.jpg"]);
        assert_eq!(ids(&usual, Part::Train)[..3], ["cat/0.jpg", "cat/3.jpg", "cat/6.jpg"]);
        let drawn = open(Division::Drawn);
        assert_eq!((ids(&drawn, Part::Train).len(), ids(&drawn, Part::Test).len()), (16, 4));
        assert_eq!(drawn.items(), open(Division::Drawn).items());
        let release = open(Division::Release);
        assert_eq!((ids(&release, Part::Train).len(), ids(&release, Part::Test).len()), (20, 20));
        assert_eq!(release.items()[0].id, "train/cat/0.jpg");
    }

    #[test]
    fn the_two_other_forms_are_read() {
        let flat = tempfile::tempdir().unwrap();
        for number in 0..5 {
            write(flat.path(), &format!("train/cat.{number}.jpg"));
            write(flat.path(), &format!("train/dog.{number}.jpg"));
        }
        let set = open("x", "X", Division::ByNumber, flat.path()).unwrap();
        assert_eq!(ids(&set, Part::Test), ["train/cat.4.jpg", "train/dog.4.jpg"]);
        let two = tempfile::tempdir().unwrap();
        for name in ["train/cat/0.jpg", "train/dog/0.jpg", "test/cat/1.jpg", "test/dog/1.jpg"] {
            write(two.path(), name);
        }
        let set = open("x", "X", Division::ByNumber, two.path()).unwrap();
        assert_eq!(ids(&set, Part::Train), ["train/cat/0.jpg", "train/dog/0.jpg"]);
        let empty = tempfile::tempdir().unwrap();
        assert_eq!(open("x", "X", Division::Drawn, empty.path()).unwrap().problems().len(), 2);
    }
}
