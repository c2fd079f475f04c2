//! What a forward pass is asked for, and what it gives.

use candle_core::Tensor;

use crate::Error;

/// What a forward pass should return; nothing by default. Blocks count from 0 and may be given in any order.
///
/// Only the blocks needed are run: `blocks: vec![3]` alone stops after the fourth.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[allow(clippy::struct_excessive_bools)] // a list of independent wishes
pub struct Outputs {
    /// The tokens entering block 0.
    pub embed: bool,
    /// Blocks whose raw output (the residual stream) is wanted.
    pub blocks: Vec<usize>,
    /// Blocks whose output is wanted with the network's final norm applied.
    pub normed_blocks: Vec<usize>,
    /// The normed tokens of the last block.
    pub norm: bool,
    /// The family's pooled vector.
    pub pooled: bool,
    /// The classification head's output.
    pub logits: bool,
    /// The block whose attention from the class token is wanted.
    pub class_attention_of: Option<usize>,
    /// The block whose whole attention is wanted.
    pub full_attention_of: Option<usize>,
}

impl Outputs {
    /// The raw outputs of these blocks.
    pub fn blocks(blocks: impl IntoIterator<Item = usize>) -> Self {
        Self { blocks: blocks.into_iter().collect(), ..Self::default() }
    }

    /// The outputs of these blocks with the final norm applied.
    pub fn normed_blocks(blocks: impl IntoIterator<Item = usize>) -> Self {
        Self { normed_blocks: blocks.into_iter().collect(), ..Self::default() }
    }

    /// The normed tokens of the last block.
    pub fn norm() -> Self {
        Self { norm: true, ..Self::default() }
    }

    /// The pooled vector.
    pub fn pooled() -> Self {
        Self { pooled: true, ..Self::default() }
    }

    /// How many blocks have to be run in a network of `depth`.
    pub(crate) fn blocks_to_run(&self, depth: usize) -> Result<usize, Error> {
        let named = self.blocks.iter().chain(&self.normed_blocks);
        let mut run = 0;
        for &index in named.chain(&self.class_attention_of).chain(&self.full_attention_of) {
            if index >= depth {
                return Err(Error::NoSuchBlock { index, depth });
            }
            run = run.max(index + 1);
        }
        Ok(if self.norm || self.pooled || self.logits { depth } else { run })
    }
}

/// What a forward pass returned. B images, N tokens (prefix, then patches row by row), width D, H heads.
#[derive(Debug, Clone)]
pub struct Features {
    /// Rows and columns of patches.
    pub grid: (usize, usize),
    /// Tokens in front of the patches: class token, then registers.
    pub prefix_tokens: usize,
    /// Tokens entering block 0, `(B, N, D)`.
    pub embed: Option<Tensor>,
    /// Raw outputs `(B, N, D)` in the order of [`Outputs::blocks`].
    pub blocks: Vec<Tensor>,
    /// Normed outputs `(B, N, D)` in the order of [`Outputs::normed_blocks`].
    pub normed_blocks: Vec<Tensor>,
    /// Normed tokens of the last block, `(B, N, D)`.
    pub norm: Option<Tensor>,
    /// Pooled vectors, `(B, D)`.
    pub pooled: Option<Tensor>,
    /// The head's output, `(B, classes)`.
    pub logits: Option<Tensor>,
    /// Attention from token 0 to every token, `(B, H, N)`.
    pub class_attention: Option<Tensor>,
    /// Attention from every token to every token, `(B, H, N, N)`.
    pub full_attention: Option<Tensor>,
}

impl Features {
    /// The patch tokens `(B, gh * gw, D)` of tokens `(B, N, D)`: the prefix dropped. A view.
    ///
    /// # Errors
    /// If `tokens` has fewer tokens than the prefix.
    pub fn patches(&self, tokens: &Tensor) -> Result<Tensor, Error> {
        let count = tokens.dim(1)?;
        Ok(tokens.narrow(1, self.prefix_tokens, count.saturating_sub(self.prefix_tokens))?)
    }
}
