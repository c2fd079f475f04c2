use candle_core::{Tensor, Var};
use conformance::{Case, HostTensor, Outputs, UnitError};

use super::config::CaseConfig;
use super::{channels_first, counted, device, put, to_host, to_tensor, vector, weights};
use crate::discriminator::{self, Discriminator, Judgement, Mode};
use crate::generator::Generator;
use crate::parameters::Parameters;
use crate::scoring::{Networks, Scored, min_max};

pub(super) fn generator(case: &Case) -> Result<Outputs, UnitError> {
    let config = CaseConfig::of(case)?.generator()?;
    let generator = Generator::frozen(&weights(case)?, &config, device())?;
    let mut out = Outputs::new();
    let mut failed = None;
    let image =
        generator.forward_seen(&to_tensor(case.input("in.image")?)?, &mut |name, tensor| match to_host(
            tensor,
        ) {
            Ok(host) => put(&mut out, name, host),
            Err(error) => failed = Some(error),
        })?;
    if let Some(error) = failed {
        return Err(error);
    }
    put(&mut out, "image", to_host(&channels_first(&image)?)?);
    Ok(out)
}

/// A feature vector of each image as a map of one pixel, `(B, nz, 1, 1)`.
fn as_map(feature: &Tensor) -> Result<HostTensor, UnitError> {
    let (batch, features) = feature.dims2()?;
    to_host(&feature.reshape((batch, features, 1, 1))?)
}

fn put_judgement(out: &mut Outputs, mode: &str, judgement: &Judgement) -> Result<(), UnitError> {
    put(out, &format!("{mode}.pred"), to_host(&judgement.probability)?);
    put(out, &format!("{mode}.logit"), to_host(&judgement.logit)?);
    put(out, &format!("{mode}.feat"), as_map(&judgement.feature)?);
    Ok(())
}

pub(super) fn discriminator(case: &Case) -> Result<Outputs, UnitError> {
    let config = CaseConfig::of(case)?.discriminator()?;
    let weights = weights(case)?;
    let (mut discriminator, vars) = discriminator::trained(Parameters::trained(&weights, device()), &config)?;
    let image = Var::from_tensor(&to_tensor(case.input("in.image")?)?)?;
    let last = image.as_tensor().permute((0, 2, 3, 1))?;
    let mut out = Outputs::new();
    let frozen = Discriminator::frozen(&weights, &config, device())?;
    put_judgement(&mut out, "eval", &frozen.forward(&last.detach().contiguous()?, Mode::Running)?)?;

    let judgement = discriminator.forward(&last.contiguous()?, Mode::Batch)?;
    put_judgement(&mut out, "train", &judgement)?;
    discriminator.remember(&judgement.statistics)?;
    for (name, tensor) in discriminator.running(device())? {
        out.insert(format!("w_after.{name}"), counted(&name, &tensor)?);
    }
    let cotangent = |name: &str| -> Result<Tensor, UnitError> { to_tensor(case.input(name)?) };
    let of_features = cotangent("in.cot_feat")?.reshape(judgement.feature.shape())?;
    let loss = ((&judgement.probability * cotangent("in.cot_pred")?)?.sum_all()?
        + (&judgement.feature * of_features)?.sum_all()?)?;
    let gradients = loss.backward()?;
    for (name, var) in &vars {
        let gradient = gradients.get(var).ok_or_else(|| format!("{name}: no gradient"))?;
        out.insert(format!("grad.{name}"), to_host(gradient)?);
    }
    let gradient = gradients.get(&image).ok_or("in.image: no gradient")?;
    out.insert("grad.in.image".to_owned(), to_host(gradient)?);
    Ok(out)
}

pub(super) fn score(case: &Case) -> Result<Outputs, UnitError> {
    let config = CaseConfig::of(case)?;
    let tensors = weights(case)?
        .into_iter()
        .map(|(name, tensor)| {
            let name = match name.split_once('.') {
                Some(("g", rest)) => format!("generator.{rest}"),
                Some(("d", rest)) => format!("discriminator.{rest}"),
                _ => name,
            };
            (name, tensor)
        })
        .collect();
    let mut networks = Networks::new(&tensors, &config.generator()?, &config.discriminator()?, device())?;
    let images = to_tensor(case.input("in.image")?)?;
    let labels: Vec<bool> = case.input("in.label")?.to_i64_vec()?.into_iter().map(|l| l == 1).collect();
    let (count, _, height, width) = images.dims4()?;
    let mut out = Outputs::new();

    let each = networks.score_each(&images)?;
    put(&mut out, "fake", to_host(&channels_first(&each.painted)?)?);
    put(&mut out, "error_map", to_host(&each.error.reshape((count, height, width))?)?);
    put(&mut out, "eval.feat_real", as_map(&each.features[0])?);
    put(&mut out, "eval.feat_fake", as_map(&each.features[1])?);
    figures(&mut out, "eval", &config, &[each], &labels)?;

    let batch = config.batchsize()?.max(1);
    let batches = (0..count)
        .step_by(batch)
        .map(|start| {
            let images = images.narrow(0, start, batch.min(count - start))?;
            Ok(networks.score(&images, Mode::Batch)?)
        })
        .collect::<Result<Vec<Scored>, UnitError>>()?;
    figures(&mut out, "train", &config, &batches, &labels)?;
    for (name, tensor) in networks.discriminator.running(device())? {
        out.insert(format!("w_after.d.{name}"), counted(&name, &tensor)?);
    }
    Ok(out)
}

fn figures(
    out: &mut Outputs,
    mode: &str,
    config: &CaseConfig,
    batches: &[Scored],
    labels: &[bool],
) -> Result<(), UnitError> {
    let all = |part: fn(&Scored) -> &Vec<f64>| -> Vec<f64> {
        batches.iter().flat_map(|scored| part(scored).iter().copied()).collect()
    };
    let (pixel, feature) = (all(|scored| &scored.pixel), all(|scored| &scored.feature));
    let (of_pixel, of_feature) = (config.w_rec()?, config.w_feat()?);
    let scores: Vec<f64> =
        pixel.iter().zip(&feature).map(|(pixel, feature)| of_pixel * pixel + of_feature * feature).collect();
    put(out, &format!("{mode}.rec"), vector(&pixel));
    put(out, &format!("{mode}.lat"), vector(&feature));
    put(out, &format!("{mode}.scaled"), vector(&min_max(&scores)));
    put(out, &format!("{mode}.auc"), HostTensor::scalar_f64(metrics::auroc(&scores, labels)?));
    put(out, &format!("{mode}.score"), vector(&scores));
    Ok(())
}
