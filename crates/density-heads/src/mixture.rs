//! The mixture of each token, and what its features are worth under it.

use candle_core::{D, Tensor};
use vit_ops::{Linear, at_least, softmax, softplus};

use crate::{Error, MixtureWeights};

/// Features below this become this before the heads see them: in effect a `ReLU`. The double nearest to the reference's
/// "machine epsilon".
const CLAMP: f64 = 2.220_446_049_250_313e-16;

/// Numbers of each tensor `(tokens, D, K)` that [`MixtureHead::score`] makes at a time.
const PIECE: usize = 1 << 21;

/// What is computed of a token's features `f` and its mixture (weights `pi`, means `mu`, softplus outputs `s`).
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub enum Likelihood {
    /// `sum_k pi_k (ln 2 pi + sum_d [s + (f - mu)^2 exp(-s)]) / 2`: what VT-ADL's released code computes. The softplus
    /// output is taken as a log-variance, so that no variance is below 1; the average of the components' terms is an
    /// upper bound of the mixture's own; and `ln 2 pi` comes once, not D times, which is a constant.
    Reference,
    /// The mixture's negative log-likelihood with that log-variance and all constants.
    LogVarianceMixture,
    /// The mixture's negative log-likelihood with the variance `s + floor`.
    Mixture {
        /// Added to each variance, above 0.
        floor: f64,
    },
}

/// The mixtures of some tokens.
#[derive(Debug, Clone)]
pub struct Components {
    /// Weights `(B, N, K)`, which sum to 1.
    pub pi: Tensor,
    /// Their logarithms, `(B, N, K)`.
    pub log_pi: Tensor,
    /// Means `(B, N, D, K)`.
    pub mu: Tensor,
    /// Softplus outputs `(B, N, D, K)`, a log-variance or a variance as the [`Likelihood`] has it.
    pub spread: Tensor,
}

/// The head.
#[derive(Debug, Clone)]
pub struct MixtureHead {
    pi: Linear,
    mu: Linear,
    sigma_sq: Linear,
    dim: usize,
    gaussians: usize,
    clamp: f64,
}

impl MixtureHead {
    /// The head with these weights. Of tensors of `Var`s it is trainable; frozen weights are packed once.
    ///
    /// # Errors
    /// [`Error::Shape`] if the shapes don't fit each other.
    pub fn new(weights: &MixtureWeights) -> Result<Self, Error> {
        let (gaussians, dim) = match weights.pi.dims2() {
            Ok((k, d)) if k > 0 && d > 0 => (k, d),
            _ => return Err(shape("pi", "(K, D), nothing empty".to_owned(), &weights.pi)),
        };
        for (argument, tensor) in [("mu", &weights.mu), ("sigma_sq", &weights.sigma_sq)] {
            if tensor.dims() != [dim * gaussians, dim] {
                return Err(shape(argument, format!("({dim} * {gaussians}, {dim})"), tensor));
            }
        }
        Ok(Self {
            pi: Linear::new(weights.pi.clone(), None)?,
            mu: Linear::new(weights.mu.clone(), None)?,
            sigma_sq: Linear::new(weights.sigma_sq.clone(), None)?,
            dim,
            gaussians,
            clamp: CLAMP,
        })
    }

    /// The same with features below `clamp` raised to it before the heads see them (2.22e-16 in the reference). The
    /// features that the density is of stay as they are.
    #[must_use]
    pub fn with_clamp(mut self, clamp: f64) -> Self {
        self.clamp = clamp;
        self
    }

    /// Features D.
    pub fn dim(&self) -> usize {
        self.dim
    }

    /// Gaussians K.
    pub fn gaussians(&self) -> usize {
        self.gaussians
    }

    /// The mixtures of `features` `(B, N, D)`.
    ///
    /// # Errors
    /// [`Error::Shape`] if the features have another shape.
    pub fn components(&self, features: &Tensor) -> Result<Components, Error> {
        let (batch, tokens, _) = self.check(features)?;
        let clamped = at_least(features, self.clamp)?;
        let logits = self.pi.forward(&clamped)?;
        let log_pi = logits.broadcast_sub(&logits.log_sum_exp(D::Minus1)?.unsqueeze(D::Minus1)?)?;
        let wide = (batch, tokens, self.dim, self.gaussians);
        Ok(Components {
            pi: softmax(&logits)?,
            log_pi,
            mu: self.mu.forward(&clamped)?.reshape(wide)?,
            spread: softplus(&self.sigma_sq.forward(&clamped)?)?.reshape(wide)?,
        })
    }

    /// The negative log-likelihood of each token's `features` `(B, N, D)` under its own mixture, `(B, N)`, in nats.
    ///
    /// # Errors
    /// [`Error::Shape`] if the features have another shape; [`Error::Range`] if a floor is not above 0.
    pub fn negative_log_likelihood(&self, features: &Tensor, form: Likelihood) -> Result<Tensor, Error> {
        let components = self.components(features)?;
        self.of_components(features, &components, form)
    }

