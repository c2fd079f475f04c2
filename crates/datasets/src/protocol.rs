//! Who is normal, and how many normal images there are to learn from.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::Error;
use crate::dataset::Part;
use crate::error::nearest;

/// Who is normal, in terms of the category that a figure is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Protocol {
    /// The category is normal, every other class anomalous; the test part is the test set.
    Unimodal,
    /// The category is anomalous, every other class normal; the test part is the test set.
    Multimodal,
    /// As [`Protocol::Multimodal`], but the category's training images are tested on too: first the normal images of the
    /// test part, then the anomalous ones of the training part, then those of the test part (the transformer GAN's
    /// "abnormal class"). Nothing leaks: no fit sees an anomalous image.
    OneClassAbnormal,
    /// Only the category's own images; those with a defect are anomalous.
    ClassSeparated,
    /// One model for all categories: the normal training images of all of them, tested on the category's own. The
    /// category [`ALL`] tests on those of all, pooled.
    MultiClass,
}

/// The category that stands for all of them in [`Protocol::MultiClass`].
pub const ALL: &str = "all";

impl Protocol {
    /// All of them.
    pub const EVERY: [Self; 5] =
        [Self::Unimodal, Self::Multimodal, Self::OneClassAbnormal, Self::ClassSeparated, Self::MultiClass];

    /// Its name in profiles and records.
    pub fn name(self) -> &'static str {
        match self {
            Self::Unimodal => "unimodal",
            Self::Multimodal => "multimodal",
            Self::OneClassAbnormal => "one-class-abnormal",
            Self::ClassSeparated => "class-separated",
            Self::MultiClass => "multi-class",
        }
    }

    /// Whether it is for data sets whose images have defects, not for those that are told apart by their classes.
    pub fn needs_defects(self) -> bool {
        matches!(self, Self::ClassSeparated | Self::MultiClass)
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A few normal images to learn from, for each normal class.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Shots {
    /// How many.
    pub count: usize,
    /// Which.
    #[serde(default)]
    pub draw: ShotDraw,
}

/// Which normal images are the few.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ShotDraw {
    /// Drawn with the seed, without replacement.
    #[default]
    Drawn,
    /// Those at the positions `seed` to `seed + count - 1` of the sorted list: GeneralAD's rule, whose published seeds 0,
    /// 10, 20, 30 and 40 thus never overlap for up to ten shots.
    Consecutive,
}

/// A [`Protocol`] and, maybe, a few shots, as profiles write it: `class-separated`, `class-separated-4-shot`,
/// `class-separated-4-shot-consecutive`.
///
/// ```
/// use datasets::{Protocol, ShotDraw, Shots, Task};
///
/// let task: Task = "class-separated-4-shot".parse()?;
/// assert_eq!(task.protocol, Protocol::ClassSeparated);
/// assert_eq!(task.shots, Some(Shots { count: 4, draw: ShotDraw::Drawn }));
/// assert_eq!(task.to_string(), "class-separated-4-shot");
/// # Ok::<(), datasets::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Task {
    /// Who is normal.
    pub protocol: Protocol,
    /// How few normal images there are; all if `None`.
    pub shots: Option<Shots>,
}

impl From<Protocol> for Task {
    fn from(protocol: Protocol) -> Self {
        Self { protocol, shots: None }
    }
}

impl fmt::Display for Shots {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let draw = match self.draw {
            ShotDraw::Drawn => "",
            ShotDraw::Consecutive => "-consecutive",
        };
        write!(f, "{}-shot{draw}", self.count)
    }
}

impl fmt::Display for Task {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.shots {
            Some(shots) => write!(f, "{}-{shots}", self.protocol),
            None => self.protocol.fmt(f),
        }
    }
}

impl FromStr for Task {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let unknown = || {
            let names = || Protocol::EVERY.into_iter().map(Protocol::name);
            Error::UnknownProtocol {
                name: text.to_owned(),
                nearest: nearest(text, names()),
                known: names().collect::<Vec<_>>().join(", "),
            }
        };
        let (text, draw) = match text.strip_suffix("-consecutive") {
            Some(text) => (text, ShotDraw::Consecutive),
            None => (text, ShotDraw::Drawn),
        };
        let (name, shots) = match text.strip_suffix("-shot").and_then(|text| text.rsplit_once('-')) {
            Some((name, count)) => {
                let count = count.parse().ok().filter(|&count| count > 0).ok_or_else(unknown)?;
                (name, Some(Shots { count, draw }))
            }
            None if draw == ShotDraw::Drawn => (text, None),
            None => return Err(unknown()),
        };
        let protocol = Protocol::EVERY.into_iter().find(|known| known.name() == name).ok_or_else(unknown)?;
        Ok(Self { protocol, shots })
    }
}

/// What a protocol makes of two label lists.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Selected {
    /// Positions in the training labels of the images to learn from, ascending.
    pub train: Vec<usize>,
    /// Positions in the test labels of the normal images, ascending: what references that validate, validate on. An
    /// oracle, since they are part of the test set.
    pub validation: Vec<usize>,
    /// Positions in the test labels of the anomalous images, ascending.
    pub anomalous: Vec<usize>,
}

