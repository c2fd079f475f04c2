//! The attention block of encoder, decoder, bottom and skips, in both kinds.

use candle_core::Tensor;
use serde::{Deserialize, Serialize};
use vit_ops::{AttentionOptions, Gelu, Linear, attention, gelu};

use super::swin::{Mlp, SwinBlock, check_heads, residual};
use crate::Error;
use crate::parameters::{Norm, Parameters, join};

/// How tokens look at each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AttentionKind {
    /// Within windows of 2 x 2 tokens, plain and shifted in turn.
    #[default]
    Swintf,
    /// Each token to all others.
    Tf,
}

/// What all attention blocks of a network share.
#[derive(Debug, Clone, Copy)]
pub(crate) struct AttentionStyle {
    pub(crate) kind: AttentionKind,
    pub(crate) heads: usize,
    /// Side of a window in tokens.
    pub(crate) window: usize,
}

/// A layer of global attention; one norm serves both halves.
#[derive(Debug, Clone)]
pub(crate) struct GlobalLayer {
    norm: Norm,
    qkv: Linear,
    proj: Linear,
    mlp: Mlp,
    heads: usize,
}

impl GlobalLayer {
    pub(crate) fn new(
        parameters: &mut Parameters<'_>,
        prefix: &str,
        dim: usize,
        heads: usize,
    ) -> Result<Self, Error> {
        check_heads(dim, heads)?;
        Ok(Self {
            norm: parameters.norm(&join(prefix, "norm"), dim)?,
            qkv: parameters.linear(&join(prefix, "att.to_qkv"), (dim, 3 * dim), false)?,
            proj: parameters.linear(&join(prefix, "att.to_out.0"), (dim, dim), true)?,
            mlp: Mlp::new(parameters, (&join(prefix, "ffn.0"), &join(prefix, "ffn.3")), dim)?,
            heads,
        })
    }

    /// Of tokens `(B, T, C)`.
    pub(crate) fn forward(&self, x: &Tensor) -> Result<Tensor, Error> {
        let qkv = self.qkv.forward(&self.norm.forward(x)?)?;
        let attended = attention(&qkv, &mut AttentionOptions::new(self.heads))?.context;
        let x = residual(x, &self.proj, &attended)?;
        self.mlp.add_to(&x, &self.norm.forward(&x)?)
    }
}

/// Two layers, a layer norm, and GELU over the result: there is no residual around them.
#[derive(Debug, Clone)]
pub(crate) struct AttentionBlock {
    layers: Layers,
    norm: Norm,
}

#[derive(Debug, Clone)]
enum Layers {
    Windowed([SwinBlock; 2]),
    Global([GlobalLayer; 2]),
}

impl AttentionBlock {
    /// Of width `dim` on a grid of `(rows, columns)` tokens.
    pub(crate) fn new(
        parameters: &mut Parameters<'_>,
        prefix: &str,
        dim: usize,
        grid: (usize, usize),
        style: AttentionStyle,
    ) -> Result<Self, Error> {
        let AttentionStyle { kind, heads, window } = style;
        let [first, second] = ["att", "att2"].map(|name| join(prefix, name));
        let layers = match kind {
            AttentionKind::Swintf => Layers::Windowed([
                SwinBlock::new(parameters, &first, dim, grid, (heads, window), false)?,
                SwinBlock::new(parameters, &second, dim, grid, (heads, window), true)?,
            ]),
            AttentionKind::Tf => Layers::Global([
                GlobalLayer::new(parameters, &first, dim, heads)?,
                GlobalLayer::new(parameters, &second, dim, heads)?,
            ]),
        };
        Ok(Self { layers, norm: parameters.norm(&join(prefix, "ln"), dim)? })
    }

    /// Of the tokens of a grid, `(B, T, C)`.
    pub(crate) fn forward(&self, x: &Tensor) -> Result<Tensor, Error> {
        let x = match &self.layers {
            Layers::Windowed([first, second]) => second.forward(&first.forward(x)?)?,
            Layers::Global([first, second]) => second.forward(&first.forward(x)?)?,
        };
        Ok(gelu(&self.norm.forward(&x)?, Gelu::Erf)?)
    }
}
