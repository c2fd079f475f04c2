//! Who is normal.

use serde::{Deserialize, Serialize};

/// Who is normal, in terms of the category that a figure is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Protocol {
    /// The category is normal, every other class anomalous.
    Unimodal,
    /// The category is anomalous, every other class normal.
    Multimodal,
    /// Only the category's own images; those with a defect are anomalous.
    ClassSeparated,
}

impl Protocol {
    /// Its name in profiles and records.
    pub fn name(self) -> &'static str {
        match self {
            Self::Unimodal => "unimodal",
            Self::Multimodal => "multimodal",
            Self::ClassSeparated => "class-separated",
        }
    }
}

impl std::fmt::Display for Protocol {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
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
        for protocol in [Protocol::Unimodal, Protocol::Multimodal, Protocol::ClassSeparated] {
            let written = serde_json::to_value(protocol).unwrap();
            assert_eq!(written, protocol.to_string());
            assert_eq!(serde_json::from_value::<Protocol>(written).unwrap(), protocol);
        }
    }

    proptest! {
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
