use candle_core::{D, Var};
use conformance::{Case, Outputs, UnitError};
use density_heads::Likelihood;
use vit_ops::NetworkWeights;

use super::config::CaseConfig;
use super::{put, to_host, to_row, to_tensor, weights};
use crate::network::density;

fn check(config: &CaseConfig, shape: (usize, usize, usize), found: (usize, usize)) -> Result<(), UnitError> {
    config.check(&[("batch", shape.0), ("n", shape.1), ("dim", shape.2)])?;
    if found != (config.dim()?, config.coefs()?) {
        return Err(
            format!("coefs: the weights are of {} features and {} components", found.0, found.1).into()
        );
    }
    Ok(())
}

pub(super) fn mdn(case: &Case) -> Result<Outputs, UnitError> {
    let config = CaseConfig::of(case)?;
    let head = density(&weights(case)?, "")?;
    let x = to_tensor(case.input("in.x")?)?;
    check(&config, x.dims3()?, (head.dim(), head.gaussians()))?;
    let components = head.components(&x)?;
    let mut out = Outputs::new();
    put(&mut out, "pi", to_host(&components.pi)?);
    put(&mut out, "mu", to_host(&components.mu)?);
    put(&mut out, "logvar", to_host(&components.spread)?);
    for (name, form) in
        [("nll_patch", Likelihood::Reference), ("nll_patch_logsumexp", Likelihood::LogVarianceMixture)]
    {
        put(&mut out, name, to_host(&head.of_components(&x, &components, form)?)?);
    }
    Ok(out)
}

pub(super) fn mdn_loss(case: &Case) -> Result<Outputs, UnitError> {
    let config = CaseConfig::of(case)?;
    let trained = NetworkWeights::new(&weights(case)?)?;
    let head = density(&trained.tracked(), "")?;
    let x = Var::from_tensor(&to_tensor(case.input("in.x")?)?)?;
    check(&config, x.dims3()?, (head.dim(), head.gaussians()))?;
    let loss = head.negative_log_likelihood(&x, Likelihood::Reference)?.sum(D::Minus1)?.mean_all()?;
    let store = loss.backward()?;
    let mut out = Outputs::new();
    put(&mut out, "loss", to_row(&loss)?);
    put(&mut out, "grad_x", to_host(store.get(&x).ok_or("x got no gradient")?)?);
    for (name, var) in trained.trained() {
        let gradient = store.get(var).ok_or_else(|| format!("{name} got no gradient"))?;
        out.insert(format!("grad.{name}"), to_host(gradient)?);
    }
    Ok(out)
}
