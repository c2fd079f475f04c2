use anomaly_core::{Images, MethodError, Streams};
use candle_core::{Device, Tensor};
use conformance::{Case, HostTensor, Outputs, UnitError};

use super::config::{CaseConfig, NoiseKind};
use super::{below, channels_first, counted, device, put, to_host, to_tensor, vector, weights};
use crate::parameters::Parameters;
use crate::trainer::{StepLosses, Trainer};
use crate::{AnoTrans, Error, discriminator, generator};

/// One of the losses.
type Curve = fn(&StepLosses) -> f64;

pub(super) fn train_step(case: &Case) -> Result<Outputs, UnitError> {
    let config = CaseConfig::of(case)?;
    let all = weights(case)?;
    let (of_generator, of_discriminator) = (below(&all, "g."), below(&all, "d."));
    let device = device();
    let mut trainer = Trainer::of(
        generator::trained(Parameters::trained(&of_generator, device), &config.generator()?)?,
        discriminator::trained(Parameters::trained(&of_discriminator, device), &config.discriminator()?)?,
        config.rule()?,
        device,
    )?;
    let noise = match config.noise()? {
        NoiseKind::Zeros => None,
        NoiseKind::Constant => Some(to_tensor(case.input("in.noise")?)?),
    };
    let steps = config.steps()?;
    let mut out = Outputs::new();
    let mut losses: Vec<StepLosses> = Vec::new();
    for step in 0..steps {
        let images = to_tensor(case.input(&format!("in.image.{step}"))?)?;
        if images.dim(0)? != config.batchsize()? {
            let stated = config.batchsize()?;
            return Err(format!("batchsize: is {stated}, but the images are {:?}", images.dims()).into());
        }
        let found = trainer.find(&images, noise.as_ref())?;
        if step == 0 {
            put(&mut out, "fake", to_host(&channels_first(&found.painted)?)?);
            let (real, painted) = found.losses.probabilities.split_at(images.dim(0)?);
            for (name, values) in [("pred_real", real), ("pred_fake", painted)] {
                put(&mut out, name, HostTensor::f32([values.len()], values.to_vec()));
            }
        }
        if steps == 1 {
            let [of_generator, of_discriminator] = trainer.vars();
            for (whose, vars, gradients) in
                [("g", of_generator, &found.generator), ("d", of_discriminator, &found.discriminator)]
            {
                for (name, var) in vars {
                    let gradient =
                        gradients.get(var).ok_or_else(|| format!("{whose}.{name}: no gradient"))?;
                    out.insert(format!("grad.{whose}.{name}"), to_host(gradient)?);
                }
            }
        }
        trainer.apply(&found)?;
        losses.push(found.losses);
    }
    let curves: [(&str, Curve); 7] = [
        ("err_g", |l| l.generator),
        ("err_g_adv", |l| l.adversarial),
        ("err_g_con", |l| l.reconstruction),
        ("err_g_lat", |l| l.latent),
        ("err_d", |l| l.discriminator),
        ("err_d_real", |l| l.discriminator_real),
        ("err_d_fake", |l| l.discriminator_fake),
    ];
    for (name, of) in curves {
        put(&mut out, name, vector(&losses.iter().map(of).collect::<Vec<_>>()));
    }
    for (name, tensor) in trainer.named_tensors()? {
        let (network, rest) = name.split_once('.').ok_or("a weight without a network")?;
        let whose = if network == "generator" { "g" } else { "d" };
        out.insert(format!("w_after.{whose}.{rest}"), counted(rest, &tensor)?);
    }
    Ok(out)
}

/// Of each parameter of fresh networks, whether one training step over `images` gives it a gradient that is not all
/// zero: for tests.
///
/// # Errors
/// As a training step's.
pub fn step_gradients(method: &AnoTrans, images: &Images) -> Result<Vec<(String, bool)>, MethodError> {
    let run = || -> Result<Vec<(String, bool)>, Error> {
        let mut trainer = Trainer::new(method.settings(), &Streams::new(0), &Device::Cpu)?;
        let found = trainer.find(images.pixels(), None)?;
        let mut all = Vec::new();
        for (network, vars, gradients) in [
            ("generator", trainer.vars()[0], &found.generator),
            ("discriminator", trainer.vars()[1], &found.discriminator),
        ] {
            for (name, var) in vars {
                let largest = match gradients.get(var) {
                    Some(gradient) => largest(gradient)?,
                    None => 0.0,
                };
                all.push((format!("{network}.{name}"), largest > 0.0));
            }
        }
        Ok(all)
    };
    Ok(run()?)
}

fn largest(gradient: &Tensor) -> Result<f32, Error> {
    Ok(gradient.abs()?.flatten_all()?.max(0)?.to_scalar::<f32>()?)
}
