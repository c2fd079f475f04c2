//! Skips from all levels: what the paper's text calls multi-scale.

use candle_core::Tensor;
use vit_ops::Linear;

use crate::Error;
use crate::parameters::{Norm, Parameters, join};
use crate::sizes::DEPTH;

/// The tokens of the first three levels, brought to one level's grid by reading their numbers in another shape, side by
/// side, through a linear layer and a layer norm.
///
/// It is not in the released code: the shape of it is recovered from what an older build left behind.
#[derive(Debug, Clone)]
pub(crate) struct Fusion {
    mix: Linear,
    norm: Norm,
    level: usize,
}

impl Fusion {
    /// For `level` (0 or 1) of a generator of width `dim`.
    pub(crate) fn new(
        parameters: &mut Parameters<'_>,
        prefix: &str,
        level: usize,
        dim: usize,
    ) -> Result<Self, Error> {
        if !dim.is_multiple_of(4) {
            let expected = "a multiple of 4".to_owned();
            return Err(Error::Size { what: "width", expected, found: dim.to_string() });
        }
        // Level i has 2^i dim channels; on the grid of another level, a fourth or four times as many for each step.
        let inputs: usize = (0..DEPTH).map(|from| (dim << (from + 2 * level)) >> (2 * from)).sum();
        Ok(Self {
            mix: parameters.linear(&join(prefix, "linear"), (inputs, dim << level), true)?,
            norm: parameters.norm(&join(prefix, "norm"), dim << level)?,
            level,
        })
    }

    /// Of the tokens of all levels, `(B, T, C)` each from level 0 on.
    pub(crate) fn forward(&self, levels: &[Tensor]) -> Result<Tensor, Error> {
        let (batch, tokens, _) = levels[self.level].dims3()?;
        let there = levels[..DEPTH]
            .iter()
            .map(|level| level.reshape((batch, tokens, ())))
            .collect::<Result<Vec<_>, _>>()?;
        self.norm.forward(&self.mix.forward(&Tensor::cat(&there, 2)?)?)
    }
}
