//! Files as memory. The only module of the crate with `unsafe` code.
#![allow(unsafe_code)]

use std::fs::File;
use std::path::Path;

use memmap2::Mmap;

/// The bytes of the file at `path`; `None` if there is no such file.
pub(super) fn map(path: &Path) -> std::io::Result<Option<Mmap>> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(e),
    };
    // SAFETY: a mapping is sound as long as nobody shortens or rewrites the file under it. The store puts files in place
    // by rename and never writes to one that exists; removing one leaves its bytes to whoever has them mapped. That
    // nothing else may write into the store's folder is said in the documentation of `DiskFeatureStore`.
    let map = unsafe { Mmap::map(&file) }?;
    Ok(Some(map))
}
