//! The work of this program's own contenders.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, Result};
use candle_core::{Device, Tensor};
use serde::{Deserialize, Serialize};

use super::{anogan_trans, backbone, data, metrics, ops, optimizers, train_step};

/// A piece of work that is ready to be repeated.
pub(crate) trait Work {
    /// Does it once, to its end.
    fn iterate(&mut self) -> Result<()>;

    /// What it computes, in an order that all contenders share, to compare with the baseline's; empty if there is
    /// nothing to compare.
    fn outcome(&mut self) -> Result<Vec<f64>>;

    /// What the table should say about how it is done.
    fn versions(&self) -> BTreeMap<String, String> {
        BTreeMap::new()
    }
}

/// What one contender has to do. Peers get the same JSON.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Case {
    /// A step of two networks.
    AnoganTrans(Box<anogan_trans::Case>),
    /// A network's forward pass.
    Backbone(backbone::Case),
    /// Image files to tensors.
    Data(data::Case),
    /// Figures of pixels.
    Metrics(metrics::Case),
    /// One operation.
    Ops(ops::Case),
    /// An optimiser's step.
    Optimizers(optimizers::Case),
    /// Forward, backward and the optimiser's step.
    TrainStep(train_step::Case),
}

impl Case {
    /// Makes the work ready: reads its inputs, builds what it needs.
    pub(crate) fn prepare(&self) -> Result<Box<dyn Work>> {
        Ok(match self {
            Self::AnoganTrans(case) => Box::new(case.prepare()?),
            Self::Backbone(case) => Box::new(case.prepare()?),
            Self::Data(case) => Box::new(case.prepare()?),
            Self::Metrics(case) => Box::new(case.prepare()?),
            Self::Ops(case) => Box::new(case.prepare()?),
            Self::Optimizers(case) => Box::new(case.prepare()?),
            Self::TrainStep(case) => Box::new(case.prepare()?),
        })
    }
}

/// A device by the name in a case.
pub(crate) fn open_device(name: &str) -> Result<Device> {
    Ok(name.parse::<benchmark::DeviceChoice>()?.open()?.0)
}

/// The values of `tensor`, row by row.
pub(crate) fn values(tensor: &Tensor) -> Result<Vec<f64>> {
    let flat = tensor.flatten_all()?.to_device(&Device::Cpu)?;
    Ok(flat.to_dtype(candle_core::DType::F64)?.to_vec1()?)
}

/// The tensors of a safetensors file.
pub(crate) fn read_tensors(
    path: &Path,
    device: &Device,
) -> Result<std::collections::HashMap<String, Tensor>> {
    candle_core::safetensors::load(path, device).with_context(|| format!("can't read {}", path.display()))
}

/// Writes tensors for contenders to read.
pub(crate) fn write_tensors(path: &Path, tensors: impl IntoIterator<Item = (String, Tensor)>) -> Result<()> {
    let tensors: std::collections::HashMap<String, Tensor> = tensors.into_iter().collect();
    candle_core::safetensors::save(&tensors, path).with_context(|| format!("can't write {}", path.display()))
}
