use candle_core::Var;
use conformance::{Case, Outputs, UnitError};
use density_heads::{Likelihood, TokenMap};
use vit_ops::NetworkWeights;

use super::config::CaseConfig;
use super::keras::{put_theirs, weights};
use super::{optional, put, to_host, to_row, to_tensor};
use crate::decoder::{Decoder, follow};
use crate::encoder::{Embedding, Encoder, on_grid};
use crate::loss::{LossWeights, Losses, density_loss};
use crate::network::{Network, density};

pub(super) fn patch_embedding(case: &Case) -> Result<Outputs, UnitError> {
    let config = CaseConfig::of(case)?;
    let images = to_tensor(case.input("in.images")?)?;
    let (_, _, height, width) = images.dims4()?;
    let (grid, patch) = (config.grid()?, config.patch_size()?);
    if (grid.0 * patch, grid.1 * patch) != (height, width) {
        return Err(format!("img_height, img_width: the images are {height} x {width}").into());
    }
    let tokens = Embedding::new(&weights(case)?)?.forward(&images)?;
    let mut out = Outputs::new();
    put(&mut out, "tokens", to_host(&tokens)?);
    Ok(out)
}

pub(super) fn encoder(case: &Case) -> Result<Outputs, UnitError> {
    let config = CaseConfig::of(case)?;
    let architecture = config.architecture()?;
    let tokens = to_tensor(case.input("in.tokens")?)?;
    let encoder = Encoder::new(&architecture, &weights(case)?)?;
    let mut blocks = Vec::new();
    let registers = optional(case, "in.registers")?;
    let encoded = encoder.forward(&tokens, registers.as_ref(), None, |z| blocks.push(z.clone()))?;
    let representation = encoded.narrow(1, 0, tokens.dim(1)?)?.contiguous()?;
    let latent = on_grid(&encoder.latent(&representation)?, architecture.grid)?;
    let mut out = Outputs::new();
    for (index, block) in blocks.iter().enumerate() {
        put(&mut out, &format!("block_{index}"), to_host(block)?);
    }
    put(&mut out, "encoded", to_host(&encoded)?);
    put(&mut out, "representation", to_host(&representation)?);
    put(&mut out, "latent", to_host(&latent)?);
    Ok(out)
}

pub(super) fn decoder(case: &Case) -> Result<Outputs, UnitError> {
    let config = CaseConfig::of(case)?;
    let architecture = config.architecture()?;
    let latent = to_tensor(case.input("in.latent")?)?;
    let (_, dim, rows, columns) = latent.dims4()?;
    if (dim, (rows, columns)) != (architecture.dim, architecture.grid) {
        return Err(format!("embed_dim, grid: the latent is {:?}", latent.dims()).into());
    }
    let trained = NetworkWeights::new(&weights(case)?)?;
    let decoder = Decoder::new(&architecture, &trained.tracked())?;
    let mut out = Outputs::new();
    put(&mut out, "eval", to_host(&decoder.forward(&latent)?)?);
    let (images, seen) = decoder.forward_train(&latent)?;
    put(&mut out, "train", to_host(&images)?);
    follow(&trained, &seen, architecture.norms.batch_kept)?;
    let after = trained.frozen()?;
    put_theirs(
        &mut out,
        "w_after.",
        &architecture,
        after.iter().filter(|(name, _)| name.contains("running_")),
    )?;
    Ok(out)
}

pub(super) fn autoencoder(case: &Case) -> Result<Outputs, UnitError> {
    let config = CaseConfig::of(case)?;
    let network = Network::new(&config.architecture()?, &weights(case)?)?;
    let images = to_tensor(case.input("in.images")?)?;
    let registers = optional(case, "in.registers")?;
    let evaluated = network.evaluate(&images, registers.as_ref())?;
    let (trained, _) = network.train(&images, registers.as_ref(), None)?;
    let losses = Losses::new(&evaluated.reconstruction, &images, None)?;
    let (mse, ssim) = config.lambdas();
    let loss = losses.total(&LossWeights { mse, ssim, density: 0.0 })?;
    let mut out = Outputs::new();
    put(&mut out, "reconstruction_eval", to_host(&evaluated.reconstruction)?);
    put(&mut out, "reconstruction_train", to_host(&trained.reconstruction)?);
    put(&mut out, "loss_eval", to_row(&loss)?);
    Ok(out)
}

pub(super) fn gmdn(case: &Case) -> Result<Outputs, UnitError> {
    let config = CaseConfig::of(case)?;
    let architecture = config.architecture()?;
    let named = weights(case)?;
    let network = Network::new(&architecture, &named)?;
    let images = to_tensor(case.input("in.images")?)?;
    let (_, _, height, width) = images.dims4()?;
    let output = network.evaluate(&images, optional(case, "in.registers")?.as_ref())?;
    let (mse, ssim) = config.lambdas();
    let own = Losses::new(&output.reconstruction, &images, None)?.total(&LossWeights {
        mse,
        ssim,
        density: 0.0,
    })?;
    let mut out = Outputs::new();
    put(&mut out, "recon_loss", to_row(&own)?);
    put(&mut out, "features", to_host(&output.features)?);

    let head = density(&named)?.with_clamp(config.clamp_min()?);
    if head.gaussians() != config.gaussians()? {
        return Err(format!("gaussians: the weights have {}", head.gaussians()).into());
    }
    let components = head.components(&output.features)?;
    put(&mut out, "pi", to_host(&components.pi)?);
    put(&mut out, "mu", to_host(&components.mu)?);
    put(&mut out, "sigma", to_host(&components.spread)?);

    let noise = to_tensor(case.input("in.noise")?)?;
    let smoothing =
        TokenMap { sigma: config.map_gaussian_sigma()?, truncate: config.map_gaussian_truncate()? };
    let modes = [
        ("vtadl", Likelihood::Reference, config.lambda_gmdn_vtadl()?),
        (
            "mixture",
            Likelihood::Mixture { floor: config.mixture_var_floor()? },
            config.lambda_gmdn_mixture()?,
        ),
    ];
    for (mode, form, weight) in modes {
        let patch = head.of_components(&output.features, &components, form)?;
        let loss = density_loss(&patch, form)?;
        let up = TokenMap::upsample(&patch, architecture.grid, (height, width))?;
        put(&mut out, &format!("{mode}.patch"), to_host(&patch)?);
        put(&mut out, &format!("{mode}.loss"), to_row(&loss)?);
        put(&mut out, &format!("{mode}.map_up"), to_host(&up)?);
        put(&mut out, &format!("{mode}.map"), to_host(&smoothing.smooth(&up)?)?);
        put(&mut out, &format!("total.{mode}"), to_row(&(&own + (loss * weight)?)?)?);

        let trained = NetworkWeights::new(&named)?;
        let head = density(&trained.tracked())?.with_clamp(config.clamp_min()?);
        let features = Var::from_tensor(&output.features.detach())?;
        let noisy = (features.as_tensor() + &noise)?;
        let loss = density_loss(&head.negative_log_likelihood(&noisy, form)?, form)?;
        put(&mut out, &format!("{mode}.loss_noisy"), to_row(&loss)?);
        let store = loss.backward()?;
        let of = |var: &Var| store.get(var).ok_or("a tensor of the density head got no gradient");
        out.insert(format!("grad.{mode}.features"), to_host(of(&features)?)?);
        for (name, var) in trained.trained().filter(|(name, _)| name.starts_with("gmdn.")) {
            out.insert(format!("grad.{mode}.{name}"), to_host(of(var)?)?);
        }
    }
    Ok(out)
}
