use candle_core::{Tensor, Var};
use conformance::{Case, Outputs, UnitError};
use vit_ops::NetworkWeights;

use super::config::CaseConfig;
use super::{counted, put, to_host, to_row, to_tensor, weights};
use crate::capsule::Capsule;
use crate::decoder::{Decoder, follow};
use crate::encoder::{Encoder, SelfAttention};
use crate::network::Autoencoder;

pub(super) fn encoder(case: &Case) -> Result<Outputs, UnitError> {
    let config = CaseConfig::of(case)?;
    let image = to_tensor(case.input("in.image")?)?;
    let (batch, _, height, width) = image.dims4()?;
    config.check(&[("batch", batch), ("input height", height), ("input width", width)])?;
    let encoder = Encoder::new(&config.transformer()?, &weights(case)?, "")?;
    let mut out = Outputs::new();
    put(&mut out, "encoded", to_host(&encoder.forward(&image)?.tokens)?);
    Ok(out)
}

pub(super) fn decoder(case: &Case) -> Result<Outputs, UnitError> {
    let config = CaseConfig::of(case)?;
    let latent = to_tensor(case.input("in.latent")?)?;
    let (batch, _, height, width) = latent.dims4()?;
    config.check(&[("batch", batch), ("latent height", height), ("latent width", width)])?;
    let named = weights(case)?;
    let mut out = Outputs::new();
    if !config.train()? {
        let decoder = Decoder::of_layers(&config.decoder()?, &named, "")?;
        put(&mut out, "recon", to_host(&decoder.forward(&latent)?)?);
        return Ok(out);
    }
    let trained = NetworkWeights::new(&named)?;
    let decoder = Decoder::of_layers(&config.decoder()?, &trained.tracked(), "")?;
    let (images, seen) = decoder.forward_train(&latent)?;
    follow(&trained, &seen)?;
    put(&mut out, "recon", to_host(&images)?);
    for (name, tensor) in trained.frozen()?.iter().filter(|(name, _)| name.contains(".running_")) {
        out.insert(format!("w_after.{name}"), to_host(tensor)?);
    }
    counted(case, 1, &mut out)?;
    Ok(out)
}

pub(super) fn digitcaps(case: &Case) -> Result<Outputs, UnitError> {
    let config = CaseConfig::of(case)?;
    let x = Var::from_tensor(&to_tensor(case.input("in.x")?)?)?;
    let weight = Var::from_tensor(&weights(case)?.get("W")?)?;
    let (batch, capsules, inputs) = x.dims3()?;
    config.check(&[
        ("batch", batch),
        ("in_num_caps", capsules),
        ("in_dim_caps", inputs),
        ("out_dim_caps", weight.dim(2)?),
    ])?;
    let vector = Capsule::new(&weight)?.forward(&x)?;
    let upstream = to_tensor(case.input("in.upstream")?)?;
    let store = (&vector * upstream)?.sum_all()?.backward()?;
    let mut out = Outputs::new();
    put(&mut out, "vector", to_host(&vector)?);
    put(&mut out, "grad_x", to_host(store.get(&x).ok_or("x got no gradient")?)?);
    out.insert("grad.W".to_owned(), to_host(store.get(&weight).ok_or("W got no gradient")?)?);
    Ok(out)
}

pub(super) fn autoencoder(case: &Case) -> Result<Outputs, UnitError> {
    let config = CaseConfig::of(case)?;
    let image = to_tensor(case.input("in.image")?)?;
    config.check(&[("batch", image.dim(0)?), ("image_size", image.dim(2)?)])?;
    if config.train()? {
        return Err("train: expected false, found true".into());
    }
    let network = Autoencoder::new(&config.autoencoder()?, &weights(case)?)?;
    let found = network.evaluate(&image, Some(&to_tensor(case.input("in.noise")?)?))?;
    let mut out = Outputs::new();
    put(&mut out, "caps", to_host(&network.vector(&found.encoded)?)?);
    put(&mut out, "encoded", to_host(&found.encoded)?);
    put(&mut out, "recon", to_host(&found.reconstruction)?);
    Ok(out)
}

pub(super) fn assoc_block(case: &Case) -> Result<Outputs, UnitError> {
    let config = CaseConfig::of(case)?;
    let trained = NetworkWeights::new(&weights(case)?)?;
    let x = Var::from_tensor(&to_tensor(case.input("in.x")?)?)?;
    let upstream = to_tensor(case.input("in.upstream")?)?;
    let (batch, tokens, dim) = x.dims3()?;
    config.check(&[("batch", batch), ("dim", dim)])?;
    let [rows, columns] = config.grid()?;
    if tokens != rows * columns + usize::from(config.cls_token()?) {
        return Err(format!("grid: {rows} x {columns} patches, but there are {tokens} tokens").into());
    }
    let squared = config.distance()?.squared((rows, columns), &x)?;
    let block = SelfAttention::new(&trained.tracked(), "", config.heads()?, config.scale()?, true)?;
    let (y, association) = block.forward(&x, Some(&squared))?;
    let association = association.ok_or("there is no association")?;
    let (of_prior, of_series) = (association.of_prior()?, association.of_series()?);

    let mut out = Outputs::new();
    for (name, tensor) in [
        ("y", &y),
        ("sigma", &association.sigma),
        ("prior", &association.prior),
        ("series", &association.series),
        ("assdis_token", &association.token_discrepancy()?),
    ] {
        put(&mut out, name, to_host(tensor)?);
    }
    put(&mut out, "d_prior", to_row(&of_prior)?);
    put(&mut out, "d_series", to_row(&of_series)?);

    let lambda = config.lambda()?;
    let base = (&y * upstream)?.sum_all()?;
    let phases: [(&str, &str, Tensor); 3] = [
        ("grad_min", "grad_x_min", (&base + (&of_prior * lambda)?)?),
        ("grad_max", "grad_x_max", (&base - (&of_series * lambda)?)?),
        ("grad", "grad_x_combined", (&base + ((&of_prior - &of_series)? * lambda)?)?),
    ];
    for (prefix, of_x, loss) in phases {
        let store = loss.backward()?;
        put(&mut out, of_x, to_host(store.get(&x).ok_or("x got no gradient")?)?);
        for (name, var) in trained.trained() {
            // The attention alone never reaches the prior's head.
            let gradient = match store.get(var) {
                Some(gradient) => gradient.clone(),
                None => var.zeros_like()?,
            };
            out.insert(format!("{prefix}.{name}"), to_host(&gradient)?);
        }
    }
    Ok(out)
}
