//! A network from the tensors of a checkpoint.

use std::sync::Mutex;

use candle_core::{Device, Tensor};
use vit_ops::{Linear, PatchEmbed};

use super::{Identity, Vit};
use crate::block::Norm;
use crate::checkpoint::Axis::{self, Any, Is};
use crate::checkpoint::Checkpoint;
use crate::names::{PREFIXES, count_blocks};
use crate::preprocessing::family_preprocess;
use crate::{Block, Error, NameScheme, Pooling, Positions, VitConfig};

impl NameScheme {
    /// The prefix in front of this scheme's names; none where the patch projection is nowhere (a later message names
    /// it).
    pub(super) fn prefix_of<'a>(self, names: impl Iterator<Item = &'a str>) -> &'static str {
        let patch = format!("{}.weight", self.names().patch);
        let found: Vec<&str> = names.filter_map(|name| name.strip_suffix(&patch)).collect();
        PREFIXES.into_iter().find(|prefix| found.contains(prefix)).unwrap_or("")
    }
}

impl Vit {
    pub(super) fn read(
        mut config: VitConfig,
        checkpoint: &mut Checkpoint,
        scheme: NameScheme,
        blocks: Option<usize>,
        identity: Identity,
        device: &Device,
    ) -> Result<Self, Error> {
        config.validate()?;
        refuse_what_has_no_place(&config, checkpoint, scheme)?;
        // The configuration describes the network in use, so that it and the tensors in use belong together.
        config.depth = blocks_to_read(&config, blocks, checkpoint, scheme)?;
        let names = scheme.names();
        let mut parts = Parts { config: &config, checkpoint, scheme };
        Ok(Self {
            precision: parts.checkpoint.precision,
            patches: parts.patches()?,
            class_token: if config.class_token { Some(parts.class_token()?) } else { None },
            registers: if config.registers > 0 { Some(parts.registers()?) } else { None },
            positions: match config.positions {
                Positions::Rope { .. } => None,
                Positions::Table(_) | Positions::TableAndRope { .. } => Some(parts.table()?),
            },
            pre_norm: parts.norm_if(config.pre_norm, names.pre_norm, "a norm before block 0")?,
            blocks: (0..config.depth)
                .map(|index| {
                    let start = format!("{}{index}.", names.blocks);
                    Block::read(scheme, config.block(), parts.checkpoint, &start)
                })
                .collect::<Result<Vec<_>, _>>()?,
            norm: parts.norm_if(config.final_norm(), Some(names.norm), "a final norm")?,
            pooled_norm: parts.norm_if(
                config.pooling == Pooling::MeanThenNorm,
                names.fc_norm,
                "a norm after the pooling",
            )?,
            pooler: if config.pooling == Pooling::TanhPooler { Some(parts.pooler()?) } else { None },
            head: match config.classes {
                Some(classes) => Some(parts.head(classes)?),
                None => None,
            },
            resampled: Mutex::new(None),
            preprocess: family_preprocess(&config),
            identity,
            device: device.clone(),
            config,
        })
    }
}

/// How many blocks to read; refuses a depth the weights go beyond.
fn blocks_to_read(
    config: &VitConfig,
    blocks: Option<usize>,
    checkpoint: &Checkpoint,
    scheme: NameScheme,
) -> Result<usize, Error> {
    let wanted = blocks.unwrap_or(config.depth);
    if wanted == 0 || wanted > config.depth {
        return Err(Error::Config {
            field: "blocks".to_owned(),
            expected: format!("1 to {}", config.depth),
            found: wanted.to_string(),
        });
    }
    let stored = count_blocks(checkpoint, scheme.names().blocks);
    if stored > config.depth {
        return Err(Error::Config {
            field: format!("depth of {}", checkpoint.label()),
            expected: format!("{stored}, as many blocks as the weights hold"),
            found: config.depth.to_string(),
        });
    }
    Ok(wanted)
}

/// Reads what stands outside of the blocks.
struct Parts<'a, 'b> {
    config: &'a VitConfig,
    checkpoint: &'a mut Checkpoint<'b>,
    scheme: NameScheme,
}

impl Parts<'_, '_> {
    fn norm_if(
        &mut self,
        wanted: bool,
        name: Option<&'static str>,
        what: &str,
    ) -> Result<Option<Norm>, Error> {
        if !wanted {
            return Ok(None);
        }
        let name = self.scheme.require(name, what)?;
        let shape = [Is(self.config.dim)];
        Ok(Some(Norm {
            weight: self.checkpoint.get(&format!("{name}.weight"), &shape)?,
            bias: self.checkpoint.get(&format!("{name}.bias"), &shape)?,
            eps: self.config.norm_eps,
        }))
    }

    fn patches(&mut self) -> Result<PatchEmbed, Error> {
        let (name, dim, patch) = (self.scheme.names().patch, self.config.dim, self.config.patch);
        let shape = [Is(dim), Is(3), Is(patch.0), Is(patch.1)];
        let weight = self.checkpoint.get(&format!("{name}.weight"), &shape)?;
        let bias = if self.config.patch_bias {
            Some(self.checkpoint.get(&format!("{name}.bias"), &[Is(dim)])?)
        } else {
            None
        };
        Ok(PatchEmbed::new(&weight, bias, self.checkpoint.precision)?)
    }

