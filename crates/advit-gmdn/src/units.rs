//! The numeric cases of this crate, for the conformance runner.

mod config;
mod density;
mod network;
mod score;
mod training;

use candle_core::{DType, Device, Tensor};
use conformance::{Case, HostTensor, Outputs, Unit, UnitError};
use vit_ops::NamedTensors;

pub use training::parameter_gradients;

/// All units of method `advit-gmdn`.
pub fn conformance_units() -> Vec<Unit> {
    type Run = fn(&Case) -> Result<Outputs, UnitError>;
    let units: [(&'static str, Run); 11] = [
        ("encoder", network::encoder),
        ("decoder", network::decoder),
        ("digitcaps", network::digitcaps),
        ("autoencoder", network::autoencoder),
        ("assoc_block", network::assoc_block),
        ("mdn", density::mdn),
        ("mdn_loss", density::mdn_loss),
        ("ssim", score::ssim),
        ("anomaly_map", score::anomaly_map),
        ("image_score", score::image_score),
        ("train_step", training::train_step),
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

/// A scalar as one number in a row.
fn to_row(tensor: &Tensor) -> Result<HostTensor, UnitError> {
    to_host(&tensor.reshape(1)?)
}

fn put(outputs: &mut Outputs, name: &str, tensor: HostTensor) {
    outputs.insert(format!("out.{name}"), tensor);
}

/// Counters, which are no part of the network.
const TRACKED: &str = ".num_batches_tracked";

/// The weights without counters.
fn weights(case: &Case) -> Result<NamedTensors, UnitError> {
    case.weights()
        .filter(|(name, _)| !name.ends_with(TRACKED))
        .map(|(name, host)| Ok((name.to_owned(), to_tensor(host)?)))
        .collect()
}

/// The counters after `batches` more.
fn counted(case: &Case, batches: i64, out: &mut Outputs) -> Result<(), UnitError> {
    for (name, host) in case.weights().filter(|(name, _)| name.ends_with(TRACKED)) {
        let values = host.to_i64_vec()?.into_iter().map(|count| count + batches).collect();
        out.insert(format!("w_after.{name}"), HostTensor::i64(host.shape.clone(), values));
    }
    Ok(())
}
