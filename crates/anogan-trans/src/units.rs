//! The numeric cases of this crate, for the conformance runner.

mod blocks;
mod config;
mod losses;
mod networks;
mod step;

use std::collections::HashMap;

use candle_core::{DType, Device, Tensor};
use conformance::{Case, HostTensor, Outputs, Unit, UnitError};

pub use step::step_gradients;

/// All units of method `anogan-trans`, but for `preprocess` (of `datasets`) and `metric` (of `metrics`).
pub fn conformance_units() -> Vec<Unit> {
    type Run = fn(&Case) -> Result<Outputs, UnitError>;
    let units: [(&'static str, Run); 8] = [
        ("generator", networks::generator),
        ("discriminator", networks::discriminator),
        ("score", networks::score),
        ("swin_blocks", blocks::blocks),
        ("skip_attention", blocks::blocks),
        ("scale_blocks", blocks::blocks),
        ("losses", losses::losses),
        ("train_step", step::train_step),
    ];
    units.into_iter().map(|(unit, run)| Unit { method: crate::INFO.name, unit, run }).collect()
}

/// Where the cases compute: the device that the run is for, the CPU if it names none.
fn device() -> &'static Device {
    conformance::context().unwrap_or(&Device::Cpu)
}

fn to_tensor(host: &HostTensor) -> Result<Tensor, UnitError> {
    Ok(Tensor::from_vec(host.to_f32_vec()?, host.shape.clone(), device())?)
}

fn to_host(tensor: &Tensor) -> Result<HostTensor, UnitError> {
    let values = tensor.to_dtype(DType::F32)?.flatten_all()?.to_vec1::<f32>()?;
    Ok(HostTensor::f32(tensor.dims().to_vec(), values))
}

fn put(outputs: &mut Outputs, name: &str, tensor: HostTensor) {
    outputs.insert(format!("out.{name}"), tensor);
}

/// Numbers in one row.
fn vector(values: &[f64]) -> HostTensor {
    HostTensor::f64([values.len()], values.to_vec())
}

/// Images with their channels last, as the cases have them.
fn channels_first(tensor: &Tensor) -> Result<Tensor, UnitError> {
    Ok(tensor.permute((0, 3, 1, 2))?.contiguous()?)
}

/// The weights of a case. Tables that can be derived are left out.
fn weights(case: &Case) -> Result<HashMap<String, Tensor>, UnitError> {
    let derived = |name: &str| name.ends_with("relative_position_index") || name.ends_with("attn_mask");
    case.weights()
        .filter(|(name, _)| !derived(name))
        .map(|(name, host)| {
            let tensor = if name.ends_with("num_batches_tracked") {
                Tensor::from_vec(host.to_i64_vec()?, host.shape.clone(), device())?
            } else {
                to_tensor(host)?
            };
            Ok((name.to_owned(), tensor))
        })
        .collect()
}

/// Those whose names start so, without it.
fn below(tensors: &HashMap<String, Tensor>, prefix: &str) -> HashMap<String, Tensor> {
    tensors
        .iter()
        .filter_map(|(name, tensor)| Some((name.strip_prefix(prefix)?.to_owned(), tensor.clone())))
        .collect()
}

/// A tensor as the cases have it: what counts batches is a whole number.
fn counted(name: &str, tensor: &Tensor) -> Result<HostTensor, UnitError> {
    if name.ends_with("num_batches_tracked") {
        return Ok(HostTensor::scalar_i64(tensor.to_dtype(DType::I64)?.to_scalar::<i64>()?));
    }
    to_host(tensor)
}