    /// `(1, 1, D)`; CLIP stores `(D,)`.
    fn class_token(&mut self) -> Result<Tensor, Error> {
        let (name, dim) = (self.scheme.names().class_token, self.config.dim);
        let flat = self.checkpoint.shape(name).is_some_and(|shape| shape.len() == 1);
        let shape: &[Axis] = if flat { &[Is(dim)] } else { &[Is(1), Is(1), Is(dim)] };
        Ok(self.checkpoint.get(name, shape)?.reshape((1, 1, dim))?)
    }

    fn registers(&mut self) -> Result<Tensor, Error> {
        let known = self.scheme.names().registers;
        let found = known.iter().find(|name| self.checkpoint.contains(name)).or(known.first());
        let name = self.scheme.require(found.copied(), "registers")?;
        self.checkpoint.get(name, &[Is(1), Is(self.config.registers), Is(self.config.dim)])
    }

    /// `(1, rows, D)`; CLIP stores `(rows, D)`.
    fn table(&mut self) -> Result<Tensor, Error> {
        let name = self.scheme.require(self.scheme.names().positions, "a position table")?;
        let flat = self.checkpoint.shape(name).is_some_and(|shape| shape.len() == 2);
        let (rows, dim) = (Any("rows"), Is(self.config.dim));
        let shape: &[Axis] = if flat { &[rows, dim] } else { &[Is(1), rows, dim] };
        let table = self.checkpoint.get(name, shape)?;
        let table = if flat { table.unsqueeze(0)? } else { table };
        check_rows(self.config, &table, name, self.checkpoint)?;
        Ok(table)
    }

    fn pooler(&mut self) -> Result<Linear, Error> {
        let name = self.scheme.require(self.scheme.names().pooler, "a pooler")?;
        let dim = Is(self.config.dim);
        let weight = self.checkpoint.get(&format!("{name}.weight"), &[dim, dim])?;
        let bias = self.checkpoint.get(&format!("{name}.bias"), &[dim])?;
        Ok(Linear::with_precision(weight, Some(bias), self.checkpoint.precision)?)
    }

    fn head(&mut self, classes: usize) -> Result<Linear, Error> {
        let name = self.scheme.require(self.scheme.names().head, "a classification head")?;
        // transformers puts the head beside the model, not below its prefix.
        let inside = self.checkpoint.contains(&format!("{name}.weight"));
        let prefix = if inside { None } else { Some(self.checkpoint.set_prefix("")) };
        let weight = self.checkpoint.get(&format!("{name}.weight"), &[Is(classes), Is(self.config.dim)])?;
        let bias = self.checkpoint.get_if_there(&format!("{name}.bias"), &[Is(classes)])?;
        if let Some(prefix) = prefix {
            self.checkpoint.set_prefix(&prefix);
        }
        Ok(Linear::with_precision(weight, bias, self.checkpoint.precision)?)
    }
}

/// Refuses weights that hold a part the configuration denies: leaving it out would silently give other features.
fn refuse_what_has_no_place(
    config: &VitConfig,
    checkpoint: &Checkpoint,
    scheme: NameScheme,
) -> Result<(), Error> {
    let names = scheme.names();
    let refuse = |name: String, reason: &str| {
        if checkpoint.contains(&name) {
            return Err(Error::UnexpectedTensor {
                tensor: name,
                checkpoint: checkpoint.label().to_owned(),
                reason: format!("the configuration says {reason}"),
            });
        }
        Ok(())
    };
    if !config.class_token {
        refuse(names.class_token.to_owned(), "class_token = false")?;
    }
    if config.registers == 0 {
        for name in names.registers {
            refuse((*name).to_owned(), "registers = 0")?;
        }
    }
    if !config.patch_bias {
        refuse(format!("{}.bias", names.patch), "patch_bias = false")?;
    }
    if let (false, Some(name)) = (config.pre_norm, names.pre_norm) {
        refuse(format!("{name}.weight"), "pre_norm = false")?;
    }
    if let (Positions::Rope { .. }, Some(name)) = (config.positions, names.positions) {
        refuse(name.to_owned(), "rotary positions")?;
    }
    if !config.final_norm() {
        refuse(format!("{}.weight", names.norm), "no norm before the pooling")?;
    }
    Ok(())
}

/// One row for each patch of the trained grid, or one more for the class token.
fn check_rows(config: &VitConfig, table: &Tensor, name: &str, checkpoint: &Checkpoint) -> Result<(), Error> {
    let (rows, columns) = config.trained_grid();
    let (found, patches) = (table.dim(1)?, rows * columns);
    if found == patches || (config.class_token && found == patches + 1) {
        return Ok(());
    }
    let or_more = if config.class_token { format!(" or {}", patches + 1) } else { String::new() };
    Err(Error::Shape {
        tensor: name.to_owned(),
        checkpoint: checkpoint.label().to_owned(),
        expected: format!("[1, {patches}{or_more}, {}] for a grid of {rows}x{columns}", config.dim),
        found: checkpoint.shape(name).unwrap_or_default().to_vec(),
    })
}
