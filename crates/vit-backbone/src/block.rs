//! One transformer block, frozen or over tracked tensors.

use std::collections::HashMap;

use candle_core::{DType, Tensor};
use random_streams::Stream;
use vit_ops::{AttentionOptions, AttentionWeights, Dropout, Gelu, Linear, Precision};

use crate::checkpoint::Checkpoint;
use crate::names::read_block;
use crate::{Activation, BlockConfig, Error, NameScheme, QkvBias, Rope, TrainableBlock};

/// A layer norm over the last axis.
#[derive(Debug, Clone)]
pub(crate) struct Norm {
    pub(crate) weight: Tensor,
    pub(crate) bias: Tensor,
    pub(crate) eps: f64,
}

impl Norm {
    pub(crate) fn forward(&self, x: &Tensor) -> Result<Tensor, Error> {
        Ok(vit_ops::layer_norm(x, &self.weight, &self.bias, self.eps)?)
    }

    /// The norm of `x` in the norm's own type, given back as `dtype`.
    fn forward_to(&self, x: &Tensor, dtype: DType) -> Result<Tensor, Error> {
        Ok(self.forward(&x.to_dtype(self.weight.dtype())?)?.to_dtype(dtype)?)
    }
}

/// One pre-norm transformer block: attention, then the feed-forward part, each added to the residual stream.
///
/// Its tensors are plain (a frozen backbone) or have a graph, if it was built from ones that do.
#[derive(Debug, Clone)]
pub struct Block {
    config: BlockConfig,
    norm1: Norm,
    qkv: Linear,
    proj: Linear,
    scale1: Option<Tensor>,
    norm2: Norm,
    fc1: Linear,
    mlp_norm: Option<Norm>,
    fc2: Linear,
    scale2: Option<Tensor>,
}

/// What a block's forward pass needs beside the tokens; the default is plain inference.
#[derive(Debug, Default)]
pub struct BlockContext<'a> {
    /// Rotary positions, where the network has them ([`Vit::rope`](crate::Vit::rope)).
    pub rope: Option<&'a Rope>,
    /// Dropout, in training.
    pub dropout: Option<BlockDropout<'a>>,
    /// Attention probabilities to return beside the tokens.
    pub weights: AttentionWeights,
}

/// Dropout at the three places of a block: the attention probabilities (after the softmax, not renormalised), the
/// attention's output projection, and the feed-forward part's output. There is none between its two layers.
///
/// Kept values are multiplied by `1/(1 - rate)`; the places draw separate masks, in this order.
#[derive(Debug)]
pub enum BlockDropout<'a> {
    /// Masks drawn from a stream.
    Drawn {
        /// Share of values dropped, in `[0, 1)`, the same in all three places.
        rate: f64,
        /// Where the masks come from.
        stream: &'a mut Stream,
    },
    /// Masks given, 1 where a value is kept.
    Given {
        /// Share of values dropped, in `[0, 1)`, for the rescaling.
        rate: f64,
        /// For the attention probabilities, `(B, H, N, N)`.
        attention: &'a Tensor,
        /// After the output projection, `(B, N, D)`.
        projection: &'a Tensor,
        /// After the feed-forward part, `(B, N, D)`.
        mlp: &'a Tensor,
    },
}

/// The three places.
#[derive(Clone, Copy)]
enum Place {
    Attention,
    Projection,
    Mlp,
}

impl BlockDropout<'_> {
    fn at(&mut self, place: Place) -> Dropout<'_> {
        match self {
            Self::Drawn { rate, stream } => Dropout::drawn(*rate, stream),
            Self::Given { rate, attention, projection, mlp } => {
                let mask = match place {
                    Place::Attention => attention,
                    Place::Projection => projection,
                    Place::Mlp => mlp,
                };
                Dropout::given(*rate, mask)
            }
        }
    }
}

impl Block {
    /// A block of these tensors under this crate's names (see [`NameScheme::block_tensors`]); tensors with a graph
    /// keep it.
    ///
    /// # Errors
    /// If a tensor is missing, has another shape than `config` says, or is one too many.
    pub fn from_tensors(config: BlockConfig, tensors: &HashMap<String, Tensor>) -> Result<Self, Error> {
        Self::read(NameScheme::Timm, config, &mut Checkpoint::of_tensors(tensors, ""), "")
    }

    /// A block of tensors under the names of `scheme`, each behind `prefix` (for instance `blocks.3.`); tensors with a
    /// graph keep it.
    ///
    /// # Errors
    /// If a tensor is missing, has another shape than `config` says, or is one too many.
    pub fn from_named(
        scheme: NameScheme,
        config: BlockConfig,
        tensors: &HashMap<String, Tensor>,
        prefix: &str,
    ) -> Result<Self, Error> {
        Self::read(scheme, config, &mut Checkpoint::of_tensors(tensors, ""), prefix)
    }

