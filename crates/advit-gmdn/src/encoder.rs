//! The patch transformer.

use candle_core::{D, Tensor};
use vit_ops::{AttentionOptions, AttentionWeights, Gelu, Linear, NamedTensors, attention, layer_norm};

use crate::Error;
use crate::architecture::{Architecture, AttentionScale};
use crate::association::{Association, Distance};
use crate::error::shape;

const NORM_EPS: f64 = 1e-5;

/// What the transformer makes of images.
pub(crate) struct Encoded {
    /// Patch tokens after the last block, `(B, n, D)`; the class token is dropped, there is no last norm.
    pub(crate) tokens: Tensor,
    /// One a layer, with association.
    pub(crate) associations: Vec<Association>,
}

#[derive(Debug)]
pub(crate) struct Encoder {
    patch: usize,
    embedding: Linear,
    class_token: Tensor,
    positions: Tensor,
    blocks: Vec<Block>,
    association: Option<Distance>,
}

#[derive(Debug)]
struct Block {
    norm1: (Tensor, Tensor),
    attention: SelfAttention,
    norm2: (Tensor, Tensor),
    fc1: Linear,
    fc2: Linear,
}

/// Attention of h heads from one normed input, with the prior's head beside it if there is association.
#[derive(Debug)]
pub(crate) struct SelfAttention {
    qkv: Linear,
    out: Linear,
    sigma: Option<Linear>,
    heads: usize,
    scale: AttentionScale,
}

pub(crate) fn linear(named: &NamedTensors, name: &str) -> Result<Linear, Error> {
    let bias = named.find(&format!("{name}.bias")).cloned();
    Ok(Linear::new(named.get(&format!("{name}.weight"))?, bias)?)
}

impl SelfAttention {
    /// Of the tensors `<prefix>to_qkv`, `<prefix>to_out.0` and, with association, `<prefix>to_sigma`.
    pub(crate) fn new(
        named: &NamedTensors,
        prefix: &str,
        heads: usize,
        scale: AttentionScale,
        association: bool,
    ) -> Result<Self, Error> {
        let sigma = if association { Some(linear(named, &format!("{prefix}to_sigma"))?) } else { None };
        Ok(Self {
            qkv: linear(named, &format!("{prefix}to_qkv"))?,
            out: linear(named, &format!("{prefix}to_out.0"))?,
            sigma,
            heads,
            scale,
        })
    }

    /// The output `(B, N, D)` for `x` `(B, N, D)`; and the association of the patches, whose squared distances are
    /// `squared` `(n, n)`: all tokens but the first if there is one more.
    pub(crate) fn forward(
        &self,
        x: &Tensor,
        squared: Option<&Tensor>,
    ) -> Result<(Tensor, Option<Association>), Error> {
        let (_, tokens, dim) = x.dims3()?;
        let scale = match self.scale {
            AttentionScale::Dim => Some((dim as f64).powf(-0.5)),
            AttentionScale::Head => None,
        };
        let wanted = if self.sigma.is_some() { AttentionWeights::Full } else { AttentionWeights::None };
        let mut options = AttentionOptions { scale, weights: wanted, ..AttentionOptions::new(self.heads) };
        let attended = attention(&self.qkv.forward(x)?, &mut options)?;
        let association = match (&self.sigma, &attended.weights, squared) {
            (Some(sigma), Some(weights), Some(squared)) => {
                let patches = squared.dim(0)?;
                let raw = sigma.forward(&x.narrow(1, tokens - patches, patches)?.contiguous()?)?;
                Some(Association::new(&raw, weights, squared)?)
            }
            _ => None,
        };
        Ok((self.out.forward(&attended.context)?, association))
    }
}

