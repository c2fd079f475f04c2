//! The sizes of the network, its options and its first weights.

use anomaly_core::Stream;
use candle_core::{DType, Device, Tensor};
use serde::{Deserialize, Serialize};
use vit_ops::init::{normal, uniform, xavier_uniform};
use vit_ops::{NamedTensors, VarianceGradient};

use crate::Error;

/// What the register tokens are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RegisterKind {
    /// Learned, the same for every image.
    #[default]
    Learned,
    /// Drawn anew for every image and every call, as in the reference, which learns nothing by them. In evaluation
    /// always the same draws, so that results repeat.
    Random,
}

/// Where the density head takes its features.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Tap {
    /// The encoder's output, as in VT-ADL: the encoder may lower the likelihood's cost by shrinking its features.
    Encoder,
    /// After the latent norm, which fixes the features' scale.
    #[default]
    Latent,
}

/// The epsilons of the norms, and what batch norm keeps.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Norms {
    pub(crate) block_eps: f64,
    pub(crate) latent_eps: f64,
    pub(crate) batch_eps: f64,
    /// The share of the old value in moving statistics.
    pub(crate) batch_kept: f64,
    pub(crate) gradient: VarianceGradient,
}

impl Default for Norms {
    fn default() -> Self {
        Self {
            block_eps: 1e-6,
            latent_eps: 1e-3,
            batch_eps: 1e-3,
            batch_kept: 0.99,
            gradient: VarianceGradient::True,
        }
    }
}

/// Everything that decides about shapes.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Architecture {
    /// Rows and columns of patches.
    pub(crate) grid: (usize, usize),
    pub(crate) patch: usize,
    pub(crate) dim: usize,
    pub(crate) heads: usize,
    /// Width of a head.
    pub(crate) key_dim: usize,
    /// Hidden width of each block's MLP; their number is the depth.
    pub(crate) hidden: Vec<usize>,
    /// How many registers, and what they are; 0 for none.
    pub(crate) registers: usize,
    pub(crate) register_kind: RegisterKind,
    /// Channels that each stage of the decoder makes.
    pub(crate) filters: Vec<usize>,
    /// Side and stride of the decoder's kernels.
    pub(crate) kernel: usize,
    pub(crate) stride: usize,
    pub(crate) norms: Norms,
    /// Components of the density head; 0 for none.
    pub(crate) gaussians: usize,
    pub(crate) tap: Tap,
}

/// The reference's channels for a patch of 2^S pixels: `2^(S-1-i) + 2` of stage i, so that the last has 3.
pub(crate) fn filters(patch: usize) -> Vec<usize> {
    let stages = patch.ilog2();
    (0..stages).map(|stage| (1 << (stages - 1 - stage)) + 2).collect()
}

