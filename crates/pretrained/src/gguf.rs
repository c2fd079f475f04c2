//! A GGUF file: tensors are dequantised to `f32` as they are read.

use crate::Error;
use crate::mapped::Bytes;
use crate::parsing::{caught, guarded};
use candle_core::quantized::gguf_file::Content;
use candle_core::{Device, Tensor};
use std::collections::BTreeMap;
use std::io::Cursor;

#[derive(Debug)]
pub(crate) struct GgufFile {
    bytes: Bytes,
    content: Content,
}

const FORMAT: &str = "GGUF";

impl GgufFile {
    pub(crate) fn recognises(bytes: &[u8]) -> bool {
        bytes.starts_with(b"GGUF")
    }

    pub(crate) fn parse(origin: &str, bytes: Bytes) -> Result<Self, Error> {
        let content = guarded(origin, FORMAT, || Content::read(&mut Cursor::new(&bytes[..])))?;
        let malformed = |reason| Error::Malformed { origin: origin.to_owned(), format: FORMAT, reason };
        // The reader checks neither that a shape's product fits nor that a tensor's bytes are there before it is
        // asked for; a file cut short should be refused when it is opened, not after minutes of work.
        for (name, info) in &content.tensor_infos {
            let elements =
                info.shape.dims().iter().try_fold(1_usize, |product, &size| product.checked_mul(size));
            let (block, block_bytes) = (info.ggml_dtype.block_size(), info.ggml_dtype.type_size());
            let end = elements
                .filter(|elements| elements % block == 0)
                .and_then(|elements| (elements / block).checked_mul(block_bytes))
                .and_then(|size| (size as u64).checked_add(info.offset))
                .and_then(|end| end.checked_add(content.tensor_data_offset))
                .ok_or_else(|| {
                    malformed(format!("tensor {name} has the impossible shape {:?}", info.shape.dims()))
                })?;
            if end > bytes.len() as u64 {
                let found = bytes.len();
                return Err(malformed(format!("tensor {name} ends at byte {end}, the file has {found}")));
            }
        }
        Ok(Self { bytes, content })
    }

    pub(crate) fn shapes(&self) -> BTreeMap<String, Vec<usize>> {
        let shape = |(name, info): (&String, &candle_core::quantized::gguf_file::TensorInfo)| {
            (name.clone(), info.shape.dims().to_vec())
        };
        self.content.tensor_infos.iter().map(shape).collect()
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    pub(crate) fn read(&self, name: &str) -> candle_core::Result<Tensor> {
        // On the host whatever the device, so that every device starts from the same bits.
        caught(|| {
            let quantised = self.content.tensor(&mut Cursor::new(&self.bytes[..]), name, &Device::Cpu)?;
            quantised.dequantize(&Device::Cpu)
        })
    }
}
