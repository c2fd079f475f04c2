//! The idx format of MNIST and its kin: unsigned bytes with their shape, plain or gzipped.

use std::io::Read;
use std::path::Path;

use flate2::read::GzDecoder;

use crate::Error;

/// More than any such file holds: what a damaged header or a compression bomb may ask for at most.
const MAX_BYTES: u64 = 1 << 30;

/// The content of an idx file of unsigned bytes.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Idx {
    /// Sizes, outermost first.
    pub(crate) shape: Vec<usize>,
    /// The samples, row-major.
    pub(crate) data: Vec<u8>,
}

impl Idx {
    /// Reads `<folder>/<name>` or `<folder>/<name>.gz`.
    pub(crate) fn read(folder: &Path, name: &str, rank: usize) -> Result<Self, Error> {
        let mut path = folder.join(name);
        if !path.is_file() {
            path = folder.join(format!("{name}.gz"));
        }
        let bytes = std::fs::read(&path).map_err(|source| Error::Read { path: path.clone(), source })?;
        Self::parse(&path, &bytes, rank)
    }

    /// Reads the bytes of a file, gzipped or not; `path` is for messages.
    pub(crate) fn parse(path: &Path, bytes: &[u8], rank: usize) -> Result<Self, Error> {
        let mut unpacked = Vec::new();
        let bytes = if bytes.starts_with(&[0x1f, 0x8b]) {
            let mut reader = GzDecoder::new(bytes).take(MAX_BYTES);
            reader
                .read_to_end(&mut unpacked)
                .map_err(|e| Error::content(path, "a gzip stream", e.to_string()))?;
            &unpacked[..]
        } else {
            bytes
        };
        let wrong =
            |found: String| Error::content(path, format!("an idx file of bytes with {rank} axes"), found);
        let magic = bytes.get(..4).ok_or_else(|| wrong(format!("{} bytes", bytes.len())))?;
        if magic[..3] != [0, 0, 8] || usize::from(magic[3]) != rank {
            return Err(wrong(format!("magic bytes {magic:02x?}")));
        }
        let sizes = bytes.get(4..4 + 4 * rank).ok_or_else(|| wrong(format!("{} bytes", bytes.len())))?;
        let shape: Vec<usize> =
            sizes.as_chunks::<4>().0.iter().map(|&size| u32::from_be_bytes(size) as usize).collect();
        let data = &bytes[4 + 4 * rank..];
        let wanted = shape.iter().try_fold(1usize, |n, &side| n.checked_mul(side));
        if wanted != Some(data.len()) {
            return Err(Error::content(
                path,
                format!("the samples of shape {shape:?}"),
                format!("{}", data.len()),
            ));
        }
        Ok(Self { shape, data: data.to_vec() })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::io::Write;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn plain_and_gzipped_files_are_the_same() {
        let plain = [&[0, 0, 8, 1, 0, 0, 0, 3][..], &[7, 8, 9]].concat();
        let mut packer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        packer.write_all(&plain).unwrap();
        let read = Idx::parse(Path::new("x"), &plain, 1).unwrap();
        assert_eq!(read, Idx { shape: vec![3], data: vec![7, 8, 9] });
        assert_eq!(Idx::parse(Path::new("x.gz"), &packer.finish().unwrap(), 1).unwrap(), read);
    }

    #[test]
    fn what_is_cut_or_of_another_kind_is_refused_by_path() {
        let folder = tempfile::tempdir().unwrap();
        let missing = Idx::read(folder.path(), "labels", 1).unwrap_err().to_string();
        assert!(missing.contains("labels.gz"), "{missing}");
        for (bytes, says) in [
            (&[0, 0, 8, 1, 0, 0, 0, 3, 1][..], "shape [3]"),
            (&[0, 0, 9, 1, 0, 0, 0, 0], "magic"),
            (&[0, 0, 8, 3, 0, 0, 0, 0], "magic"),
            (&[0, 0], "2 bytes"),
            (&[0x1f, 0x8b, 0, 0], "gzip"),
        ] {
            let message = Idx::parse(Path::new("some/file"), bytes, 1).unwrap_err().to_string();
            assert!(message.starts_with("some/file") && message.contains(says), "{message}");
        }
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..60), rank in 0usize..4) {
            let _ = Idx::parse(Path::new("x"), &bytes, rank);
            let mut headed = vec![0, 0, 8, rank as u8];
            headed.extend(bytes);
            let _ = Idx::parse(Path::new("x"), &headed, rank);
        }
    }
}
