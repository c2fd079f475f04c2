//! Some steps of each optimiser on a device against the CPU's: parameters, and what is kept for them.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use candle_core::backprop::GradStore;
use candle_core::{DType, Device, Tensor, Var};
use comfy_table::{CellAlignment, Table, presets};
use optim::{
    Adadelta, AdadeltaOptions, Adagrad, AdagradOptions, Adam, AdamOptions, Decay, EpsilonPlace,
    GradientChange, Momentum, Optimizer, ParameterGroup, RmsProp, RmsPropOptions, RootEpsilon, Sgd,
    SgdOptions,
};
use random_streams::Streams;

use super::{Outcome, error};
use crate::say;

type Make = fn(Vec<ParameterGroup>) -> optim::Result<Box<dyn Optimizer>>;

fn adam(groups: Vec<ParameterGroup>, options: AdamOptions) -> optim::Result<Box<dyn Optimizer>> {
    Ok(Box::new(Adam::new(groups, options)?))
}

fn sgd(groups: Vec<ParameterGroup>, options: SgdOptions) -> optim::Result<Box<dyn Optimizer>> {
    Ok(Box::new(Sgd::new(groups, options)?))
}

fn rms_prop(groups: Vec<ParameterGroup>, options: RmsPropOptions) -> optim::Result<Box<dyn Optimizer>> {
    Ok(Box::new(RmsProp::new(groups, options)?))
}

fn adagrad(groups: Vec<ParameterGroup>, options: AdagradOptions) -> optim::Result<Box<dyn Optimizer>> {
    Ok(Box::new(Adagrad::new(groups, options)?))
}

/// Every optimiser, with the options that change what is done to an element.
const OPTIMIZERS: &[(&str, Make)] = &[
    ("Adam with L2", |groups| adam(groups, AdamOptions { weight_decay: 0.01, ..AdamOptions::default() })),
    ("Adam, Keras' epsilon", |groups| {
        adam(groups, AdamOptions { epsilon_place: EpsilonPlace::Uncorrected, ..AdamOptions::default() })
    }),
    ("Adam that forgets fast", |groups| {
        adam(groups, AdamOptions { beta1: 0.4, beta2: 0.6, ..AdamOptions::default() })
    }),
    ("AdamW", |groups| adam(groups, AdamOptions::adam_w())),
    ("AMSGrad", |groups| adam(groups, AdamOptions { amsgrad: true, ..AdamOptions::default() })),
    ("StableAdamW", |groups| adam(groups, AdamOptions::stable_adam_w())),
    ("StableAdamW, AMSGrad", |groups| {
        adam(groups, AdamOptions { amsgrad: true, ..AdamOptions::stable_adam_w() })
    }),
    ("SGD with L2", |groups| sgd(groups, SgdOptions { weight_decay: 0.01, ..SgdOptions::default() })),
    ("SGD with momentum, dampened", |groups| {
        sgd(groups, SgdOptions { momentum: 0.9, dampening: 0.1, ..SgdOptions::default() })
    }),
    ("SGD, Nesterov, Keras' momentum", |groups| {
        let momentum_of = Momentum::Step;
        sgd(groups, SgdOptions { momentum: 0.9, nesterov: true, momentum_of, ..SgdOptions::default() })
    }),
    ("RMSprop", |groups| {
        rms_prop(
            groups,
            RmsPropOptions {
                epsilon: 1e-3,
                weight_decay: 0.01,
                decay: Decay::Decoupled,
                ..RmsPropOptions::default()
            },
        )
    }),
    ("RMSprop with momentum, Keras' epsilon", |groups| {
        let epsilon_place = RootEpsilon::Inside;
        rms_prop(groups, RmsPropOptions { momentum: 0.9, epsilon_place, ..RmsPropOptions::default() })
    }),
    ("Adagrad", |groups| {
        adagrad(groups, AdagradOptions { initial_sum: 0.1, weight_decay: 0.01, ..AdagradOptions::default() })
    }),
    ("Adagrad, Keras' epsilon", |groups| {
        let epsilon_place = RootEpsilon::Inside;
        adagrad(groups, AdagradOptions { epsilon_place, ..AdagradOptions::default() })
    }),
    ("Adadelta", |groups| Ok(Box::new(Adadelta::new(groups, AdadeltaOptions::default())?))),
];

/// Below a block of threads, with a rest, and more elements than threads at one time.
const SHAPES: [&[usize]; 3] = [&[7], &[5, 77], &[1100, 1000]];
const STEPS: usize = 4;

/// The largest difference, as a share of the largest value, that each type may have. The arithmetic is the same in the
/// same order, except for the sums that `StableAdamW` measures.
const TYPES: [(DType, f64); 2] = [(DType::F32, 1e-6), (DType::F64, 1e-12)];

