//! Texts as short names.

use anomaly_core::hex;
use sha2::{Digest, Sha256};

/// The first `digits` hexadecimal digits of the SHA-256 of `text`, at most 64.
pub(crate) fn digest(text: &str, digits: usize) -> String {
    let mut digest = hex(&Sha256::digest(text.as_bytes()));
    digest.truncate(digits);
    digest
}
