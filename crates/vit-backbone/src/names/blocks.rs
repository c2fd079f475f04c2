//! The tensors of a block, from and to the names of a scheme.

use candle_core::Tensor;

use super::{BlockNames, GateNames, NameScheme, QkvNames};
use crate::checkpoint::Axis::Is;
use crate::checkpoint::Checkpoint;
use crate::{Activation, BlockConfig, Error, QkvBias};

impl NameScheme {
    /// The tensors of one block under this scheme's names (without the block's own prefix such as `blocks.0.`), from
    /// those under this crate's names; any other tensors of the same shapes (gradients) will do.
    ///
    /// Fused queries, keys and values are split where the scheme splits them, packed gates likewise. What `tensors`
    /// lacks is left out.
    ///
    /// # Errors
    /// [`Error::Unsupported`] if the scheme has no name for a tensor of the block.
    pub fn block_tensors(
        self,
        config: &BlockConfig,
        tensors: &[(String, Tensor)],
    ) -> Result<Vec<(String, Tensor)>, Error> {
        let names = &self.names().block;
        let mut out = Vec::with_capacity(tensors.len() + 8);
        for (name, tensor) in tensors {
            let (layer, kind) = name.rsplit_once('.').unwrap_or((name, ""));
            match layer {
                "norm1" => out.push((format!("{}.{kind}", names.norm1), tensor.clone())),
                "norm2" => out.push((format!("{}.{kind}", names.norm2), tensor.clone())),
                "attn.proj" => out.push((format!("{}.{kind}", names.proj), tensor.clone())),
                "ls1" | "ls2" => {
                    let scales = self.require(names.scales, "LayerScale")?;
                    out.push((scales[usize::from(layer == "ls2")].to_owned(), tensor.clone()));
                }
                "attn.qkv" => match self.require(names.qkv.first(), "queries")? {
                    QkvNames::Fused(fused, _) => out.push((format!("{fused}.{kind}"), tensor.clone())),
                    QkvNames::Split(split) => {
                        for (part, layer) in split.iter().enumerate() {
                            let rows = tensor.narrow(0, part * config.dim, config.dim)?;
                            out.push((format!("{layer}.{kind}"), rows.contiguous()?));
                        }
                    }
                },
                "attn" => {
                    let part = usize::from(kind != "q_bias");
                    match self.require(names.qkv.first(), "queries")? {
                        QkvNames::Fused(_, biases) => out.push((biases[part].to_owned(), tensor.clone())),
                        QkvNames::Split(split) => {
                            out.push((format!("{}.bias", split[2 * part]), tensor.clone()));
                        }
                    }
                }
                "mlp.norm" => {
                    let norm = self.require(names.mlp_norm, "a norm inside the feed-forward part")?;
                    out.push((format!("{norm}.{kind}"), tensor.clone()));
                }
                "mlp.fc1" if config.activation == Activation::Swiglu => {
                    match self.require(names.swiglu.first(), "a gated MLP")? {
                        GateNames::Packed([input, _]) => {
                            out.push((format!("{input}.{kind}"), tensor.clone()));
                        }
                        GateNames::Split([gate, value, _]) => {
                            for (part, layer) in [gate, value].into_iter().enumerate() {
                                let rows = tensor.narrow(0, part * config.mlp_hidden, config.mlp_hidden)?;
                                out.push((format!("{layer}.{kind}"), rows.contiguous()?));
                            }
                        }
                    }
                }
                "mlp.fc2" if config.activation == Activation::Swiglu => {
                    let (GateNames::Packed([_, output]) | GateNames::Split([_, _, output])) =
                        self.require(names.swiglu.first(), "a gated MLP")?;
                    out.push((format!("{output}.{kind}"), tensor.clone()));
                }
                "mlp.fc1" => out.push((format!("{}.{kind}", names.mlp[0]), tensor.clone())),
                "mlp.fc2" => out.push((format!("{}.{kind}", names.mlp[1]), tensor.clone())),
                _ => return self.require(None, name),
            }
        }
        Ok(out)
    }
}