/// Prints a table of errors and times.
pub(super) fn check(device: &Device) -> Result<Outcome> {
    let mut table = Table::new();
    table.load_style(presets::ASCII_MARKDOWN);
    table.set_header(["optimiser", "type", "parameters", "states", "allowed", "step ms", ""]);
    for column in 2..6 {
        if let Some(column) = table.column_mut(column) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    let mut outcome = Outcome::default();
    for (name, make) in OPTIMIZERS {
        for (dtype, allowed) in TYPES {
            let mut row = vec![(*name).to_owned(), dtype.as_str().to_owned()];
            match compare(*make, device, dtype) {
                Ok(found) => {
                    let good = found.parameters <= allowed && found.states <= allowed;
                    outcome.count(good);
                    row.extend([format!("{:.1e}", found.parameters), format!("{:.1e}", found.states)]);
                    row.push(format!("{allowed:.0e}"));
                    row.push(format!("{:.3}", found.step.as_secs_f64() * 1e3));
                    row.push(if good { "ok" } else { "FAILED" }.to_owned());
                }
                Err(error) => {
                    outcome.count(false);
                    row.extend(["-", "-", "-", "-"].map(str::to_owned));
                    row.push(format!("FAILED: {error:#}"));
                }
            }
            table.add_row(row);
        }
    }
    say(&table.to_string())?;
    Ok(outcome)
}

/// Differences as shares of the largest value, and the best time of a step.
struct Found {
    parameters: f64,
    states: f64,
    step: Duration,
}

fn compare(make: Make, device: &Device, dtype: DType) -> Result<Found> {
    let wanted = Run::new(make, &Device::Cpu, dtype)?;
    let found = Run::new(make, device, dtype)?;
    let worst = |found: &[(String, Tensor)], wanted: &[(String, Tensor)]| -> Result<f64> {
        anyhow::ensure!(found.len() == wanted.len(), "{} tensors, not {}", found.len(), wanted.len());
        let mut worst = 0_f64;
        for ((name, found), (other, wanted)) in found.iter().zip(wanted) {
            anyhow::ensure!(name == other, "`{name}` in the place of `{other}`");
            worst = worst.max(error(found, wanted).with_context(|| format!("`{name}`"))?);
        }
        Ok(worst)
    };
    Ok(Found {
        parameters: worst(&found.parameters, &wanted.parameters)?,
        states: worst(&found.states, &wanted.states)?,
        step: found.step,
    })
}

/// Parameters and states after all steps, and the best time of one.
struct Run {
    parameters: Vec<(String, Tensor)>,
    states: Vec<(String, Tensor)>,
    step: Duration,
}

impl Run {
    fn new(make: Make, device: &Device, dtype: DType) -> Result<Self> {
        let streams = Streams::new(0);
        let mut vars = Vec::new();
        for (index, shape) in SHAPES.iter().enumerate() {
            let name = format!("parameter {index}");
            let start = normal(streams, &name, shape, dtype)?.to_device(device)?;
            vars.push((name, Var::from_tensor(&start)?));
        }
        let mut optimizer = make(vec![ParameterGroup::new(vars.clone())])?;
        let mut best = Duration::MAX;
        for step in 0..STEPS {
            // Saved and restored on the way, as a run is.
            if step == STEPS / 2 {
                let saved = optimizer.state_tensors()?;
                optimizer.load_state_tensors(saved)?;
            }
            // Constants change from step to step, kernels do not.
            optimizer.set_learning_rate(1e-2 / (1.0 + step as f64));
            let gradients = gradients(&vars, streams, step)?;
            device.synchronize()?;
            let start = Instant::now();
            optimizer.step_with(&gradients, GradientChange { scale: 0.5, limit: 0.6 })?;
            device.synchronize()?;
            best = best.min(start.elapsed());
        }
        let states = optimizer.state()?.tensors.into_iter().collect();
        let parameters = vars.into_iter().map(|(name, var)| (name, var.as_detached_tensor())).collect();
        Ok(Self { parameters, states, step: best })
    }
}

/// A gradient of each parameter, the same on every device.
fn gradients(vars: &[(String, Var)], streams: Streams, step: usize) -> Result<GradStore> {
    let mut store: Option<GradStore> = None;
    for (name, var) in vars {
        let gradient = normal(streams, &format!("gradient {step} of {name}"), var.dims(), var.dtype())?;
        let gradient = gradient.to_device(var.device())?;
        let mut own = var.sum_all()?.backward()?;
        own.insert(var, gradient);
        match &mut store {
            Some(store) => store.extend(own)?,
            none => *none = Some(own),
        }
    }
    store.context("there are no parameters")
}

fn normal(streams: Streams, name: &str, shape: &[usize], dtype: DType) -> Result<Tensor> {
    let mut numbers = vec![0_f32; shape.iter().product()];
    streams.stream(name).fill_normal(&mut numbers);
    Ok(Tensor::from_vec(numbers, shape, &Device::Cpu)?.to_dtype(dtype)?)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::{OPTIMIZERS, TYPES, compare};
    use candle_core::Device;

    #[test]
    fn the_cpu_agrees_with_itself() {
        for (name, make) in OPTIMIZERS {
            for (dtype, _) in TYPES {
                let found = compare(*make, &Device::Cpu, dtype).unwrap();
                assert_eq!((found.parameters, found.states), (0.0, 0.0), "{name}");
            }
        }
    }
}
