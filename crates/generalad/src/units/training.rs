use std::collections::HashMap;

use anomaly_core::{Images, MethodError, Streams};
use candle_core::{Device, Tensor, Var};
use conformance::{Case, HostTensor, Outputs, UnitError};
use image_prep::PatchMaps;
use metrics::ScoredMap;

use super::anomalies::{clean, draw};
use super::backbone::{extractor, weights};
use super::config::CaseConfig;
use super::scores::squares;
use super::{check, put, to_host, to_tensor, vector};
use crate::anomalies::{Attention, Source};
use crate::features::PatchFeatures;
use crate::fit::sizes;
use crate::network::Trained;
use crate::score::{image_scores, rows};
use crate::training::{Trainer, gradients};
use crate::{Error, GeneralAd, Operation};

/// A discriminator in training with the case's weights.
fn trained(
    config: &CaseConfig,
    weights: &HashMap<String, Tensor>,
    shape: (usize, usize),
) -> Result<Trained, UnitError> {
    let sizes = config.sizes(shape.0, shape.1)?;
    let made = Trained::new(sizes, &mut Streams::new(0).stream("overwritten"), super::device())?;
    made.load(|name| weights.get(name).cloned())?;
    if let Some(name) = weights.keys().find(|name| !made.vars().iter().any(|(own, _)| own == *name)) {
        return Err(format!("w.{name}: is no parameter of a discriminator of these sizes").into());
    }
    Ok(made)
}

/// What the operations drew, from inputs that start with `prefix`. A case's own fault is told in its own words.
fn given<'a>(
    case: &'a Case,
    config: &'a CaseConfig,
    prefix: String,
    fault: &'a mut Option<UnitError>,
) -> impl FnMut(Operation, &PatchFeatures) -> Result<crate::anomalies::Draw, Error> + 'a {
    move |operation, _| {
        draw(case, config, &prefix, operation).map_err(|problem| {
            *fault = Some(problem);
            Error::Draws { operation, what: "case's inputs" }
        })
    }
}

/// The cause of a failure: the case's, if it has one.
fn blamed<T>(result: Result<T, Error>, fault: Option<UnitError>) -> Result<T, UnitError> {
    result.map_err(|error| fault.unwrap_or_else(|| error.into()))
}

pub(super) fn gradients_to_inputs(case: &Case) -> Result<Outputs, UnitError> {
    let config = CaseConfig::of(case)?;
    let x = Var::from_tensor(&to_tensor(case.input("in.x")?)?)?;
    let (_, patches, width) = x.dims3()?;
    check("num_patches", config.num_patches, patches)?;
    check("embed_dim", config.embed_dim, width)?;
    let trained = trained(&config, &weights(case, "")?, (patches, width))?;
    let scores = trained.network()?.logits(x.as_tensor(), None)?;
    let loss = (&scores * to_tensor(case.input("in.cotangent")?)?)?.sum_all()?;
    let store = loss.backward()?;
    let mut out = Outputs::new();
    put(&mut out, "scores", to_host(&scores)?);
    put(&mut out, "grad_x", to_host(store.get(&x).ok_or("in.x: no gradient")?)?);
    for (name, var) in trained.vars() {
        let gradient = store.get(var).ok_or_else(|| format!("{name}: no gradient"))?;
        out.insert(format!("grad.{name}"), to_host(gradient)?);
    }
    Ok(out)
}

pub(super) fn loss(case: &Case) -> Result<Outputs, UnitError> {
    let config = CaseConfig::of(case)?;
    let clean = clean(case, &config, "in.")?;
    let (_, patches, width) = clean.features.dims3()?;
    let trained = trained(&config, &weights(case, "")?, (patches, width))?;
    let operations = config.fake_features()?.operations();
    let mut fault = None;
    let found =
        gradients(&trained, &clean, operations, &mut given(case, &config, "in.".into(), &mut fault), None);
    let (store, terms) = blamed(found, fault)?;
    let mut out = Outputs::new();
    put(&mut out, "loss", vector(&[terms.iter().sum()]));
    put(&mut out, "terms", vector(&terms));
    for (name, var) in trained.vars() {
        let gradient = store.get(var).ok_or_else(|| format!("{name}: no gradient"))?;
        out.insert(format!("grad.{name}"), to_host(gradient)?);
    }
    Ok(out)
}

/// Steps on what `features` gives of each; the losses, and the rate of each step.
fn train(
    case: &Case,
    config: &CaseConfig,
    trainer: &mut Trainer,
    features: &dyn Fn(usize) -> Result<PatchFeatures, UnitError>,
) -> Result<(Vec<f64>, Vec<f64>), UnitError> {
    let operations = config.fake_features()?.operations();
    let every_step = config.epoch_per_step.unwrap_or(false);
    let (mut losses, mut rates) = (Vec::new(), Vec::new());
    for step in 0..config.steps()? {
        let epoch = if every_step { step } else { 0 };
        trainer.begin_epoch(epoch);
        rates.push(trainer.rate(epoch));
        let clean = features(step)?;
        let mut fault = None;
        let prefix = format!("in.step{step}.");
        let terms = trainer.step(&clean, operations, &mut given(case, config, prefix, &mut fault), None);
        losses.push(blamed(terms, fault)?.iter().sum());
    }
    Ok((losses, rates))
}

