//! The numeric cases of this crate, for the conformance runner.

mod config;

use std::collections::BTreeMap;

use anomaly_core::{Images, MethodError, Streams};
use candle_core::{DType, Device, Tensor};
use cnn_backbone::neighbourhoods;
use conformance::{Case, HostData, HostTensor, Outputs, Unit, UnitError};
use optim::AdamOptions;

use crate::fit::{noise, sizes};
use crate::network::{Network, Sizes, State};
use crate::trainer::{Rates, Trainer};
use crate::{Error, SimpleNet};
use config::CaseConfig;

/// The units of method `simplenet` that this crate holds; its metrics are those of the crate `metrics`.
pub fn conformance_units() -> Vec<Unit> {
    type Run = fn(&Case) -> Result<Outputs, UnitError>;
    let units: [(&'static str, Run); 2] = [("cnn_features", cnn_features), ("train_step", train_step)];
    units.into_iter().map(|(unit, run)| Unit { method: crate::INFO.name, unit, run }).collect()
}

/// Where the cases compute: the device that the run is for, the CPU if it names none.
fn device() -> &'static Device {
    conformance::context().unwrap_or(&Device::Cpu)
}

fn to_tensor(host: &HostTensor) -> Result<Tensor, UnitError> {
    if let HostData::I64(counts) = &host.data {
        return Ok(Tensor::from_slice(counts, host.shape.clone(), device())?);
    }
    Ok(Tensor::from_vec(host.to_f32_vec()?, host.shape.clone(), device())?)
}

fn to_host(tensor: &Tensor) -> Result<HostTensor, UnitError> {
    let values = tensor.to_dtype(DType::F32)?.flatten_all()?.to_vec1::<f32>()?;
    Ok(HostTensor::f32(tensor.dims().to_vec(), values))
}

fn cnn_features(case: &Case) -> Result<Outputs, UnitError> {
    let config = CaseConfig::of(case)?;
    let mut stages = config.layers()?;
    stages.sort_unstable();
    let maps = stages
        .iter()
        .map(|stage| to_tensor(case.input(&format!("in.map.{stage}"))?))
        .collect::<Result<Vec<_>, UnitError>>()?;
    let wanted = config.grid_from_layer()?;
    let grid = stages
        .iter()
        .position(|stage| *stage == wanted)
        .ok_or_else(|| format!("grid_from_layer: expected one of {stages:?}, found {wanted}"))?;
    let features = neighbourhoods(&maps, grid, config.pool_size()?)?;
    Ok(Outputs::from([("out.features".to_owned(), to_host(&features)?)]))
}

/// Weights and running statistics under the names that start with `prefix`, in the case.
fn state(case: &Case, sizes: &Sizes, prefix: &str) -> Result<State, UnitError> {
    let mut tensors = BTreeMap::new();
    for (name, host) in &case.tensors {
        if let Some(name) = name.strip_prefix(prefix) {
            tensors.insert(name.to_owned(), to_tensor(host)?);
        }
    }
    Ok(State::read(sizes, &tensors, device())?)
}

fn train_step(case: &Case) -> Result<Outputs, UnitError> {
    let config = CaseConfig::of(case)?;
    let sizes = config.sizes()?;
    let before = state(case, &sizes, "w.")?;
    let rates = Rates {
        discriminator: config.lr()?,
        discriminator_decay: config.wd()?,
        lowest: config.lr_floor_factor()?,
        epochs: config.epochs()?,
        adaptor: config.lr_adaptor()?,
        adaptor_decay: config.adaptor_wd()?,
        adam: config.adam(),
    };
    let mut trainer = Trainer::new(sizes, &before, rates)?;
    let mut out = Outputs::new();
    let mut losses = Vec::new();
    let steps = config.steps()?;
    for step in 0..steps {
        trainer.enter(if config.epoch_per_step() { step } else { 0 });
        let features = to_tensor(case.input(&format!("in.step{step}.features"))?)?;
        let noise = to_tensor(case.input(&format!("in.step{step}.noise"))?)?;
        let (loss, gradients) = trainer.gradients(&features, &noise)?;
        losses.push(loss);
        for (name, var) in trainer.weights.vars.iter().filter(|_| steps == 1) {
            let gradient = gradients.get(var).ok_or_else(|| format!("{name}: no gradient"))?;
            out.insert(format!("grad.{name}"), to_host(gradient)?);
        }
        trainer.apply(&gradients)?;
    }
    out.insert("out.losses".to_owned(), HostTensor::f64([losses.len()], losses));
    let after = trainer.state()?;
    for (name, tensor) in after.tensors()? {
        let host = match tensor.dtype() {
            DType::I64 => HostTensor::i64(tensor.dims().to_vec(), tensor.to_vec1::<i64>()?),
            _ => to_host(&tensor)?,
        };
        out.insert(format!("w_after.{name}"), host);
    }
    if case.has("in.eval_features") {
        let features = to_tensor(case.input("in.eval_features")?)?;
        let scores = |state: &State| -> Result<Tensor, UnitError> {
            Ok(Network::new(&sizes, &state.weights)?.scores(&features, &state.running)?)
        };
        out.insert("out.eval_scores_before".to_owned(), to_host(&scores(&before)?)?);
        // With the weights that the case has stored, so that the noise of the steps does not come in.
        let after = scores(&state(case, &sizes, "w_after.")?)?;
        out.insert("out.image_scores_after".to_owned(), to_host(&after.max(1)?)?);
        out.insert("out.eval_scores_after".to_owned(), to_host(&after)?);
    }
    Ok(out)
}

/// Of each weight, whether the loss over `images`, from a fresh start, gives it a gradient that is not all zero: for
/// tests. Biases in front of a batch norm, whose gradient is zero in theory, are left out.
///
/// # Errors
/// As a training step's.
pub fn training_gradients(method: &SimpleNet, images: &Images) -> Result<Vec<(String, bool)>, MethodError> {
    let run = || -> Result<Vec<(String, bool)>, Error> {
        let (config, extractor) = (method.settings(), method.extractor());
        let sizes = sizes(config, extractor);
        let streams = Streams::new(0);
        let state = State::fresh(&sizes, &mut streams.stream("init"), extractor.backbone.device())?;
        let rates = Rates {
            discriminator: 1.0,
            discriminator_decay: 0.0,
            lowest: 1.0,
            epochs: 1,
            adaptor: 1.0,
            adaptor_decay: 0.0,
            adam: AdamOptions::adam_w(),
        };
        let mut trainer = Trainer::new(sizes, &state, rates)?;
        let features = extractor.features(images.pixels())?;
        let noise = noise(config, &features, &mut streams.stream("noise"))?;
        let (_, gradients) = trainer.gradients(&features, &noise)?;
        let before_norm = |name: &str| name.contains(".linear") && name.rsplit('.').next() == Some("bias");
        let mut found = Vec::new();
        for (name, var) in trainer.weights.vars.iter().filter(|(name, _)| !before_norm(name)) {
            let largest = match gradients.get(var) {
                Some(gradient) => gradient.abs()?.flatten_all()?.max(0)?.to_scalar::<f32>()?,
                None => 0.0,
            };
            found.push((name.clone(), largest > 0.0));
        }
        Ok(found)
    };
    Ok(run()?)
}