/// Class `class` is normal, every other anomalous; the whole test split is the test set.
///
/// ```
/// let chosen = datasets::unimodal(&[2, 0, 2], &[1, 2], 2);
/// assert_eq!((chosen.train, chosen.validation, chosen.anomalous), (vec![0, 2], vec![1], vec![0]));
/// ```
pub fn unimodal(train_labels: &[usize], test_labels: &[usize], class: usize) -> Selected {
    select(train_labels, test_labels, |label| label == class)
}

/// Class `class` is anomalous, every other normal; the whole test split is the test set.
pub fn multimodal(train_labels: &[usize], test_labels: &[usize], class: usize) -> Selected {
    select(train_labels, test_labels, |label| label != class)
}

/// What the transformer GAN's protocol makes of two label lists.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AbnormalClass {
    /// Positions in the training labels of the images to learn from, ascending.
    pub train: Vec<usize>,
    /// The test images in their order: the part they are of, and their position in its labels.
    pub test: Vec<(Part, usize)>,
    /// How many test images are normal; these come first.
    pub normal: usize,
}

/// Class `class` is anomalous, every other normal, as in [`Protocol::OneClassAbnormal`].
///
/// ```
/// use datasets::Part::{Test, Train};
///
/// let chosen = datasets::one_class_abnormal(&[2, 0, 2], &[1, 2], 2);
/// assert_eq!((chosen.train, chosen.normal), (vec![1], 1));
/// assert_eq!(chosen.test, [(Test, 0), (Train, 0), (Train, 2), (Test, 1)]);
/// ```
pub fn one_class_abnormal(train_labels: &[usize], test_labels: &[usize], class: usize) -> AbnormalClass {
    let Selected { train, validation, anomalous } = multimodal(train_labels, test_labels, class);
    let normal = validation.len();
    let abnormal = train_labels.iter().enumerate().filter(|&(_, &label)| label == class);
    let abnormal = abnormal.map(|(at, _)| (Part::Train, at));
    let of_test = |list: Vec<usize>| list.into_iter().map(|at| (Part::Test, at));
    let test = of_test(validation).chain(abnormal).chain(of_test(anomalous)).collect();
    AbnormalClass { train, test, normal }
}

fn select(train_labels: &[usize], test_labels: &[usize], normal: impl Fn(usize) -> bool) -> Selected {
    let positions = |labels: &[usize], wanted: bool| {
        labels.iter().enumerate().filter(|&(_, &label)| normal(label) == wanted).map(|(at, _)| at).collect()
    };
    Selected {
        train: positions(train_labels, true),
        validation: positions(test_labels, true),
        anomalous: positions(test_labels, false),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn names_are_the_ones_that_are_read_and_written() {
        for protocol in Protocol::EVERY {
            let written = serde_json::to_value(protocol).unwrap();
            assert_eq!(written, protocol.to_string());
            assert_eq!(serde_json::from_value::<Protocol>(written).unwrap(), protocol);
            for shots in [
                None,
                Some(Shots { count: 1, draw: ShotDraw::Drawn }),
                Some(Shots { count: 16, draw: ShotDraw::Consecutive }),
            ] {
                let task = Task { protocol, shots };
                assert_eq!(task.to_string().parse::<Task>().unwrap(), task);
            }
        }
    }

    #[test]
    fn names_that_mean_nothing_are_refused_with_the_nearest() {
        for name in ["unimodel", "unimodal-consecutive", "unimodal-0-shot", "unimodal-x-shot", "-4-shot", ""]
        {
            let message = name.parse::<Task>().unwrap_err().to_string();
            assert!(message.contains("multi-class"), "{message}");
        }
        let message = "unimodel".parse::<Task>().unwrap_err().to_string();
        assert!(message.contains("did you mean `unimodal`?"), "{message}");
    }

    proptest! {
        #[test]
        fn arbitrary_names_never_panic(name in "[a-z0-9-]{0,40}") {
            if let Ok(task) = name.parse::<Task>() {
                prop_assert_eq!(task.to_string().parse::<Task>().unwrap(), task);
            }
        }

        #[test]
        fn every_test_image_is_on_one_side_and_the_protocols_are_opposites(
            train in prop::collection::vec(0usize..4, 0..30),
            test in prop::collection::vec(0usize..4, 0..30),
            class in 0usize..4,
        ) {
            let one = unimodal(&train, &test, class);
            let rest = multimodal(&train, &test, class);
            prop_assert_eq!(&one.validation, &rest.anomalous);
            prop_assert_eq!(&one.anomalous, &rest.validation);
            prop_assert_eq!(one.train.len() + rest.train.len(), train.len());
            prop_assert_eq!(one.validation.len() + one.anomalous.len(), test.len());
            prop_assert!(one.train.iter().all(|&i| train[i] == class));
            prop_assert!(one.train.is_sorted() && one.anomalous.is_sorted());
        }
    }
}
