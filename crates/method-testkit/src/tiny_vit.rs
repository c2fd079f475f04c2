//! A small network with random weights, for tests of methods that need a backbone.

use anomaly_core::Streams;
use candle_core::Device;
use vit_backbone::{Family, Vit, VitConfig};

use crate::Error;

/// The sizes of a small Vision Transformer with random weights.
///
/// Random weights tell textures apart, as any random projection does; they know no objects. What a method must do
/// with its backbone (read the right tokens, refer to it by hash) shows all the same, in milliseconds.
///
/// ```
/// let vit = method_testkit::TinyVit::default().build(&candle_core::Device::Cpu)?;
/// assert_eq!((vit.depth(), vit.dim(), vit.grid(32, 32)), (3, 32, (4, 4)));
/// # Ok::<(), method_testkit::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TinyVit {
    /// Whose conventions it follows.
    pub family: Family,
    /// Number of blocks.
    pub depth: usize,
    /// Token width D.
    pub dim: usize,
    /// Attention heads; divides `dim`.
    pub heads: usize,
    /// Side of a patch in pixels.
    pub patch: usize,
    /// Side of the images in pixels.
    pub image_size: usize,
    /// The seed of its weights.
    pub seed: u64,
}

impl Default for TinyVit {
    /// timm's conventions, 3 blocks of width 32 with 2 heads, patches of 8 in images of 32 pixels.
    fn default() -> Self {
        Self { family: Family::TimmVit, depth: 3, dim: 32, heads: 2, patch: 8, image_size: 32, seed: 0 }
    }
}

impl TinyVit {
    /// Makes it, on `device`.
    ///
    /// # Errors
    /// [`Error::Network`] if no network has such sizes.
    pub fn build(&self, device: &Device) -> Result<Vit, Error> {
        let config =
            VitConfig::new(self.family, (self.dim, self.depth, self.heads), self.patch, self.image_size);
        Ok(Vit::random(config, &mut Streams::new(self.seed).stream("tiny network"), device)?)
    }
}
