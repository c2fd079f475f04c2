//! A `PyTorch` checkpoint (`.pth`, `.pt`, `.bin`): a zip archive with a pickle inside, read by candle without running
//! anything in it.

use crate::Error;
use crate::mapped::Bytes;
use crate::parsing::guarded;
use candle_core::Tensor;
use candle_core::pickle::PthTensors;
use std::collections::BTreeMap;
use std::path::Path;

pub(crate) struct PickleFile {
    bytes: Bytes,
    tensors: PthTensors,
}

const FORMAT: &str = "PyTorch checkpoint";
/// Where training scripts put the weights beside the optimiser's state, in the order they are tried.
const NESTED: [&str; 3] = ["state_dict", "model", "teacher"];

impl PickleFile {
    pub(crate) fn recognises(bytes: &[u8]) -> bool {
        bytes.starts_with(b"PK")
    }

    pub(crate) fn open(path: &Path, bytes: Bytes, key: Option<&str>) -> Result<Self, Error> {
        let origin = path.display().to_string();
        let read = |key| guarded(&origin, FORMAT, || PthTensors::new(path, key));
        if let Some(key) = key {
            return Self::non_empty(&origin, read(Some(key))?, bytes, key);
        }
        let tensors = read(None)?;
        if !tensors.tensor_infos().is_empty() {
            return Ok(Self { bytes, tensors });
        }
        // An entry that is absent is no error here: the next one may be there.
        let nested = NESTED.iter().filter_map(|key| read(Some(key)).ok());
        let found = nested.into_iter().find(|tensors| !tensors.tensor_infos().is_empty());
        let tensors = found.ok_or_else(|| Error::Malformed {
            origin: origin.clone(),
            format: FORMAT,
            reason: format!(
                "no tensors at the top or under {}; name the entry that holds them",
                NESTED.join(", ")
            ),
        })?;
        Ok(Self { bytes, tensors })
    }

    fn non_empty(origin: &str, tensors: PthTensors, bytes: Bytes, key: &str) -> Result<Self, Error> {
        if tensors.tensor_infos().is_empty() {
            let reason = format!("the entry {key} holds no tensors");
            return Err(Error::Malformed { origin: origin.to_owned(), format: FORMAT, reason });
        }
        Ok(Self { bytes, tensors })
    }

    pub(crate) fn shapes(&self) -> BTreeMap<String, Vec<usize>> {
        let infos = self.tensors.tensor_infos().iter();
        infos.map(|(name, info)| (name.clone(), info.layout.dims().to_vec())).collect()
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    pub(crate) fn read(&self, name: &str) -> candle_core::Result<Tensor> {
        let missing = || candle_core::Error::Msg(format!("the checkpoint has no entry {name}"));
        self.tensors.get(name)?.ok_or_else(missing)
    }
}

impl std::fmt::Debug for PickleFile {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("PickleFile")
            .field("tensors", &self.tensors.tensor_infos().len())
            .finish_non_exhaustive()
    }
}
