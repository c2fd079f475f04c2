//! The network: embedding, blocks, norm, pooled vector.

mod read;
mod write;

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use candle_core::{DType, Device, Tensor};
use image_prep::Preprocess;
use pretrained::Weights;
use random_streams::Stream;
use vit_ops::{AttentionWeights, Linear, PatchEmbed, Precision};

use crate::block::Norm;
use crate::checkpoint::Checkpoint;
use crate::{
    Block, BlockContext, Error, Features, NameScheme, Outputs, Pooling, Positions, Rope, VitConfig,
    resample_positions,
};

/// Which weights a network has, for records and for keys of cached features.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Identity {
    /// Catalogue name, hub id or path it was loaded by.
    pub name: String,
    /// SHA-256 of the weight files; for weights made in memory, of their names, shapes and values.
    pub sha256: String,
    /// Where the weights came from: a path, or `owner/name@revision`.
    pub origin: String,
    /// Licence of the weights, as far as the catalogue knows.
    pub licence: String,
}

/// A Vision Transformer.
///
/// Loaded or made by [`Vit::random`], it is frozen: plain tensors, so that no forward pass keeps a graph and inference
/// needs the memory of the weights and one batch. Made by [`Vit::from_tensors`] from tracked tensors, it carries
/// gradients to each of them and to the images.
#[derive(Debug)]
pub struct Vit {
    config: VitConfig,
    identity: Identity,
    preprocess: Preprocess,
    device: Device,
    precision: Precision,
    patches: PatchEmbed,
    class_token: Option<Tensor>,
    registers: Option<Tensor>,
    positions: Option<Tensor>,
    pre_norm: Option<Norm>,
    blocks: Vec<Block>,
    norm: Option<Norm>,
    /// Norm after the pooling, pooler layer or nothing.
    pooled_norm: Option<Norm>,
    pooler: Option<Linear>,
    head: Option<Linear>,
    /// Table or angles for the grid seen last: most callers use one size. Empty where the table has a graph.
    resampled: Mutex<Option<((usize, usize), Prepared)>>,
}

/// What a grid of patches needs.
#[derive(Debug, Clone)]
struct Prepared {
    table: Option<Tensor>,
    rope: Option<Rope>,
}

impl Vit {
    /// A frozen network of weights under the names of `names`, with the first `blocks` blocks or all of them.
    ///
    /// A prefix in front of all names is found by itself. Its preprocessing is the family's default at the trained
    /// size, its identity the weights' origin.
    ///
    /// # Errors
    /// If the configuration is none, or a tensor is missing, one too many in a block, or of another shape.
    pub fn from_weights(
        config: VitConfig,
        weights: &Weights,
        names: NameScheme,
        device: &Device,
        blocks: Option<usize>,
    ) -> Result<Self, Error> {
        Self::of_weights(config, weights, names, device, blocks, Precision::F32)
    }

    pub(crate) fn of_weights(
        config: VitConfig,
        weights: &Weights,
        names: NameScheme,
        device: &Device,
        blocks: Option<usize>,
        precision: Precision,
    ) -> Result<Self, Error> {
        let prefix = names.prefix_of(weights.names());
        let mut checkpoint = Checkpoint::of_weights(weights, device, prefix);
        checkpoint.precision = precision;
        let identity = Identity {
            name: weights.origin().to_owned(),
            sha256: weights.sha256().to_owned(),
            origin: weights.origin().to_owned(),
            licence: "not stated".to_owned(),
        };
        Self::read(config, &mut checkpoint, names, blocks, identity, device)
    }

    /// A network of these tensors under the names of `names`, as they are: those with a graph keep it, so that
    /// [`candle_core::Tensor::backward`] reaches each under the name it has in its file.
    ///
    /// What is computed from them here (joined biases) is computed once: make the network anew after changing a
    /// `Var`.
    ///
    /// # Errors
    /// As [`Vit::from_weights`].
    pub fn from_tensors(
        config: VitConfig,
        tensors: &HashMap<String, Tensor>,
        names: NameScheme,
    ) -> Result<Self, Error> {
        let detached = tensors.iter().map(|(name, tensor)| (name.clone(), tensor.detach())).collect();
        let identity = Identity {
            name: "given tensors".to_owned(),
            sha256: Weights::from_tensors(detached)?.sha256().to_owned(),
            origin: "memory".to_owned(),
            licence: "not stated".to_owned(),
        };
        let prefix = names.prefix_of(tensors.keys().map(String::as_str));
        let device = tensors.values().next().map_or(Device::Cpu, |tensor| tensor.device().clone());
        let mut checkpoint = Checkpoint::of_tensors(tensors, prefix);
        Self::read(config, &mut checkpoint, names, None, identity, &device)
    }

