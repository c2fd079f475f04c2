//! The numeric cases of this crate, for the conformance runner.

mod config;
mod keras;
mod network;
mod optimizers;
mod residual;
mod training;

use candle_core::{DType, Device, Tensor};
use conformance::{Case, HostTensor, Outputs, Unit, UnitError};

pub use training::parameter_gradients;

/// All units of method `vtadl-registers`.
pub fn conformance_units() -> Vec<Unit> {
    type Run = fn(&Case) -> Result<Outputs, UnitError>;
    let units: [(&'static str, Run); 11] = [
        ("patch_embedding", network::patch_embedding),
        ("encoder", network::encoder),
        ("decoder", network::decoder),
        ("autoencoder", network::autoencoder),
        ("gmdn", network::gmdn),
        ("loss", residual::loss),
        ("mask", residual::mask),
        ("ssim", residual::ssim),
        ("optimizers", optimizers::optimizers),
        ("gradients", training::gradients),
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

/// An input that only some cases have.
fn optional(case: &Case, name: &str) -> Result<Option<Tensor>, UnitError> {
    if case.has(name) { Ok(Some(to_tensor(case.input(name)?)?)) } else { Ok(None) }
}
