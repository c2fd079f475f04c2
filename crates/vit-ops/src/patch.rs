use candle_core::{CpuStorage, CustomOp1, Layout, Shape, Tensor, bail};
use rayon::prelude::*;

use crate::rows::{has_kernels, slice};
use crate::{Error, Linear, Precision, Result};

/// A convolution whose stride is its kernel's size, as one linear layer over patches.
#[derive(Debug, Clone)]
pub struct PatchEmbed {
    layer: Linear,
    channels: usize,
    patch: (usize, usize),
}

impl PatchEmbed {
    /// Of `weight` `(D, C, ph, pw)` and `bias` `(D,)`; the products have this precision.
    ///
    /// # Errors
    ///
    /// If the shapes are not these.
    pub fn new(weight: &Tensor, bias: Option<Tensor>, precision: Precision) -> Result<Self> {
        let (outputs, channels, patch) = match weight.dims4() {
            Ok((d, c, ph, pw)) if ph > 0 && pw > 0 => (d, c, (ph, pw)),
            _ => {
                let expected = "(D, C, at least 1, at least 1)";
                return Err(Error::shape("patch_embed", "weight", expected, weight.shape()));
            }
        };
        let kernel = weight.reshape((outputs, channels * patch.0 * patch.1))?;
        Ok(Self { layer: Linear::with_precision(kernel, bias, precision)?, channels, patch })
    }

    /// Images `(B, C, H, W)` give `(B, gh * gw, D)`, patches row by row, with `gh = floor(H / ph)` and
    /// `gw = floor(W / pw)`; what fills no whole patch is left out.
    ///
    /// # Errors
    ///
    /// If the images have another shape, or are smaller than a patch.
    pub fn forward(&self, images: &Tensor) -> Result<Tensor> {
        let (ph, pw) = self.patch;
        match images.dims4() {
            Ok((_, c, h, w)) if c == self.channels && h >= ph && w >= pw => {}
            _ => {
                let expected = format!("(B, {}, at least {ph}, at least {pw})", self.channels);
                return Err(Error::shape("patch_embed", "images", expected, images.shape()));
            }
        }
        self.layer.forward(&patches(images, self.patch)?)
    }

    /// The layer over patches: its weight is `(D, C ph pw)`.
    pub fn layer(&self) -> &Linear {
        &self.layer
    }

    /// Height and width of a patch in pixels.
    pub fn patch(&self) -> (usize, usize) {
        self.patch
    }
}

/// [`PatchEmbed`] for one time, in f32 precision.
///
/// # Errors
///
/// As [`PatchEmbed::new`] and [`PatchEmbed::forward`].
pub fn patch_embed(images: &Tensor, weight: &Tensor, bias: Option<&Tensor>) -> Result<Tensor> {
    PatchEmbed::new(weight, bias.cloned(), Precision::F32)?.forward(images)
}

/// `(B, gh * gw, C * ph * pw)` of images `(B, C, H, W)`.
fn patches(images: &Tensor, patch: (usize, usize)) -> Result<Tensor> {
    if has_kernels(images) {
        return Ok(images.contiguous()?.apply_op1(Patches { patch })?);
    }
    let (batch, channels, height, width) = images.dims4()?;
    let (rows, columns) = (height / patch.0, width / patch.1);
    Ok(images
        .narrow(2, 0, rows * patch.0)?
        .narrow(3, 0, columns * patch.1)?
        .reshape(vec![batch, channels, rows, patch.0, columns, patch.1])?
        .permute(vec![0, 2, 4, 1, 3, 5])?
        .reshape((batch, rows * columns, channels * patch.0 * patch.1))?)
}

/// How an image's lines lie in its patches.
#[derive(Clone, Copy)]
struct Geometry {
    channels: usize,
    height: usize,
    width: usize,
    patch: (usize, usize),
}

impl Geometry {
    /// Elements of one row of patches.
    fn row(self) -> usize {
        self.width / self.patch.1 * self.channels * self.patch.0 * self.patch.1
    }

    /// Calls `f` with where a line of each patch of row `row` starts in the image and in the row's patches.
    fn each_line(self, row: usize, mut f: impl FnMut(usize, usize)) {
        let (ph, pw) = self.patch;
        for channel in 0..self.channels {
            for line in 0..ph {
                let in_image = (channel * self.height + row * ph + line) * self.width;
                let in_patch = (channel * ph + line) * pw;
                for column in 0..self.width / pw {
                    f(in_image + column * pw, column * self.channels * ph * pw + in_patch);
                }
            }
        }
    }
}

struct Patches {
    patch: (usize, usize),
}

