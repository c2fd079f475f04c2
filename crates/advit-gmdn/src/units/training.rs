use anomaly_core::{Images, MethodError, Streams};
use conformance::{Case, HostTensor, Outputs, UnitError};
use density_heads::Likelihood;
use optim::Optimizer;

use super::config::CaseConfig;
use super::{counted, device, put, to_host, to_tensor, weights};
use crate::association::{token_discrepancies, weighted};
use crate::loss::{LossWeights, Values};
use crate::network::Network;
use crate::trainer::{Objective, Trainer};
use crate::{Advit, Error};

pub(super) fn train_step(case: &Case) -> Result<Outputs, UnitError> {
    let config = CaseConfig::of(case)?;
    let mut shape = config.autoencoder()?;
    shape.gaussians = config.coefs()?;
    if config.assoc() {
        let [rows, columns] = config.grid()?;
        if rows * columns != shape.patches || !config.cls_token()? {
            return Err(format!("grid: expected {} patches and a class token", shape.patches).into());
        }
        shape.association = Some(config.distance()?);
    }
    let association = if config.assoc() { config.lambda()? } else { 0.0 };
    let objective = Objective {
        weights: LossWeights { mse: 5.0, ssim: 0.5, nll: 1.0, association },
        likelihood: Likelihood::Reference,
        zero_grad: config.zero_grad()?,
        learning_rate: config.lr()?,
        weight_decay: config.weight_decay()?,
    };
    let (images, noise) = (to_tensor(case.input("in.image")?)?, to_tensor(case.input("in.noise")?)?);
    let steps = config.steps()?;
    config.check(&[("batch", images.dim(1)?), ("image_size", images.dim(3)?)])?;
    if images.dim(0)? != steps || noise.dim(0)? != steps {
        return Err(format!("steps: is {steps}, but there are images of {}", images.dim(0)?).into());
    }
    let mut out = Outputs::new();
    let mut trainer = Trainer::new(&shape, &weights(case)?, objective, device())?;
    let mut losses = Vec::with_capacity(steps);
    for step in 0..steps {
        let (values, gradients) = trainer.gradients(&images.get(step)?, Some(&noise.get(step)?))?;
        losses.push(values);
        if steps == 1 {
            for (name, var) in trainer.weights.trained() {
                let gradient = gradients.get(var).ok_or_else(|| format!("{name} got no gradient"))?;
                out.insert(format!("grad.{name}"), to_host(gradient)?);
            }
        }
        trainer.adam.step(&gradients)?;
    }
    put_losses(&losses, &mut out);

    let after = trainer.weights.frozen()?;
    for (name, tensor) in after.iter() {
        out.insert(format!("w_after.{name}"), to_host(tensor)?);
    }
    counted(case, steps as i64, &mut out)?;
    let network = Network::new(&shape, &after)?;
    let found = network.autoencoder.evaluate(&images.get(0)?, None)?;
    let likelihood = network.density.score(&found.encoded, Likelihood::Reference)?;
    put(&mut out, "eval_recon", to_host(&found.reconstruction)?);
    put(&mut out, "eval_nll_patch", to_host(&likelihood)?);
    if let Some(discrepancy) = token_discrepancies(&found.associations)? {
        let score = weighted(&likelihood, &discrepancy, config.temperature()?)?;
        put(&mut out, "eval_score_assoc", to_host(&score)?);
    }
    Ok(out)
}

fn put_losses(losses: &[Values], out: &mut Outputs) {
    type Of = fn(&Values) -> Option<f64>;
    let parts: [(&str, Of); 6] = [
        ("mse", |v| Some(v.mse)),
        ("neg_ssim", |v| Some(v.neg_ssim)),
        ("nll", |v| Some(v.nll)),
        ("total", |v| Some(v.total)),
        ("d_prior", |v| v.d_prior),
        ("d_series", |v| v.d_series),
    ];
    for (name, of) in parts {
        let values: Vec<f64> = losses.iter().filter_map(of).collect();
        if values.len() == losses.len() {
            put(out, name, HostTensor::f64([values.len()], values));
        }
    }
}

/// Of each parameter of a fresh network, whether one training step's loss over `images` gives it a gradient that is not
/// all zero: for tests. Biases in front of a batch norm are left out: theirs is zero in exact arithmetic.
///
/// # Errors
/// As a training step's.
pub fn parameter_gradients(method: &Advit, images: &Images) -> Result<Vec<(String, bool)>, MethodError> {
    let run = || -> Result<Vec<(String, bool)>, Error> {
        let shape = method.settings().architecture();
        let mut stream = Streams::new(0).stream("init");
        let first = shape.init(&mut stream, images.pixels().device())?;
        let mut trainer =
            Trainer::new(&shape, &first, method.settings().objective(), images.pixels().device())?;
        let (_, gradients) = trainer.gradients(images.pixels(), None)?;
        let in_front_of_a_norm: Vec<String> = (0..shape.decoder.len().saturating_sub(1))
            .map(|layer| format!("decoder.decoder2.{}.bias", 3 * layer))
            .collect();
        let mut found = Vec::new();
        for (name, var) in trainer.weights.trained() {
            if in_front_of_a_norm.contains(name) {
                continue;
            }
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
