//! How many images data sets have as published.

use std::collections::BTreeMap;

use crate::dataset::{Dataset, Part};

/// A number of images that was published.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PublishedCount {
    /// The class's key; `None` for all of them together.
    pub class: Option<&'static str>,
    /// Which part.
    pub part: Part,
    /// Those with a defect, or those without; `None` for both together.
    pub defective: Option<bool>,
    /// How many.
    pub images: usize,
}

/// Normal training images, normal test images and defective test images of a category.
type Row = (&'static str, usize, usize, usize);

/// Bergmann et al., "MVTec AD", table 1. Sums: 3629, 467, 1258.
const MVTEC: [Row; 15] = [
    ("bottle", 209, 20, 63),
    ("cable", 224, 58, 92),
    ("capsule", 219, 23, 109),
    ("carpet", 280, 28, 89),
    ("grid", 264, 21, 57),
    ("hazelnut", 391, 40, 70),
    ("leather", 245, 32, 92),
    ("metal_nut", 220, 22, 93),
    ("pill", 267, 26, 141),
    ("screw", 320, 41, 119),
    ("tile", 230, 33, 84),
    ("toothbrush", 60, 12, 30),
    ("transistor", 213, 60, 40),
    ("wood", 247, 19, 60),
    ("zipper", 240, 32, 119),
];

/// Bergmann et al., "Beyond Dents and Scratches", table 1 (logical and structural together). Sums: 1772, 575, 993.
const LOCO: [Row; 5] = [
    ("breakfast_box", 351, 102, 173),
    ("juice_bottle", 335, 94, 236),
    ("pushpins", 372, 138, 172),
    ("screw_bag", 360, 122, 219),
    ("splicing_connectors", 354, 119, 193),
];

/// Zou et al., "SPot-the-Difference", table 1, divided by `1cls.csv`. Sums: 8659, 962, 1200.
const VISA: [Row; 12] = [
    ("candle", 900, 100, 100),
    ("capsules", 542, 60, 100),
    ("cashew", 450, 50, 100),
    ("chewinggum", 453, 50, 100),
    ("fryum", 450, 50, 100),
    ("macaroni1", 900, 100, 100),
    ("macaroni2", 900, 100, 100),
    ("pcb1", 904, 100, 100),
    ("pcb2", 901, 100, 100),
    ("pcb3", 905, 101, 100),
    ("pcb4", 904, 101, 100),
    ("pipe_fryum", 450, 50, 100),
];

/// Jezek et al., "Deep learning-based defect detection of metal parts", table 1. Sums: 888, 176, 282.
const MPDD: [Row; 6] = [
    ("bracket_black", 289, 32, 47),
    ("bracket_brown", 185, 26, 51),
    ("bracket_white", 110, 30, 30),
    ("connector", 128, 30, 14),
    ("metal_plate", 54, 26, 71),
    ("tubes", 122, 32, 69),
];

/// Training and test images of a class.
type Pair = (&'static str, usize, usize);

/// `LeCun` et al.; sums 60 000 and 10 000.
const MNIST: [Pair; 10] = [
    ("0", 5923, 980),
    ("1", 6742, 1135),
    ("2", 5958, 1032),
    ("3", 6131, 1010),
    ("4", 5842, 982),
    ("5", 5421, 892),
    ("6", 5918, 958),
    ("7", 6265, 1028),
    ("8", 5851, 974),
    ("9", 5949, 1009),
];

/// The archive's folders; sums 14 034 and 3000.
const SCENES: [Pair; 6] = [
    ("buildings", 2191, 437),
    ("forest", 2271, 474),
    ("glacier", 2404, 553),
    ("mountain", 2512, 525),
    ("sea", 2274, 510),
    ("street", 2382, 501),
];

/// Keys of classes that are numbered.
const NUMBERS: [&str; 100] = {
    // The decimal numbers below 100, one after the other.
    const DIGITS: &str = "0123456789\
        1011121314151617181920212223242526272829303132333435363738394041424344454647484950515253545556575859\
        60616263646566676869707172737475767778798081828384858687888990919293949596979899";
    let mut numbers = [""; 100];
    let (mut number, mut rest) = (0, DIGITS);
    while number < 100 {
        let (own, left) = rest.split_at(if number < 10 { 1 } else { 2 });
        numbers[number] = own;
        rest = left;
        number += 1;
    }
    numbers
};

/// The numbers of images that were published for the data set registered as `name`; empty where none are known.
pub fn published_counts(name: &str) -> Vec<PublishedCount> {
    let even = |classes: usize, train: usize, test: usize| {
        pairs(NUMBERS[..classes].iter().map(|&class| (class, train, test)))
    };
    match name {
        "btad" => vec![
            total(Part::Train, Some(false), 1799),
            total(Part::Test, Some(false), 451),
            total(Part::Test, Some(true), 290),
        ],
        "cats-vs-dogs" => pairs([("cat", 10_000, 2500), ("dog", 10_000, 2500)]),
        "cifar10" => even(10, 5000, 1000),
        "cifar100" => even(20, 2500, 500),
        "cifar100-fine" => even(100, 500, 100),
        "fashion-mnist" => even(10, 6000, 1000),
        "fashion-mnist-sample" => even(10, 200, 100),
        "fgvc-aircraft" => vec![
            total(Part::Train, None, 3334),
            total(Part::Validation, None, 3333),
            total(Part::Test, None, 3333),
        ],
        "mnist" => pairs(MNIST),
        "mpdd" => rows(&MPDD),
        "mvtec" => rows(&MVTEC),
        "mvtec-loco" | "mvtec-loco-first-mask" => {
            let mut counts = rows(&LOCO);
            counts.push(total(Part::Validation, None, 304));
            counts
        }
        "stanford-cars" => vec![total(Part::Train, None, 8144), total(Part::Test, None, 8041)],
        "stl10" => even(10, 500, 800),
        "view" => pairs(SCENES),
        "visa" => rows(&VISA),
        _ => Vec::new(),
    }
}

fn total(part: Part, defective: Option<bool>, images: usize) -> PublishedCount {
    PublishedCount { class: None, part, defective, images }
}

fn pairs(pairs: impl IntoIterator<Item = Pair>) -> Vec<PublishedCount> {
    let of = |(class, train, test)| {
        [(Part::Train, train), (Part::Test, test)].map(|(part, images)| PublishedCount {
            class: Some(class),
            part,
            defective: None,
            images,
        })
    };
    pairs.into_iter().flat_map(of).collect()
}

fn rows(rows: &[Row]) -> Vec<PublishedCount> {
    let of = |&(class, train, good, bad): &Row| {
        [(Part::Train, false, train), (Part::Test, false, good), (Part::Test, true, bad)].map(
            |(part, defective, images)| PublishedCount {
                class: Some(class),
                part,
                defective: Some(defective),
                images,
            },
        )
    };
    rows.iter().flat_map(of).collect()
}

/// Of each published number that differs: what it is of, what was published, and what there is. Classes that the copy
/// lacks altogether are passed over: one category of an industrial data set is often all that is wanted.
pub(crate) fn deviations(dataset: &dyn Dataset) -> Vec<(String, usize, usize)> {
    let mut there: BTreeMap<(Option<&str>, Part, Option<bool>), usize> = BTreeMap::new();
    for item in dataset.items() {
        let key = dataset.classes()[item.class].key.as_str();
        for class in [None, Some(key)] {
            for defective in [None, Some(item.defect.is_some())] {
                *there.entry((class, item.part, defective)).or_default() += 1;
            }
        }
    }
    let known = |key: &str| dataset.classes().iter().any(|class| class.key == key);
    let mut found = Vec::new();
    for count in published_counts(&dataset.card().name) {
        let have = there.get(&(count.class, count.part, count.defective)).copied().unwrap_or(0);
        if have == count.images || count.class.is_some_and(|class| !known(class)) {
            continue;
        }
        let kind = match count.defective {
            Some(true) => "defective ",
            Some(false) => "normal ",
            None => "",
        };
        let of = count.class.map(|class| format!(" of `{class}`")).unwrap_or_default();
        found.push((format!("{kind}{} images{of}", count.part.name()), count.images, have));
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sum(name: &str, part: Part, defective: Option<bool>) -> usize {
        let counts = published_counts(name);
        let own = counts.iter().filter(|count| count.part == part && count.defective == defective);
        own.map(|count| count.images).sum()
    }

    #[test]
    fn rows_add_up_to_the_published_totals() {
        for (name, train, good, bad) in [
            ("mvtec", 3629, 467, 1258),
            ("mvtec-loco", 1772, 575, 993),
            ("visa", 8659, 962, 1200),
            ("mpdd", 888, 176, 282),
        ] {
            assert_eq!(sum(name, Part::Train, Some(false)), train, "{name}");
            assert_eq!(sum(name, Part::Test, Some(false)), good, "{name}");
            assert_eq!(sum(name, Part::Test, Some(true)), bad, "{name}");
        }
        assert_eq!(sum("mvtec-loco", Part::Validation, None) + 1772 + 575 + 993, 3644);
        for (name, train, test) in [
            ("mnist", 60_000, 10_000),
            ("fashion-mnist", 60_000, 10_000),
            ("cifar10", 50_000, 10_000),
            ("cifar100", 50_000, 10_000),
            ("cifar100-fine", 50_000, 10_000),
            ("stl10", 5000, 8000),
            ("view", 14_034, 3000),
            ("stanford-cars", 8144, 8041),
        ] {
            assert_eq!((sum(name, Part::Train, None), sum(name, Part::Test, None)), (train, test), "{name}");
        }
    }

    #[test]
    fn numbered_keys_are_the_numbers() {
        for (number, key) in NUMBERS.iter().enumerate() {
            assert_eq!(*key, number.to_string());
        }
    }
}
