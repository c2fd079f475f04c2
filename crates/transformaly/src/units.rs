//! The numeric cases of this crate, for the conformance runner.

mod config;
mod data;
mod network;
mod statistics;

use candle_core::{DType, Device, Tensor};
use conformance::{Case, HostTensor, Outputs, Unit, UnitError};

pub use network::student_gradients;

/// All units of method `transformaly`.
pub fn conformance_units() -> Vec<Unit> {
    type Run = fn(&Case) -> Result<Outputs, UnitError>;
    let units: [(&'static str, Run); 13] = [
        ("vit_forward", network::vit_forward),
        ("ts_forward", network::ts_forward),
        ("loss_gradients", network::loss_gradients),
        ("dropout_gradients", network::dropout_gradients),
        ("train_step", network::train_step),
        ("end_to_end", network::end_to_end),
        ("whiten_pca", statistics::whiten_pca),
        ("gauss_ts_features", statistics::gauss_ts_features),
        ("combine", statistics::combine),
        ("knn2_baseline", statistics::knn2_baseline),
        ("protocol_selection", data::protocol_selection),
        ("pos_embedding_resize", data::pos_embedding_resize),
        ("preprocess", data::preprocess),
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

/// Rows of equal length; `width` is theirs, for the case that there are none.
fn table(rows: &[Vec<f64>], width: usize) -> HostTensor {
    HostTensor::f64([rows.len(), width], rows.concat())
}

fn integers(values: impl IntoIterator<Item = usize>) -> HostTensor {
    let values: Vec<i64> = values.into_iter().map(|v| v as i64).collect();
    HostTensor::i64([values.len()], values)
}

/// A tensor `(n, d)` as its rows.
fn rows(host: &HostTensor) -> Result<Vec<Vec<f64>>, UnitError> {
    match host.shape[..] {
        [_, width] if width > 0 => Ok(host.to_f64_vec()?.chunks_exact(width).map(<[f64]>::to_vec).collect()),
        _ => Err(format!("expected rows of numbers, found shape {:?}", host.shape).into()),
    }
}

/// The columns `wanted` of each row.
fn columns(rows: &[Vec<f64>], wanted: &[usize]) -> Result<Vec<Vec<f64>>, UnitError> {
    let pick = |row: &Vec<f64>| {
        wanted
            .iter()
            .map(|&j| {
                row.get(j)
                    .copied()
                    .ok_or_else(|| format!("use_layers: there is no block {j} among {}", row.len()).into())
            })
            .collect::<Result<Vec<f64>, UnitError>>()
    };
    rows.iter().map(pick).collect()
}
