//! A network as the tensors of a checkpoint.

use candle_core::Tensor;
use vit_ops::Linear;

use super::Vit;
use crate::block::Norm;
use crate::{Error, NameScheme};

impl Vit {
    /// All tensors in use under this crate's names (timm's; see [`NameScheme::block_tensors`]), contiguous: what
    /// [`Vit::from_tensors`] with [`NameScheme::Timm`] reads back, for a network without rotary positions; with them,
    /// too, since it then asks for no table.
    ///
    /// # Errors
    /// If a copy fails.
    pub fn named_tensors(&self) -> Result<Vec<(String, Tensor)>, Error> {
        self.file_tensors(NameScheme::Timm)
    }

    /// All tensors in use under the names and in the shapes of a checkpoint file of `scheme`, contiguous.
    ///
    /// # Errors
    /// [`Error::Unsupported`] if the scheme has no name for one of them.
    pub fn file_tensors(&self, scheme: NameScheme) -> Result<Vec<(String, Tensor)>, Error> {
        let names = scheme.names();
        let mut out = Vec::new();
        let push_norm = |out: &mut Vec<(String, Tensor)>, name: &str, norm: &Norm| {
            out.push((format!("{name}.weight"), norm.weight.clone()));
            out.push((format!("{name}.bias"), norm.bias.clone()));
        };
        let push_linear = |out: &mut Vec<(String, Tensor)>, name: &str, layer: &Linear| {
            out.push((format!("{name}.weight"), layer.weight()?));
            if let Some(bias) = layer.bias() {
                out.push((format!("{name}.bias"), bias.clone()));
            }
            Ok::<_, Error>(())
        };
        let layer = self.patches.layer();
        let (ph, pw) = self.patches.patch();
        let weight = layer.weight()?.reshape((layer.outputs(), layer.inputs() / (ph * pw), ph, pw))?;
        out.push((format!("{}.weight", names.patch), weight));
        if let Some(bias) = layer.bias() {
            out.push((format!("{}.bias", names.patch), bias.clone()));
        }
        let clip = scheme == NameScheme::HfClip;
        if let Some(token) = &self.class_token {
            let token = if clip { token.flatten_all()? } else { token.clone() };
            out.push((names.class_token.to_owned(), token));
        }
        if let Some(registers) = &self.registers {
            out.push((
                scheme.require(names.registers.first().copied(), "registers")?.to_owned(),
                registers.clone(),
            ));
        }
        if let Some(table) = &self.positions {
            let table = if clip { table.squeeze(0)? } else { table.clone() };
            out.push((scheme.require(names.positions, "a position table")?.to_owned(), table));
        }
        if let Some(norm) = &self.pre_norm {
            push_norm(&mut out, scheme.require(names.pre_norm, "a norm before block 0")?, norm);
        }
        for (index, block) in self.blocks.iter().enumerate() {
            let tensors = scheme.block_tensors(block.config(), &block.named_tensors()?)?;
            out.extend(
                tensors.into_iter().map(|(name, tensor)| (format!("{}{index}.{name}", names.blocks), tensor)),
            );
        }
        if let Some(norm) = &self.norm {
            push_norm(&mut out, names.norm, norm);
        }
        if let Some(norm) = &self.pooled_norm {
            push_norm(&mut out, scheme.require(names.fc_norm, "a norm after the pooling")?, norm);
        }
        if let Some(pooler) = &self.pooler {
            push_linear(&mut out, scheme.require(names.pooler, "a pooler")?, pooler)?;
        }
        if let Some(head) = &self.head {
            push_linear(&mut out, scheme.require(names.head, "a classification head")?, head)?;
        }
        out.into_iter().map(|(name, tensor)| Ok((name, tensor.contiguous()?))).collect()
    }
}