    pub(crate) fn read(
        scheme: NameScheme,
        config: BlockConfig,
        checkpoint: &mut Checkpoint,
        prefix: &str,
    ) -> Result<Self, Error> {
        let precision = checkpoint.precision;
        Self::assemble(config, read_block(scheme, &config, checkpoint, prefix)?, precision)
    }

    /// From a whole set of tensors of the right shapes.
    pub(crate) fn assemble(
        config: BlockConfig,
        tensors: Vec<(String, Tensor)>,
        precision: Precision,
    ) -> Result<Self, Error> {
        let mut tensors: HashMap<String, Tensor> = tensors.into_iter().collect();
        let mut optional = |name: &str| tensors.remove(name);
        let biases = (optional("attn.q_bias"), optional("attn.v_bias"));
        let qkv_bias = match (config.qkv_bias, biases) {
            (QkvBias::QueryValue, (Some(query), Some(value))) => {
                Some(Tensor::cat(&[&query, &query.zeros_like()?, &value], 0)?)
            }
            _ => optional("attn.qkv.bias"),
        };
        let (proj_bias, fc1_bias, fc2_bias) =
            (optional("attn.proj.bias"), optional("mlp.fc1.bias"), optional("mlp.fc2.bias"));
        let (scale1, scale2) = (optional("ls1.gamma"), optional("ls2.gamma"));
        let mlp_norm = match (optional("mlp.norm.weight"), optional("mlp.norm.bias")) {
            (Some(weight), Some(bias)) => Some(Norm { weight, bias, eps: config.norm_eps }),
            _ => None,
        };
        let mut take = |name: &str| {
            tensors.remove(name).ok_or_else(|| Error::MissingTensor {
                tensor: name.to_owned(),
                checkpoint: "the block's tensors".to_owned(),
                expected: "every block has it".to_owned(),
            })
        };
        Ok(Self {
            norm1: Norm { weight: take("norm1.weight")?, bias: take("norm1.bias")?, eps: config.norm_eps },
            qkv: Linear::with_precision(take("attn.qkv.weight")?, qkv_bias, precision)?,
            proj: Linear::with_precision(take("attn.proj.weight")?, proj_bias, precision)?,
            scale1,
            norm2: Norm { weight: take("norm2.weight")?, bias: take("norm2.bias")?, eps: config.norm_eps },
            fc1: Linear::with_precision(take("mlp.fc1.weight")?, fc1_bias, precision)?,
            mlp_norm,
            fc2: Linear::with_precision(take("mlp.fc2.weight")?, fc2_bias, precision)?,
            scale2,
            config,
        })
    }

    /// Sizes and options.
    pub fn config(&self) -> &BlockConfig {
        &self.config
    }

    /// Tokens `(B, N, D)` to tokens `(B, N, D)`: the residual stream after the block. The attention probabilities
    /// asked for come beside it, `(B, H, N)` or `(B, H, N, N)`; they are those before dropout.
    ///
    /// # Errors
    /// If the tokens have another width or number than the weights, masks or rotary positions fit.
    pub fn forward(
        &self,
        tokens: &Tensor,
        context: &mut BlockContext<'_>,
    ) -> Result<(Tensor, Option<Tensor>), Error> {
        self.advance(tokens.clone(), context)
    }

    /// [`Block::forward`] of tokens that nobody may need again: what each half reads is given up before the next
    /// begins, for the feed-forward part is where a block needs most memory.
    pub(crate) fn advance(
        &self,
        tokens: Tensor,
        context: &mut BlockContext<'_>,
    ) -> Result<(Tensor, Option<Tensor>), Error> {
        // Where the layers keep half types, so does what lies between them; norms and the residual stream do not, and
        // nothing does with dropout, which rescales.
        let wide = tokens.dtype();
        let inner = self.qkv.half().filter(|_| context.dropout.is_none()).unwrap_or(wide);
        let (tokens, weights) = self.attend(tokens, inner, context)?;
        let hidden = self.hidden(&self.norm2.forward_to(&tokens, inner)?)?;
        let tokens = residual(
            &tokens,
            &self.fc2,
            &hidden,
            self.scale2.as_ref(),
            context.dropout.as_mut().map(|dropout| dropout.at(Place::Mlp)),
        )?;
        Ok((tokens, weights.map(|weights| weights.to_dtype(wide)).transpose()?))
    }

