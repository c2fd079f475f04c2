//! The operations, their arguments, and both ways to write them.

use std::collections::BTreeMap;

use anyhow::{Context, Result};
use candle_core::{D, Tensor};
use candle_nn::ops;
use serde::{Deserialize, Serialize};
use vit_ops::{AttentionOptions, Border, Gelu, Interpolation, Linear, Resample, SsimOptions};

/// An operation at one size.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Operation {
    LayerNorm,
    Softmax,
    BiasGelu,
    AddResidual,
    Linear,
    LinearGelu,
    /// 197 tokens, 12 heads.
    Attention,
    /// 785 tokens, 6 heads.
    LongAttention,
    PatchEmbed,
    Bilinear,
    Gaussian,
    Ssim,
}

/// Of the layer norm.
const EPS: f64 = 1e-6;
/// Of the Gaussian.
const SIGMA: f64 = 4.0;
const RADIUS: usize = 16;

/// An operation's arguments by name.
pub(super) type Arguments = BTreeMap<String, Tensor>;

impl Operation {
    pub(super) const ALL: [Self; 12] = [
        Self::LayerNorm,
        Self::Softmax,
        Self::BiasGelu,
        Self::AddResidual,
        Self::Linear,
        Self::LinearGelu,
        Self::Attention,
        Self::LongAttention,
        Self::PatchEmbed,
        Self::Bilinear,
        Self::Gaussian,
        Self::Ssim,
    ];

