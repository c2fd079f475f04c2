//! Named tensors of a checkpoint, checked against the shapes that a network needs.

use std::collections::HashMap;

use candle_core::{Device, Tensor};
use pretrained::Weights;

use crate::{BlockKind, Error, ResNetConfig};

/// Where a network's tensors come from.
pub(crate) enum Tensors<'a> {
    Weights(&'a Weights, &'a Device),
    Memory(&'a HashMap<String, Tensor>),
}

/// What stands in front of every name in checkpoints of wrapped models.
const PREFIXES: [&str; 3] = ["", "module.", "model."];

impl Tensors<'_> {
    fn shape(&self, full: &str) -> Option<Vec<usize>> {
        match self {
            Self::Weights(weights, _) => weights.shape(full).map(<[usize]>::to_vec),
            Self::Memory(tensors) => tensors.get(full).map(|tensor| tensor.dims().to_vec()),
        }
    }

    fn origin(&self) -> String {
        match self {
            Self::Weights(weights, _) => weights.origin().to_owned(),
            Self::Memory(_) => "the given tensors".to_owned(),
        }
    }

    /// The prefix in front of all names; none where the first convolution is nowhere.
    pub(crate) fn prefix(&self) -> &'static str {
        PREFIXES
            .into_iter()
            .find(|prefix| self.shape(&format!("{prefix}conv1.weight")).is_some())
            .unwrap_or("")
    }

    /// The tensor `name`, which must be of this shape.
    pub(crate) fn get(&self, prefix: &str, name: &str, expected: &[usize]) -> Result<Tensor, Error> {
        let tensor = format!("{prefix}{name}");
        let found = self.shape(&tensor);
        if found.as_deref() != Some(expected) {
            return Err(Error::Weight { tensor, origin: self.origin(), expected: expected.to_vec(), found });
        }
        match self {
            Self::Weights(weights, device) => Ok(weights.get(&tensor, device)?),
            Self::Memory(tensors) => tensors.get(&tensor).map(Tensor::detach).ok_or_else(|| Error::Weight {
                tensor: tensor.clone(),
                origin: self.origin(),
                expected: expected.to_vec(),
                found: None,
            }),
        }
    }

    /// The sizes of the network that these are the tensors of.
    pub(crate) fn config(&self, prefix: &str) -> Result<ResNetConfig, Error> {
        // The length of the first axis.
        let rows = |name: &str| {
            let tensor = format!("{prefix}{name}");
            let shape = self.shape(&tensor);
            shape.as_ref().and_then(|shape| shape.first().copied()).ok_or_else(|| Error::Weight {
                tensor,
                origin: self.origin(),
                expected: Vec::new(),
                found: shape.clone(),
            })
        };
        let has = |name: &str| self.shape(&format!("{prefix}{name}")).is_some();
        let kind = if has("layer1.0.conv3.weight") { BlockKind::Bottleneck } else { BlockKind::Basic };
        let blocks = [1, 2, 3, 4].map(|stage| {
            let mut count = 0;
            while has(&format!("layer{stage}.{count}.conv1.weight")) {
                count += 1;
            }
            count
        });
        let config =
            ResNetConfig { kind, blocks, stem: rows("conv1.weight")?, width: rows("layer1.0.conv1.weight")? };
        config.validate()?;
        Ok(config)
    }
}
