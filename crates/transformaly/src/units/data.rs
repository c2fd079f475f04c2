use conformance::{Case, HostTensor, Outputs, UnitError};
use image_prep::{Filter, Planar, Preprocess, Rgb8};
use vit_backbone::{Resampling, resample_positions};

use super::config::{CaseConfig, Dataset};
use super::{integers, put, to_host, to_tensor, vector};
use crate::selection::{best, is_evaluated};

pub(super) fn protocol_selection(case: &Case) -> Result<Outputs, UnitError> {
    let config = CaseConfig::of(case)?;
    let train = case.input("in.train_labels")?.to_usize_vec()?;
    let test = case.input("in.test_labels")?.to_usize_vec()?;
    let losses = super::rows(case.input("in.val_batch_losses_by_epoch")?)?;
    let epochs = config.epochs()?;
    if losses.len() != epochs {
        return Err(format!("epochs: is {epochs}, but there are losses of {}", losses.len()).into());
    }
    let every = config.eval_every()?;
    let evaluated: Vec<usize> = (1..=epochs).filter(|epoch| is_evaluated(*epoch, every)).collect();
    // Unweighted over batches: a short last one counts fully.
    let means: Vec<f64> = evaluated
        .iter()
        .map(|epoch| losses[epoch - 1].iter().sum::<f64>() / losses[epoch - 1].len() as f64)
        .collect();
    let kept = best(&means, config.min_delta()?).ok_or("every validation loss is NaN")?;

    let chosen = config.select(&train, &test)?;
    let mut out = Outputs::new();
    put(&mut out, "train_indices", integers(chosen.train));
    put(&mut out, "val_indices", integers(chosen.validation));
    put(&mut out, "ood_indices", integers(chosen.anomalous));
    put(&mut out, "best_epoch", integers([evaluated[kept]]));
    put(&mut out, "evaluated_epochs", integers(evaluated));
    put(&mut out, "val_losses", vector(&means));
    Ok(out)
}

pub(super) fn pos_embedding_resize(case: &Case) -> Result<Outputs, UnitError> {
    let config = CaseConfig::of(case)?;
    let (old, new) = (config.old_grid()?, config.new_grid()?);
    let table = to_tensor(case.input("in.pos_embedding")?)?;
    if table.dims().last() != Some(&config.dim()?) {
        return Err(format!("dim: is {}, but the table is {:?}", config.dim()?, table.dims()).into());
    }
    let resized = resample_positions(&table, (old, old), (new, new), Resampling::LinearAlignCorners)?;
    let mut out = Outputs::new();
    put(&mut out, "pos_embedding", to_host(&resized)?);
    Ok(out)
}

pub(super) fn preprocess(case: &Case) -> Result<Outputs, UnitError> {
    let config = CaseConfig::of(case)?;
    let [height, width] = config.size()?;
    let source = case.input("in.image_u8")?;
    let grey = match (config.dataset()?, source.shape.len()) {
        (Dataset::Fmnist, 3) => true,
        (Dataset::Cifar10, 4) => false,
        (dataset, _) => return Err(format!("dataset: {dataset:?} is not of shape {:?}", source.shape).into()),
    };
    let normalisation = config.normalisation()?;
    let (mut bytes, mut values) = (Vec::new(), Vec::new());
    let all = images(source)?;
    for image in &all {
        let resized = image_prep::resize::pillow(image, height, width, Filter::Bilinear)?;
        values.extend(normalisation.apply(&resized)?.data);
        // The three channels of a grey image are equal, and stay so.
        bytes.extend(resized.data.iter().step_by(if grey { 3 } else { 1 }));
    }
    let mut shape = vec![all.len(), height, width];
    let mut out = Outputs::new();
    put(&mut out, "tensor", HostTensor::f32([all.len(), 3, height, width], values));
    if !grey {
        shape.push(3);
    }
    put(&mut out, "resized_u8", HostTensor::u8(shape, bytes));
    Ok(out)
}

/// 8-bit images `(n, h, w)` or `(n, h, w, 3)`.
fn images(host: &HostTensor) -> Result<Vec<Rgb8>, UnitError> {
    let bytes = host.as_u8()?;
    match host.shape[..] {
        [_, h, w] if h * w > 0 => {
            Ok(bytes.chunks_exact(h * w).map(|grey| Rgb8::from_grey(h, w, grey)).collect::<Result<_, _>>()?)
        }
        [_, h, w, 3] if h * w > 0 => Ok(bytes
            .chunks_exact(h * w * 3)
            .map(|colour| Rgb8::new(h, w, colour.to_vec()))
            .collect::<Result<_, _>>()?),
        _ => Err(format!("expected 8-bit images, found shape {:?}", host.shape).into()),
    }
}

/// 8-bit images as normalised planes.
pub(super) fn planes(host: &HostTensor, normalisation: &Preprocess) -> Result<Vec<Planar>, UnitError> {
    images(host)?.iter().map(|image| Ok(normalisation.apply(image)?)).collect()
}
