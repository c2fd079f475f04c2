//! From images to tokens, between the levels, and back to images.

use candle_core::Tensor;
use serde::{Deserialize, Serialize};
use vit_ops::{Linear, PatchEmbed, Precision};

use super::blocks::{AttentionBlock, AttentionStyle};
use crate::Error;
use crate::parameters::{Initial, Norm, Parameters, join};

/// Patches to tokens, a layer norm, and then the table of positions.
#[derive(Debug, Clone)]
pub(crate) struct Embedding {
    patches: PatchEmbed,
    norm: Norm,
    /// `(1, T, C)`.
    positions: Tensor,
}

impl Embedding {
    /// Of images of `size` pixels a side with `channels`.
    pub(crate) fn new(
        parameters: &mut Parameters<'_>,
        prefix: &str,
        (size, patch): (usize, usize),
        (channels, dim): (usize, usize),
    ) -> Result<Self, Error> {
        if patch == 0 || !size.is_multiple_of(patch) {
            let expected = format!("a multiple of the patch's {patch}");
            return Err(Error::Size { what: "image size", expected, found: size.to_string() });
        }
        let tokens = (size / patch) * (size / patch);
        let name = |name: &str| join(prefix, &format!("Emb.{name}"));
        let weight =
            parameters.tensor(&name("0.proj.weight"), &[dim, channels, patch, patch], Initial::Weight)?;
        let bias = parameters.tensor(&name("0.proj.bias"), &[dim], Initial::Zeros)?;
        Ok(Self {
            patches: PatchEmbed::new(&weight, Some(bias), Precision::F32)?,
            norm: parameters.norm(&name("0.norm"), dim)?,
            positions: parameters.tensor(&name("1.absolute_pos_embed"), &[1, tokens, dim], Initial::Table)?,
        })
    }

    /// Images `(B, nc, S, S)` to tokens `(B, T, C)`.
    pub(crate) fn forward(&self, images: &Tensor) -> Result<Tensor, Error> {
        Ok(self.norm.forward(&self.patches.forward(images)?)?.broadcast_add(&self.positions)?)
    }
}

/// A quarter of the tokens, twice as wide.
#[derive(Debug, Clone)]
pub(crate) struct Merge {
    norm: Norm,
    reduction: Linear,
    grid: (usize, usize),
}

impl Merge {
    /// Of a grid of `(rows, columns)` tokens of width `dim`.
    pub(crate) fn new(
        parameters: &mut Parameters<'_>,
        prefix: &str,
        dim: usize,
        grid: (usize, usize),
    ) -> Result<Self, Error> {
        if !grid.0.is_multiple_of(2) || !grid.1.is_multiple_of(2) {
            let (expected, found) = ("two even sides".to_owned(), format!("{} x {}", grid.0, grid.1));
            return Err(Error::Size { what: "grid of tokens to merge", expected, found });
        }
        Ok(Self {
            norm: parameters.norm(&join(prefix, "norm"), 4 * dim)?,
            reduction: parameters.linear(&join(prefix, "reduction"), (4 * dim, 2 * dim), false)?,
            grid,
        })
    }

    /// `(B, T, C)` to `(B, T / 4, 2 C)`. The four tokens come column by column: above, below, above, below.
    pub(crate) fn forward(&self, x: &Tensor) -> Result<Tensor, Error> {
        let (batch, tokens, dim) = x.dims3()?;
        let (rows, columns) = self.grid;
        let four = x
            .reshape(vec![batch, rows / 2, 2, columns / 2, 2, dim])?
            .permute(vec![0, 1, 3, 4, 2, 5])?
            .reshape((batch, tokens / 4, 4 * dim))?;
        Ok(self.reduction.forward(&self.norm.forward(&four)?)?)
    }
}

/// Four times the tokens, half as wide.
#[derive(Debug, Clone)]
pub(crate) struct Expand {
    widening: Linear,
    norm: Norm,
    grid: (usize, usize),
}

impl Expand {
    /// Of a grid of `(rows, columns)` tokens of width `dim`.
    pub(crate) fn new(
        parameters: &mut Parameters<'_>,
        prefix: &str,
        dim: usize,
        grid: (usize, usize),
    ) -> Result<Self, Error> {
        Ok(Self {
            widening: parameters.linear(&join(prefix, "expand"), (dim, 2 * dim), false)?,
            norm: parameters.norm(&join(prefix, "norm"), dim / 2)?,
            grid,
        })
    }

    /// `(B, T, C)` to `(B, 4 T, C / 2)`.
    pub(crate) fn forward(&self, x: &Tensor) -> Result<Tensor, Error> {
        let (batch, tokens, dim) = x.dims3()?;
        let wide = self.widening.forward(x)?;
        let moved = to_pixels(&wide, batch, self.grid, (2, dim / 2))?;
        self.norm.forward(&moved.reshape((batch, 4 * tokens, dim / 2))?)
    }
}

