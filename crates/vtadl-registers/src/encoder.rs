//! Patches, registers and the blocks of the encoder.

use candle_core::Tensor;
use vit_ops::{
    AttentionOptions, Dropout, Gelu, Linear, NamedTensors, PatchEmbed, Precision, attention, gelu,
    layer_norm_with,
};

use crate::Error;
use crate::architecture::{Architecture, Norms};
use crate::error::shape;

/// Dropout after attention and within the MLP, while training.
pub(crate) type Drops<'a> = Option<(f64, &'a mut anomaly_core::Stream)>;

/// Patch embedding with a position for each patch.
#[derive(Debug)]
pub(crate) struct Embedding {
    patches: PatchEmbed,
    positions: Tensor,
}

impl Embedding {
    pub(crate) fn new(named: &NamedTensors) -> Result<Self, Error> {
        let bias = Some(named.get("embedding.bias")?);
        let patches = PatchEmbed::new(&named.get("embedding.weight")?, bias, Precision::F32)?;
        Ok(Self { patches, positions: named.get("positions")? })
    }

    /// Tokens `(B, N, D)` of `images` `(B, 3, H, W)`, patches row by row.
    pub(crate) fn forward(&self, images: &Tensor) -> Result<Tensor, Error> {
        let (_, _, height, width) = images.dims4()?;
        let (ph, pw) = self.patches.patch();
        let count = self.positions.dim(0)?;
        if height % ph != 0 || width % pw != 0 || (height / ph) * (width / pw) != count {
            return Err(shape("images", format!("{count} whole patches of {ph} x {pw}"), images.dims()));
        }
        Ok(self.patches.forward(images)?.broadcast_add(&self.positions)?)
    }
}

/// A block: attention whose heads are as wide as the tokens, and a narrow MLP, both after a norm.
#[derive(Debug)]
struct Block {
    norm1: (Tensor, Tensor),
    qkv: Linear,
    out: Linear,
    norm2: (Tensor, Tensor),
    fc1: Linear,
    fc2: Linear,
}

#[derive(Debug)]
pub(crate) struct Encoder {
    blocks: Vec<Block>,
    latent_norm: (Tensor, Tensor),
    registers: Option<Tensor>,
    heads: usize,
    norms: Norms,
}

impl Encoder {
    /// Of the tensors `encoder.*`, `latent_norm.*` and, if there are any, `registers` `(1, R, D)`.
    pub(crate) fn new(architecture: &Architecture, named: &NamedTensors) -> Result<Self, Error> {
        let pair = |name: &str| -> Result<(Tensor, Tensor), Error> {
            Ok((named.get(&format!("{name}.weight"))?, named.get(&format!("{name}.bias"))?))
        };
        let linear = |name: &str| -> Result<Linear, Error> {
            let (weight, bias) = pair(name)?;
            Ok(Linear::new(weight, Some(bias))?)
        };
        let blocks = (0..architecture.hidden.len())
            .map(|index| {
                let at = |part: &str| format!("encoder.{index}.{part}");
                Ok(Block {
                    norm1: pair(&at("norm1"))?,
                    qkv: linear(&at("attention.qkv"))?,
                    out: linear(&at("attention.out"))?,
                    norm2: pair(&at("norm2"))?,
                    fc1: linear(&at("mlp.fc1"))?,
                    fc2: linear(&at("mlp.fc2"))?,
                })
            })
            .collect::<Result<_, Error>>()?;
        Ok(Self {
            blocks,
            latent_norm: pair("latent_norm")?,
            registers: named.find("registers").cloned(),
            heads: architecture.heads,
            norms: architecture.norms,
        })
    }

    /// All tokens after the last block, `(B, N + R, D)`. Registers, learned or `drawn` `(1 or B, R, D)`, stand behind the
    /// patches and have no position. `look` sees each block's output.
    pub(crate) fn forward(
        &self,
        tokens: &Tensor,
        drawn: Option<&Tensor>,
        mut drops: Drops<'_>,
        mut look: impl FnMut(&Tensor),
    ) -> Result<Tensor, Error> {
        let (batch, _, dim) = tokens.dims3()?;
        let mut z = match drawn.or(self.registers.as_ref()) {
            Some(registers) => match *registers.dims() {
                [some, count, width] if width == dim && (some == 1 || some == batch) => {
                    Tensor::cat(&[tokens, &registers.broadcast_as((batch, count, dim))?.contiguous()?], 1)?
                }
                _ => return Err(shape("registers", format!("(1 or {batch}, R, {dim})"), registers.dims())),
            },
            None => tokens.clone(),
        };
        let Norms { block_eps, gradient, .. } = self.norms;
        for block in &self.blocks {
            let mut dropped = |x: Tensor| -> Result<Tensor, Error> {
                Ok(match &mut drops {
                    Some((rate, stream)) => Dropout::drawn(*rate, stream).apply(&x)?,
                    None => x,
                })
            };
            let y = layer_norm_with(&z, &block.norm1.0, &block.norm1.1, block_eps, gradient)?;
            let attended = attention(&block.qkv.forward(&y)?, &mut AttentionOptions::new(self.heads))?;
            z = (&z + dropped(block.out.forward(&attended.context)?)?)?;
            let u = layer_norm_with(&z, &block.norm2.0, &block.norm2.1, block_eps, gradient)?;
            let hidden = dropped(gelu(&block.fc1.forward(&u)?, Gelu::Erf)?)?;
            z = (&z + block.fc2.forward(&hidden)?)?;
            look(&z);
        }
        Ok(z)
    }

    /// The latent norm of patch tokens `(B, N, D)`.
    pub(crate) fn latent(&self, representation: &Tensor) -> Result<Tensor, Error> {
        let (weight, bias) = &self.latent_norm;
        Ok(layer_norm_with(representation, weight, bias, self.norms.latent_eps, self.norms.gradient)?)
    }
}

/// Tokens `(B, N, D)` on their grid, channels first: `(B, D, rows, columns)`.
pub(crate) fn on_grid(tokens: &Tensor, grid: (usize, usize)) -> Result<Tensor, Error> {
    let (batch, count, dim) = tokens.dims3()?;
    if count != grid.0 * grid.1 {
        return Err(shape("tokens", format!("(B, {} * {}, D)", grid.0, grid.1), tokens.dims()));
    }
    Ok(tokens.transpose(1, 2)?.reshape((batch, dim, grid.0, grid.1))?)
}
