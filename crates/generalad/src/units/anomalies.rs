use conformance::{Case, HostTensor, Outputs, UnitError};

use super::config::CaseConfig;
use super::{check, put, to_host, to_tensor};
use crate::Operation;
use crate::anomalies::{Attention, Draw};
use crate::features::PatchFeatures;

/// The reference's word for an operation.
fn word(operation: Operation) -> &'static str {
    match operation {
        Operation::NoiseAll => "noise_all",
        Operation::Random => "random",
        Operation::Attention => "attn",
        Operation::CopyOut => "copy_out",
        Operation::Shuffle => "shuffle",
        Operation::RandomShuffle => "randshuffle",
    }
}

/// The features `<prefix>features`, with the attention `<prefix>attn_map` if the case has it.
pub(super) fn clean(case: &Case, config: &CaseConfig, prefix: &str) -> Result<PatchFeatures, UnitError> {
    let features = to_tensor(case.input(&format!("{prefix}features"))?)?;
    let name = format!("{prefix}attn_map");
    let attention = case.has(&name).then(|| to_tensor(case.input(&name)?)).transpose()?;
    let (batch, patches, width) = features.dims3()?;
    check("batch", config.batch, batch)?;
    check("num_patches", config.num_patches, patches)?;
    check("embed_dim", config.embed_dim, width)?;
    if let Some(attention) = &attention {
        check("attn_heads", config.attn_heads, attention.dim(1)?)?;
        if attention.dims3()? != (batch, attention.dim(1)?, patches) {
            return Err(
                format!("{name}: expected ({batch}, H, {patches}), found {:?}", attention.dims()).into()
            );
        }
    }
    let attention = attention.map(|attention| Attention::new(&attention)).transpose()?;
    Ok(PatchFeatures { features, attention })
}

/// What `operation` drew, from the inputs that start with `prefix`.
pub(super) fn draw(
    case: &Case,
    config: &CaseConfig,
    prefix: &str,
    operation: Operation,
) -> Result<Draw, UnitError> {
    let input = |name: &str| case.input(&format!("{prefix}{}.{name}", word(operation)));
    let mut draw = Draw::default();
    if operation.adds_noise() {
        draw.noise = Some(to_tensor(input("noise")?)?);
    }
    if operation == Operation::NoiseAll {
        return Ok(draw);
    }
    draw.counts = input("num_fake")?.to_usize_vec()?;
    let most = usize::try_from(config.num_fake_patches.unwrap_or(-1)).unwrap_or(usize::MAX);
    if !operation.adds_noise() && draw.counts.iter().any(|count| *count > most) {
        return Err(format!("num_fake_patches: is {most}, but more were drawn: {:?}", draw.counts).into());
    }
    if operation.needs_attention() {
        draw.heads = input("head")?.to_usize_vec()?;
    }
    if matches!(operation, Operation::Random | Operation::CopyOut | Operation::RandomShuffle) {
        draw.patches = rows(input("perm")?)?;
    }
    if matches!(operation, Operation::Shuffle | Operation::RandomShuffle) {
        draw.orders = rows(input("shuffle_perm")?)?;
    }
    Ok(draw)
}

/// Rows of indices, each as far as it is not padded with -1.
fn rows(host: &HostTensor) -> Result<Vec<Vec<usize>>, UnitError> {
    let [_, width] = host.shape[..] else {
        return Err(format!("expected rows of indices, found shape {:?}", host.shape).into());
    };
    let values = host.to_i64_vec()?;
    let row = |row: &[i64]| row.iter().map_while(|index| usize::try_from(*index).ok()).collect();
    Ok(values.chunks(width.max(1)).map(row).collect())
}

pub(super) fn anomaly_generator(case: &Case) -> Result<Outputs, UnitError> {
    let config = CaseConfig::of(case)?;
    let clean = clean(case, &config, "in.")?;
    let (batch, patches, _) = clean.features.dims3()?;
    let mut out = Outputs::new();
    for operation in [
        Operation::NoiseAll,
        Operation::Random,
        Operation::Attention,
        Operation::CopyOut,
        Operation::Shuffle,
        Operation::RandomShuffle,
    ] {
        let fake = draw(case, &config, "in.", operation)?.apply(operation, &clean)?;
        let word = word(operation);
        put(&mut out, &format!("{word}.features"), to_host(&fake.features)?);
        put(&mut out, &format!("{word}.labels"), HostTensor::u8([batch, patches], fake.labels));
    }
    Ok(out)
}