    fn name(self) -> &'static str {
        match self {
            Self::LayerNorm => "layer norm",
            Self::Softmax => "softmax",
            Self::BiasGelu => "bias and GELU",
            Self::AddResidual => "bias, scale and residual",
            Self::Linear => "linear",
            Self::LinearGelu => "linear and GELU",
            Self::Attention => "attention, 12 heads",
            Self::LongAttention => "attention, 6 heads",
            Self::PatchEmbed => "patch embedding",
            Self::Bilinear => "bilinear resampling",
            Self::Gaussian => "Gaussian filter, sigma 4",
            Self::Ssim => "SSIM",
        }
    }

    /// Its name and the shape of its first argument.
    pub(super) fn describe(self, smoke: bool) -> String {
        let first = self.arguments(smoke).into_iter().next().map(|(_, shape)| shape).unwrap_or_default();
        let first: Vec<String> = first.iter().map(usize::to_string).collect();
        format!("{} ({})", self.name(), first.join(", "))
    }

    /// Names and shapes of the arguments.
    pub(super) fn arguments(self, smoke: bool) -> Vec<(&'static str, Vec<usize>)> {
        // Batch, tokens, width, hidden width, image side, grid side.
        let (b, n, d, hidden, side, grid) =
            if smoke { (1, 5, 24, 48, 40, 5) } else { (8, 197, 768, 3072, 224, 28) };
        match self {
            Self::LayerNorm => vec![("x", vec![b, n, d]), ("weight", vec![d]), ("bias", vec![d])],
            Self::Softmax => vec![("x", vec![b, 12, n, n])],
            Self::BiasGelu => vec![("x", vec![b, n, hidden]), ("bias", vec![hidden])],
            Self::AddResidual => {
                vec![("x", vec![b, n, d]), ("branch", vec![b, n, d]), ("bias", vec![d]), ("scale", vec![d])]
            }
            Self::Linear => vec![("x", vec![b, n, d]), ("weight", vec![3 * d, d]), ("bias", vec![3 * d])],
            Self::LinearGelu => {
                vec![("x", vec![b, n, d]), ("weight", vec![hidden, d]), ("bias", vec![hidden])]
            }
            Self::Attention => vec![("qkv", vec![b, n, 3 * d])],
            Self::LongAttention => {
                vec![("qkv", if smoke { vec![1, 9, 72] } else { vec![2, 785, 3 * 384] })]
            }
            Self::PatchEmbed => {
                vec![("images", vec![b, 3, side, side]), ("weight", vec![d, 3, 8, 8]), ("bias", vec![d])]
            }
            Self::Bilinear => vec![("x", vec![b, 16, grid, grid])],
            Self::Gaussian => vec![("x", vec![b, 1, side, side])],
            Self::Ssim => vec![("x", vec![b, 3, side, side]), ("y", vec![b, 3, side, side])],
        }
    }

    /// With this project's operations.
    pub(super) fn with_vit_ops(self, arguments: &Arguments) -> Result<Tensor> {
        let given = |name: &str| given(arguments, name);
        let linear = || {
            Linear::new(given("weight")?.clone(), Some(given("bias")?.clone())).map_err(anyhow::Error::from)
        };
        let attend = |heads| -> Result<Tensor> {
            Ok(vit_ops::attention(given("qkv")?, &mut AttentionOptions::new(heads))?.context)
        };
        Ok(match self {
            Self::LayerNorm => vit_ops::layer_norm(given("x")?, given("weight")?, given("bias")?, EPS)?,
            Self::Softmax => vit_ops::softmax(given("x")?)?,
            Self::BiasGelu => vit_ops::bias_gelu(given("x")?, given("bias")?, Gelu::Erf)?,
            Self::AddResidual => vit_ops::add_residual(
                given("x")?,
                given("branch")?,
                Some(given("bias")?),
                Some(given("scale")?),
            )?,
            Self::Linear => linear()?.forward(given("x")?)?,
            Self::LinearGelu => linear()?.forward_gelu(given("x")?, Gelu::Erf)?,
            Self::Attention => attend(12)?,
            Self::LongAttention => attend(6)?,
            Self::PatchEmbed => {
                vit_ops::patch_embed(given("images")?, given("weight")?, Some(given("bias")?))?
            }
            Self::Bilinear => {
                let x = given("x")?;
                let (height, width) = (x.dim(2)?, x.dim(3)?);
                let larger = (8 * height, 8 * width);
                Resample::new(Interpolation::Linear, (height, width), larger)?.apply(x)?
            }
            Self::Gaussian => vit_ops::gaussian_filter(given("x")?, SIGMA, RADIUS, Border::Reflect)?,
            Self::Ssim => {
                let options = SsimOptions { border: Border::Valid, ..SsimOptions::default() };
                vit_ops::ssim(given("x")?, given("y")?, &options)?
            }
        })
    }

    /// With candle's operations, in the forms that have a gradient.
    pub(super) fn with_candle(self, arguments: &Arguments) -> Result<Tensor> {
        let given = |name: &str| given(arguments, name);
        let linear = || -> Result<Tensor> {
            let product = given("x")?.broadcast_matmul(&given("weight")?.t()?)?;
            Ok(product.broadcast_add(given("bias")?)?)
        };
        Ok(match self {
            Self::LayerNorm => {
                ops::layer_norm_slow(given("x")?, given("weight")?, given("bias")?, EPS as f32)?
            }
            Self::Softmax => ops::softmax(given("x")?, D::Minus1)?,
            Self::BiasGelu => given("x")?.broadcast_add(given("bias")?)?.gelu_erf()?,
            Self::AddResidual => {
                let branch = given("branch")?.broadcast_add(given("bias")?)?;
                (given("x")? + branch.broadcast_mul(given("scale")?)?)?
            }
            Self::Linear => linear()?,
            Self::LinearGelu => linear()?.gelu_erf()?,
            Self::Attention => attention(given("qkv")?, 12)?,
            Self::LongAttention => attention(given("qkv")?, 6)?,
            Self::PatchEmbed => {
                let weight = given("weight")?;
                let convolved = given("images")?.conv2d(weight, 0, weight.dim(2)?, 1, 1)?;
                let tokens = convolved.flatten_from(2)?.transpose(1, 2)?;
                tokens.broadcast_add(given("bias")?)?
            }
            Self::Bilinear => {
                // `upsample_bilinear2d` has no backward pass: as everyone does, two products with fixed matrices.
                let x = given("x")?;
                let (height, width) = (x.dim(2)?, x.dim(3)?);
                let rows = bilinear(height, x.device())?;
                let columns = bilinear(width, x.device())?;
                rows.broadcast_matmul(&x.broadcast_matmul(&columns.t()?)?)?
            }
            Self::Gaussian => {
                let window = window(SIGMA, RADIUS);
                filter(&reflect(given("x")?, RADIUS)?, &window)?
            }
            Self::Ssim => ssim(given("x")?, given("y")?)?,
        })
    }
}

