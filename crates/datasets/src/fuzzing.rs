//! The parsers of this crate on arbitrary bytes, for the fuzz targets. No part of the crate's interface.

use std::path::Path;

use crate::idx::Idx;
use crate::table::Table;
use crate::{cifar, dior, mat, mvtec, stl10};

/// idx files, plain and gzipped.
pub fn idx(bytes: &[u8]) {
    for rank in 0..4 {
        let _ = Idx::parse(Path::new("input"), bytes, rank);
    }
}

/// CIFAR's records.
pub fn cifar(bytes: &[u8]) {
    cifar::parse(bytes);
}

/// STL-10's pairs of files: the first byte says how many labels follow.
pub fn stl10(bytes: &[u8]) {
    let Some((&count, rest)) = bytes.split_first() else { return };
    let (labels, images) = rest.split_at(usize::from(count).min(rest.len()));
    let _ = stl10::parse(images, labels);
}

/// MATLAB files.
pub fn mat(bytes: &[u8]) {
    let _ = mat::parse(bytes);
}

/// CSV lists.
pub fn csv(bytes: &[u8]) {
    if let Ok(table) = Table::parse(bytes, &["path", "label"], &["mask", "split", "category"]) {
        for row in table.rows() {
            let below = row.path_below("path", Path::new("root"));
            assert!(below.is_none_or(|path| path.starts_with("root")), "a path leaves its root");
        }
    }
}

/// Annotations in Pascal VOC's form.
pub fn voc(bytes: &[u8]) {
    if let Ok(text) = std::str::from_utf8(bytes) {
        let _ = dior::parse(text);
    }
}

/// Tables of saturation thresholds.
pub fn saturations(bytes: &[u8]) {
    let _ = mvtec::parse_saturations(bytes);
}
