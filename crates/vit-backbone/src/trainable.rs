//! A block whose weights are trained.

use std::collections::HashMap;

use candle_core::{Device, Tensor, Var};
use random_streams::Stream;
use vit_ops::Precision;

use crate::checkpoint::Checkpoint;
use crate::names::read_block;
use crate::{Activation, Block, BlockConfig, BlockContext, Error, NameScheme, QkvBias};

/// A [`Block`] over `Var`s: the student of a frozen block, or a copy to be fine-tuned.
///
/// Its tensors carry this crate's names (see [`NameScheme::block_tensors`]). A missing bias stays missing: a student
/// of `DINOv3` has no key bias.
#[derive(Debug)]
pub struct TrainableBlock {
    config: BlockConfig,
    vars: Vec<(String, Var)>,
}

impl TrainableBlock {
    /// Fresh weights as Transformaly's student has them: linear weights Xavier-uniform (bound
    /// `√(6/(fan_in + fan_out))`), linear biases `N(0, 1e-6²)`, norms 1 and 0.
    ///
    /// Where the reference has no such part: queries, keys and values are three layers and a packed gate is two, so
    /// each has its own bound, however it is stored. `LayerScale` vectors are 1 (and trained): the student then starts
    /// as the plain pre-norm block of the reference, able to move every token from the first step; the teacher's own
    /// vectors would already tell the student how much each channel of the teacher matters, and their usual start of
    /// 1e-5 is for networks trained from scratch. Rotary positions have no weights.
    ///
    /// Draws one number per weight and bias, in the order of [`TrainableBlock::vars`].
    ///
    /// # Errors
    /// If the tensors cannot be made on `device`.
    pub fn student(config: &BlockConfig, stream: &mut Stream, device: &Device) -> Result<Self, Error> {
        let mut vars = Vec::new();
        for (name, shape) in shapes(config) {
            let count: usize = shape.iter().product();
            let mut values = vec![0.0_f32; count];
            let norm = name.contains("norm");
            if name.starts_with("ls") || (norm && name.ends_with("weight")) {
                values.fill(1.0);
            } else if norm {
                // Zero already.
            } else if let [rows, columns] = shape[..] {
                let layers = match name.as_str() {
                    "attn.qkv.weight" => 3,
                    "mlp.fc1.weight" if config.activation == Activation::Swiglu => 2,
                    _ => 1,
                };
                let bound = (6.0 / (rows / layers + columns) as f64).sqrt() as f32;
                stream.fill_uniform(&mut values);
                for value in &mut values {
                    *value = (2.0 * *value - 1.0) * bound;
                }
            } else {
                stream.fill_normal(&mut values);
                for value in &mut values {
                    *value *= 1e-6;
                }
            }
            vars.push((name, Var::from_vec(values, shape, device)?));
        }
        Ok(Self { config: *config, vars })
    }

    /// A trainable copy of tensors under this crate's names.
    ///
    /// # Errors
    /// If a tensor is missing, has another shape than `config` says, or is one too many.
    pub fn from_tensors(config: &BlockConfig, tensors: &HashMap<String, Tensor>) -> Result<Self, Error> {
        Self::from_named(NameScheme::Timm, config, tensors, "")
    }

    /// A trainable copy of tensors under the names of `scheme`, each behind `prefix`.
    ///
    /// # Errors
    /// If a tensor is missing, has another shape than `config` says, or is one too many.
    pub fn from_named(
        scheme: NameScheme,
        config: &BlockConfig,
        tensors: &HashMap<String, Tensor>,
        prefix: &str,
    ) -> Result<Self, Error> {
        let read = read_block(scheme, config, &mut Checkpoint::of_tensors(tensors, ""), prefix)?;
        let vars = read
            .into_iter()
            // A copy: a `Var` of the given tensor would share, and change, its storage.
            .map(|(name, tensor)| Ok((name, Var::from_tensor(&tensor.detach().copy()?)?)))
            .collect::<Result<Vec<_>, Error>>()?;
        Ok(Self { config: *config, vars })
    }

