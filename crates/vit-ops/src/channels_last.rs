//! Convolutions of images whose channels come last, forward and backward as products of linear layers.

use candle_core::{CpuStorage, CustomOp1, Layout, Shape, Tensor, WithDType, bail};
use rayon::prelude::*;

use crate::rows::{Held, by_type, has_kernels, slice};
use crate::{Error, Linear, Result};

/// A convolution of images `(B, H, W, C)` without bias, whose result `(B, rows, columns, O)` has its channels last too:
/// the values of [`conv2d`](crate::conv2d).
///
/// Each window becomes one row of a matrix, which a [`Linear`] layer multiplies: whole lines of pixels are copied at a
/// time, an image's result does not depend on its batch, and what follows (normalisation, gates) runs over rows. The
/// rows of all windows are kept for the backward pass, `kh kw / stride^2` times the images' memory: meant for windows
/// that overlap little. For large images with small strides take [`conv2d`](crate::conv2d).
#[derive(Debug, Clone)]
pub struct ChannelsLastConv {
    kernel: Kernel,
    channels: usize,
    outputs: usize,
    window: (usize, usize),
    stride: usize,
    padding: usize,
}

#[derive(Debug, Clone)]
enum Kernel {
    /// Of a frozen weight.
    Ready(Linear),
    /// `(O, C, kh, kw)`, brought into order at every pass: it may have moved.
    Tracked(Tensor),
}

impl ChannelsLastConv {
    /// Of `weight` `(O, C, kh, kw)`, the order in which `PyTorch` keeps it.
    ///
    /// # Errors
    ///
    /// If the weight has another shape or is empty, or the stride is 0.
    pub fn new(weight: &Tensor, stride: usize, padding: usize) -> Result<Self> {
        const NAME: &str = "channels_last_conv";
        let (outputs, channels, kh, kw) = match weight.dims4() {
            Ok((o, c, kh, kw)) if weight.elem_count() > 0 => (o, c, kh, kw),
            _ => return Err(Error::shape(NAME, "weight", "(O, C, kh, kw), nothing empty", weight.shape())),
        };
        if stride == 0 {
            return Err(Error::Range {
                operation: NAME,
                argument: "stride",
                expected: "at least 1",
                found: 0.0,
            });
        }
        let kernel = if weight.track_op() {
            Kernel::Tracked(weight.clone())
        } else {
            Kernel::Ready(Linear::new(by_rows(weight)?, None)?)
        };
        Ok(Self { kernel, channels, outputs, window: (kh, kw), stride, padding })
    }

    /// The convolution of `x` `(B, H, W, C)`: `(B, rows, columns, O)` with
    /// `rows = floor((H + 2 padding - kh) / stride) + 1`.
    ///
    /// # Errors
    ///
    /// If `x` has other channels, or is smaller with its padding than a window.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let rows = window_rows(x, self.channels, self.window, self.stride, self.padding)?;
        match &self.kernel {
            Kernel::Ready(layer) => layer.forward(&rows),
            Kernel::Tracked(weight) => Linear::new(by_rows(weight)?, None)?.forward(&rows),
        }
    }

    /// Channels of the result.
    pub fn outputs(&self) -> usize {
        self.outputs
    }
}

/// `(O, C, kh, kw)` to `(O, kh kw C)`.
fn by_rows(weight: &Tensor) -> Result<Tensor> {
    let (outputs, ..) = weight.dims4()?;
    Ok(weight.permute((0, 2, 3, 1))?.reshape((outputs, ()))?)
}

/// Each window of `x` `(B, H, W, C)` as a row: `(B, rows, columns, kh kw C)`, zeros where a window reaches beyond.
fn window_rows(
    x: &Tensor,
    channels: usize,
    (kh, kw): (usize, usize),
    stride: usize,
    padding: usize,
) -> Result<Tensor> {
    let (height, width) = match x.dims4() {
        Ok((_, h, w, c)) if c == channels && h + 2 * padding >= kh && w + 2 * padding >= kw => (h, w),
        _ => {
            let least = |k: usize| k.saturating_sub(2 * padding);
            let expected = format!("(B, at least {}, at least {}, {channels})", least(kh), least(kw));
            return Err(Error::shape("channels_last_conv", "x", expected, x.shape()));
        }
    };
    let geometry = Geometry {
        channels,
        height,
        width,
        window: (kh, kw),
        stride,
        padding,
        rows: (height + 2 * padding - kh) / stride + 1,
        columns: (width + 2 * padding - kw) / stride + 1,
    };
    if has_kernels(x) {
        return Ok(x.contiguous()?.apply_op1(WindowRows(geometry))?);
    }
    composed(x, geometry)
}

