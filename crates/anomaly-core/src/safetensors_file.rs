//! Named tensors in a file, written whole or not at all.

use std::collections::{BTreeMap, HashMap};
use std::io::Write;
use std::path::Path;

use candle_core::{Device, Tensor};

use crate::Error;

/// Writes `bytes` to `path` so that a reader sees the old file or the new one, never a part: temporary file in the same
/// folder, flushed to the disk, renamed.
///
/// # Errors
/// [`Error::File`] if any of it fails; the old file is then untouched.
pub fn write_atomic(path: &Path, bytes: &[u8]) -> Result<(), Error> {
    let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or_else(|| Path::new("."));
    let write = || -> std::io::Result<()> {
        let mut file = tempfile::Builder::new().prefix(".").suffix(".tmp").tempfile_in(folder)?;
        file.write_all(bytes)?;
        file.as_file().sync_all()?;
        file.persist(path).map_err(|e| e.error)?;
        // The rename itself must reach the disk too; not every file system lets a folder be opened for that.
        if let Ok(folder) = std::fs::File::open(folder) {
            folder.sync_all().ok();
        }
        Ok(())
    };
    write().map_err(|e| Error::file(path, "can't write", e))
}

/// Writes `tensors` in the order of their names, with `metadata` in the header.
pub(crate) fn write(
    path: &Path,
    tensors: &BTreeMap<String, Tensor>,
    metadata: HashMap<String, String>,
) -> Result<(), Error> {
    let views: Vec<(&String, &Tensor)> = tensors.iter().collect();
    let bytes =
        safetensors::serialize(views, Some(metadata)).map_err(|e| Error::file(path, "can't encode", e))?;
    write_atomic(path, &bytes)
}

/// What a file holds: tensors by name, and the header's metadata.
type Content = (BTreeMap<String, Tensor>, HashMap<String, String>);

/// Reads all of `path`, the tensors to `device`.
pub(crate) fn read(path: &Path, device: &Device) -> Result<Content, Error> {
    let bytes = std::fs::read(path).map_err(|e| Error::file(path, "can't read", e))?;
    let broken = |e: safetensors::SafeTensorError| Error::file(path, "is not a whole safetensors file", e);
    let (_, header) = safetensors::SafeTensors::read_metadata(&bytes).map_err(broken)?;
    let metadata = header.metadata().clone().unwrap_or_default();
    let tensors = candle_core::safetensors::load_buffer(&bytes, device)
        .map_err(|e| Error::file(path, "is not a whole safetensors file", e))?;
    Ok((tensors.into_iter().collect(), metadata))
}