/// Tokens whose channels are `side` x `side` smaller ones of `channels`, in their places: from `(B, T, side^2 channels)`
/// to `(B, side rows, side columns, channels)`.
fn to_pixels(
    x: &Tensor,
    batch: usize,
    (rows, columns): (usize, usize),
    (side, channels): (usize, usize),
) -> Result<Tensor, Error> {
    Ok(x.reshape(vec![batch, rows, columns, side, side, channels])?
        .permute(vec![0, 1, 3, 2, 4, 5])?
        .reshape((batch, side * rows, side * columns, channels))?)
}

/// An attention block, then [`Merge`] unless it is the last.
#[derive(Debug, Clone)]
pub(crate) struct EncoderStage {
    attention: AttentionBlock,
    merge: Option<Merge>,
}

impl EncoderStage {
    pub(crate) fn new(
        parameters: &mut Parameters<'_>,
        prefix: &str,
        dim: usize,
        grid: (usize, usize),
        style: AttentionStyle,
        last: bool,
    ) -> Result<Self, Error> {
        let attention = AttentionBlock::new(parameters, &join(prefix, "att"), dim, grid, style)?;
        let merge = if last { None } else { Some(Merge::new(parameters, &join(prefix, "down"), dim, grid)?) };
        Ok(Self { attention, merge })
    }

    /// `(B, T, C)` to `(B, T / 4, 2 C)`, or the same shape if it is the last.
    pub(crate) fn forward(&self, x: &Tensor) -> Result<Tensor, Error> {
        let x = self.attention.forward(x)?;
        self.merge.as_ref().map_or_else(|| Ok(x.clone()), |merge| merge.forward(&x))
    }
}

/// The decoder's tokens and the skip's side by side, halved, through an attention block, expanded.
#[derive(Debug, Clone)]
pub(crate) struct DecoderStage {
    contact: Linear,
    attention: AttentionBlock,
    up: Expand,
}

impl DecoderStage {
    pub(crate) fn new(
        parameters: &mut Parameters<'_>,
        prefix: &str,
        dim: usize,
        grid: (usize, usize),
        style: AttentionStyle,
    ) -> Result<Self, Error> {
        Ok(Self {
            contact: parameters.linear(&join(prefix, "contact"), (2 * dim, dim), true)?,
            attention: AttentionBlock::new(parameters, &join(prefix, "att"), dim, grid, style)?,
            up: Expand::new(parameters, &join(prefix, "up"), dim, grid)?,
        })
    }

    /// Tokens of the decoder and of the skip, `(B, T, C)` each, to `(B, 4 T, C / 2)`.
    pub(crate) fn forward(&self, x: &Tensor, skip: &Tensor) -> Result<Tensor, Error> {
        let both = Tensor::cat(&[x, skip], 2)?;
        self.up.forward(&self.attention.forward(&self.contact.forward(&both)?)?)
    }
}

/// Where the numbers of the last tokens go.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HeadLayout {
    /// Each token paints its own square of pixels.
    #[default]
    Pixels,
    /// The reference's: the numbers are read as rows of pixels as they lie in memory, which scrambles images for
    /// patches larger than 2.
    Scrambled,
}

/// The last tokens to an image.
#[derive(Debug, Clone)]
pub(crate) struct Head {
    expand: Linear,
    /// A convolution of single pixels.
    mix: Linear,
    layout: HeadLayout,
    size: usize,
    /// Side in pixels that a token paints.
    square: usize,
    channels: usize,
}

impl Head {
    /// Tokens of width `dim` to images of `size` pixels a side: `channels`, mixed into `outputs`.
    pub(crate) fn new(
        parameters: &mut Parameters<'_>,
        prefix: &str,
        dim: usize,
        (size, patch): (usize, usize),
        (channels, outputs): (usize, usize),
        layout: HeadLayout,
    ) -> Result<Self, Error> {
        if patch < 2 || !patch.is_multiple_of(2) {
            let expected = "an even number from 2 on".to_owned();
            return Err(Error::Size { what: "patch size", expected, found: patch.to_string() });
        }
        let square = patch / 2;
        let mix = &[outputs, channels, 1, 1];
        Ok(Self {
            expand: parameters.linear(&join(prefix, "expand"), (dim, channels * square * square), true)?,
            mix: Linear::new(
                parameters
                    .tensor(&join(prefix, "out.0.weight"), mix, Initial::Weight)?
                    .reshape((outputs, channels))?,
                None,
            )?,
            layout,
            size,
            square,
            channels,
        })
    }

    /// `(B, T, C)` to the expanded tokens `(B, T, nc square^2)`.
    pub(crate) fn expand(&self, x: &Tensor) -> Result<Tensor, Error> {
        Ok(self.expand.forward(x)?)
    }

    /// The expanded tokens to images with their channels last, `(B, S, S, outputs)`.
    pub(crate) fn paint(&self, expanded: &Tensor) -> Result<Tensor, Error> {
        let batch = expanded.dim(0)?;
        let side = self.size / self.square;
        let pixels = match self.layout {
            HeadLayout::Pixels if self.square > 1 => {
                to_pixels(expanded, batch, (side, side), (self.square, self.channels))?
            }
            _ => expanded.reshape((batch, self.size, self.size, self.channels))?,
        };
        Ok(self.mix.forward(&pixels)?)
    }
}
