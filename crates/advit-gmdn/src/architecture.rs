//! The sizes of the network, its parts and their first weights.

use anomaly_core::Stream;
use candle_core::{DType, Device, Tensor};
use serde::{Deserialize, Serialize};
use vit_ops::NamedTensors;
use vit_ops::init::{fan_in_uniform, kaiming_normal, normal};

use crate::Error;
use crate::association::Distance;

/// What products of queries and keys are divided by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AttentionScale {
    /// The root of the whole width D, as in the public code.
    #[default]
    Dim,
    /// The root of a head's width, as usual.
    Head,
}

/// One transposed convolution: channels in, channels out, kernel, stride, padding.
pub(crate) type DecoderLayer = [usize; 5];

/// Everything that decides about shapes.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Architecture {
    /// Patches of a whole image; the position table has one row more.
    pub(crate) patches: usize,
    /// Side of a patch in pixels.
    pub(crate) patch: usize,
    pub(crate) dim: usize,
    pub(crate) depth: usize,
    pub(crate) heads: usize,
    pub(crate) mlp_dim: usize,
    pub(crate) scale: AttentionScale,
    /// With association: how far apart patches are.
    pub(crate) association: Option<Distance>,
    /// Features a capsule.
    pub(crate) capsule_dim: usize,
    /// Channels, height and width of the reconstruction vector.
    pub(crate) latent: [usize; 3],
    pub(crate) decoder: Vec<DecoderLayer>,
    pub(crate) gaussians: usize,
}

impl Architecture {
    /// Height and width of what the decoder makes; `None` where a layer's padding eats all there is or its channels don't
    /// follow from the layer before.
    pub(crate) fn output(&self) -> Option<(usize, usize)> {
        let [mut channels, mut height, mut width] = self.latent;
        for [inputs, outputs, kernel, stride, padding] in self.decoder.iter().copied() {
            let grown = |side: usize| {
                ((side.checked_sub(1)? * stride) + kernel).checked_sub(2 * padding).filter(|side| *side > 0)
            };
            if inputs != channels || stride == 0 || kernel == 0 {
                return None;
            }
            (channels, height, width) = (outputs, grown(height)?, grown(width)?);
        }
        (channels == 3).then_some((height, width))
    }

    /// First weights, under the reference's names, drawn in the order of the forward pass: linear layers of the encoder
    /// Kaiming-normal (gain of a `ReLU`) with biases of 0, positions and class token standard normal, transposed
    /// convolutions uniform as `PyTorch` has them (their fan is that of the second axis), capsules `0.01 N(0, 1)`, the
    /// density network as linear layers of `PyTorch`.
    pub(crate) fn init(&self, stream: &mut Stream, device: &Device) -> Result<NamedTensors, Error> {
        let mut all = Vec::new();
        let zeros = |n: usize| Tensor::zeros(n, DType::F32, device);
        let ones = |n: usize| Tensor::ones(n, DType::F32, device);
        let (dim, tokens) = (self.dim, self.patches + 1);
        let mut linear = |name: String, outputs: usize, inputs: usize, bias: bool, stream: &mut Stream| {
            let mut made =
                vec![(format!("{name}.weight"), kaiming_normal((outputs, inputs), inputs, stream, device)?)];
            if bias {
                made.push((format!("{name}.bias"), zeros(outputs)?));
            }
            all.extend(made);
            Ok::<(), Error>(())
        };
        linear("vt.patch_to_embedding".to_owned(), dim, 3 * self.patch * self.patch, true, stream)?;
        for layer in 0..self.depth {
            let at = format!("vt.transformer.layers.{layer}");
            linear(format!("{at}.0.fn.fn.to_qkv"), 3 * dim, dim, false, stream)?;
            linear(format!("{at}.0.fn.fn.to_out.0"), dim, dim, true, stream)?;
            if self.association.is_some() {
                linear(format!("{at}.0.fn.fn.to_sigma"), self.heads, dim, true, stream)?;
            }
            linear(format!("{at}.1.fn.fn.net.0"), self.mlp_dim, dim, true, stream)?;
            linear(format!("{at}.1.fn.fn.net.2"), dim, self.mlp_dim, true, stream)?;
        }
        for layer in 0..self.depth {
            for part in 0..2 {
                let at = format!("vt.transformer.layers.{layer}.{part}.fn.norm");
                all.push((format!("{at}.weight"), ones(dim)?));
                all.push((format!("{at}.bias"), zeros(dim)?));
            }
        }
        all.push(("vt.pos_embedding".to_owned(), normal((1, tokens, dim), 0.0, 1.0, stream, device)?));
        all.push(("vt.cls_token".to_owned(), normal((1, 1, dim), 0.0, 1.0, stream, device)?));
        let capsules = self.patches * dim / self.capsule_dim;
        let shape = (1, capsules, self.latent.iter().product::<usize>(), self.capsule_dim);
        all.push(("Digcap.W".to_owned(), normal(shape, 0.0, 0.01, stream, device)?));
        for (index, [inputs, outputs, kernel, ..]) in self.decoder.iter().copied().enumerate() {
            let (at, fan) = (format!("decoder.decoder2.{}", 3 * index), outputs * kernel * kernel);
            let shape = (inputs, outputs, kernel, kernel);
            all.push((format!("{at}.weight"), fan_in_uniform(shape, fan, stream, device)?));
            all.push((format!("{at}.bias"), fan_in_uniform(outputs, fan, stream, device)?));
            if index + 1 < self.decoder.len() {
                let at = format!("decoder.decoder2.{}", 3 * index + 1);
                for (name, values) in [
                    ("weight", ones(outputs)?),
                    ("bias", zeros(outputs)?),
                    ("running_mean", zeros(outputs)?),
                    ("running_var", ones(outputs)?),
                ] {
                    all.push((format!("{at}.{name}"), values));
                }
            }
        }
        let density = density_heads::init(dim, self.gaussians, stream, device)?;
        let tensors = [density.pi, density.mu, density.sigma_sq];
        for (name, tensor) in density_heads::MixtureWeights::NAMES.into_iter().zip(tensors) {
            all.push((format!("mdn.{name}"), tensor));
        }
        Ok(all.into_iter().collect())
    }
}
