use candle_core::{Tensor, Var};
use conformance::{Case, Outputs, UnitError};
use vit_ops::{Border, SsimOptions};

use super::config::CaseConfig;
use super::{put, to_host, to_row, to_tensor};
use crate::loss::{dissimilarity, mse, valid_ssim_per_image};
use crate::residual::{self, local_ssim, one_minus_mean};

pub(super) fn loss(case: &Case) -> Result<Outputs, UnitError> {
    let config = CaseConfig::of(case)?;
    let window = config.window()?;
    let images = to_tensor(case.input("in.images")?)?;
    let reconstruction = Var::from_tensor(&to_tensor(case.input("in.reconstruction")?)?)?;
    let (of_mse, of_ssim) = config.lambdas();
    let (error, loss_ssim) =
        (mse(&reconstruction, &images)?, dissimilarity(&reconstruction, &images, &window)?);
    let total = ((&error * of_mse)? + (&loss_ssim * of_ssim)?)?;
    let gradient = |loss: &Tensor| -> Result<Tensor, UnitError> {
        Ok(loss.backward()?.get(&reconstruction).ok_or("no gradient")?.clone())
    };
    let mut out = Outputs::new();
    put(&mut out, "mse", to_row(&error)?);
    put(&mut out, "ssim_loss", to_row(&loss_ssim)?);
    put(&mut out, "loss", to_row(&total)?);
    let per_image = valid_ssim_per_image(&reconstruction, &images, &window)?;
    put(&mut out, "ssim_per_image", to_host(&per_image)?);
    out.insert("grad.reconstruction".to_owned(), to_host(&gradient(&total)?)?);
    out.insert("grad.reconstruction_ssim_only".to_owned(), to_host(&gradient(&loss_ssim)?)?);
    Ok(out)
}

pub(super) fn mask(case: &Case) -> Result<Outputs, UnitError> {
    let config = CaseConfig::of(case)?;
    let window = config.window()?;
    let input = |name: &str| to_tensor(case.input(name)?);
    let (images, reconstruction) = (input("in.images")?, input("in.reconstruction")?);
    let truth = input("in.ground_truth")?;
    let (l1, ssim) = (config.threshold_l1()?, config.threshold_ssim()?);

    let reference = residual::l1_mask_reference(&images, &reconstruction, l1)?;
    let metric = |mask: &Tensor| -> Result<Tensor, UnitError> {
        Ok(valid_ssim_per_image(&truth, mask, &window)?.affine(-1.0, 1.0)?)
    };
    let per_image = metric(&reference)?;
    let l1_map = residual::l1_map(&images, &reconstruction)?;
    let channels = local_ssim(&images, &reconstruction, &window)?;
    let ssim_map = one_minus_mean(&channels)?;
    let mut out = Outputs::new();
    for (name, tensor) in [
        ("l1_mask_reference", &reference),
        ("metric_reference_per_image", &per_image),
        ("metric_fixed_per_image", &metric(&reference.affine(-1.0, 1.0)?)?),
        ("l1_map", &l1_map),
        ("l1_mask", &residual::mask(&l1_map, l1)?),
        ("ssim_map_channels", &channels),
        ("ssim_mask_channels", &residual::mask(&channels.affine(-1.0, 1.0)?, ssim)?),
        ("ssim_anomaly_map", &ssim_map),
        ("ssim_mask", &residual::mask(&ssim_map, ssim)?),
    ] {
        put(&mut out, name, to_host(tensor)?);
    }
    put(&mut out, "metric_reference", to_row(&per_image.mean_all()?)?);
    Ok(out)
}

pub(super) fn ssim(case: &Case) -> Result<Outputs, UnitError> {
    let config = CaseConfig::of(case)?;
    let window = config.window()?;
    let (x, y) = (to_tensor(case.input("in.x")?)?, to_tensor(case.input("in.y")?)?);
    let of = |border| vit_ops::ssim(&x, &y, &SsimOptions { border, ..window });
    let valid = of(Border::Valid)?;
    let full = local_ssim(&x, &y, &window)?;
    let zeros = of(Border::Zero)?;
    // The mean of the padded map over its inside: as far from the edge as the window reaches.
    let (_, _, height, width) = full.dims4()?;
    let radius = window.radius;
    let inside = full.narrow(2, radius, height - 2 * radius)?.narrow(3, radius, width - 2 * radius)?;
    let mut out = Outputs::new();
    put(&mut out, "tf_mean_per_image", to_host(&valid.mean((1, 2, 3))?)?);
    put(&mut out, "tf_local_valid", to_host(&valid.mean(1)?)?);
    put(&mut out, "sk_local_full", to_host(&full)?);
    put(&mut out, "sk_mean_per_image", to_host(&inside.mean((1, 2, 3))?)?);
    put(&mut out, "zero_pad_local_full", to_host(&zeros)?);
    put(&mut out, "zero_pad_mean", to_row(&zeros.mean_all()?)?);
    Ok(out)
}