impl Encoder {
    /// Of the tensors below `prefix`: `patch_to_embedding`, `cls_token`, `pos_embedding`, `transformer.layers.*`.
    pub(crate) fn new(shape: &Architecture, named: &NamedTensors, prefix: &str) -> Result<Self, Error> {
        let pair = |name: String| -> Result<(Tensor, Tensor), Error> {
            Ok((named.get(&format!("{name}.weight"))?, named.get(&format!("{name}.bias"))?))
        };
        let blocks = (0..shape.depth)
            .map(|layer| {
                let at = format!("{prefix}transformer.layers.{layer}");
                Ok(Block {
                    norm1: pair(format!("{at}.0.fn.norm"))?,
                    attention: SelfAttention::new(
                        named,
                        &format!("{at}.0.fn.fn."),
                        shape.heads,
                        shape.scale,
                        shape.association.is_some(),
                    )?,
                    norm2: pair(format!("{at}.1.fn.norm"))?,
                    fc1: linear(named, &format!("{at}.1.fn.fn.net.0"))?,
                    fc2: linear(named, &format!("{at}.1.fn.fn.net.2"))?,
                })
            })
            .collect::<Result<_, Error>>()?;
        Ok(Self {
            patch: shape.patch,
            embedding: linear(named, &format!("{prefix}patch_to_embedding"))?,
            class_token: named.get(&format!("{prefix}cls_token"))?,
            positions: named.get(&format!("{prefix}pos_embedding"))?,
            blocks,
            association: shape.association,
        })
    }

    /// Tokens of `images` `(B, 3, H, W)`. Images smaller than the trained size take the first rows of the position
    /// table.
    pub(crate) fn forward(&self, images: &Tensor) -> Result<Encoded, Error> {
        let (patches, grid) = self.patches(images)?;
        let (batch, count, _) = patches.dims3()?;
        let dim = self.class_token.dim(D::Minus1)?;
        if self.positions.dim(1)? < count + 1 {
            let expected = format!("at most {} patches", self.positions.dim(1)?.saturating_sub(1));
            return Err(shape("images", expected, images.dims()));
        }
        let squared = match self.association {
            Some(distance) => Some(distance.squared(grid, &patches)?),
            None => None,
        };
        let class = self.class_token.broadcast_as((batch, 1, dim))?;
        let tokens = Tensor::cat(&[&class, &self.embedding.forward(&patches)?], 1)?;
        let mut tokens = tokens.broadcast_add(&self.positions.narrow(1, 0, count + 1)?)?;
        let mut associations = Vec::new();
        for block in &self.blocks {
            let normed = layer_norm(&tokens, &block.norm1.0, &block.norm1.1, NORM_EPS)?;
            let (attended, association) = block.attention.forward(&normed, squared.as_ref())?;
            associations.extend(association);
            tokens = (tokens + attended)?;
            let normed = layer_norm(&tokens, &block.norm2.0, &block.norm2.1, NORM_EPS)?;
            let hidden = block.fc1.forward_gelu(&normed, Gelu::Erf)?;
            tokens = (tokens + block.fc2.forward(&hidden)?)?;
        }
        Ok(Encoded { tokens: tokens.narrow(1, 1, count)?.contiguous()?, associations })
    }

    /// Patches `(B, n, 3 p^2)`, row by row of the grid, inside of a patch row by row with the channels of a pixel side by
    /// side; and the grid.
    fn patches(&self, images: &Tensor) -> Result<(Tensor, (usize, usize)), Error> {
        let p = self.patch;
        let (batch, rows, columns) = match images.dims4() {
            Ok((b, 3, h, w)) if h >= p && w >= p && h % p == 0 && w % p == 0 => (b, h / p, w / p),
            _ => {
                return Err(shape(
                    "images",
                    format!("(B, 3, a multiple of {p}, a multiple of {p})"),
                    images.dims(),
                ));
            }
        };
        let patches = images
            .reshape(vec![batch, 3, rows, p, columns, p])?
            .permute(vec![0, 2, 4, 3, 5, 1])?
            .reshape((batch, rows * columns, 3 * p * p))?;
        Ok((patches, (rows, columns)))
    }
}
