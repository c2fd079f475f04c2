use conformance::{Case, HostTensor, Outputs, UnitError};
use image_prep::PatchMaps;

use super::config::CaseConfig;
use super::{put, vector};
use crate::Amount;
use crate::score::image_scores;

/// `(n, side, side)` numbers.
pub(super) fn squares(values: Vec<f32>, side: usize) -> HostTensor {
    HostTensor::f32([values.len() / (side * side).max(1), side, side], values)
}

pub(super) fn patch_scores(case: &Case) -> Result<Outputs, UnitError> {
    let config = CaseConfig::of(case)?;
    let host = case.input("in.patch_scores")?;
    let (n, side) = (config.patches_per_side()?, config.out_size()?);
    let [_, patches] = host.shape[..] else {
        return Err(format!("in.patch_scores: expected (B, N), found {:?}", host.shape).into());
    };
    if patches != n * n {
        return Err(format!("patches_per_side: is {n}, but there are {patches} patches").into());
    }
    let values = host.to_f32_vec()?;
    let rows: Vec<Vec<f32>> = values.chunks(patches.max(1)).map(<[f32]>::to_vec).collect();
    let (sigma, radius) = (config.smoothing_sigma()?, config.smoothing_radius()?);
    let mut out = Outputs::new();
    put(&mut out, "image_scores", vector(&image_scores(&rows, config.top_k()?)));
    put(&mut out, "image_scores_max", vector(&image_scores(&rows, Amount::Of(1))));
    let plain = PatchMaps::bilinear((n, n), (side, side))?;
    put(&mut out, "upsampled", squares(plain.apply(&values)?, side));
    let smoothed = PatchMaps::smoothed((n, n), (side, side), sigma, radius)?;
    put(&mut out, "pixel_map", squares(smoothed.apply(&values)?, side));
    Ok(out)
}