    /// A frozen network with random weights, for tests and for measuring what pretraining is worth: linear weights,
    /// tokens and positions `N(0, 0.02²)` cut at two standard deviations, biases 0, norms 1 and 0, `LayerScale` 1.
    ///
    /// # Errors
    /// If the configuration is none.
    pub fn random(config: VitConfig, stream: &mut Stream, device: &Device) -> Result<Self, Error> {
        config.validate()?;
        let tensors = crate::random::tensors(&config, stream, device)?;
        let mut vit = Self::from_tensors(config, &tensors, NameScheme::Timm)?;
        vit.identity = Identity {
            name: "random".to_owned(),
            origin: "random weights".to_owned(),
            licence: "none needed".to_owned(),
            ..vit.identity
        };
        Ok(vit)
    }

    pub(crate) fn describe(&mut self, identity: Identity, preprocess: Preprocess) {
        self.identity = identity;
        self.preprocess = preprocess;
    }

    /// Every size and option; its depth is that in use ([`Vit::depth`]).
    pub fn config(&self) -> &VitConfig {
        &self.config
    }

    /// Which weights these are.
    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    /// How the checkpoint wants its images, at the size asked for when it was loaded.
    pub fn preprocess(&self) -> &Preprocess {
        &self.preprocess
    }

    /// Where the weights are and images have to be.
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// How its linear layers multiply: f32, unless [`LoadOptions::precision`](crate::LoadOptions::precision) says
    /// otherwise. With another one, the weights that [`Vit::named_tensors`] and [`Block::trainable`] copy have no more
    /// digits than it keeps.
    pub fn precision(&self) -> Precision {
        self.precision
    }

    /// Number of blocks in use: all, or as many as were asked for.
    pub fn depth(&self) -> usize {
        self.blocks.len()
    }

    /// Token width D.
    pub fn dim(&self) -> usize {
        self.config.dim
    }

    /// Tokens in front of the patches: class token, then registers.
    pub fn prefix_tokens(&self) -> usize {
        self.config.prefix_tokens()
    }

    /// Height and width of a patch in pixels.
    pub fn patch(&self) -> (usize, usize) {
        self.config.patch
    }

    /// Rows and columns of patches of an image of `height` by `width` pixels.
    pub fn grid(&self, height: usize, width: usize) -> (usize, usize) {
        self.config.grid(height, width)
    }

    /// Block `index`, counted from 0.
    ///
    /// # Errors
    /// [`Error::NoSuchBlock`].
    pub fn block(&self, index: usize) -> Result<&Block, Error> {
        self.blocks.get(index).ok_or(Error::NoSuchBlock { index, depth: self.blocks.len() })
    }

    /// All blocks in use.
    pub fn blocks(&self) -> &[Block] {
        &self.blocks
    }

    /// Rotary positions for images of `height` by `width` pixels, or `None` where the network has none: what its
    /// blocks need in their [`BlockContext`].
    ///
    /// # Errors
    /// If the tensors cannot be made.
    pub fn rope(&self, height: usize, width: usize) -> Result<Option<Rope>, Error> {
        Ok(self.prepared(self.grid(height, width))?.rope)
    }

    /// The position table `(1, rows, D)` for images of `height` by `width` pixels, resampled where their grid is not
    /// the trained one; `None` for rotary positions alone. Its first row is the class token's where the checkpoint has one.
    ///
    /// # Errors
    /// [`Error::FixedGrid`] if the grid differs and resampling is off.
    pub fn position_table(&self, height: usize, width: usize) -> Result<Option<Tensor>, Error> {
        Ok(self.prepared(self.grid(height, width))?.table)
    }

