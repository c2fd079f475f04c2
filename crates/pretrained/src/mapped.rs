//! The bytes of a weight file: memory-mapped, or part of the program.
//!
//! The only module of the crate with `unsafe` code.
#![allow(unsafe_code)]

use crate::Error;
use std::fs::File;
use std::ops::Deref;
use std::path::Path;

/// Read-only bytes that nothing has to copy before a tensor is asked for.
pub(crate) enum Bytes {
    Mapped(memmap2::Mmap),
    Static(&'static [u8]),
}

impl Bytes {
    /// Maps the file at `path`.
    ///
    /// # Errors
    /// [`Error::Read`] where the file cannot be opened or mapped.
    pub(crate) fn map(path: &Path) -> Result<Self, Error> {
        let unreadable = |source| Error::Read { path: path.to_owned(), source };
        let file = File::open(path).map_err(unreadable)?;
        if file.metadata().map_err(unreadable)?.len() == 0 {
            // Mapping nothing is an error on some systems; the parsers say what is wrong with an empty file.
            return Ok(Self::Static(&[]));
        }
        // SAFETY: a mapping is sound as long as nobody shortens or rewrites the file under it. The hub cache and
        // this workspace only ever put weight files in place by rename and never write to one that exists; for
        // a file of the user's, changing it while a program reads it is documented as forbidden in `Source`.
        let map = unsafe { memmap2::Mmap::map(&file) }.map_err(unreadable)?;
        Ok(Self::Mapped(map))
    }
}

impl Deref for Bytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Self::Mapped(map) => map,
            Self::Static(bytes) => bytes,
        }
    }
}

impl std::fmt::Debug for Bytes {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Not the bytes themselves: there may be gigabytes.
        write!(out, "{} bytes", self.len())
    }
}
