//! The autoencoder and the density head on its tokens.

use anomaly_core::Stream;
use candle_core::Tensor;
use density_heads::{MixtureHead, MixtureWeights};
use vit_ops::NamedTensors;

use crate::Error;
use crate::architecture::{Architecture, Tap};
use crate::decoder::{Decoder, Seen};
use crate::encoder::{Drops, Embedding, Encoder, on_grid};

#[derive(Debug)]
pub(crate) struct Network {
    embedding: Embedding,
    encoder: Encoder,
    decoder: Decoder,
    pub(crate) density: Option<MixtureHead>,
    grid: (usize, usize),
    tap: Tap,
}

/// What images become.
pub(crate) struct Output {
    /// `(B, 3, H, W)`, without bounds.
    pub(crate) reconstruction: Tensor,
    /// Patch tokens where the density head takes them, `(B, N, D)`.
    pub(crate) features: Tensor,
    /// Patch tokens after the last block, `(B, N, D)`.
    pub(crate) representation: Tensor,
}

/// The density head's tensors.
pub(crate) fn density(named: &NamedTensors) -> Result<MixtureHead, Error> {
    let tensor = |name: &str| named.get(&format!("gmdn.{name}"));
    let [pi, mu, sigma_sq] = MixtureWeights::NAMES;
    let weights = MixtureWeights { pi: tensor(pi)?, mu: tensor(mu)?, sigma_sq: tensor(sigma_sq)? };
    Ok(MixtureHead::new(&weights)?)
}

impl Network {
    pub(crate) fn new(architecture: &Architecture, named: &NamedTensors) -> Result<Self, Error> {
        Ok(Self {
            embedding: Embedding::new(named)?,
            encoder: Encoder::new(architecture, named)?,
            decoder: Decoder::new(architecture, named)?,
            density: if architecture.gaussians > 0 { Some(density(named)?) } else { None },
            grid: architecture.grid,
            tap: architecture.tap,
        })
    }

    /// `images` `(B, 3, H, W)` in evaluation; `registers` `(1 or B, R, D)` if they are drawn.
    pub(crate) fn evaluate(&self, images: &Tensor, registers: Option<&Tensor>) -> Result<Output, Error> {
        self.run(images, registers, None, |latent| self.decoder.forward(latent))
    }

    /// The same in training: with dropout, and the batch's own statistics in the decoder's norms.
    pub(crate) fn train(
        &self,
        images: &Tensor,
        registers: Option<&Tensor>,
        drops: Drops<'_>,
    ) -> Result<(Output, Seen), Error> {
        let mut all = Vec::new();
        let output = self.run(images, registers, drops, |latent| {
            let (reconstruction, seen) = self.decoder.forward_train(latent)?;
            all = seen;
            Ok(reconstruction)
        })?;
        Ok((output, all))
    }

    fn run(
        &self,
        images: &Tensor,
        registers: Option<&Tensor>,
        drops: Drops<'_>,
        decode: impl FnOnce(&Tensor) -> Result<Tensor, Error>,
    ) -> Result<Output, Error> {
        let tokens = self.embedding.forward(images)?;
        let patches = tokens.dim(1)?;
        let encoded = self.encoder.forward(&tokens, registers, drops, |_| {})?;
        // From the front: counted from the end, no registers would leave nothing.
        let representation = encoded.narrow(1, 0, patches)?.contiguous()?;
        let latent = self.encoder.latent(&representation)?;
        let reconstruction = decode(&on_grid(&latent, self.grid)?)?;
        let features = match self.tap {
            Tap::Encoder => representation.clone(),
            Tap::Latent => latent,
        };
        Ok(Output { reconstruction, features, representation })
    }
}

/// Registers drawn for `batch` images, `(B, R, D)`, standard normal.
pub(crate) fn draw_registers(
    architecture: &Architecture,
    batch: usize,
    stream: &mut Stream,
    device: &candle_core::Device,
) -> Result<Tensor, Error> {
    let shape = (batch, architecture.registers, architecture.dim);
    Ok(vit_ops::init::normal(shape, 0.0, 1.0, stream, device)?)
}
