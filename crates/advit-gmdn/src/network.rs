//! The autoencoder and the density network beside it.

use candle_core::Tensor;
use density_heads::{Likelihood, MixtureHead, MixtureWeights};
use vit_ops::NamedTensors;

use crate::Error;
use crate::architecture::Architecture;
use crate::association::Association;
use crate::capsule::Capsule;
use crate::decoder::{Decoder, Seen};
use crate::encoder::{Encoded, Encoder};

/// Encoder, capsule and decoder.
#[derive(Debug)]
pub(crate) struct Autoencoder {
    encoder: Encoder,
    /// Kept as it is: in training its layer is made anew from the changed weight each time.
    capsule: Tensor,
    frozen_capsule: Option<Capsule>,
    decoder: Decoder,
    latent: [usize; 3],
}

/// The autoencoder and the density network beside it.
#[derive(Debug)]
pub(crate) struct Network {
    pub(crate) autoencoder: Autoencoder,
    pub(crate) density: MixtureHead,
}

/// What a batch becomes in training.
pub(crate) struct Trained {
    pub(crate) reconstruction: Tensor,
    /// Each patch's negative log-likelihood, `(B, n)`.
    pub(crate) likelihood: Tensor,
    pub(crate) associations: Vec<Association>,
    /// For the running statistics.
    pub(crate) seen: Seen,
}

/// What a batch becomes in evaluation.
pub(crate) struct Evaluated {
    /// `(B, n, D)`.
    pub(crate) encoded: Tensor,
    /// `(B, 3, H, W)`, between -1 and 1.
    pub(crate) reconstruction: Tensor,
    pub(crate) associations: Vec<Association>,
}

/// The density network's tensors below `prefix`.
pub(crate) fn density(named: &NamedTensors, prefix: &str) -> Result<MixtureHead, Error> {
    let tensor = |name: &str| named.get(&format!("{prefix}{name}"));
    let [pi, mu, sigma_sq] = MixtureWeights::NAMES;
    let weights = MixtureWeights { pi: tensor(pi)?, mu: tensor(mu)?, sigma_sq: tensor(sigma_sq)? };
    Ok(MixtureHead::new(&weights)?)
}

impl Autoencoder {
    /// Of the tensors under the reference's names.
    pub(crate) fn new(shape: &Architecture, named: &NamedTensors) -> Result<Self, Error> {
        let capsule = named.get("Digcap.W")?;
        let frozen_capsule = if capsule.track_op() { None } else { Some(Capsule::new(&capsule)?) };
        Ok(Self {
            encoder: Encoder::new(shape, named, "vt.")?,
            capsule,
            frozen_capsule,
            decoder: Decoder::new(shape, named, "decoder.")?,
            latent: shape.latent,
        })
    }

    /// The reconstruction vector `(B, 1, out)` of tokens `(B, n, D)`.
    pub(crate) fn vector(&self, tokens: &Tensor) -> Result<Tensor, Error> {
        match &self.frozen_capsule {
            Some(capsule) => capsule.forward(tokens),
            None => Capsule::new(&self.capsule)?.forward(tokens),
        }
    }

    fn latent(&self, tokens: &Tensor) -> Result<Tensor, Error> {
        let [channels, height, width] = self.latent;
        Ok(self.vector(tokens)?.reshape((tokens.dim(0)?, channels, height, width))?)
    }

    /// Tokens with `noise` `(B, n, D)` added.
    fn encode(&self, images: &Tensor, noise: Option<&Tensor>) -> Result<Encoded, Error> {
        let Encoded { tokens, associations } = self.encoder.forward(images)?;
        let tokens = match noise {
            Some(noise) => (tokens + noise)?,
            None => tokens,
        };
        Ok(Encoded { tokens, associations })
    }

    /// A batch `(B, 3, H, W)` in evaluation. The reference's network adds noise here too if it was built for training.
    pub(crate) fn evaluate(&self, images: &Tensor, noise: Option<&Tensor>) -> Result<Evaluated, Error> {
        let Encoded { tokens, associations } = self.encode(images, noise)?;
        let reconstruction = self.decoder.forward(&self.latent(&tokens)?)?;
        Ok(Evaluated { encoded: tokens, reconstruction, associations })
    }
}

impl Network {
    /// Of the tensors under the reference's names, the density network's below `mdn.`.
    pub(crate) fn new(shape: &Architecture, named: &NamedTensors) -> Result<Self, Error> {
        Ok(Self { autoencoder: Autoencoder::new(shape, named)?, density: density(named, "mdn.")? })
    }

    /// A batch `(B, 3, H, W)` in training, with `noise` `(B, n, D)` added to the tokens, for the decoder and the density
    /// alike: the noisy tokens are also what the density is of.
    pub(crate) fn train(
        &self,
        images: &Tensor,
        noise: Option<&Tensor>,
        form: Likelihood,
    ) -> Result<Trained, Error> {
        let own = &self.autoencoder;
        let Encoded { tokens, associations } = own.encode(images, noise)?;
        let (reconstruction, seen) = own.decoder.forward_train(&own.latent(&tokens)?)?;
        let likelihood = self.density.negative_log_likelihood(&tokens, form)?;
        Ok(Trained { reconstruction, likelihood, associations, seen })
    }
}
