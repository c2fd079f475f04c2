//! Digests of files.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use md5::Md5;
use sha2::Sha256;

use crate::Error;

/// How a digest is computed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Algorithm {
    /// 16 bytes; finds accidents, not forgers.
    Md5,
    /// 32 bytes.
    Sha256,
}

/// Who says what the digest of a file is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StatedBy {
    /// Its publisher.
    Publisher,
    /// A widely used loader of the same file.
    Loader(&'static str),
}

/// What a file's digest must be, and who says so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Digest {
    /// How it is computed.
    pub algorithm: Algorithm,
    /// In lower-case hexadecimal.
    pub hex: &'static str,
    /// Who says so.
    pub stated_by: StatedBy,
}

impl Algorithm {
    /// Its usual name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Md5 => "MD5",
            Self::Sha256 => "SHA-256",
        }
    }

    /// The digest of a file, in hexadecimal.
    pub(crate) fn of_file(self, path: &Path) -> Result<String, Error> {
        match self {
            Self::Md5 => hash::<Md5>(path),
            Self::Sha256 => hash::<Sha256>(path),
        }
    }
}

impl std::fmt::Display for StatedBy {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Publisher => f.write_str("stated by its publisher"),
            Self::Loader(name) => write!(f, "stated by {name}"),
        }
    }
}

fn hash<H: sha2::Digest>(path: &Path) -> Result<String, Error> {
    let unreadable = |source| Error::Read { path: path.to_owned(), source };
    let mut file = File::open(path).map_err(unreadable)?;
    let mut hasher = H::new();
    let mut buffer = vec![0; 1 << 18];
    loop {
        match file.read(&mut buffer).map_err(unreadable)? {
            0 => break,
            count => hasher.update(&buffer[..count]),
        }
    }
    let nibbles = hasher.finalize();
    Ok(nibbles.iter().flat_map(|b| [b >> 4, b & 15]).filter_map(|n| char::from_digit(n.into(), 16)).collect())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::Algorithm;

    #[test]
    fn digests_are_those_of_the_standards() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("abc");
        std::fs::write(&path, "abc").unwrap();
        assert_eq!(Algorithm::Md5.of_file(&path).unwrap(), "900150983cd24fb0d6963f7d28e17f72");
        let sha = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(Algorithm::Sha256.of_file(&path).unwrap(), sha);
    }
}
