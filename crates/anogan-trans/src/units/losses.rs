use candle_core::{Tensor, Var};
use conformance::{Case, Outputs, UnitError};

use super::config::CaseConfig;
use super::{put, to_host, to_tensor};
use crate::loss::{latent, reconstruction, verdict};

pub(super) fn losses(case: &Case) -> Result<Outputs, UnitError> {
    let config = CaseConfig::of(case)?;
    let leaf = |name: &str| -> Result<Var, UnitError> {
        Ok(Var::from_tensor(&to_tensor(case.input(&format!("in.{name}"))?)?)?)
    };
    let [pred_fake_g, pred_real, pred_fake_d] = ["pred_fake_g", "pred_real", "pred_fake_d"].map(leaf);
    let (pred_fake_g, pred_real, pred_fake_d) = (pred_fake_g?, pred_real?, pred_fake_d?);
    let [fake, feat_fake, feat_real] = ["fake", "feat_fake", "feat_real"].map(leaf);
    let (fake, feat_fake, feat_real) = (fake?, feat_fake?, feat_real?);
    let image = to_tensor(case.input("in.image")?)?;

    let adversarial = (verdict(&pred_fake_g, true)? * config.w_adv()?)?;
    let difference = (reconstruction(&fake, &image)? * config.w_con()?)?;
    let of_features = (latent(&feat_fake, &feat_real)? * config.w_lat()?)?;
    let generator_alone = (&adversarial + &difference)?;
    let generator = (&generator_alone + &of_features)?;
    let real = verdict(&pred_real, true)?;
    let painted = verdict(&pred_fake_d, false)?;
    let discriminator_alone = (&real + &painted)?;
    let discriminator = (&discriminator_alone + &of_features)?;

    let mut out = Outputs::new();
    for (name, loss) in [
        ("err_g_adv", &adversarial),
        ("err_g_con", &difference),
        ("err_g_lat", &of_features),
        ("err_g", &generator),
        ("err_g_nolat", &generator_alone),
        ("err_d_real", &real),
        ("err_d_fake", &painted),
        ("err_d", &discriminator),
        ("err_d_nolat", &discriminator_alone),
    ] {
        put(&mut out, name, to_host(&loss.detach())?);
    }
    let mut gradients = |whose: &str, loss: &Tensor, of: &[(&str, &Var)]| -> Result<(), UnitError> {
        let store = loss.backward()?;
        for (name, var) in of {
            let gradient = store.get(var).ok_or_else(|| format!("{name}: no gradient"))?;
            out.insert(format!("grad.{whose}.{name}"), to_host(gradient)?);
        }
        Ok(())
    };
    let features = [("feat_fake", &feat_fake), ("feat_real", &feat_real)];
    gradients("g", &generator, &[("pred_fake_g", &pred_fake_g), ("fake", &fake), features[0], features[1]])?;
    let of_d = [("pred_real", &pred_real), ("pred_fake_d", &pred_fake_d), features[0], features[1]];
    gradients("d", &discriminator, &of_d)?;

    if case.has("in.pred_saturated") {
        let saturated = to_tensor(case.input("in.pred_saturated")?)?;
        put(&mut out, "bce_saturated_vs_one", to_host(&verdict(&saturated, true)?)?);
        put(&mut out, "bce_saturated_vs_zero", to_host(&verdict(&saturated, false)?)?);
    }
    Ok(out)
}
