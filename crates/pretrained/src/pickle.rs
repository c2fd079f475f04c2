//! A `PyTorch` checkpoint (`.pth`, `.pt`, `.bin`): a zip archive with a pickle inside, read by candle without running
//! anything in it.

use crate::Error;
use crate::mapped::Bytes;
use crate::parsing::{caught, guarded};
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

    /// Opens the checkpoint at `path`; its tensors lie in the entry `key`, or where they are found.
    pub(crate) fn open(path: &Path, bytes: Bytes, key: Option<&str>) -> Result<Self, Error> {
        let origin = path.display().to_string();
        let malformed = |reason| Error::Malformed { origin: origin.clone(), format: FORMAT, reason };
        let read = |key| guarded(&origin, FORMAT, || PthTensors::new(path, key));
        let holds_tensors = |tensors: &PthTensors| !tensors.tensor_infos().is_empty();
        let tensors = if let Some(key) = key {
            Some(read(Some(key))?)
                .filter(holds_tensors)
                .ok_or_else(|| malformed(format!("{key} holds no tensors")))?
        } else {
            let top = read(None)?;
            // An entry that is absent is no error here: the next one may be there.
            let nested = || NESTED.iter().filter_map(|key| read(Some(key)).ok()).find(holds_tensors);
            let found = if holds_tensors(&top) { Some(top) } else { nested() };
            found.ok_or_else(|| {
                let tried = NESTED.join(", ");
                malformed(format!("no tensors at the top or under {tried}; name the entry that holds them"))
            })?
        };
        // candle reserves what a shape asks for before it looks at the data, so a damaged shape could ask for
        // more memory than there is. PyTorch stores the data uncompressed: none is larger than the file.
        for (name, info) in tensors.tensor_infos() {
            let elements =
                info.layout.dims().iter().try_fold(1_usize, |product, &size| product.checked_mul(size));
            let size = elements.and_then(|elements| elements.checked_mul(info.dtype.size_in_bytes()));
            if size.is_none_or(|size| size > bytes.len()) {
                let (shape, found) = (info.layout.dims(), bytes.len());
                return Err(malformed(format!(
                    "tensor {name} of shape {shape:?} cannot lie in {found} bytes"
                )));
            }
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
        caught(|| self.tensors.get(name))?.ok_or_else(missing)
    }
}

impl std::fmt::Debug for PickleFile {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("PickleFile")
            .field("tensors", &self.tensors.tensor_infos().len())
            .finish_non_exhaustive()
    }
}
