//! Faithful Vision Transformer backbones: the tokens of any block, the pooled vector, attention; frozen, or with
//! trainable copies of blocks.
//!
//! All published families come down to one network, [`Vit`], described by a [`VitConfig`]: ViT (JAX weights through
//! timm, transformers or `pytorch_pretrained_vit`), DINO, iBOT, `DINOv2` with and without registers, `DINOv3`, EVA-02, CLIP's
//! image tower. What differs between implementations is an option with the family's own value as its default: the epsilon of
//! the norms, the form of GELU, which biases exist, and above all how a position table comes to another image size
//! ([`Resampling`]). Numbers of the reference implementations are checked case by case
//! (`tests/fixtures/vit-backbone`).
//!
//! [`Vit::load`] takes a name of the [`catalogue`], a hub id or a directory; the tensor names of every family are
//! understood ([`NameScheme`]), and a tensor that is missing, of another shape, or without a place is refused by name.
//!
//! ```
//! use candle_core::{DType, Device, Tensor};
//! use random_streams::Streams;
//! use vit_backbone::{Family, Outputs, Vit, VitConfig};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! // Two blocks of width 48, 3 heads, patches of 8 pixels, positions for 32 pixels.
//! let config = VitConfig::new(Family::TimmVit, (48, 2, 3), 8, 32);
//! let vit = Vit::random(config, &mut Streams::new(0).stream("init"), &Device::Cpu)?;
//!
//! // Any size goes through: 40 x 24 pixels are 5 x 3 patches.
//! let images = Tensor::zeros((2, 3, 40, 24), DType::F32, &Device::Cpu)?;
//! let wanted = Outputs { blocks: vec![0], norm: true, class_attention_of: Some(1), ..Outputs::default() };
//! let features = vit.forward(&images, &wanted)?;
//! assert_eq!(features.grid, (5, 3));
//! assert_eq!(features.blocks[0].dims(), [2, 1 + 15, 48]);
//! assert_eq!(features.class_attention.ok_or("asked for")?.dims(), [2, 3, 16]);
//!
//! // A student of block 0, to be trained.
//! let student = vit.block(0)?.student(&mut Streams::new(0).stream("student"))?;
//! assert_eq!(student.vars()[0].0, "norm1.weight");
//! # Ok(())
//! # }
//! ```
//!
//! Features: `hub` (downloads; default), `embedded` (the backbone `dinov2-small-b9` inside the program; default),
//! `conformance` (this crate's numeric cases as units), `cuda`.

mod block;
pub mod catalogue;
mod checkpoint;
mod config;
mod described;
mod error;
mod load;
mod names;
mod outputs;
mod positions;
mod preprocessing;
mod random;
mod rope;
mod trainable;
#[cfg(feature = "conformance")]
mod units;
mod vit;

pub use block::{Block, BlockContext, BlockDropout};
pub use config::{
    Activation, BlockConfig, Family, Pooling, Positions, QkvBias, Resampling, VitConfig, dinov2_swiglu_hidden,
};
pub use described::Description;
pub use error::Error;
pub use load::LoadOptions;
pub use names::NameScheme;
pub use outputs::{Features, Outputs};
pub use positions::resample_positions;
pub use preprocessing::{Normalisation, Recipe};
pub use pretrained::Hub;
pub use rope::Rope;
pub use trainable::TrainableBlock;
#[cfg(feature = "conformance")]
pub use units::conformance_units;
pub use vit::{Identity, Vit};
pub use vit_ops::{AttentionWeights, Precision, PrecisionSetting};

/// Raised whenever a change of this crate, or of `vit-ops` and `pretrained` below it, changes numbers; part of the id of
/// every benchmark cell.
pub const REVISION: u32 = 4;