/// From slices, one for each pixel of a window.
fn composed(x: &Tensor, geometry: Geometry) -> Result<Tensor> {
    let Geometry { window: (kh, kw), stride, padding, rows, columns, .. } = geometry;
    let padded =
        x.pad_with_zeros(1, padding, padding + stride)?.pad_with_zeros(2, padding, padding + stride)?;
    let every = |t: &Tensor, axis: usize, start: usize, count: usize| -> Result<Tensor> {
        let mut split = t.dims().to_vec();
        split[axis] = count;
        split.insert(axis + 1, stride);
        let cut = t.narrow(axis, start, count * stride)?;
        Ok(cut.reshape(split)?.narrow(axis + 1, 0, 1)?.squeeze(axis + 1)?)
    };
    let mut pixels = Vec::with_capacity(kh * kw);
    for dy in 0..kh {
        let lines = every(&padded, 1, dy, rows)?;
        for dx in 0..kw {
            pixels.push(every(&lines, 2, dx, columns)?);
        }
    }
    Ok(Tensor::cat(&pixels, 3)?)
}

#[derive(Debug, Clone, Copy)]
struct Geometry {
    channels: usize,
    height: usize,
    width: usize,
    window: (usize, usize),
    stride: usize,
    padding: usize,
    rows: usize,
    columns: usize,
}

impl Geometry {
    /// Numbers of a window.
    fn row(&self) -> usize {
        self.window.0 * self.window.1 * self.channels
    }

    /// Numbers of an image.
    fn image(&self) -> usize {
        self.height * self.width * self.channels
    }

    /// Calls `f` with every stretch of numbers that lie side by side in an image and in the windows of one of its rows
    /// of windows: where it starts in the image, where in these windows, and how long it is.
    fn stretches(&self, row: usize, mut f: impl FnMut(usize, usize, usize)) {
        let (kh, kw) = self.window;
        for column in 0..self.columns {
            let left = column * self.stride;
            // Of the window's columns, those that lie in the image.
            let first = self.padding.saturating_sub(left);
            let end = kw.min((self.width + self.padding).saturating_sub(left));
            if first >= end {
                continue;
            }
            for dy in 0..kh {
                let y = row * self.stride + dy;
                if (self.padding..self.height + self.padding).contains(&y) {
                    let pixel = (y - self.padding) * self.width + left + first - self.padding;
                    let place = (column * kh + dy) * kw + first;
                    f(pixel * self.channels, place * self.channels, (end - first) * self.channels);
                }
            }
        }
    }
}

struct WindowRows(Geometry);

