use anomaly_core::{Images, MethodError, Stream, Streams};
use candle_core::{Device, Tensor, Var};
use conformance::{Case, HostTensor, Outputs, UnitError};
use density_heads::Likelihood;
use optim::Schedule;

use super::config::{CaseConfig, CaseOptimizer};
use super::keras::{put_theirs, weights};
use super::{device, optimizers, optional, put, to_host, to_tensor};
use crate::fit::draws;
use crate::loss::LossWeights;
use crate::optimizer::{OptimizerKind, Settings, warm_up};
use crate::trainer::{Draws, Objective, Trainer};
use crate::{Error, VtadlRegisters};

/// Nothing is drawn in the cases.
fn still() -> Stream {
    Streams::new(0).stream("unused")
}

fn objective(config: &CaseConfig, optimizer: Settings, learning_rate: f64, schedule: Schedule) -> Objective {
    let (mse, ssim) = config.lambdas();
    Objective {
        weights: LossWeights { mse, ssim, density: 0.0 },
        likelihood: Likelihood::Reference,
        optimizer,
        learning_rate,
        schedule,
        dropout: 0.0,
    }
}

pub(super) fn gradients(case: &Case) -> Result<Outputs, UnitError> {
    let config = CaseConfig::of(case)?;
    let architecture = config.architecture()?;
    let adam = OptimizerKind::Adam.settings(0.0, 0.0);
    let objective = objective(&config, adam, 0.0, Schedule::Constant);
    let trainer = Trainer::new(&architecture, &weights(case)?, objective, device())?;
    let images = to_tensor(case.input("in.images")?)?;
    let given = optional(case, "in.registers")?.map(|tensor| Var::from_tensor(&tensor)).transpose()?;
    let registers = given.as_ref().map(|var| var.as_tensor().clone());
    let computed = trainer.gradients(&images, &Draws { registers, noise: None }, &mut still())?;
    let mut out = Outputs::new();
    put(&mut out, "loss", HostTensor::f64([1], vec![computed.values.total]));
    put(&mut out, "reconstruction_train", to_host(&computed.reconstruction)?);
    let mut all: Vec<(String, Tensor)> = Vec::new();
    for (name, var) in trainer.weights.trained() {
        let gradient = computed.gradients.get(var).ok_or_else(|| format!("{name} got no gradient"))?;
        all.push((name.clone(), gradient.clone()));
    }
    if let Some(given) = &given {
        let gradient = computed.gradients.get(given).ok_or("the registers got no gradient")?;
        all.push(("registers".to_owned(), gradient.clone()));
    }
    put_theirs(&mut out, "grad.", &architecture, all.iter().map(|(name, tensor)| (name, tensor)))?;
    Ok(out)
}

pub(super) fn train_step(case: &Case) -> Result<Outputs, UnitError> {
    let config = CaseConfig::of(case)?;
    let architecture = config.architecture()?;
    let kind = match config.optimizer()? {
        CaseOptimizer::Adam => OptimizerKind::Adam,
        CaseOptimizer::AdamW => OptimizerKind::AdamW,
    };
    let rate = config.learning_rate()?;
    let settings = optimizers::settings(kind, rate, &config.optimizer_config()?)?;
    let schedule = warm_up(config.warmup_learning_rate()?, config.warmup_steps()?);
    let objective = objective(&config, settings, rate, schedule);
    let mut trainer = Trainer::new(&architecture, &weights(case)?, objective, device())?;
    let (mut losses, mut rates) = (Vec::new(), Vec::new());
    for step in 0..config.steps()? {
        let images = to_tensor(case.input(&format!("in.images_{step}"))?)?;
        let registers = optional(case, &format!("in.registers_{step}"))?;
        rates.push(trainer.learning_rate());
        losses.push(trainer.step(&images, &Draws { registers, noise: None }, &mut still())?.total);
    }
    let mut out = Outputs::new();
    put(&mut out, "loss", HostTensor::f64([losses.len()], losses));
    put(&mut out, "lr", HostTensor::f64([rates.len()], rates));
    put_theirs(&mut out, "w_after.", &architecture, trainer.weights.frozen()?.iter())?;
    Ok(out)
}

/// Of each parameter of a fresh network, whether one training step's loss over `images` gives it a gradient that is not
/// all zero: for tests. Keys' biases are in one tensor with those of queries and values: theirs is zero in exact
/// arithmetic.
///
/// # Errors
/// As a training step's.
pub fn parameter_gradients(
    method: &VtadlRegisters,
    images: &Images,
) -> Result<Vec<(String, bool)>, MethodError> {
    let run = || -> Result<Vec<(String, bool)>, Error> {
        let (config, device) = (method.settings(), &Device::Cpu);
        let architecture = config.architecture();
        let first = architecture.init(&mut Streams::new(0).stream("init"), device)?;
        let trainer = Trainer::new(&architecture, &first, config.objective(1), device)?;
        let draws = draws(config, images.len(), (&mut still(), &mut still()), device)?;
        let computed = trainer.gradients(images.pixels(), &draws, &mut still())?;
        let mut found = Vec::new();
        for (name, var) in trainer.weights.trained() {
            let largest = match computed.gradients.get(var) {
                Some(gradient) => gradient.abs()?.flatten_all()?.max(0)?.to_scalar::<f32>()?,
                None => 0.0,
            };
            found.push((name.clone(), largest > 0.0));
        }
        Ok(found)
    };
    Ok(run()?)
}
