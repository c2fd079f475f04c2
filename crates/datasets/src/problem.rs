//! What can be wrong with a data set, as a list of findings.

use std::fmt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::error::nearest;

/// One finding of a check.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Problem {
    /// What kind it is of.
    pub kind: ProblemKind,
    /// The file or folder, or an item's id where items are not files.
    pub path: PathBuf,
    /// What was expected and what was found.
    pub message: String,
    /// The id of the item that can't be used because of it: what accepting the problem leaves out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unusable: Option<String>,
}

/// The kinds of findings.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum ProblemKind {
    /// A folder or file of the layout is missing, or holds something else.
    Layout,
    /// A folder has a name that means nothing in the layout, or nearly the right one.
    FolderName,
    /// A class without images.
    EmptyClass,
    /// A file that cannot be decoded as an image, one of no bytes among them.
    Unreadable,
    /// An anomalous image without its mask.
    MissingMask,
    /// A mask of another size than its image.
    MaskSize,
    /// A mask without its image.
    UnpairedMask,
    /// The same pixels in the training and in the test part.
    TrainTestDuplicate,
    /// The same pixels in both parts of a data set that has as many images as were published: its publisher's doing.
    PublishedDuplicate,
    /// A mask that marks nothing, on an anomalous image.
    EmptyMask,
    /// A mask value that the saturation table does not know.
    MaskValue,
    /// Images of several sizes in one class.
    MixedSizes,
    /// Images of different numbers of channels in one class.
    MixedChannels,
    /// Other numbers of images than were published.
    Counts,
}

impl ProblemKind {
    /// Whether a run must not start on data with this problem unless it was accepted. The others are only told: most
    /// data sets have some.
    pub fn is_fault(self) -> bool {
        !matches!(
            self,
            Self::PublishedDuplicate
                | Self::EmptyMask
                | Self::MixedSizes
                | Self::MixedChannels
                | Self::Counts
        )
    }

    /// Its name in reports.
    pub fn name(self) -> &'static str {
        match self {
            Self::Layout => "layout",
            Self::FolderName => "folder-name",
            Self::EmptyClass => "empty-class",
            Self::Unreadable => "unreadable",
            Self::MissingMask => "missing-mask",
            Self::MaskSize => "mask-size",
            Self::UnpairedMask => "unpaired-mask",
            Self::TrainTestDuplicate => "train-test-duplicate",
            Self::PublishedDuplicate => "published-duplicate",
            Self::EmptyMask => "empty-mask",
            Self::MaskValue => "mask-value",
            Self::MixedSizes => "mixed-sizes",
            Self::MixedChannels => "mixed-channels",
            Self::Counts => "counts",
        }
    }
}

impl Problem {
    pub(crate) fn new(kind: ProblemKind, path: impl Into<PathBuf>, message: impl Into<String>) -> Self {
        Self { kind, path: path.into(), message: message.into(), unusable: None }
    }

    /// The same, saying that the item `id` can't be used.
    pub(crate) fn without(mut self, id: &str) -> Self {
        self.unusable = Some(id.to_owned());
        self
    }

    /// A folder that should have one of the names `valid`.
    pub(crate) fn folder_name(path: &Path, valid: &[&str]) -> Self {
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        let expected = valid.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ");
        let hint = nearest(&name.to_lowercase(), valid.iter().copied());
        let hint = hint.map(|name| format!(", did you mean `{name}`?")).unwrap_or_default();
        Self::new(
            ProblemKind::FolderName,
            path,
            format!("expected a folder called {expected}, found `{name}`{hint}"),
        )
    }

    /// Whether a run must not start because of it, unless it was accepted.
    pub fn is_fault(&self) -> bool {
        self.kind.is_fault()
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.path.display(), self.message)
    }
}

/// Whether `name` looks like one of `valid` mistyped: another case, or at most two letters off.
pub(crate) fn looks_like<'v>(name: &str, valid: &[&'v str]) -> Option<&'v str> {
    let lower = name.to_lowercase();
    valid
        .iter()
        .map(|v| (strsim::damerau_levenshtein(v, &lower), *v))
        .min()
        .filter(|(distance, v)| *distance <= 2 && *distance * 2 < v.len() && *v != name)
        .map(|(_, v)| v)
}

/// All of them, a line each, for comparisons.
#[cfg(test)]
pub(crate) fn told(problems: &[Problem]) -> String {
    problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mistyped_names_are_told_from_other_names() {
        let valid = ["train", "test", "ground_truth"];
        assert_eq!(looks_like("Train", &valid), Some("train"));
        assert_eq!(looks_like("ground_thruth", &valid), Some("ground_truth"));
        assert_eq!(looks_like("tset", &valid), Some("test"));
        assert_eq!(looks_like("train", &valid), None);
        assert_eq!(looks_like("notes", &valid), None);
    }

    #[test]
    fn a_folder_name_is_told_with_the_nearest_valid_one() {
        let problem = Problem::folder_name(Path::new("data/nut/train/Goood"), &["good", "ok"]);
        assert_eq!(
            problem.to_string(),
            "data/nut/train/Goood: expected a folder called `good`, `ok`, found `Goood`, did you mean `good`?"
        );
        assert!(problem.is_fault());
        assert!(!ProblemKind::MixedSizes.is_fault());
    }
}
