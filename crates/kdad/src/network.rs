//! The student as a function: layers put together from named weights.

use std::collections::BTreeMap;

use anomaly_core::Stream;
use candle_core::Tensor;
use vit_ops::{AttentionOptions, Dropout, Gelu, Linear};

use crate::{Error, StudentKind};

/// Added to the variance in the student's layer norms.
pub(crate) const NORM_EPS: f64 = 1e-5;

/// All sizes of a student.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Sizes {
    pub(crate) kind: StudentKind,
    /// Height and width of a patch in pixels.
    pub(crate) patch: (usize, usize),
    /// Patches of an image, N.
    pub(crate) patches: usize,
    /// Width of tokens, D: the teacher's.
    pub(crate) dim: usize,
    /// Width of hidden layers.
    pub(crate) hidden: usize,
    /// Blocks of a ViT.
    pub(crate) layers: usize,
    /// Attention heads of a ViT.
    pub(crate) heads: usize,
    /// Added to the variance in layer norms.
    pub(crate) norm_eps: f64,
}

/// What a weight starts from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Start {
    /// Uniform within `1 / sqrt(fan in)` of zero, as `PyTorch`'s linear layers.
    FanIn(usize),
    /// Uniform within `sqrt(6 / (fan in + fan out))` of zero.
    Xavier(usize, usize),
    /// N(0, 1).
    Normal,
    Zeros,
    Ones,
}

impl Sizes {
    /// Samples of a patch: its three channels.
    fn patch_len(&self) -> usize {
        3 * self.patch.0 * self.patch.1
    }

    /// Names in the reference's state dict, shapes and starts of all weights, in the order of the forward pass.
    pub(crate) fn weights(&self) -> Vec<(String, Vec<usize>, Start)> {
        let (dim, hidden, len) = (self.dim, self.hidden, self.patch_len());
        let mut all: Vec<(String, Vec<usize>, Start)> = Vec::new();
        let mut add =
            |name: &str, shape: &[usize], start| all.push((format!("model.{name}"), shape.to_vec(), start));
        if self.kind == StudentKind::Mlp {
            add("linear.0.weight", &[hidden, len], Start::FanIn(len));
            add("linear.0.bias", &[hidden], Start::FanIn(len));
            add("linear.3.weight", &[dim, hidden], Start::FanIn(hidden));
            add("linear.3.bias", &[dim], Start::FanIn(hidden));
            return all;
        }
        add("input_layer.weight", &[dim, len], Start::FanIn(len));
        add("input_layer.bias", &[dim], Start::FanIn(len));
        add("cls_token", &[1, 1, dim], Start::Normal);
        add("pos_embedding", &[1, 1 + self.patches, dim], Start::Normal);
        for block in 0..self.layers {
            let mut add = |name: &str, shape: &[usize], start| {
                add(&format!("transformer.{block}.{name}"), shape, start);
            };
            add("layer_norm_1.weight", &[dim], Start::Ones);
            add("layer_norm_1.bias", &[dim], Start::Zeros);
            add("attn.in_proj_weight", &[3 * dim, dim], Start::Xavier(dim, 3 * dim));
            add("attn.in_proj_bias", &[3 * dim], Start::Zeros);
            add("attn.out_proj.weight", &[dim, dim], Start::FanIn(dim));
            add("attn.out_proj.bias", &[dim], Start::Zeros);
            add("layer_norm_2.weight", &[dim], Start::Ones);
            add("layer_norm_2.bias", &[dim], Start::Zeros);
            add("linear.0.weight", &[hidden, dim], Start::FanIn(dim));
            add("linear.0.bias", &[hidden], Start::FanIn(dim));
            add("linear.3.weight", &[dim, hidden], Start::FanIn(hidden));
            add("linear.3.bias", &[dim], Start::FanIn(hidden));
        }
        all
    }
}

/// The student's layers. Weights with a graph keep it.
#[derive(Debug)]
pub(crate) struct Network {
    /// A patch's samples to its first layer.
    input: Linear,
    patch: (usize, usize),
    rest: Rest,
}

#[derive(Debug)]
enum Rest {
    /// The second layer.
    Mlp(Linear),
    Vit {
        class_token: Tensor,
        positions: Tensor,
        blocks: Vec<Block>,
    },
}

#[derive(Debug)]
struct Block {
    norm1: Norm,
    qkv: Linear,
    proj: Linear,
    norm2: Norm,
    fc1: Linear,
    fc2: Linear,
    heads: usize,
}

#[derive(Debug)]
struct Norm {
    weight: Tensor,
    bias: Tensor,
    eps: f64,
}

impl Norm {
    fn forward(&self, x: &Tensor) -> Result<Tensor, Error> {
        Ok(vit_ops::layer_norm(x, &self.weight, &self.bias, self.eps)?)
    }
}

/// Weights by their names in the reference's state dict.
struct Named<'a>(&'a BTreeMap<String, Tensor>);

impl Named<'_> {
    fn get(&self, name: &str) -> Result<Tensor, Error> {
        let name = format!("model.{name}");
        self.0.get(&name).cloned().ok_or(Error::Weight { name, expected: vec![], found: None })
    }

    fn layer(&self, name: &str) -> Result<Linear, Error> {
        Ok(Linear::new(self.get(&format!("{name}.weight"))?, Some(self.get(&format!("{name}.bias"))?))?)
    }

    fn norm(&self, name: &str, eps: f64) -> Result<Norm, Error> {
        Ok(Norm {
            weight: self.get(&format!("{name}.weight"))?,
            bias: self.get(&format!("{name}.bias"))?,
            eps,
        })
    }
}