    /// The first half: attention, added to the tokens, and its probabilities.
    // Given up here, so that it is gone when the second half begins.
    #[allow(clippy::needless_pass_by_value)]
    fn attend(
        &self,
        tokens: Tensor,
        inner: DType,
        context: &mut BlockContext<'_>,
    ) -> Result<(Tensor, Option<Tensor>), Error> {
        let normed = self.norm1.forward_to(&tokens, inner)?;
        let mut qkv = self.qkv.forward(&normed)?;
        drop(normed);
        let mut options = AttentionOptions {
            weights: context.weights,
            dropout: context.dropout.as_mut().map(|dropout| dropout.at(Place::Attention)),
            ..AttentionOptions::new(self.config.heads)
        };
        if let Some(rope) = context.rope {
            let turned = rope.apply_packed(&qkv.to_dtype(tokens.dtype())?, self.config.heads)?;
            qkv = turned.to_dtype(inner)?;
        }
        let attended = vit_ops::attention(&qkv, &mut options)?;
        drop(qkv);
        let tokens = residual(
            &tokens,
            &self.proj,
            &attended.context,
            self.scale1.as_ref(),
            context.dropout.as_mut().map(|dropout| dropout.at(Place::Projection)),
        )?;
        Ok((tokens, attended.weights))
    }

    /// The feed-forward part up to its output layer.
    fn hidden(&self, normed: &Tensor) -> Result<Tensor, Error> {
        let hidden = match self.config.activation {
            Activation::GeluErf => self.fc1.forward_gelu(normed, Gelu::Erf)?,
            Activation::QuickGelu => self.fc1.forward_gelu(normed, Gelu::Quick)?,
            Activation::Swiglu => self.fc1.forward_swiglu(normed)?,
        };
        self.mlp_norm.as_ref().map_or(Ok(hidden.clone()), |norm| norm.forward_to(&hidden, hidden.dtype()))
    }

    /// The tensors under this crate's names (timm's, queries, keys and values fused, gates packed), contiguous, in
    /// the order of the forward pass.
    ///
    /// # Errors
    /// If a copy fails.
    pub fn named_tensors(&self) -> Result<Vec<(String, Tensor)>, Error> {
        let mut out = Vec::with_capacity(16);
        let mut push = |name: &str, tensor: &Tensor| -> Result<(), Error> {
            out.push((name.to_owned(), tensor.contiguous()?));
            Ok(())
        };
        push("norm1.weight", &self.norm1.weight)?;
        push("norm1.bias", &self.norm1.bias)?;
        push("attn.qkv.weight", &self.qkv.weight()?)?;
        if let Some(bias) = self.qkv.bias() {
            if self.config.qkv_bias == QkvBias::QueryValue {
                push("attn.q_bias", &bias.narrow(0, 0, self.config.dim)?)?;
                push("attn.v_bias", &bias.narrow(0, 2 * self.config.dim, self.config.dim)?)?;
            } else {
                push("attn.qkv.bias", bias)?;
            }
        }
        let linear =
            |push: &mut dyn FnMut(&str, &Tensor) -> Result<(), Error>, name: &str, layer: &Linear| {
                push(&format!("{name}.weight"), &layer.weight()?)?;
                layer.bias().map_or(Ok(()), |bias| push(&format!("{name}.bias"), bias))
            };
        linear(&mut push, "attn.proj", &self.proj)?;
        if let Some(scale) = &self.scale1 {
            push("ls1.gamma", scale)?;
        }
        push("norm2.weight", &self.norm2.weight)?;
        push("norm2.bias", &self.norm2.bias)?;
        linear(&mut push, "mlp.fc1", &self.fc1)?;
        if let Some(norm) = &self.mlp_norm {
            push("mlp.norm.weight", &norm.weight)?;
            push("mlp.norm.bias", &norm.bias)?;
        }
        linear(&mut push, "mlp.fc2", &self.fc2)?;
        if let Some(scale) = &self.scale2 {
            push("ls2.gamma", scale)?;
        }
        Ok(out)
    }

    /// A trainable block of the same sizes and options with fresh weights, as [`TrainableBlock::student`].
    ///
    /// # Errors
    /// If its tensors cannot be made.
    pub fn student(&self, stream: &mut Stream) -> Result<TrainableBlock, Error> {
        TrainableBlock::student(&self.config, stream, self.norm1.weight.device())
    }

    /// A trainable copy of this block's weights.
    ///
    /// # Errors
    /// If its tensors cannot be copied.
    pub fn trainable(&self) -> Result<TrainableBlock, Error> {
        TrainableBlock::from_tensors(&self.config, &self.named_tensors()?.into_iter().collect())
    }
}

/// `x + scale * dropout(layer(branch))`.
fn residual(
    x: &Tensor,
    layer: &Linear,
    branch: &Tensor,
    scale: Option<&Tensor>,
    dropout: Option<Dropout<'_>>,
) -> Result<Tensor, Error> {
    Ok(match dropout {
        None => layer.forward_residual(branch, x, scale)?,
        Some(mut dropout) => {
            let dropped = dropout.apply(&layer.forward(branch)?)?;
            vit_ops::add_residual(x, &dropped, None, scale)?
        }
    })
}