impl CustomOp1 for WindowRows {
    fn name(&self) -> &'static str {
        "window_rows"
    }

    fn cpu_fwd(&self, x: &CpuStorage, layout: &Layout) -> candle_core::Result<(CpuStorage, Shape)> {
        fn run<T: WithDType>(geometry: Geometry, x: &[T]) -> Vec<T> {
            let line = geometry.columns * geometry.row();
            let mut out = vec![T::zero(); x.len() / geometry.image() * geometry.rows * line];
            out.par_chunks_mut(line).enumerate().for_each(|(index, out)| {
                let image = &x[index / geometry.rows * geometry.image()..][..geometry.image()];
                geometry.stretches(index % geometry.rows, |from, to, count| {
                    out[to..to + count].copy_from_slice(&image[from..from + count]);
                });
            });
            out
        }
        let storage = match x {
            CpuStorage::F32(_) => CpuStorage::F32(run(self.0, slice(x, layout)?)),
            CpuStorage::F64(_) => CpuStorage::F64(run(self.0, slice(x, layout)?)),
            _ => bail!("the kernel of window_rows takes f32 and f64"),
        };
        let (batch, ..) = layout.shape().dims4()?;
        Ok((storage, Shape::from((batch, self.0.rows, self.0.columns, self.0.row()))))
    }

    fn bwd(&self, x: &Tensor, _: &Tensor, gradient: &Tensor) -> candle_core::Result<Option<Tensor>> {
        fn run<T: WithDType>(
            geometry: Geometry,
            shape: &Shape,
            gradient: &Tensor,
        ) -> candle_core::Result<Tensor> {
            let held = Held::new(gradient);
            let gradient = held.slice::<T>()?;
            let line = geometry.columns * geometry.row();
            let mut out = vec![T::zero(); shape.elem_count()];
            out.par_chunks_mut(geometry.image()).enumerate().for_each(|(index, image)| {
                for row in 0..geometry.rows {
                    let windows = &gradient[(index * geometry.rows + row) * line..][..line];
                    geometry.stretches(row, |to, from, count| {
                        let to = &mut image[to..to + count];
                        to.iter_mut().zip(&windows[from..]).for_each(|(to, &from)| *to += from);
                    });
                }
            });
            Tensor::from_vec(out, shape, &candle_core::Device::Cpu)
        }
        let gradient = gradient.contiguous()?;
        Ok(Some(by_type!(x, "window_rows", run(self.0, x.shape(), &gradient))?))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::{ChannelsLastConv, Geometry, composed, window_rows};
    use crate::conv2d;
    use crate::gradient_check::{check_gradients, normal, same};
    use candle_core::{DType, Tensor};

    /// Kernel, stride, padding.
    const ALL: [((usize, usize), usize, usize); 6] =
        [((4, 4), 2, 1), ((4, 4), 1, 0), ((3, 3), 1, 1), ((3, 2), 3, 0), ((5, 5), 3, 2), ((2, 2), 1, 3)];

    fn last(x: &Tensor) -> Tensor {
        x.permute((0, 2, 3, 1)).unwrap()
    }

    #[test]
    fn values_are_those_of_the_other_order() {
        for (window, stride, padding) in ALL {
            let (x, weight) = (normal(&[2, 3, 7, 8], 0), normal(&[4, 3, window.0, window.1], 1));
            let wanted = last(&conv2d(&x, &weight, None, stride, padding).unwrap());
            let layer = ChannelsLastConv::new(&weight, stride, padding).unwrap();
            assert_eq!(layer.outputs(), 4);
            same(&layer.forward(&last(&x)).unwrap(), &wanted, 1e-12);
            let single = |t: &Tensor| t.to_dtype(DType::F32).unwrap();
            let layer = ChannelsLastConv::new(&single(&weight), stride, padding).unwrap();
            same(&layer.forward(&single(&last(&x))).unwrap(), &wanted, 1e-4);
        }
    }

    #[test]
    fn gradients_are_right() {
        for (window, stride, padding) in ALL {
            let inputs = [normal(&[2, 5, 6, 2], 4), normal(&[3, 2, window.0, window.1], 5)];
            check_gradients(&inputs, |t| ChannelsLastConv::new(&t[1], stride, padding)?.forward(&t[0]));
        }
    }

    #[test]
    fn composed_windows_are_the_kernel_s() {
        for ((kh, kw), stride, padding) in ALL {
            let x = normal(&[2, 7, 8, 3], 6);
            let found = window_rows(&x, 3, (kh, kw), stride, padding).unwrap();
            let (rows, columns) = (found.dim(1).unwrap(), found.dim(2).unwrap());
            let geometry = Geometry {
                channels: 3,
                height: 7,
                width: 8,
                window: (kh, kw),
                stride,
                padding,
                rows,
                columns,
            };
            same(&found, &composed(&x, geometry).unwrap(), 0.0);
        }
    }

    #[test]
    fn an_image_has_the_same_bits_in_any_batch() {
        let x = normal(&[5, 9, 9, 3], 7).to_dtype(DType::F32).unwrap();
        let weight = normal(&[6, 3, 4, 4], 8).to_dtype(DType::F32).unwrap();
        let layer = ChannelsLastConv::new(&weight, 2, 1).unwrap();
        let all = layer.forward(&x).unwrap();
        for image in 0..5 {
            let alone = layer.forward(&x.narrow(0, image, 1).unwrap()).unwrap();
            same(&alone, &all.narrow(0, image, 1).unwrap(), 0.0);
        }
    }

    #[test]
    fn shapes_that_do_not_fit_are_refused() {
        let weight = normal(&[3, 2, 3, 3], 9);
        let layer = ChannelsLastConv::new(&weight, 1, 0).unwrap();
        let message = layer.forward(&normal(&[1, 4, 4, 3], 0)).unwrap_err().to_string();
        assert!(message.contains("channels_last_conv: x") && message.contains(", 2)"), "{message}");
        assert!(layer.forward(&normal(&[1, 2, 4, 2], 0)).unwrap_err().to_string().contains("at least 3"));
        assert!(ChannelsLastConv::new(&weight, 0, 0).unwrap_err().to_string().contains("stride"));
        assert!(
            ChannelsLastConv::new(&normal(&[3, 2, 3], 0), 1, 0).unwrap_err().to_string().contains("weight")
        );
    }
}
