//! Residual networks with published weights, for methods that read the maps of their stages.
//!
//! `ResNet` and `WideResNet` as torchvision and timm have them (He et al. 2015, arXiv 1512.03385; Zagoruyko and Komodakis
//! 2016, arXiv 1605.07146; the stride of a bottleneck in its 3 x 3 convolution). A network's sizes are read off its
//! tensors, whose names are the same in both libraries; a tensor that is missing or of another shape is refused by name.
//!
//! Batch norm uses its running statistics ([`ResNet::stages`]). [`ResNet::stages_of_batch`] normalises by the batch
//! instead and lets the running statistics drift, which some reference code does by mistake.
//!
//! ```
//! use candle_core::{DType, Device, Tensor};
//! use cnn_backbone::{BlockKind, ResNet, ResNetConfig, neighbourhoods};
//! use random_streams::Streams;
//!
//! # fn main() -> Result<(), cnn_backbone::Error> {
//! // A real one: `ResNet::load("wide_resnet50_2.tv_in1k", &LoadOptions::default())`.
//! let config = ResNetConfig { kind: BlockKind::Bottleneck, blocks: [1; 4], stem: 8, width: 16 };
//! let network = ResNet::random(config, &mut Streams::new(0).stream("init"), &Device::Cpu)?;
//! let images = Tensor::zeros((1, 3, 64, 64), DType::F32, &Device::Cpu)?;
//! let maps = network.stages(&images, &[2, 3])?;
//! assert_eq!(maps[0].dims(), [1, 64, 8, 8]);
//! assert_eq!(maps[1].dims(), [1, 128, 4, 4]);
//!
//! // One vector a place of the first of them, of 3 x 3 neighbours of both.
//! let features = neighbourhoods(&maps, 0, 3)?;
//! assert_eq!(features.dims(), [1, 64, 64 + 128]);
//! # Ok(())
//! # }
//! ```

mod batch_norm;
mod block;
mod catalogue;
mod config;
mod error;
mod load;
mod neighbourhoods;
mod resnet;
mod tensors;

pub use batch_norm::RunningStatistics;
pub use catalogue::{Entry, entries, find, is_resnet};
pub use config::{BlockKind, ResNetConfig};
pub use error::Error;
pub use load::LoadOptions;
pub use neighbourhoods::neighbourhoods;
pub use pretrained::Hub;
pub use resnet::{Identity, ResNet};

/// Raised whenever a change of this crate changes numbers; part of the id of benchmark cells whose backbone is one of its
/// networks.
pub const REVISION: u32 = 1;