impl Network {
    /// Puts `weights` together, whose names and shapes must be those of [`Sizes::weights`].
    pub(crate) fn new(sizes: &Sizes, weights: &BTreeMap<String, Tensor>) -> Result<Self, Error> {
        for (name, expected, _) in sizes.weights() {
            let found = weights.get(&name).map(|tensor| tensor.dims().to_vec());
            if found.as_ref() != Some(&expected) {
                return Err(Error::Weight { name, expected, found });
            }
        }
        let named = Named(weights);
        if sizes.kind == StudentKind::Mlp {
            let rest = Rest::Mlp(named.layer("linear.3")?);
            return Ok(Self { input: named.layer("linear.0")?, patch: sizes.patch, rest });
        }
        let blocks = (0..sizes.layers)
            .map(|block| {
                let name = |part: &str| format!("transformer.{block}.{part}");
                let qkv = Linear::new(
                    named.get(&name("attn.in_proj_weight"))?,
                    Some(named.get(&name("attn.in_proj_bias"))?),
                )?;
                Ok(Block {
                    norm1: named.norm(&name("layer_norm_1"), sizes.norm_eps)?,
                    qkv,
                    proj: named.layer(&name("attn.out_proj"))?,
                    norm2: named.norm(&name("layer_norm_2"), sizes.norm_eps)?,
                    fc1: named.layer(&name("linear.0"))?,
                    fc2: named.layer(&name("linear.3"))?,
                    heads: sizes.heads,
                })
            })
            .collect::<Result<_, Error>>()?;
        let rest = Rest::Vit {
            class_token: named.get("cls_token")?,
            positions: named.get("pos_embedding")?,
            blocks,
        };
        Ok(Self { input: named.layer("input_layer")?, patch: sizes.patch, rest })
    }

    /// Tokens `(B, N, D)` of `images` `(B, 3, H, W)`, whose sides are multiples of the patch. Dropout where `noise`
    /// gives a rate and a stream.
    pub(crate) fn forward(
        &self,
        images: &Tensor,
        noise: &mut Option<(f64, &mut Stream)>,
    ) -> Result<Tensor, Error> {
        let mut dropout = |x: Tensor| -> Result<Tensor, Error> {
            match noise {
                Some((rate, stream)) => Ok(Dropout::drawn(*rate, stream).apply(&x)?),
                None => Ok(x),
            }
        };
        let patches = self.input.forward(&patches(images, self.patch)?)?;
        match &self.rest {
            Rest::Mlp(output) => Ok(output.forward(&dropout(vit_ops::relu(&patches)?)?)?),
            Rest::Vit { class_token, positions, blocks } => {
                let (batch, count, dim) = patches.dims3()?;
                let class_token = class_token.broadcast_as((batch, 1, dim))?.contiguous()?;
                let tokens = Tensor::cat(&[&class_token, &patches], 1)?;
                let mut tokens = dropout(tokens.broadcast_add(positions)?)?;
                for block in blocks {
                    tokens = block.forward(&tokens, &mut dropout)?;
                }
                Ok(tokens.narrow(1, 1, count)?.contiguous()?)
            }
        }
    }
}

impl Block {
    fn forward(
        &self,
        tokens: &Tensor,
        dropout: &mut impl FnMut(Tensor) -> Result<Tensor, Error>,
    ) -> Result<Tensor, Error> {
        let qkv = self.qkv.forward(&self.norm1.forward(tokens)?)?;
        let attended = vit_ops::attention(&qkv, &mut AttentionOptions::new(self.heads))?;
        let tokens = self.proj.forward_residual(&attended.context, tokens, None)?;
        let hidden = dropout(self.fc1.forward_gelu(&self.norm2.forward(&tokens)?, Gelu::Erf)?)?;
        let branch = dropout(self.fc2.forward(&hidden)?)?;
        Ok((tokens + branch)?)
    }
}

/// The samples of each patch of `images` `(B, 3, H, W)`, row by row: `(B, N, 3 ph pw)`, a patch's samples by channel,
/// row, column.
fn patches(images: &Tensor, (ph, pw): (usize, usize)) -> Result<Tensor, Error> {
    let (batch, channels, height, width) = images.dims4()?;
    let (rows, columns) = (height / ph, width / pw);
    let cut = images.reshape((batch, channels, rows, ph, columns, pw))?;
    // (B, C, rows, ph, columns, pw) to (B, rows, columns, C, ph, pw).
    let cut = cut.permute([0, 2, 4, 1, 3, 5])?.contiguous()?;
    Ok(cut.reshape((batch, rows * columns, channels * ph * pw))?)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use candle_core::{Device, Tensor};

    use super::patches;

    #[test]
    fn a_patch_holds_its_channels_one_after_the_other() {
        let images = Tensor::arange(0_f32, 36., &Device::Cpu).unwrap().reshape((1, 3, 2, 6)).unwrap();
        let cut = patches(&images, (2, 3)).unwrap();
        assert_eq!(cut.dims(), [1, 2, 18]);
        let rows = cut.squeeze(0).unwrap().to_vec2::<f32>().unwrap();
        assert_eq!(rows[0][..7], [0., 1., 2., 6., 7., 8., 12.]);
        assert_eq!(rows[1][..7], [3., 4., 5., 9., 10., 11., 15.]);
    }
}
