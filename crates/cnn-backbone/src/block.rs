//! One residual block.

use candle_core::Tensor;

use crate::batch_norm::{BatchNorm, Mode};
use crate::tensors::Tensors;
use crate::{BlockKind, Error, ResNetConfig};

/// A convolution without bias, then its norm.
#[derive(Debug, Clone)]
pub(crate) struct Convolution {
    weight: Tensor,
    stride: usize,
    pub(crate) norm: BatchNorm,
}

impl Convolution {
    /// `conv` and `norm` are names, `shape` is `(out, in, side, side)`.
    pub(crate) fn read(
        (tensors, prefix): (&Tensors<'_>, &str),
        (conv, norm): (&str, &str),
        (outputs, inputs, side): (usize, usize, usize),
        stride: usize,
    ) -> Result<Self, Error> {
        let weight = tensors.get(prefix, &format!("{conv}.weight"), &[outputs, inputs, side, side])?;
        Ok(Self { weight, stride, norm: BatchNorm::read(tensors, prefix, norm, outputs)? })
    }

    pub(crate) fn forward(&self, x: &Tensor, mode: &mut Mode<'_>) -> Result<Tensor, Error> {
        let padding = self.weight.dim(3)? / 2;
        let x = vit_ops::conv2d(x, &self.weight, None, self.stride, padding)?;
        self.norm.forward(&x, mode)
    }
}

/// A block: its convolutions, and the shortcut's where it changes the map's shape.
#[derive(Debug, Clone)]
pub(crate) struct Block {
    convolutions: Vec<Convolution>,
    shortcut: Option<Convolution>,
}

impl Block {
    pub(crate) fn read(
        source: (&Tensors<'_>, &str),
        config: &ResNetConfig,
        (stage, index): (usize, usize),
        inputs: usize,
    ) -> Result<Self, Error> {
        let (inner, outputs) = (config.inner(stage), config.channels(stage));
        let stride = if stage > 1 && index == 0 { 2 } else { 1 };
        let read = |number: usize, shape, stride| {
            let name = |part: &str| format!("layer{stage}.{index}.{part}{number}");
            Convolution::read(source, (&name("conv"), &name("bn")), shape, stride)
        };
        let convolutions = match config.kind {
            BlockKind::Basic => {
                vec![read(1, (outputs, inputs, 3), stride)?, read(2, (outputs, outputs, 3), 1)?]
            }
            BlockKind::Bottleneck => vec![
                read(1, (inner, inputs, 1), 1)?,
                read(2, (inner, inner, 3), stride)?,
                read(3, (outputs, inner, 1), 1)?,
            ],
        };
        let name = |part: usize| format!("layer{stage}.{index}.downsample.{part}");
        let shortcut = if stride != 1 || inputs != outputs {
            Some(Convolution::read(source, (&name(0), &name(1)), (outputs, inputs, 1), stride)?)
        } else {
            None
        };
        Ok(Self { convolutions, shortcut })
    }

    pub(crate) fn forward(&self, x: &Tensor, mode: &mut Mode<'_>) -> Result<Tensor, Error> {
        let mut y = x.clone();
        for (index, convolution) in self.convolutions.iter().enumerate() {
            if index > 0 {
                y = vit_ops::relu(&y)?;
            }
            y = convolution.forward(&y, mode)?;
        }
        let shortcut = match &self.shortcut {
            Some(convolution) => convolution.forward(x, mode)?,
            None => x.clone(),
        };
        Ok(vit_ops::relu(&(y + shortcut)?)?)
    }

    pub(crate) fn norms_mut(&mut self) -> impl Iterator<Item = &mut BatchNorm> {
        self.convolutions.iter_mut().chain(&mut self.shortcut).map(|convolution| &mut convolution.norm)
    }

    pub(crate) fn norms(&self) -> impl Iterator<Item = &BatchNorm> {
        self.convolutions.iter().chain(&self.shortcut).map(|convolution| &convolution.norm)
    }
}