fn given<'a>(arguments: &'a Arguments, name: &str) -> Result<&'a Tensor> {
    arguments.get(name).with_context(|| format!("no `{name}` among the inputs"))
}

fn attention(qkv: &Tensor, heads: usize) -> Result<Tensor> {
    let (b, n, packed) = qkv.dims3()?;
    let d = packed / 3 / heads;
    let split = qkv.reshape((b, n, 3, heads, d))?.permute((2, 0, 3, 1, 4))?;
    let part = |i: usize| split.get(i)?.contiguous();
    let scores = (part(0)?.matmul(&part(1)?.t()?)? * (d as f64).powf(-0.5))?;
    let context = ops::softmax(&scores, D::Minus1)?.matmul(&part(2)?)?;
    Ok(context.transpose(1, 2)?.reshape((b, n, heads * d))?)
}

/// The matrix `(8 n, n)` of eightfold linear interpolation.
fn bilinear(n: usize, device: &candle_core::Device) -> Result<Tensor> {
    let mut matrix = vec![0.0_f32; 8 * n * n];
    for (i, row) in matrix.chunks_exact_mut(n).enumerate() {
        let at = ((i as f64 + 0.5) / 8.0 - 0.5).max(0.0);
        let low = at.floor() as usize;
        row[low] += (1.0 - at.fract()) as f32;
        row[(low + 1).min(n - 1)] += at.fract() as f32;
    }
    Ok(Tensor::from_vec(matrix, (8 * n, n), device)?)
}

fn window(sigma: f64, radius: usize) -> Vec<f64> {
    let radius = radius as i32;
    let taps: Vec<f64> =
        (-radius..=radius).map(|i| (-f64::from(i * i) / (2.0 * sigma * sigma)).exp()).collect();
    let sum: f64 = taps.iter().sum();
    taps.into_iter().map(|tap| tap / sum).collect()
}

/// Mirrored about the edge samples.
fn reflect(x: &Tensor, radius: usize) -> Result<Tensor> {
    let mut x = x.clone();
    for axis in [2, 3] {
        let length = x.dim(axis)?;
        let index = |positions: Vec<u32>| Tensor::new(positions, x.device());
        let before = index((1..=radius as u32).rev().collect())?;
        let after = index((0..radius as u32).map(|i| length as u32 - 2 - i).collect())?;
        x = Tensor::cat(&[&x.index_select(&before, axis)?, &x, &x.index_select(&after, axis)?], axis)?;
    }
    Ok(x)
}

/// `window` along both axes of every plane, where it fits whole.
fn filter(x: &Tensor, window: &[f64]) -> Result<Tensor> {
    let (b, c, h, w) = x.dims4()?;
    let taps: Vec<f32> = window.iter().map(|tap| *tap as f32).collect();
    let n = taps.len();
    let kernel = Tensor::from_vec(taps, (1, 1, n, 1), x.device())?;
    let planes = x.reshape((b * c, 1, h, w))?;
    let tall = planes.conv2d(&kernel, 0, 1, 1, 1)?;
    let wide = tall.conv2d(&kernel.transpose(2, 3)?.contiguous()?, 0, 1, 1, 1)?;
    Ok(wide.reshape((b, c, h + 1 - n, w + 1 - n))?)
}

fn ssim(x: &Tensor, y: &Tensor) -> Result<Tensor> {
    let window = window(1.5, 5);
    let mean = |t: &Tensor| filter(t, &window);
    let (mx, my) = (mean(x)?, mean(y)?);
    let (vx, vy) = ((mean(&x.sqr()?)? - mx.sqr()?)?, (mean(&y.sqr()?)? - my.sqr()?)?);
    let covariance = (mean(&(x * y)?)? - (&mx * &my)?)?;
    let (c1, c2) = (0.01_f64.powi(2), 0.03_f64.powi(2));
    let above = ((((&mx * &my)? * 2.0)? + c1)? * ((covariance * 2.0)? + c2)?)?;
    let below = (((mx.sqr()? + my.sqr()?)? + c1)? * ((vx + vy)? + c2)?)?;
    Ok((above / below)?)
}
