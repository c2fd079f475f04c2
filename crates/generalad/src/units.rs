//! The numeric cases of this crate, for the conformance runner.

mod anomalies;
mod backbone;
mod config;
mod scores;
mod training;

use candle_core::{DType, Device, Tensor};
use conformance::{Case, HostTensor, Outputs, Unit, UnitError};

pub use training::discriminator_gradients;

/// All units of method `generalad` that are this crate's.
pub fn conformance_units() -> Vec<Unit> {
    type Run = fn(&Case) -> Result<Outputs, UnitError>;
    let units: [(&'static str, Run); 8] = [
        ("feature_aggregation", backbone::feature_aggregation),
        ("backbone", backbone::backbone),
        ("anomaly_generator", anomalies::anomaly_generator),
        ("discriminator_gradients", training::gradients_to_inputs),
        ("loss", training::loss),
        ("train_step", training::train_step),
        ("patch_scores", scores::patch_scores),
        ("end_to_end", training::end_to_end),
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

/// Refuses a number of `what` other than the one stated, if one is.
fn check(key: &str, stated: Option<usize>, found: usize) -> Result<(), UnitError> {
    match stated {
        Some(stated) if stated != found => {
            Err(format!("{key}: is {stated}, but the tensors say {found}").into())
        }
        _ => Ok(()),
    }
}
