//! Which files of a folder are the weights.

use crate::Error;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// The files that together are one set of weights.
#[derive(Debug, Default, Clone)]
pub(crate) struct WeightFiles {
    /// In the order in which they are hashed.
    pub(crate) weights: Vec<PathBuf>,
    /// The shards' index, where there is one.
    pub(crate) index: Option<PathBuf>,
    pub(crate) config: Option<PathBuf>,
}

pub(crate) const SINGLE: &str = "model.safetensors";
pub(crate) const INDEX: &str = "model.safetensors.index.json";
pub(crate) const TORCH: &str = "pytorch_model.bin";
pub(crate) const CONFIG: &str = "config.json";
const LOOKED_FOR: &str = "model.safetensors, model.safetensors.index.json, pytorch_model.bin, \
                          or one file ending in .safetensors, .gguf, .pth, .pt or .bin";

/// Finds the weights in `folder`: the hub's usual names first, else the only file of a known kind.
///
/// # Errors
/// [`Error::NoWeights`], [`Error::Ambiguous`], [`Error::Read`], or a bad index.
pub(crate) fn find(folder: &Path) -> Result<WeightFiles, Error> {
    let unreadable = |source| Error::Read { path: folder.to_owned(), source };
    let mut names = BTreeSet::new();
    for entry in std::fs::read_dir(folder).map_err(unreadable)? {
        names.insert(entry.map_err(unreadable)?.file_name().to_string_lossy().into_owned());
    }
    let config = names.contains(CONFIG).then(|| folder.join(CONFIG));
    if names.contains(SINGLE) {
        return Ok(WeightFiles { weights: vec![folder.join(SINGLE)], index: None, config });
    }
    if names.contains(INDEX) {
        let index = folder.join(INDEX);
        let weights = shards(&index)?.into_iter().map(|shard| folder.join(shard)).collect();
        return Ok(WeightFiles { weights, index: Some(index), config });
    }
    if names.contains(TORCH) {
        return Ok(WeightFiles { weights: vec![folder.join(TORCH)], index: None, config });
    }
    for kinds in [&["safetensors"][..], &["gguf"], &["pth", "pt", "bin"]] {
        let of_kind = |name: &&String| {
            Path::new(name.as_str()).extension().is_some_and(|kind| kinds.iter().any(|known| kind == *known))
        };
        let found: Vec<String> = names.iter().filter(of_kind).cloned().collect();
        match found.as_slice() {
            [] => {}
            [only] => return Ok(WeightFiles { weights: vec![folder.join(only)], index: None, config }),
            _ => return Err(Error::Ambiguous { path: folder.to_owned(), candidates: found }),
        }
    }
    Err(Error::NoWeights { path: folder.to_owned(), looked_for: LOOKED_FOR })
}

/// Which shard holds each tensor, from a `model.safetensors.index.json`.
///
/// # Errors
/// [`Error::Read`], or [`Error::Malformed`] where the file is no such index or a shard's name leaves its folder.
pub(crate) fn weight_map(index: &Path) -> Result<BTreeMap<String, String>, Error> {
    let malformed = |reason: String| Error::Malformed {
        origin: index.display().to_string(),
        format: "safetensors index",
        reason,
    };
    let json = json(index)?;
    let Some(Value::Object(entries)) = json.get("weight_map") else {
        return Err(malformed("expected an object with the field weight_map".into()));
    };
    let mut map = BTreeMap::new();
    for (tensor, shard) in entries {
        let shard =
            shard.as_str().ok_or_else(|| malformed(format!("weight_map.{tensor} is no file name")))?;
        // A name with a folder in it could point anywhere on the disk.
        if Path::new(shard).file_name().is_none_or(|name| name != shard) || shard.contains(['/', '\\']) {
            return Err(malformed(format!(
                "weight_map.{tensor} must name a file of the same folder, found {shard}"
            )));
        }
        map.insert(tensor.clone(), shard.to_owned());
    }
    Ok(map)
}

/// The shards an index names, sorted.
///
/// # Errors
/// As [`weight_map`].
pub(crate) fn shards(index: &Path) -> Result<BTreeSet<String>, Error> {
    Ok(weight_map(index)?.into_values().collect())
}

/// A JSON file.
///
/// # Errors
/// [`Error::Read`] or [`Error::Malformed`].
pub(crate) fn json(path: &Path) -> Result<Value, Error> {
    let bytes = std::fs::read(path).map_err(|source| Error::Read { path: path.to_owned(), source })?;
    serde_json::from_slice(&bytes).map_err(|error| Error::Malformed {
        origin: path.display().to_string(),
        format: "JSON",
        reason: error.to_string(),
    })
}