/// Reads one block under this crate's names; `start` is the block's own prefix, for instance `blocks.0.`.
///
/// Every tensor below `start` has to find its place: one left over would mean another network than the
/// configuration's.
pub(crate) fn read_block(
    scheme: NameScheme,
    config: &BlockConfig,
    checkpoint: &mut Checkpoint,
    start: &str,
) -> Result<Vec<(String, Tensor)>, Error> {
    let names = &scheme.names().block;
    let mut reader = Reader { scheme, names, config, checkpoint, start, read: Vec::with_capacity(14) };
    let dim = config.dim;
    reader.norm(names.norm1, "norm1", dim)?;
    reader.queries_keys_values()?;
    reader.layer(names.proj, "attn.proj", [dim, dim], config.proj_bias)?;
    reader.scale(0)?;
    reader.norm(names.norm2, "norm2", dim)?;
    reader.feed_forward()?;
    reader.scale(1)?;
    reader.finish()
}

/// A block half read.
struct Reader<'a, 'b> {
    scheme: NameScheme,
    names: &'static BlockNames,
    config: &'a BlockConfig,
    checkpoint: &'a mut Checkpoint<'b>,
    start: &'a str,
    /// Under this crate's names.
    read: Vec<(String, Tensor)>,
}

impl Reader<'_, '_> {
    fn get(&mut self, theirs: &str, shape: &[usize]) -> Result<Tensor, Error> {
        let axes: Vec<_> = shape.iter().map(|length| Is(*length)).collect();
        self.checkpoint.get(&format!("{}{theirs}", self.start), &axes)
    }

    fn norm(&mut self, theirs: &str, ours: &str, width: usize) -> Result<(), Error> {
        for kind in ["weight", "bias"] {
            let tensor = self.get(&format!("{theirs}.{kind}"), &[width])?;
            self.read.push((format!("{ours}.{kind}"), tensor));
        }
        Ok(())
    }

    /// A linear layer of one tensor.
    fn layer(&mut self, theirs: &str, ours: &str, shape: [usize; 2], bias: bool) -> Result<(), Error> {
        self.joined(&[theirs], ours, shape, bias)
    }

    /// Several linear layers of one shape, whose rows are joined into one layer.
    fn joined(&mut self, theirs: &[&str], ours: &str, shape: [usize; 2], bias: bool) -> Result<(), Error> {
        for (kind, shape, wanted) in [("weight", &shape[..], true), ("bias", &shape[..1], bias)] {
            if wanted {
                let parts = theirs
                    .iter()
                    .map(|layer| self.get(&format!("{layer}.{kind}"), shape))
                    .collect::<Result<Vec<_>, _>>()?;
                let tensor = if let [one] = parts.as_slice() { one.clone() } else { Tensor::cat(&parts, 0)? };
                self.read.push((format!("{ours}.{kind}"), tensor));
            }
        }
        Ok(())
    }

    fn queries_keys_values(&mut self) -> Result<(), Error> {
        let dim = self.config.dim;
        let all = self.config.qkv_bias == QkvBias::All;
        // The way that this file stores them; the scheme's own where none is there, for the message.
        let stored = self.names.qkv.iter().find(|names| {
            let (QkvNames::Fused(first, _) | QkvNames::Split([first, ..])) = names;
            self.checkpoint.contains(&format!("{}{first}.weight", self.start))
        });
        let stored = self.scheme.require(stored.or(self.names.qkv.first()), "queries")?;
        match stored {
            QkvNames::Fused(layer, _) => self.layer(layer, "attn.qkv", [3 * dim, dim], all)?,
            QkvNames::Split(layers) => self.joined(layers, "attn.qkv", [dim, dim], all)?,
        }
        if self.config.qkv_bias == QkvBias::QueryValue {
            let biases = match stored {
                QkvNames::Fused(_, biases) => biases.map(str::to_owned),
                QkvNames::Split([query, _, value]) => [format!("{query}.bias"), format!("{value}.bias")],
            };
            for (theirs, ours) in biases.iter().zip(["attn.q_bias", "attn.v_bias"]) {
                let tensor = self.get(theirs, &[dim])?;
                self.read.push((ours.to_owned(), tensor));
            }
        }
        Ok(())
    }

