//! Named tensors in a file, written whole or not at all.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use candle_core::{Device, Tensor};

use crate::Error;
use crate::atomic_write::write_atomic;

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