    /// Sizes and options.
    pub fn config(&self) -> &BlockConfig {
        &self.config
    }

    /// The weights to train, under this crate's names, in the order of the forward pass.
    pub fn vars(&self) -> &[(String, Var)] {
        &self.vars
    }

    /// As [`Block::forward`], with a graph to the weights.
    ///
    /// # Errors
    /// As [`Block::forward`].
    pub fn forward(
        &self,
        tokens: &Tensor,
        context: &mut BlockContext<'_>,
    ) -> Result<(Tensor, Option<Tensor>), Error> {
        // Put together for each pass: what is computed from a weight (a joined bias) must follow its changes.
        let tensors = self.vars.iter().map(|(name, var)| (name.clone(), var.as_tensor().clone())).collect();
        Block::assemble(self.config, tensors, Precision::F32)?.forward(tokens, context)
    }

    /// Copies of the weights as they are now, plain, under this crate's names.
    ///
    /// # Errors
    /// If a copy fails.
    pub fn named_tensors(&self) -> Result<Vec<(String, Tensor)>, Error> {
        self.vars.iter().map(|(name, var)| Ok((name.clone(), var.as_detached_tensor().copy()?))).collect()
    }

    /// Sets the weights to these values, under this crate's names, converted to each weight's type and device.
    ///
    /// # Errors
    /// If a tensor is missing, has another shape, or is one too many; the weights are then unchanged.
    pub fn load(&self, tensors: &HashMap<String, Tensor>) -> Result<(), Error> {
        let read = read_block(NameScheme::Timm, &self.config, &mut Checkpoint::of_tensors(tensors, ""), "")?;
        let mut read: HashMap<String, Tensor> = read.into_iter().collect();
        for (name, var) in &self.vars {
            if let Some(tensor) = read.remove(name) {
                var.set(&tensor.detach().to_dtype(var.dtype())?.to_device(var.device())?)?;
            }
        }
        Ok(())
    }

    /// A frozen block with the weights as they are now.
    ///
    /// # Errors
    /// If a copy fails.
    pub fn detached(&self) -> Result<Block, Error> {
        Block::assemble(self.config, self.named_tensors()?, Precision::F32)
    }
}

/// Names and shapes of a block's tensors, in the order of the forward pass.
pub(crate) fn shapes(config: &BlockConfig) -> Vec<(String, Vec<usize>)> {
    let (dim, hidden) = (config.dim, config.mlp_hidden);
    let inner = if config.activation == Activation::Swiglu { 2 * hidden } else { hidden };
    let scale = config.layer_scale;
    let entries: [(bool, &str, &[usize]); 18] = [
        (true, "norm1.weight", &[dim]),
        (true, "norm1.bias", &[dim]),
        (true, "attn.qkv.weight", &[3 * dim, dim]),
        (config.qkv_bias == QkvBias::All, "attn.qkv.bias", &[3 * dim]),
        (config.qkv_bias == QkvBias::QueryValue, "attn.q_bias", &[dim]),
        (config.qkv_bias == QkvBias::QueryValue, "attn.v_bias", &[dim]),
        (true, "attn.proj.weight", &[dim, dim]),
        (config.proj_bias, "attn.proj.bias", &[dim]),
        (scale, "ls1.gamma", &[dim]),
        (true, "norm2.weight", &[dim]),
        (true, "norm2.bias", &[dim]),
        (true, "mlp.fc1.weight", &[inner, dim]),
        (config.mlp_bias, "mlp.fc1.bias", &[inner]),
        (config.mlp_norm, "mlp.norm.weight", &[hidden]),
        (config.mlp_norm, "mlp.norm.bias", &[hidden]),
        (true, "mlp.fc2.weight", &[dim, hidden]),
        (config.mlp_bias, "mlp.fc2.bias", &[dim]),
        (scale, "ls2.gamma", &[dim]),
    ];
    entries
        .into_iter()
        .filter(|(there, ..)| *there)
        .map(|(_, name, shape)| (name.to_owned(), shape.to_vec()))
        .collect()
}
