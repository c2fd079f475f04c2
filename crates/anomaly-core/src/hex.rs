//! Digests as text.

use std::fmt::Write;

/// Bytes, of a digest for instance, in lower-case hexadecimal digits.
///
/// ```
/// assert_eq!(anomaly_core::hex(&[0, 171]), "00ab");
/// ```
pub fn hex(digest: &[u8]) -> String {
    digest.iter().fold(String::with_capacity(2 * digest.len()), |mut text, byte| {
        // Writing to a string can't fail.
        write!(text, "{byte:02x}").ok();
        text
    })
}