    /// The `LayerScale` vector of the attention (0) or the feed-forward part (1), where there is one.
    fn scale(&mut self, which: usize) -> Result<(), Error> {
        if self.config.layer_scale {
            let scales = self.scheme.require(self.names.scales, "LayerScale")?;
            let tensor = self.get(scales[which], &[self.config.dim])?;
            self.read.push((format!("ls{}.gamma", which + 1), tensor));
        }
        Ok(())
    }

    fn feed_forward(&mut self) -> Result<(), Error> {
        let (dim, hidden, bias) = (self.config.dim, self.config.mlp_hidden, self.config.mlp_bias);
        if self.config.activation != Activation::Swiglu {
            let [input, output] = self.names.mlp;
            self.layer(input, "mlp.fc1", [hidden, dim], bias)?;
            self.inner_norm()?;
            return self.layer(output, "mlp.fc2", [dim, hidden], bias);
        }
        // The way to store gates that this file uses; the scheme's own where neither is there, for the message.
        let stored = self.names.swiglu.iter().find(|gate| {
            let (GateNames::Packed([first, _]) | GateNames::Split([first, ..])) = gate;
            self.checkpoint.contains(&format!("{}{first}.weight", self.start))
        });
        let output = match self.scheme.require(stored.or(self.names.swiglu.first()), "a gated MLP")? {
            GateNames::Packed([input, output]) => {
                self.layer(input, "mlp.fc1", [2 * hidden, dim], bias)?;
                output
            }
            GateNames::Split([gate, value, output]) => {
                self.joined(&[gate, value], "mlp.fc1", [hidden, dim], bias)?;
                output
            }
        };
        self.inner_norm()?;
        self.layer(output, "mlp.fc2", [dim, hidden], bias)
    }

    /// The norm in front of the feed-forward part's output layer, where there is one.
    fn inner_norm(&mut self) -> Result<(), Error> {
        if !self.config.mlp_norm {
            return Ok(());
        }
        let name = self.scheme.require(self.names.mlp_norm, "a norm inside the feed-forward part")?;
        self.norm(name, "mlp.norm", self.config.mlp_hidden)
    }

    fn finish(self) -> Result<Vec<(String, Tensor)>, Error> {
        let left = self.checkpoint.unread(self.start).into_iter().find(|name| {
            let within = name.strip_prefix(self.start).unwrap_or(name);
            !self.names.ignored.contains(&within)
        });
        let Some(tensor) = left else { return Ok(self.read) };
        let config = self.config;
        Err(Error::UnexpectedTensor {
            tensor,
            checkpoint: self.checkpoint.label().to_owned(),
            reason: format!(
                "a block here has {:?}, layer_scale {}, qkv bias {:?}, proj_bias {}, mlp_bias {}, mlp_norm {}",
                config.activation,
                config.layer_scale,
                config.qkv_bias,
                config.proj_bias,
                config.mlp_bias,
                config.mlp_norm
            ),
        })
    }
}

/// How many blocks a checkpoint holds: one more than the highest number behind `start`.
pub(crate) fn count_blocks(checkpoint: &Checkpoint, start: &str) -> usize {
    checkpoint
        .names()
        .into_iter()
        .filter_map(|name| name.strip_prefix(start)?.split('.').next()?.parse::<usize>().ok())
        .max()
        .map_or(0, |highest| highest + 1)
}
