//! The head's weights.

use candle_core::{Device, Tensor};
use random_streams::Stream;
use vit_ops::init::fan_in_uniform;

use crate::Error;

/// The weights of a head over D features with K Gaussians. The index of means and spreads is `d K + k`: the Gaussian
/// runs fastest.
#[derive(Debug, Clone)]
pub struct MixtureWeights {
    /// `(K, D)`, the reference's `pi.weight`.
    pub pi: Tensor,
    /// `(D K, D)`, the reference's `mu.weight`.
    pub mu: Tensor,
    /// `(D K, D)`, the reference's `sigma_sq.weight`.
    pub sigma_sq: Tensor,
}

impl MixtureWeights {
    /// The reference's names, in the order of the fields.
    pub const NAMES: [&'static str; 3] = ["pi.weight", "mu.weight", "sigma_sq.weight"];

    /// The shapes of a head over `dim` features with `gaussians` components, in the order of the names.
    pub fn shapes(dim: usize, gaussians: usize) -> [[usize; 2]; 3] {
        [[gaussians, dim], [dim * gaussians, dim], [dim * gaussians, dim]]
    }
}

/// First weights as `PyTorch` makes those of linear layers: uniform within `1 / sqrt(D)` of zero.
///
/// # Errors
/// If `dim` is 0, or the tensors can't be made.
pub fn init(
    dim: usize,
    gaussians: usize,
    stream: &mut Stream,
    device: &Device,
) -> Result<MixtureWeights, Error> {
    let [pi, mu, sigma_sq] = MixtureWeights::shapes(dim, gaussians);
    let mut draw = |[rows, columns]: [usize; 2]| fan_in_uniform((rows, columns), columns, stream, device);
    Ok(MixtureWeights { pi: draw(pi)?, mu: draw(mu)?, sigma_sq: draw(sigma_sq)? })
}
