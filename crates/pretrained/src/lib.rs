//! Pretrained weights, wherever they lie: the Hugging Face hub, a directory, one file, or the program itself.
//!
//! [`Weights`] is a set of named tensors, read one at a time and handed out as plain `f32` tensors: safetensors
//! (single or sharded), GGUF (dequantised as they are read) and `PyTorch` checkpoints look the same from outside.
//! [`Source`] says where they are, [`Hub`] how the hub is reached. This is the one crate of the workspace that
//! reads environment variables, and it does so in one function, [`Hub::from_environment`].
//!
//! ```
//! use candle_core::{Device, Tensor};
//! use pretrained::{Hub, Source, Weights};
//! use std::collections::HashMap;
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let folder = tempfile::tempdir()?;
//! let norm = Tensor::ones(4, candle_core::DType::F32, &Device::Cpu)?;
//! candle_core::safetensors::save(&HashMap::from([("norm.weight", norm)]), folder.path().join("model.safetensors"))?;
//!
//! let weights = Weights::open(&Source::Directory(folder.path().into()), &Hub::offline())?;
//! assert_eq!(weights.names().collect::<Vec<_>>(), ["norm.weight"]);
//! assert_eq!(weights.get("norm.weight", &Device::Cpu)?.to_vec1::<f32>()?, [1.0; 4]);
//! assert_eq!(weights.sha256().len(), 64);
//!
//! let missing = weights.get("norm.wieght", &Device::Cpu).unwrap_err().to_string();
//! assert!(missing.contains("nearest: norm.weight"), "{missing}");
//! # Ok(())
//! # }
//! ```

mod digest;
mod directory;
#[cfg(feature = "embedded")]
pub mod embedded;
mod environment;
mod error;
mod gguf;
mod hub;
mod mapped;
mod parsing;
mod pickle;
mod safetensors_file;
mod source;
mod weights;

pub use error::{Error, HubRefusal};
pub use hub::{Hub, Progress, Token, Wait};
pub use source::{Embedded, Source};
pub use weights::Weights;
