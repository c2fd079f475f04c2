//! Archives, read with suspicion: whatever they say, nothing is written outside their folder.

use std::fs::{self, File};
use std::io::{BufReader, Read, Write};
use std::path::{Component, Path, PathBuf};

use flate2::read::GzDecoder;

use crate::{Error, Packing};

/// Unpacks an archive into `folder`, which is made anew: what an interrupted attempt left there is removed.
///
/// # Errors
/// [`Error::Archive`] for an entry that is no plain file or folder (a link, a device), leaves the folder, comes twice, or
/// takes the whole beyond `most` bytes; for archives that are cut short or damaged; [`Error::Write`] if the disk is full.
pub(crate) fn unpack(archive: &Path, packing: Packing, folder: &Path, most: u64) -> Result<(), Error> {
    if folder.exists() {
        fs::remove_dir_all(folder).map_err(|source| Error::Write { path: folder.to_owned(), source })?;
    }
    let file = File::open(archive).map_err(|source| Error::Read { path: archive.to_owned(), source })?;
    let file = BufReader::new(file);
    let mut target = Target { archive, folder, left: most };
    make(folder)?;
    match packing {
        Packing::None => Ok(()),
        Packing::Tar => target.tar(file),
        Packing::TarGz => target.tar(GzDecoder::new(file)),
        Packing::Zip => target.zip(file),
    }
}

struct Target<'a> {
    archive: &'a Path,
    folder: &'a Path,
    /// Bytes that may still be written.
    left: u64,
}

impl Target<'_> {
    fn tar(&mut self, reader: impl Read) -> Result<(), Error> {
        let mut archive = tar::Archive::new(reader);
        let damaged = |error: &std::io::Error| self.refused("(none)", error.to_string());
        let entries = archive.entries().map_err(|error| damaged(&error))?;
        for entry in entries {
            let mut entry = entry.map_err(|error| self.refused("(unknown)", error.to_string()))?;
            let name = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
            let kind = entry.header().entry_type();
            if kind.is_dir() {
                let path = self.inside(&name)?;
                make(&path)?;
            } else if kind.is_file() || kind.is_contiguous() || kind.is_gnu_sparse() {
                self.file(&name, &mut entry)?;
            } else if !kind.is_pax_global_extensions() {
                return Err(self.refused(&name, format!("expected a file or a folder, found {kind:?}")));
            }
        }
        Ok(())
    }

    fn zip(&mut self, reader: BufReader<File>) -> Result<(), Error> {
        let mut archive =
            zip::ZipArchive::new(reader).map_err(|error| self.refused("(none)", error.to_string()))?;
        for index in 0..archive.len() {
            let mut entry = archive
                .by_index(index)
                .map_err(|error| self.refused(&format!("number {index}"), error.to_string()))?;
            let name = entry.name().map(std::borrow::Cow::into_owned);
            let name = name.map_err(|error| self.refused(&format!("number {index}"), error.to_string()))?;
            if entry.is_symlink() {
                return Err(self.refused(&name, "expected a file or a folder, found a link".into()));
            }
            if entry.is_dir() {
                let path = self.inside(&name)?;
                make(&path)?;
            } else {
                self.file(&name, &mut entry)?;
            }
        }
        Ok(())
    }

    /// Where an entry goes.
    fn inside(&self, name: &str) -> Result<PathBuf, Error> {
        let mut path = self.folder.to_owned();
        // Windows' separators and drives too, whatever this system makes of them.
        if name.contains(['\\', '\0']) || name.contains(':') {
            return Err(self.refused(name, "a path with a character that no data set uses".into()));
        }
        for component in Path::new(name).components() {
            match component {
                Component::Normal(part) => path.push(part),
                Component::CurDir => {}
                _ => return Err(self.refused(name, "leaves the folder it is unpacked into".into())),
            }
        }
        Ok(path)
    }

    fn file(&mut self, name: &str, content: &mut impl Read) -> Result<(), Error> {
        let path = self.inside(name)?;
        if let Some(parent) = path.parent() {
            make(parent)?;
        }
        // A second entry of one name could go through a link or replace what was checked: there is none in data sets.
        let file = File::options().write(true).create_new(true).open(&path);
        let mut file = file.map_err(|source| match source.kind() {
            std::io::ErrorKind::AlreadyExists => self.refused(name, "comes twice".into()),
            _ => Error::Write { path: path.clone(), source },
        })?;
        let mut buffer = vec![0; 1 << 16];
        loop {
            let count = match content.read(&mut buffer) {
                Ok(0) => break,
                Ok(count) => count,
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(self.refused(name, error.to_string())),
            };
            self.left = self.left.checked_sub(count as u64).ok_or_else(|| {
                self.refused(name, "takes the archive beyond the size it may unpack to".into())
            })?;
            file.write_all(&buffer[..count]).map_err(|source| Error::Write { path: path.clone(), source })?;
        }
        Ok(())
    }

    fn refused(&self, entry: &str, reason: String) -> Error {
        Error::Archive { archive: self.archive.to_owned(), entry: entry.to_owned(), reason }
    }
}

fn make(folder: &Path) -> Result<(), Error> {
    fs::create_dir_all(folder).map_err(|source| Error::Write { path: folder.to_owned(), source })
}