fn weights_after(out: &mut Outputs, trainer: &Trainer, prefix: &str) -> Result<(), UnitError> {
    for (name, tensor) in trainer.discriminator.named_tensors()? {
        out.insert(format!("w_after.{prefix}{name}"), to_host(&tensor)?);
    }
    Ok(())
}

pub(super) fn train_step(case: &Case) -> Result<Outputs, UnitError> {
    let config = CaseConfig::of(case)?;
    let features = |step: usize| clean(case, &config, &format!("in.step{step}."));
    let (_, patches, width) = features(0)?.features.dims3()?;
    let trained = trained(&config, &weights(case, "")?, (patches, width))?;
    let mut trainer = Trainer::new(trained, &config.optimisation()?)?;
    let (losses, rates) = train(case, &config, &mut trainer, &features)?;
    let mut out = Outputs::new();
    put(&mut out, "losses", vector(&losses));
    put(&mut out, "lrs", vector(&rates));
    let schedule: Vec<f64> = (0..config.epochs()?).map(|epoch| trainer.rate(epoch)).collect();
    put(&mut out, "lr_schedule", vector(&schedule));
    weights_after(&mut out, &trainer, "")?;
    Ok(out)
}

const BACKBONE: &str = "feature_extractor.pretrained_model.";
const DISCRIMINATOR: &str = "discriminator.";

pub(super) fn end_to_end(case: &Case) -> Result<Outputs, UnitError> {
    let config = CaseConfig::of(case)?;
    let extractor = extractor(&config, config.vit(&weights(case, BACKBONE)?)?)?;
    let features = |step: usize| -> Result<PatchFeatures, UnitError> {
        let images = to_tensor(case.input(&format!("in.step{step}.images"))?)?;
        let (features, attention) = extractor.compute(&images)?;
        let attention = attention.map(|attention| Attention::new(&attention)).transpose()?;
        Ok(PatchFeatures { features, attention })
    };
    let size = config.image_size.ok_or("image_size: missing")?;
    let (height, width) = extractor.vit().grid(size, size);
    let shape = (height * width, extractor.width());
    let trained = trained(&config, &weights(case, DISCRIMINATOR)?, shape)?;
    let mut trainer = Trainer::new(trained, &config.optimisation()?)?;
    let (losses, _) = train(case, &config, &mut trainer, &features)?;

    let (test, _) = extractor.compute(&to_tensor(case.input("in.test_images")?)?)?;
    let logits = trainer.discriminator.frozen()?.logits(&test, None)?;
    let patch_scores = rows(&logits)?;
    let scores = image_scores(&patch_scores, config.top_k()?);
    let (sigma, radius) = (config.smoothing_sigma()?, config.smoothing_radius()?);
    let maps =
        PatchMaps::smoothed((height, width), (size, size), sigma, radius)?.apply(&patch_scores.concat())?;

    let labels = case.input("in.test_labels")?.to_usize_vec()?;
    let anomalous: Vec<bool> = labels.iter().map(|label| *label == 1).collect();
    let mut out = Outputs::new();
    put(&mut out, "losses", vector(&losses));
    weights_after(&mut out, &trainer, DISCRIMINATOR)?;
    put(&mut out, "patch_scores", to_host(&logits)?);
    put(&mut out, "image_scores", vector(&scores));
    put(&mut out, "image_auroc_rounded3", rounded(metrics::auroc(&scores, &anomalous)?));
    if config.log_pixel_metrics.unwrap_or(0) == 1 {
        let masks = case.input("in.test_masks")?;
        let images = maps
            .chunks(size * size)
            .zip(masks.as_u8()?.chunks(size * size))
            .map(|(map, mask)| ScoredMap::new(size, size, map, Some(mask)))
            .collect::<Result<Vec<_>, _>>()?;
        put(&mut out, "pixel_auroc_rounded3", rounded(metrics::pixel_auroc(&images)?));
    }
    put(&mut out, "pixel_map", squares(maps, size));
    Ok(out)
}

/// As the reference logs a figure: to three decimals.
fn rounded(value: f64) -> HostTensor {
    vector(&[(value * 1000.0).round() / 1000.0])
}

/// Of each parameter of a fresh discriminator, whether one training step's loss over `images`, without dropout, gives it
/// a gradient that is not all zero: for tests.
///
/// # Errors
/// As a training step's.
pub fn discriminator_gradients(
    method: &GeneralAd,
    images: &Images,
) -> Result<Vec<(String, bool)>, MethodError> {
    let run = || -> Result<Vec<(String, bool)>, Error> {
        let (config, extractor) = (method.settings(), method.extractor());
        let clean = extractor.features(images.pixels())?;
        let streams = Streams::new(0);
        let trained = Trained::new(sizes(config, extractor), &mut streams.stream("init"), &Device::Cpu)?;
        let mut source = Source {
            choices: streams.stream("anomalies"),
            deviation: config.noise_std,
            most: config.most_fake_patches,
        };
        let operations = config.fake_features.operations();
        let mut drawing = |operation: Operation, clean: &PatchFeatures| source.draw(operation, clean);
        let (store, _) = gradients(&trained, &clean, operations, &mut drawing, None)?;
        let mut found = Vec::new();
        for (name, var) in trained.vars() {
            let largest = match store.get(var) {
                Some(gradient) => gradient.abs()?.flatten_all()?.max(0)?.to_scalar::<f32>()?,
                None => 0.0,
            };
            found.push((name.clone(), largest > 0.0));
        }
        Ok(found)
    };
    Ok(run()?)
}