    fn prepared(&self, grid: (usize, usize)) -> Result<Prepared, Error> {
        let mut last = self.resampled.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, prepared)) = last.as_ref().filter(|(of, _)| *of == grid) {
            return Ok(prepared.clone());
        }
        let table = match (self.config.positions.table(), &self.positions) {
            (Some(how), Some(table)) => {
                Some(resample_positions(table, self.config.trained_grid(), grid, how)?)
            }
            (Some(_), None) => {
                return Err(Error::NoSuchOutput { output: "positions", reason: "the network has no table" });
            }
            (None, _) => None,
        };
        let (prefix, heads) = (self.prefix_tokens(), self.config.heads);
        let width = self.config.dim / heads;
        let rope = match self.config.positions {
            Positions::Table(_) => None,
            Positions::Rope { base } => Some(Rope::new(grid, prefix, width, base, &self.device)?),
            Positions::TableAndRope { base, reference, .. } => {
                Some(Rope::of_neighbours(grid, reference, prefix, (heads, width), base, &self.device)?)
            }
        };
        let prepared = Prepared { table, rope };
        // A table with a graph has to follow its `Var`.
        if !prepared.table.as_ref().is_some_and(Tensor::track_op) {
            *last = Some((grid, prepared.clone()));
        }
        Ok(prepared)
    }

    /// The tokens entering block 0, `(B, N, D)`, of images `(B, 3, H, W)`, f32 and already normalised: patches with
    /// their positions, prefix in front, CLIP's first norm applied.
    ///
    /// H and W may be any size of at least one patch; a remainder that fills no patch is left out.
    ///
    /// # Errors
    /// If the images have another shape or type, or another grid than the table while resampling is off.
    pub fn embed(&self, images: &Tensor) -> Result<Tensor, Error> {
        let (height, width) = self.check_images(images)?;
        let grid = self.grid(height, width);
        let batch = images.dim(0)?;
        let mut patches = self.patches.forward(images)?;
        let mut class_token = self.class_token.clone();
        if let Some(table) = self.prepared(grid)?.table {
            let count = grid.0 * grid.1;
            let first = table.dim(1)? - count;
            patches = patches.broadcast_add(&table.narrow(1, first, count)?)?;
            if first > 0 {
                class_token = match class_token {
                    Some(token) => Some((token + table.narrow(1, 0, 1)?)?),
                    None => None,
                };
            }
        }
        let expand = |tokens: &Tensor| {
            let count = tokens.dim(1)?;
            tokens.broadcast_as((batch, count, self.config.dim))?.contiguous()
        };
        let mut parts = Vec::with_capacity(3);
        for prefix in [class_token.as_ref(), self.registers.as_ref()].into_iter().flatten() {
            parts.push(expand(prefix)?);
        }
        let tokens = if parts.is_empty() {
            patches
        } else {
            parts.push(patches);
            Tensor::cat(&parts, 1)?
        };
        self.pre_norm.as_ref().map_or(Ok(tokens.clone()), |norm| norm.forward(&tokens))
    }

    fn check_images(&self, images: &Tensor) -> Result<(usize, usize), Error> {
        let (ph, pw) = self.config.patch;
        match images.dims() {
            &[batch, 3, height, width]
                if batch > 0 && height >= ph && width >= pw && images.dtype() == DType::F32 =>
            {
                Ok((height, width))
            }
            shape => Err(Error::Input {
                what: "images",
                expected: format!("f32 of shape (B, 3, H, W) with H at least {ph} and W at least {pw}"),
                found: format!("{:?} of shape {shape:?}", images.dtype()),
            }),
        }
    }

    /// Tokens `(B, N, D)` with the network's final norm applied; as they are where it has none (mean, then norm).
    ///
    /// # Errors
    /// If there is a norm and the tokens have another width.
    pub fn norm(&self, tokens: &Tensor) -> Result<Tensor, Error> {
        self.norm.as_ref().map_or(Ok(tokens.clone()), |norm| norm.forward(tokens))
    }

    /// The family's pooled vector `(B, D)` of normed tokens `(B, N, D)` (see [`Pooling`]).
    ///
    /// # Errors
    /// If the tokens have another width, or no patch.
    pub fn pool(&self, normed: &Tensor) -> Result<Tensor, Error> {
        let (prefix, dim) = (self.prefix_tokens(), self.config.dim);
        let count = match normed.dims() {
            &[_, count, width] if count > prefix && width == dim => count,
            shape => {
                return Err(Error::Input {
                    what: "tokens",
                    expected: format!("(B, N, {dim}) with N at least {}", prefix + 1),
                    found: format!("{shape:?}"),
                });
            }
        };
        let class_token = || normed.narrow(1, 0, 1)?.squeeze(1);
        let mean = || normed.narrow(1, prefix, count - prefix)?.mean(1);
        Ok(match (self.config.pooling, &self.pooler, &self.pooled_norm) {
            (Pooling::TanhPooler, Some(pooler), _) => pooler.forward(&class_token()?)?.tanh()?,
            (Pooling::MeanThenNorm, _, Some(norm)) => norm.forward(&mean()?)?,
            (Pooling::Mean | Pooling::MeanThenNorm, ..) => mean()?,
            (Pooling::ClassToken | Pooling::TanhPooler, ..) => class_token()?,
        })
    }

    /// Runs the network as far as `outputs` needs.
    ///
    /// # Errors
    /// As [`Vit::embed`]; [`Error::NoSuchBlock`] or [`Error::NoSuchOutput`] if something is asked for that the network
    /// lacks.
    pub fn forward(&self, images: &Tensor, outputs: &Outputs) -> Result<Features, Error> {
        let run = outputs.blocks_to_run(self.blocks.len())?;
        if outputs.logits && self.head.is_none() {
            return Err(Error::NoSuchOutput {
                output: "logits",
                reason: "no head was loaded (set the configuration's classes or the loader's head)",
            });
        }
        if outputs.class_attention_of.is_some() && !self.config.class_token {
            return Err(Error::NoSuchOutput {
                output: "class_attention",
                reason: "the network has no class token",
            });
        }
        let (height, width) = self.check_images(images)?;
        let rope = self.rope(height, width)?;
        let mut tokens = self.embed(images)?;
        let mut features = Features {
            grid: self.grid(height, width),
            prefix_tokens: self.prefix_tokens(),
            embed: outputs.embed.then(|| tokens.clone()),
            blocks: Vec::new(),
            normed_blocks: Vec::new(),
            norm: None,
            pooled: None,
            logits: None,
            class_attention: None,
            full_attention: None,
        };
        let mut raw = HashMap::new();
        let mut normed = HashMap::new();
        for (index, block) in self.blocks[..run].iter().enumerate() {
            let (class_row, full) =
                (outputs.class_attention_of == Some(index), outputs.full_attention_of == Some(index));
            let weights = match (class_row, full) {
                (_, true) => AttentionWeights::Full,
                (true, false) => AttentionWeights::ClassRow,
                (false, false) => AttentionWeights::None,
            };
            let mut context = BlockContext { rope: rope.as_ref(), dropout: None, weights };
            let (after, attention) = block.advance(tokens, &mut context)?;
            tokens = after;
            if class_row {
                features.class_attention = match &attention {
                    Some(all) if full => Some(all.narrow(2, 0, 1)?.squeeze(2)?),
                    other => other.clone(),
                };
            }
            if full {
                features.full_attention = attention;
            }
            if outputs.blocks.contains(&index) {
                raw.insert(index, tokens.clone());
            }
            if outputs.normed_blocks.contains(&index) {
                normed.insert(index, self.norm(&tokens)?);
            }
        }
        let pick = |from: &HashMap<usize, Tensor>, wanted: &[usize]| {
            wanted.iter().filter_map(|index| from.get(index).cloned()).collect()
        };
        features.blocks = pick(&raw, &outputs.blocks);
        features.normed_blocks = pick(&normed, &outputs.normed_blocks);
        if outputs.norm || outputs.pooled || outputs.logits {
            let last = match normed.remove(&(self.blocks.len() - 1)) {
                Some(last) => last,
                None => self.norm(&tokens)?,
            };
            if outputs.pooled || outputs.logits {
                let pooled = self.pool(&last)?;
                if let (true, Some(head)) = (outputs.logits, &self.head) {
                    // The head of `ViTForImageClassification` reads the class token, not the pooler.
                    let of = match self.config.pooling {
                        Pooling::TanhPooler => last.narrow(1, 0, 1)?.squeeze(1)?,
                        _ => pooled.clone(),
                    };
                    features.logits = Some(head.forward(&of)?);
                }
                features.pooled = outputs.pooled.then_some(pooled);
            }
            features.norm = outputs.norm.then_some(last);
        }
        Ok(features)
    }
}
