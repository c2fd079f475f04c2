//! Published networks by name.

use std::sync::LazyLock;

/// One published checkpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The name it is loaded by: timm's.
    pub name: &'static str,
    /// Its repository on the Hugging Face hub, `owner/name`.
    pub repo: String,
    /// Licence of the weights: an SPDX identifier.
    pub licence: &'static str,
}

/// torchvision's weights as timm's registry lists them. `tv` are those of torchvision's first recipe, which methods of the
/// field were published with; `tv2` those of its second.
const NAMES: [&str; 9] = [
    "resnet18.tv_in1k",
    "resnet34.tv_in1k",
    "resnet50.tv_in1k",
    "resnet50.tv2_in1k",
    "resnet101.tv_in1k",
    "resnet152.tv_in1k",
    "wide_resnet50_2.tv_in1k",
    "wide_resnet50_2.tv2_in1k",
    "wide_resnet101_2.tv_in1k",
];

/// Every entry.
pub fn entries() -> &'static [Entry] {
    static ENTRIES: LazyLock<Vec<Entry>> = LazyLock::new(|| {
        let entry = |name| Entry { name, repo: format!("timm/{name}"), licence: "BSD-3-Clause" };
        NAMES.into_iter().map(entry).collect()
    });
    &ENTRIES
}

/// The entry of this name; `timm/NAME` finds `NAME`.
pub fn find(name: &str) -> Option<&'static Entry> {
    let bare = name.strip_prefix("timm/").unwrap_or(name);
    entries().iter().find(|entry| entry.name == bare)
}

/// Whether `name` (of a catalogue, a hub id, a directory or a file) is that of a residual network: its last part holds
/// `resnet`.
pub fn is_resnet(name: &str) -> bool {
    let last = name.trim_end_matches(['/', '\\']).rsplit(['/', '\\']).next().unwrap_or(name);
    last.to_lowercase().contains("resnet")
}

/// The names that look most like `name`, nearest first.
pub(crate) fn nearest(name: &str, count: usize) -> Vec<String> {
    let mut all: Vec<(f64, &str)> =
        entries().iter().map(|entry| (strsim::jaro_winkler(name, entry.name), entry.name)).collect();
    all.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(b.1)));
    all.into_iter().take(count).map(|(_, name)| name.to_owned()).collect()
}

#[cfg(test)]
mod tests {
    use super::{entries, find, is_resnet, nearest};

    #[test]
    fn names_are_found_told_apart_and_corrected() {
        assert!(entries().iter().all(|entry| is_resnet(entry.name)));
        assert_eq!(find("timm/wide_resnet50_2.tv_in1k"), find("wide_resnet50_2.tv_in1k"));
        assert!(find("resnet50").is_none());
        assert_eq!(nearest("wide_resnet50.tv_in1k", 1), ["wide_resnet50_2.tv_in1k"]);
        assert!(is_resnet("weights/wide_resnet50_2-95faca4d.pth") && is_resnet("someone/ResNet-50/"));
        assert!(!is_resnet("resnets/vit_base_patch14_dinov2.lvd142m"));
    }
}
