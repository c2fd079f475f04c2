//! A safetensors file: header parsed once, tensors converted when asked for.

use crate::Error;
use crate::mapped::Bytes;
use candle_core::safetensors::Load;
use candle_core::{Device, Tensor};
use safetensors::SafeTensors;
use safetensors::tensor::{Metadata, TensorView};
use std::collections::BTreeMap;

#[derive(Debug)]
pub(crate) struct SafetensorsFile {
    bytes: Bytes,
    /// Where the tensors' bytes begin in the file.
    start: usize,
    header: Metadata,
}

const FORMAT: &str = "safetensors";
/// The header's length, before the header itself, is one `u64`.
const LENGTH_BYTES: usize = 8;

impl SafetensorsFile {
    /// Whether a file of these bytes seems to be one: the header's length, then a JSON object.
    pub(crate) fn recognises(bytes: &[u8]) -> bool {
        bytes.get(LENGTH_BYTES) == Some(&b'{')
    }

    pub(crate) fn parse(origin: &str, bytes: Bytes) -> Result<Self, Error> {
        let (length, header) = SafeTensors::read_metadata(&bytes).map_err(|error| Error::Malformed {
            origin: origin.to_owned(),
            format: FORMAT,
            reason: error.to_string(),
        })?;
        Ok(Self { bytes, start: LENGTH_BYTES + length, header })
    }

    pub(crate) fn shapes(&self) -> BTreeMap<String, Vec<usize>> {
        self.header.tensors().into_iter().map(|(name, info)| (name, info.shape.clone())).collect()
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    pub(crate) fn read(&self, name: &str) -> candle_core::Result<Tensor> {
        let missing = || candle_core::Error::Msg(format!("the header has no entry {name}"));
        let info = self.header.info(name).ok_or_else(missing)?;
        let (from, to) = info.data_offsets;
        let data = self.bytes.get(self.start + from..self.start + to).ok_or_else(missing)?;
        TensorView::new(info.dtype, info.shape.clone(), data)?.load(&Device::Cpu)
    }
}