    /// The same of mixtures that are at hand.
    ///
    /// # Errors
    /// As [`MixtureHead::negative_log_likelihood`].
    pub fn of_components(
        &self,
        features: &Tensor,
        components: &Components,
        form: Likelihood,
    ) -> Result<Tensor, Error> {
        self.check(features)?;
        let Components { pi, log_pi, mu, spread } = components;
        let squares = features.unsqueeze(D::Minus1)?.broadcast_sub(mu)?.sqr()?;
        // Summed over the features: (B, N, K).
        let quadratic = match form {
            Likelihood::Reference | Likelihood::LogVarianceMixture => {
                (spread + (squares * spread.neg()?.exp()?)?)?.sum(2)?
            }
            Likelihood::Mixture { floor } if floor.is_finite() && floor > 0.0 => {
                let variance = (spread + floor)?;
                (variance.log()? + (squares / variance)?)?.sum(2)?
            }
            Likelihood::Mixture { floor } => {
                return Err(Error::Range {
                    argument: "the variance's floor",
                    expected: "above 0",
                    found: floor,
                });
            }
        };
        let constant = std::f64::consts::TAU.ln();
        if form == Likelihood::Reference {
            return Ok((pi * quadratic.affine(0.5, 0.5 * constant)?)?.sum(D::Minus1)?);
        }
        let logs = (log_pi - quadratic.affine(0.5, 0.5 * constant * self.dim as f64)?)?;
        Ok(logs.log_sum_exp(D::Minus1)?.neg()?)
    }

    /// [`MixtureHead::negative_log_likelihood`] without a graph, a piece of the tokens at a time.
    ///
    /// # Errors
    /// As [`MixtureHead::negative_log_likelihood`].
    pub fn score(&self, features: &Tensor, form: Likelihood) -> Result<Tensor, Error> {
        let (batch, tokens, _) = self.check(features)?;
        let flat = features.detach().reshape((1, batch * tokens, self.dim))?;
        let piece = (PIECE / (self.dim * self.gaussians)).max(1);
        let mut values = Vec::new();
        for start in (0..batch * tokens).step_by(piece) {
            let some = flat.narrow(1, start, piece.min(batch * tokens - start))?;
            values.push(self.negative_log_likelihood(&some, form)?.detach());
        }
        if values.is_empty() {
            return Ok(Tensor::zeros((batch, tokens), features.dtype(), features.device())?);
        }
        Ok(Tensor::cat(&values, 1)?.reshape((batch, tokens))?)
    }

    fn check(&self, features: &Tensor) -> Result<(usize, usize, usize), Error> {
        match features.dims3() {
            Ok((batch, tokens, dim)) if dim == self.dim => Ok((batch, tokens, dim)),
            _ => Err(shape("the features", format!("(B, N, {})", self.dim), features)),
        }
    }
}