impl CustomOp1 for Patches {
    fn name(&self) -> &'static str {
        "patches"
    }

    fn cpu_fwd(&self, images: &CpuStorage, layout: &Layout) -> candle_core::Result<(CpuStorage, Shape)> {
        fn run<T: Copy + Default + Send + Sync>(images: &[T], geometry: Geometry) -> Vec<T> {
            let rows = geometry.height / geometry.patch.0;
            let image = geometry.channels * geometry.height * geometry.width;
            let mut out = vec![T::default(); images.len() / image * rows * geometry.row()];
            out.par_chunks_exact_mut(geometry.row()).enumerate().for_each(|(row, out)| {
                let image = &images[row / rows * image..];
                geometry.each_line(row % rows, |from, to| {
                    let count = geometry.patch.1;
                    out[to..to + count].copy_from_slice(&image[from..from + count]);
                });
            });
            out
        }
        let (batch, channels, height, width) = layout.shape().dims4()?;
        let (ph, pw) = self.patch;
        let geometry = Geometry { channels, height, width, patch: self.patch };
        let out = match images {
            CpuStorage::F32(_) => CpuStorage::F32(run(slice(images, layout)?, geometry)),
            CpuStorage::F64(_) => CpuStorage::F64(run(slice(images, layout)?, geometry)),
            _ => bail!("the kernel of patch_embed takes f32 and f64"),
        };
        Ok((out, Shape::from((batch, (height / ph) * (width / pw), channels * ph * pw))))
    }

    fn bwd(&self, images: &Tensor, _: &Tensor, gradient: &Tensor) -> candle_core::Result<Option<Tensor>> {
        let (_, channels, height, width) = images.dims4()?;
        let geometry = Geometry { channels, height, width, patch: self.patch };
        gradient.contiguous()?.apply_op1_no_bwd(&Unpatch { geometry }).map(Some)
    }
}

/// The images whose patches are given, zero outside of them.
struct Unpatch {
    geometry: Geometry,
}

impl CustomOp1 for Unpatch {
    fn name(&self) -> &'static str {
        "patches_backward"
    }

    fn cpu_fwd(&self, patches: &CpuStorage, layout: &Layout) -> candle_core::Result<(CpuStorage, Shape)> {
        fn run<T: Copy + Default + Send + Sync>(patches: &[T], geometry: Geometry) -> Vec<T> {
            let rows = geometry.height / geometry.patch.0;
            let image = geometry.channels * geometry.height * geometry.width;
            let all = rows * geometry.row();
            let mut out = vec![T::default(); patches.len() / all * image];
            out.par_chunks_exact_mut(image).zip(patches.par_chunks_exact(all)).for_each(|(out, patches)| {
                for (row, patches) in patches.chunks_exact(geometry.row()).enumerate() {
                    geometry.each_line(row, |to, from| {
                        let count = geometry.patch.1;
                        out[to..to + count].copy_from_slice(&patches[from..from + count]);
                    });
                }
            });
            out
        }
        let Geometry { channels, height, width, .. } = self.geometry;
        let batch = layout.shape().dim(0)?;
        let out = match patches {
            CpuStorage::F32(_) => CpuStorage::F32(run(slice(patches, layout)?, self.geometry)),
            CpuStorage::F64(_) => CpuStorage::F64(run(slice(patches, layout)?, self.geometry)),
            _ => bail!("the kernel of patch_embed takes f32 and f64"),
        };
        Ok((out, Shape::from((batch, channels, height, width))))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::{PatchEmbed, patch_embed};
    use crate::Precision;
    use crate::gradient_check::{check_gradients, normal, same};
    use candle_core::DType;

    #[test]
    fn single_precision_is_as_double() {
        let (images, weight, bias) =
            (normal(&[3, 3, 37, 50], 0), normal(&[20, 3, 8, 7], 1), normal(&[20], 2));
        let single = |t: &candle_core::Tensor| t.to_dtype(DType::F32).unwrap();
        let embed = PatchEmbed::new(&single(&weight), Some(single(&bias)), Precision::F32).unwrap();
        assert_eq!((embed.patch(), embed.layer().inputs()), ((8, 7), 168));
        // Strided: two images of which the first is left out.
        let some = single(&images).narrow(0, 1, 2).unwrap().transpose(2, 3).unwrap().contiguous().unwrap();
        let found = embed.forward(&some.transpose(2, 3).unwrap()).unwrap();
        let wanted = patch_embed(&images.narrow(0, 1, 2).unwrap(), &weight, Some(&bias)).unwrap();
        same(&found, &wanted, 1e-4);
    }

    #[test]
    fn it_is_the_convolution() {
        let (images, weight, bias) = (normal(&[2, 3, 9, 7], 0), normal(&[4, 3, 4, 2], 1), normal(&[4], 2));
        let found = patch_embed(&images, &weight, Some(&bias)).unwrap();
        assert_eq!(found.dims(), [2, 6, 4]);
        // candle's convolution has one stride for both axes: take every patch by itself.
        for (patch, (row, column)) in (0..2).flat_map(|r| (0..3).map(move |c| (r, c))).enumerate() {
            let crop = images.narrow(2, row * 4, 4).unwrap().narrow(3, column * 2, 2).unwrap();
            let wanted = crop.contiguous().unwrap().conv2d(&weight, 0, 1, 1, 1).unwrap();
            let wanted = wanted.flatten_from(1).unwrap().broadcast_add(&bias).unwrap();
            same(&found.narrow(1, patch, 1).unwrap().squeeze(1).unwrap(), &wanted, 1e-12);
        }
    }

    #[test]
    fn gradients_are_right() {
        let inputs = [normal(&[1, 2, 5, 6], 0), normal(&[3, 2, 2, 3], 1), normal(&[3], 2)];
        check_gradients(&inputs, |t| patch_embed(&t[0], &t[1], Some(&t[2])));
        check_gradients(&inputs[..2], |t| patch_embed(&t[0], &t[1], None));
    }

    #[test]
    fn an_image_smaller_than_a_patch_is_refused() {
        let message = patch_embed(&normal(&[1, 2, 3, 3], 0), &normal(&[3, 2, 4, 4], 1), None).unwrap_err();
        assert!(message.to_string().contains("images"), "{message}");
    }
}
