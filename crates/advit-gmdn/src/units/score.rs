use candle_core::{D, Tensor, Var};
use conformance::{Case, HostTensor, Outputs, UnitError};
use density_heads::TokenMap;
use vit_ops::{Border, SsimOptions};

use super::config::CaseConfig;
use super::{put, to_host, to_row, to_tensor};
use crate::loss::{mse_per_image, ssim_per_image};

pub(super) fn ssim(case: &Case) -> Result<Outputs, UnitError> {
    let config = CaseConfig::of(case)?;
    let image = to_tensor(case.input("in.image")?)?;
    let reconstruction = Var::from_tensor(&to_tensor(case.input("in.recon")?)?)?;
    config.check_shape(image.dims())?;
    let window = config.window()?;
    if window.is_multiple_of(2) {
        return Err(format!("window: expected an odd number, found {window}").into());
    }
    let options = SsimOptions {
        radius: window / 2,
        sigma: config.sigma()?,
        border: Border::Zero,
        ..SsimOptions::default()
    };
    let map = vit_ops::ssim(&reconstruction, &image, &options)?;
    let per_image = map.mean((1, 2, 3))?;
    let mean = per_image.mean_all()?;
    let store = mean.backward()?;
    let mut out = Outputs::new();
    put(&mut out, "ssim", to_row(&mean)?);
    put(&mut out, "ssim_per_image", to_host(&per_image)?);
    put(&mut out, "grad_recon", to_host(store.get(&reconstruction).ok_or("no gradient")?)?);
    Ok(out)
}

pub(super) fn anomaly_map(case: &Case) -> Result<Outputs, UnitError> {
    let config = CaseConfig::of(case)?;
    let values = to_tensor(case.input("in.nll_patch")?)?;
    config.check(&[("images", values.dim(0)?)])?;
    let ([rows, columns], [height, width]) = (config.grid()?, config.out_hw()?);
    let smoothing = TokenMap { sigma: config.sigma()?, truncate: config.truncate()? };
    let upsampled = TokenMap::upsample(&values, (rows, columns), (height, width))?;
    let map = smoothing.smooth(&upsampled)?;
    let flat = map.flatten_from(1)?;
    let (largest, least) = (flat.max_keepdim(1)?, flat.min_keepdim(1)?);
    // A flat map has no spread to divide by, and nothing to show.
    let spread = (&largest - &least)?;
    let one = spread.ones_like()?;
    let divisor = spread.eq(&spread.zeros_like()?)?.where_cond(&one, &spread)?;
    let shown = flat.broadcast_sub(&least)?.broadcast_div(&divisor)?.reshape(map.shape())?;
    let stride = config.stride()?;
    let mut out = Outputs::new();
    for (name, tensor) in [("upsampled", &upsampled), ("map", &map), ("map_minmax", &shown)] {
        put(&mut out, name, to_host(&every(tensor, stride)?)?);
    }
    put(&mut out, "map_max", to_host(&largest.squeeze(1)?)?);
    Ok(out)
}

/// Every `stride`-th row and column of maps `(B, H, W)`.
fn every(maps: &Tensor, stride: usize) -> Result<Tensor, UnitError> {
    let picked = |length: usize| -> Result<Tensor, UnitError> {
        let indices: Vec<u32> = (0..length as u32).step_by(stride).collect();
        Ok(Tensor::new(indices, maps.device())?)
    };
    let (_, height, width) = maps.dims3()?;
    Ok(maps.contiguous()?.index_select(&picked(height)?, 1)?.index_select(&picked(width)?, 2)?)
}

pub(super) fn image_score(case: &Case) -> Result<Outputs, UnitError> {
    let config = CaseConfig::of(case)?;
    let input = |name: &str| to_tensor(case.input(name)?);
    let (image, reconstruction) = (input("in.image")?, input("in.recon")?);
    let likelihood = input("in.nll_patch")?;
    config.check(&[("images", image.dim(0)?), ("image_size", image.dim(2)?), ("n", likelihood.dim(1)?)])?;
    let (mse, similarity) =
        (mse_per_image(&reconstruction, &image)?, ssim_per_image(&reconstruction, &image)?);
    let rest = (&mse + likelihood.max(D::Minus1)?)?;
    let mut out = Outputs::new();
    let all: [(&str, HostTensor); 4] = [
        ("mse", to_host(&mse)?),
        ("ssim", to_host(&similarity)?),
        ("score_reference", to_host(&(&rest + &similarity)?)?),
        ("score_sign_fixed", to_host(&(&rest - &similarity)?)?),
    ];
    for (name, tensor) in all {
        put(&mut out, name, tensor);
    }
    Ok(out)
}