fn shape(argument: &'static str, expected: String, found: &Tensor) -> Error {
    Error::Shape { argument, expected, found: found.dims().to_vec() }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use candle_core::{DType, Device, Tensor, Var};
    use random_streams::Streams;

    use super::{Likelihood, MixtureHead};
    use crate::MixtureWeights;

    const FORMS: [Likelihood; 3] =
        [Likelihood::Reference, Likelihood::LogVarianceMixture, Likelihood::Mixture { floor: 1e-2 }];

    fn normal(shape: &[usize], seed: u64) -> Tensor {
        let mut stream = Streams::new(seed).stream("test");
        let values: Vec<f64> = (0..shape.iter().product()).map(|_| f64::from(stream.normal())).collect();
        Tensor::from_vec(values, shape, &Device::Cpu).unwrap()
    }

    fn weights(dim: usize, gaussians: usize) -> MixtureWeights {
        let [pi, mu, sigma_sq] = MixtureWeights::shapes(dim, gaussians);
        MixtureWeights { pi: normal(&pi, 1), mu: normal(&mu, 2), sigma_sq: normal(&sigma_sq, 3) }
    }

    fn values(t: &Tensor) -> Vec<f64> {
        t.flatten_all().unwrap().to_vec1().unwrap()
    }

    /// One token's value by loops.
    fn by_hand(weights: &MixtureWeights, x: &[f64], gaussians: usize, form: Likelihood) -> f64 {
        let dim = x.len();
        let clamped: Vec<f64> = x.iter().map(|v| v.max(2.220_446_049_250_313e-16)).collect();
        let linear = |matrix: &Tensor| -> Vec<f64> {
            let rows = matrix.to_vec2::<f64>().unwrap();
            rows.iter().map(|row| row.iter().zip(&clamped).map(|(w, v)| w * v).sum()).collect()
        };
        let (logits, mu, raw) = (linear(&weights.pi), linear(&weights.mu), linear(&weights.sigma_sq));
        let total: f64 = logits.iter().map(|l| l.exp()).sum();
        let ln_tau = std::f64::consts::TAU.ln();
        let (mut mean, mut density) = (0.0, 0.0);
        for k in 0..gaussians {
            let pi = logits[k].exp() / total;
            let mut sum = 0.0;
            for d in 0..dim {
                let s = raw[d * gaussians + k].exp().ln_1p();
                let square = (x[d] - mu[d * gaussians + k]).powi(2);
                sum += match form {
                    Likelihood::Mixture { floor } => (s + floor).ln() + square / (s + floor),
                    _ => s + square / s.exp(),
                };
            }
            mean += pi * 0.5 * (ln_tau + sum);
            density += pi * (-0.5 * (dim as f64 * ln_tau + sum)).exp();
        }
        if form == Likelihood::Reference { mean } else { -density.ln() }
    }

    #[test]
    fn values_are_those_of_the_formulas() {
        let weights = weights(3, 2);
        let head = MixtureHead::new(&weights).unwrap();
        let x = normal(&[2, 4, 3], 4);
        for form in FORMS {
            let found = values(&head.negative_log_likelihood(&x, form).unwrap());
            let pieces = values(&head.score(&x, form).unwrap());
            for (index, token) in values(&x).chunks(3).enumerate() {
                let wanted = by_hand(&weights, token, 2, form);
                assert!((found[index] - wanted).abs() < 1e-10, "{form:?}: {} {wanted}", found[index]);
                assert!((pieces[index] - wanted).abs() < 1e-10, "{form:?}");
            }
        }
    }

    #[test]
    fn gradients_are_those_of_central_differences() {
        let start = weights(3, 2);
        // Away from the clamp's corner.
        let x = (normal(&[1, 3, 3], 5) + 0.05).unwrap();
        let inputs = [x, start.pi, start.mu, start.sigma_sq];
        let loss = |t: &[Tensor], form| {
            let weights = MixtureWeights { pi: t[1].clone(), mu: t[2].clone(), sigma_sq: t[3].clone() };
            let head = MixtureHead::new(&weights).unwrap();
            head.negative_log_likelihood(&t[0], form).unwrap().sum_all().unwrap()
        };
        for form in FORMS {
            let vars: Vec<Var> = inputs.iter().map(|t| Var::from_tensor(t).unwrap()).collect();
            let tensors: Vec<Tensor> = vars.iter().map(|v| v.as_tensor().clone()).collect();
            let store = loss(&tensors, form).backward().unwrap();
            for (which, var) in vars.iter().enumerate() {
                let found = values(store.get(var).unwrap());
                let start = values(&inputs[which]);
                for (element, found) in found.iter().enumerate() {
                    let moved = |by: f64| {
                        let mut data = start.clone();
                        data[element] += by;
                        let mut all = inputs.to_vec();
                        all[which] = Tensor::from_vec(data, inputs[which].shape(), &Device::Cpu).unwrap();
                        loss(&all, form).to_scalar::<f64>().unwrap()
                    };
                    let wanted = (moved(1e-5) - moved(-1e-5)) / 2e-5;
                    assert!(
                        (found - wanted).abs() < 1e-6 * (1.0 + wanted.abs()),
                        "{form:?}, input {which}, element {element}: {found} {wanted}"
                    );
                }
            }
        }
    }

    #[test]
    fn far_features_and_spreads_stay_finite() {
        let head = MixtureHead::new(&weights(3, 2)).unwrap();
        let x = Tensor::new(&[[[300_f64, -300., 0.0]]], &Device::Cpu).unwrap();
        for form in FORMS {
            let found = values(&head.negative_log_likelihood(&x, form).unwrap());
            assert!(found[0].is_finite(), "{form:?}: {}", found[0]);
        }
    }

    #[test]
    fn wrong_shapes_and_floors_are_named() {
        let mut odd = weights(3, 2);
        odd.mu = odd.pi.clone();
        assert!(MixtureHead::new(&odd).unwrap_err().to_string().contains("mu"));
        let head = MixtureHead::new(&weights(3, 2)).unwrap();
        let message = head.components(&normal(&[2, 4], 0)).unwrap_err().to_string();
        assert!(message.contains("(B, N, 3)"), "{message}");
        let refused =
            head.negative_log_likelihood(&normal(&[1, 2, 3], 0), Likelihood::Mixture { floor: 0.0 });
        assert!(refused.unwrap_err().to_string().contains("floor"));
        let none = Tensor::zeros((2, 0, 3), DType::F64, &Device::Cpu).unwrap();
        assert_eq!(head.score(&none, Likelihood::Reference).unwrap().dims(), [2, 0]);
    }
}
