//! The operations that Vision Transformers and their decoders spend their time in, every one with a gradient.
//!
//! candle has most of them, but some of its forms drop the gradient without a word (layer norm with bias, softmax
//! over the last axis), use the tanh form of GELU, or refuse to go backward (bilinear upsampling). Code built on this
//! crate meets none of that: every operation here is differentiable in every floating-point input (but for targets and
//! tables that it calls constant), accepts strided input, and works in f32 as in f64 (finite differences in f64 are how
//! the tests check the gradients). The page [`candle_traps`] lists the places, and what to use there.
//!
//! Plain tensors keep no graph: inference costs the memory of its results. On the host, normalisation, softmax, gates,
//! residuals, rotary positions and attention have kernels of their own, forward and backward, for the vector
//! instructions that the processor has when the program runs; the composed forms that other devices run are tested
//! against them. Results are the same on every number of threads.
//!
//! ```
//! use candle_core::{DType, Device, Tensor, Var};
//! use vit_ops::{AttentionOptions, Linear, attention, layer_norm};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let device = Device::Cpu;
//! let tokens = Tensor::arange(0_f32, 24., &device)?.reshape((1, 4, 6))?; // (B, N, D)
//! let weight = Var::ones(6, DType::F32, &device)?;
//! let bias = Tensor::zeros(6, DType::F32, &device)?;
//! let normed = layer_norm(&tokens, &weight, &bias, 1e-6)?;
//!
//! let qkv = Linear::new(Tensor::full(0.1_f32, (18, 6), &device)?, None)?.forward(&normed)?;
//! let attended = attention(&qkv, &mut AttentionOptions::new(2))?;
//! assert_eq!(attended.context.dims(), [1, 4, 6]);
//!
//! let gradients = attended.context.sum_all()?.backward()?;
//! assert!(gradients.get(&weight).is_some());
//! # Ok(())
//! # }
//! ```

mod activation;
mod attention;
mod axis_map;
mod batch_norm;
mod batch_norm_rows;
#[doc = include_str!("candle_traps.md")]
pub mod candle_traps {}
mod channels_last;
mod columns;
mod convolution;
mod cross_entropy;
#[cfg(any(test, feature = "cuda"))]
mod cuda;
mod dropout;
mod error;
mod filter;
#[cfg(test)]
mod gradient_check;
pub mod init;
mod kernels;
mod lanes;
mod linear;
mod network_weights;
mod norm;
mod own_gradient;
mod patch;
mod pool;
mod precision;
mod rectify;
mod resample;
mod residual;
mod rotary;
mod rows;
mod safe_norm;
mod softmax;
mod squared_error;
mod ssim;
mod types;
mod variance;
mod window_attention;

pub use activation::{Gelu, bias_gelu, gelu, silu, swiglu};
pub use attention::{Attention, AttentionOptions, AttentionWeights, attention, attention_qkv};
pub use batch_norm::{BatchNormed, BatchStatistics, RunningVariance, batch_norm, batch_norm_train};
pub use batch_norm_rows::{batch_norm_rows, batch_norm_rows_train};
pub use channels_last::ChannelsLastConv;
pub use convolution::{conv_transpose2d, conv2d};
pub use cross_entropy::{binary_cross_entropy, binary_cross_entropy_with_logits, softplus};
pub use dropout::{Dropout, DropoutMasks};
pub use error::{Error, Result};
pub use filter::{Border, gaussian_filter, separable_filter};
pub use linear::Linear;
pub use network_weights::{NamedTensors, NetworkWeights};
pub use norm::layer_norm;
pub use patch::{PatchEmbed, patch_embed};
pub use pool::{PoolWindows, avg_pool2d, max_pool2d};
pub use precision::{Precision, PrecisionSetting};
pub use rectify::{absolute, at_least, leaky_relu, relu};
pub use resample::{Interpolation, Resample};
pub use residual::add_residual;
pub use rotary::rotate_packed;
pub use safe_norm::{norm_last_dim, normalize_last_dim, safe_sqrt};
pub use softmax::softmax;
pub use squared_error::squared_error;
pub use ssim::{SsimOptions, ssim};
pub use variance::{VarianceGradient, layer_norm_with};
pub use window_attention::{Windows, relative_positions, window_attention};
