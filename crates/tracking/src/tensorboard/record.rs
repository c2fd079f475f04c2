//! The framing of `TFRecord` files: length, its checksum, the bytes, their checksum (TensorFlow's documentation,
//! "`TFRecord` and tf.train.Example").

use crc::{CRC_32_ISCSI, Crc};

/// CRC-32C.
const CRC: Crc<u32> = Crc::<u32>::new(&CRC_32_ISCSI);

/// Appends `record` to `file`, framed.
pub(crate) fn push(file: &mut Vec<u8>, record: &[u8]) {
    let length = (record.len() as u64).to_le_bytes();
    file.extend(length);
    file.extend(masked(&length).to_le_bytes());
    file.extend(record);
    file.extend(masked(record).to_le_bytes());
}

/// A checksum that may itself be checksummed: turned by 15 bits, plus a constant.
fn masked(bytes: &[u8]) -> u32 {
    CRC.checksum(bytes).rotate_right(15).wrapping_add(0xa282_ead8)
}

#[cfg(test)]
pub(crate) mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;

    use super::{CRC, masked, push};

    /// Takes a file apart, checking both sums of every record.
    pub(crate) fn records(mut file: &[u8]) -> Vec<Vec<u8>> {
        let mut found = Vec::new();
        while !file.is_empty() {
            let length = u64::from_le_bytes(file[..8].try_into().unwrap()) as usize;
            let sum = |at: usize| u32::from_le_bytes(file[at..at + 4].try_into().unwrap());
            assert_eq!(sum(8), masked(&file[..8]));
            let record = &file[12..12 + length];
            assert_eq!(sum(12 + length), masked(record));
            found.push(record.to_vec());
            file = &file[16 + length..];
        }
        found
    }

    /// The check values of RFC 3720, appendix B.4.
    #[test]
    fn the_checksum_is_crc32c() {
        assert_eq!(CRC.checksum(&[0; 32]), 0x8a91_36aa);
        assert_eq!(CRC.checksum(&[0xff; 32]), 0x62a8_ab43);
        let rising: Vec<u8> = (0..32).collect();
        assert_eq!(CRC.checksum(&rising), 0x46dd_794e);
    }

    proptest! {
        #[test]
        fn records_come_back(list in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..64), 0..8)) {
            let mut file = Vec::new();
            for record in &list {
                push(&mut file, record);
            }
            prop_assert_eq!(records(&file), list);
        }
    }
}
