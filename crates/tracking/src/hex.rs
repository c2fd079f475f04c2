//! Digests as text.

use std::fmt::Write;

use sha2::{Digest, Sha256};

/// The first `digits` hexadecimal digits of the SHA-256 of `text`, at most 64.
pub(crate) fn digest(text: &str, digits: usize) -> String {
    let mut hex = String::new();
    for byte in Sha256::digest(text.as_bytes()) {
        // Writing to a string can't fail.
        let _ = write!(hex, "{byte:02x}");
    }
    hex.truncate(digits);
    hex
}