impl Architecture {
    /// First weights as Keras makes them, drawn in the order of the forward pass: kernels Glorot-uniform with the fans
    /// that its rule gives for its own layouts, biases 0, positions uniform within 0.05, norms 1 and 0. Learned registers
    /// are normal with 0.02, and the density head's layers as `PyTorch` makes them.
    pub(crate) fn init(&self, stream: &mut Stream, device: &Device) -> Result<NamedTensors, Error> {
        let mut all: Vec<(String, Tensor)> = Vec::new();
        let zeros = |n: usize| Tensor::zeros(n, DType::F32, device);
        let ones = |n: usize| Tensor::ones(n, DType::F32, device);
        let (dim, heads, key_dim, patch) = (self.dim, self.heads, self.key_dim, self.patch);
        let inner = heads * key_dim;

        let area = patch * patch;
        let kernel = xavier_uniform((dim, 3, patch, patch), (3 * area, dim * area), stream, device)?;
        all.push(("embedding.weight".to_owned(), kernel));
        all.push(("embedding.bias".to_owned(), zeros(dim)?));
        let (rows, columns) = self.grid;
        all.push(("positions".to_owned(), uniform((rows * columns, dim), -0.05, 0.05, stream, device)?));
        if self.registers > 0 && self.register_kind == RegisterKind::Learned {
            let registers = normal((1, self.registers, dim), 0.0, 0.02, stream, device)?;
            all.push(("registers".to_owned(), registers));
        }
        for (index, &hidden) in self.hidden.iter().enumerate() {
            let at = format!("encoder.{index}");
            let mut pair = |name: &str, weight: Tensor, outputs: usize| -> Result<(), Error> {
                all.push((format!("{at}.{name}.weight"), weight));
                all.push((format!("{at}.{name}.bias"), zeros(outputs)?));
                Ok(())
            };
            pair("norm1", ones(dim)?, dim)?;
            // Keras sees a query kernel as (D, h, d): a receptive field of D, h channels in, d out.
            let fans = (dim * heads, dim * key_dim);
            let qkv = xavier_uniform((3 * inner, dim), fans, stream, device)?;
            pair("attention.qkv", qkv, 3 * inner)?;
            // And an output kernel as (h, d, D).
            let out = xavier_uniform((dim, inner), (heads * key_dim, heads * dim), stream, device)?;
            pair("attention.out", out, dim)?;
            pair("norm2", ones(dim)?, dim)?;
            pair("mlp.fc1", xavier_uniform((hidden, dim), (dim, hidden), stream, device)?, hidden)?;
            pair("mlp.fc2", xavier_uniform((dim, hidden), (hidden, dim), stream, device)?, dim)?;
        }
        all.push(("latent_norm.weight".to_owned(), ones(dim)?));
        all.push(("latent_norm.bias".to_owned(), zeros(dim)?));
        let mut inputs = dim;
        for (index, &outputs) in self.filters.iter().enumerate() {
            let (at, area) = (format!("decoder.{index}"), self.kernel * self.kernel);
            // A transposed kernel is (k, k, out, in): the fans change sides.
            let fans = (area * outputs, area * inputs);
            let kernel = xavier_uniform((inputs, outputs, self.kernel, self.kernel), fans, stream, device)?;
            all.extend([
                (format!("{at}.conv.weight"), kernel),
                (format!("{at}.conv.bias"), zeros(outputs)?),
                (format!("{at}.norm.weight"), ones(outputs)?),
                (format!("{at}.norm.bias"), zeros(outputs)?),
                (format!("{at}.norm.running_mean"), zeros(outputs)?),
                (format!("{at}.norm.running_var"), ones(outputs)?),
            ]);
            inputs = outputs;
        }
        if self.gaussians > 0 {
            let density = density_heads::init(dim, self.gaussians, stream, device)?;
            let tensors = [density.pi, density.mu, density.sigma_sq];
            for (name, tensor) in density_heads::MixtureWeights::NAMES.into_iter().zip(tensors) {
                all.push((format!("gmdn.{name}"), tensor));
            }
        }
        Ok(all.into_iter().collect())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::{Architecture, Norms, RegisterKind, Tap, filters};
    use anomaly_core::Streams;
    use candle_core::Device;

    fn reference(registers: usize) -> Architecture {
        Architecture {
            grid: (32, 32),
            patch: 16,
            dim: 512,
            heads: 4,
            key_dim: 512,
            hidden: vec![32; 3],
            registers,
            register_kind: RegisterKind::Learned,
            filters: filters(16),
            kernel: 2,
            stride: 2,
            norms: Norms::default(),
            gaussians: 0,
            tap: Tap::Latent,
        }
    }

    #[test]
    fn the_reference_s_network_has_its_number_of_parameters() {
        let count = |registers| {
            let named = reference(registers).init(&mut Streams::new(0).stream("init"), &Device::Cpu).unwrap();
            let of = |running: bool| -> usize {
                let is = |name: &str| name.contains("running_") == running;
                named.iter().filter(|(name, _)| is(name)).map(|(_, t)| t.elem_count()).sum()
            };
            (of(false), of(true))
        };
        assert_eq!(count(0), (13_648_933, 46));
        assert_eq!(count(4), (13_648_933 + 4 * 512, 46));
    }

    #[test]
    fn channels_end_at_three_for_every_patch() {
        assert_eq!(filters(16), [10, 6, 4, 3]);
        assert_eq!(filters(8), [6, 4, 3]);
        assert_eq!(filters(32), [18, 10, 6, 4, 3]);
        assert!(filters(1).is_empty());
    }

    #[test]
    fn kernels_keep_to_the_limits_of_keras() {
        let named = reference(0).init(&mut Streams::new(0).stream("init"), &Device::Cpu).unwrap();
        for (name, fans) in [
            ("embedding.weight", 256 * (3 + 512)),
            ("encoder.0.attention.qkv.weight", 512 * (4 + 512)),
            ("encoder.0.attention.out.weight", 4 * 2 * 512),
            ("encoder.0.mlp.fc1.weight", 512 + 32),
            ("decoder.0.conv.weight", 4 * (10 + 512)),
        ] {
            let limit = (6.0 / f64::from(fans)).sqrt();
            let largest = named.get(name).unwrap().abs().unwrap().max_all().unwrap();
            let largest = f64::from(largest.to_scalar::<f32>().unwrap());
            assert!(largest <= limit * 1.000_001 && largest > 0.98 * limit, "{name}: {largest} {limit}");
        }
    }
}
