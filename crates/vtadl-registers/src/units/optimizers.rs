use candle_core::Var;
use conformance::{Case, HostTensor, Outputs, UnitError};
use optim::{
    AdadeltaOptions, AdagradOptions, AdamOptions, ParameterGroup, RmsPropOptions, Schedule, SgdOptions,
};

use super::config::{CaseConfig, OptimizerConfig};
use super::{put, to_host, to_tensor};
use crate::optimizer::{OptimizerKind, Settings, warm_up};

/// Keras' settings with those that a case states.
pub(super) fn settings(
    kind: OptimizerKind,
    learning_rate: f64,
    stated: &OptimizerConfig,
) -> Result<Settings, UnitError> {
    if stated.centered == Some(true) {
        return Err("centered: expected false, found true".into());
    }
    let decay = stated.weight_decay.unwrap_or(if kind == OptimizerKind::AdamW { 0.004 } else { 0.0 });
    Ok(match kind.settings(learning_rate, decay) {
        Settings::Adam(own) => Settings::Adam(AdamOptions {
            beta1: stated.beta1.unwrap_or(own.beta1),
            beta2: stated.beta2.unwrap_or(own.beta2),
            epsilon: stated.eps.unwrap_or(own.epsilon),
            weight_decay: decay,
            ..own
        }),
        Settings::Adadelta(own) => Settings::Adadelta(AdadeltaOptions {
            rho: stated.rho.unwrap_or(own.rho),
            epsilon: stated.eps.unwrap_or(own.epsilon),
            ..own
        }),
        Settings::Adagrad(own) => Settings::Adagrad(AdagradOptions {
            initial_sum: stated.initial_accumulator.unwrap_or(own.initial_sum),
            epsilon: stated.eps.unwrap_or(own.epsilon),
            ..own
        }),
        Settings::Sgd(own) => {
            Settings::Sgd(SgdOptions { momentum: stated.momentum.unwrap_or(own.momentum), ..own })
        }
        Settings::RmsProp(own) => Settings::RmsProp(RmsPropOptions {
            rho: stated.rho.unwrap_or(own.rho),
            momentum: stated.momentum.unwrap_or(own.momentum),
            epsilon: stated.eps.unwrap_or(own.epsilon),
            ..own
        }),
    })
}

pub(super) fn optimizers(case: &Case) -> Result<Outputs, UnitError> {
    let config = CaseConfig::of(case)?;
    let rate = config.learning_rate()?;
    let schedule = warm_up(config.warmup_learning_rate()?, config.warmup_steps()?);
    let default = config.default_schedule()?;
    let default_schedule = warm_up(default.warmup_learning_rate, default.warmup_steps);

    let mut out = Outputs::new();
    put_rates(case, "schedule_steps", "schedule_lr", &schedule, rate, &mut out)?;
    let (steps, rates) = ("default_schedule_steps", "default_schedule_lr");
    put_rates(case, steps, rates, &default_schedule, default.learning_rate, &mut out)?;
    for (key, stated) in &config.optimizers()? {
        let (name, kind) = key.kind();
        let vars = case
            .weights()
            .map(|(name, host)| Ok((name.to_owned(), Var::from_tensor(&to_tensor(host)?)?)))
            .collect::<Result<Vec<_>, UnitError>>()?;
        let mut optimizer = settings(kind, rate, stated)?.over(ParameterGroup::new(vars.clone()))?;
        for step in 0..config.steps()? {
            // The gradient of a sum of products with constants is these constants.
            let mut sum = None;
            for (name, var) in &vars {
                let gradient = to_tensor(case.input(&format!("in.grad_{step}.{name}"))?)?;
                let product = (var.as_tensor() * gradient)?.sum_all()?;
                sum = Some(match sum {
                    Some(sum) => (sum + product)?,
                    None => product,
                });
            }
            optimizer.set_learning_rate(schedule.at(rate, step as u64));
            optimizer.step(&sum.ok_or("there are no weights")?.backward()?)?;
        }
        for (parameter, var) in &vars {
            out.insert(format!("w_after.{name}.{parameter}"), to_host(var)?);
        }
    }
    Ok(out)
}

fn put_rates(
    case: &Case,
    steps: &str,
    name: &str,
    schedule: &Schedule,
    rate: f64,
    out: &mut Outputs,
) -> Result<(), UnitError> {
    let at = case.input(&format!("in.{steps}"))?.to_usize_vec()?;
    let rates: Vec<f64> = at.into_iter().map(|step| schedule.at(rate, step as u64)).collect();
    put(out, name, HostTensor::f64([rates.len()], rates));
    Ok(())
}
