//! Gaussian mixture density heads over tokens, after VT-ADL (Mishra, Verk, Fornasier, Piciarelli and Foresti: "VT-ADL: A
//! Vision Transformer Network for Image Anomaly Detection and Localization", 2021, arXiv 2104.10036).
//!
//! Three linear maps without bias make, of each token's features, the weights, means and spreads of K Gaussians with
//! diagonal covariance; the negative log-likelihood of the same features under them is the token's anomaly. What the
//! released code computes is not quite that density: [`Likelihood`] names its form and the proper ones.
//!
//! ```
//! use candle_core::{Device, Tensor};
//! use density_heads::{Likelihood, MixtureHead};
//! use random_streams::Streams;
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let weights = density_heads::init(8, 3, &mut Streams::new(0).stream("init"), &Device::Cpu)?;
//! let head = MixtureHead::new(&weights)?;
//! let tokens = Tensor::ones((2, 5, 8), candle_core::DType::F32, &Device::Cpu)?; // (B, N, D)
//! let form = Likelihood::Mixture { floor: 1e-3 };
//! assert_eq!(head.negative_log_likelihood(&tokens, form)?.dims(), [2, 5]);
//! # Ok(())
//! # }
//! ```

mod error;
mod mixture;
mod token_map;
mod weights;

pub use error::Error;
pub use mixture::{Components, Likelihood, MixtureHead};
pub use token_map::TokenMap;
pub use weights::{MixtureWeights, init};
