//! Images as matrices: each window of an image one column, and back. With them a convolution is a matrix product.

use std::ops::Range;

use candle_core::{CpuStorage, CustomOp1, InplaceOp2, Layout, Result, Shape, Tensor, WithDType, bail};
use rayon::prelude::*;

use crate::rows::slice;

/// Windows over images `(B, C, height, width)`, whose places make a map `(B, O, rows, columns)`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Geometry {
    pub(crate) channels: usize,
    pub(crate) height: usize,
    pub(crate) width: usize,
    /// A window's `(height, width)`.
    pub(crate) window: (usize, usize),
    pub(crate) stride: usize,
    pub(crate) padding: usize,
    pub(crate) rows: usize,
    pub(crate) columns: usize,
}

/// Some whole images, or some rows of windows of one.
#[derive(Debug, Clone)]
pub(crate) struct Chunk {
    images: Range<usize>,
    rows: Range<usize>,
}

/// Elements of the windows of a chunk: a few megabytes, so that large images never have all of theirs in memory.
const BUDGET: usize = 1 << 21;

impl Geometry {
    /// Elements of a window.
    pub(crate) fn elements(&self) -> usize {
        self.channels * self.window.0 * self.window.1
    }

    pub(crate) fn chunks(&self, batch: usize) -> Vec<Chunk> {
        let a_row = (self.elements() * self.columns).max(1);
        let rows = (BUDGET / a_row).clamp(1, self.rows.max(1));
        let images = if rows < self.rows { 1 } else { (BUDGET / (a_row * self.rows).max(1)).max(1) };
        let mut chunks = Vec::new();
        for first in (0..batch).step_by(images) {
            for row in (0..self.rows).step_by(rows) {
                chunks.push(Chunk {
                    images: first..(first + images).min(batch),
                    rows: row..(row + rows).min(self.rows),
                });
            }
        }
        chunks
    }

    /// The windows of a chunk of `images` as columns: `(C * kh * kw, places)`.
    pub(crate) fn unfold(self, images: &Tensor, chunk: &Chunk) -> Result<Tensor> {
        images.apply_op1_no_bwd(&Unfold { geometry: self, chunk: chunk.clone() })
    }

    /// Adds columns to the places of `images` that their windows cover.
    pub(crate) fn fold(self, images: &Tensor, chunk: &Chunk, columns: &Tensor) -> Result<()> {
        images.inplace_op2(columns, &Fold { geometry: self, chunk: chunk.clone() })
    }

    /// A chunk of a `map` as a matrix `(O, places)`.
    pub(crate) fn take(self, map: &Tensor, chunk: &Chunk) -> Result<Tensor> {
        map.apply_op1_no_bwd(&Take { geometry: self, chunk: chunk.clone() })
    }

    /// The inverse of [`Geometry::take`].
    pub(crate) fn put(self, map: &Tensor, chunk: &Chunk, matrix: &Tensor) -> Result<()> {
        map.inplace_op2(matrix, &Put { geometry: self, chunk: chunk.clone() })
    }

    /// For one element of the windows, calls `f` with each stretch of its places: where it starts among the columns of
    /// a chunk, where in the image's channel, and how many places it has, `stride` apart in the image.
    fn stretches(
        &self,
        (dy, dx): (usize, usize),
        rows: &Range<usize>,
        mut f: impl FnMut(usize, usize, usize),
    ) {
        // The columns of windows whose element `dx` lies in the image.
        let first = self.padding.saturating_sub(dx).div_ceil(self.stride);
        let end = (self.width + self.padding).saturating_sub(dx).div_ceil(self.stride).min(self.columns);
        if first >= end {
            return;
        }
        for row in rows.clone() {
            let y = row * self.stride + dy;
            if (self.padding..self.height + self.padding).contains(&y) {
                let x = first * self.stride + dx - self.padding;
                let place = (row - rows.start) * self.columns + first;
                f(place, (y - self.padding) * self.width + x, end - first);
            }
        }
    }
}

impl Chunk {
    fn places(&self, geometry: &Geometry) -> usize {
        self.rows.len() * geometry.columns
    }
}

struct Unfold {
    geometry: Geometry,
    chunk: Chunk,
}

impl CustomOp1 for Unfold {
    fn name(&self) -> &'static str {
        "unfold"
    }

    fn cpu_fwd(&self, images: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        fn run<T: WithDType>(Unfold { geometry, chunk }: &Unfold, images: &[T]) -> Vec<T> {
            let (kh, kw) = geometry.window;
            let (places, plane) = (chunk.places(geometry), geometry.height * geometry.width);
            let line = chunk.images.len() * places;
            let mut out = vec![T::zero(); geometry.elements() * line];
            out.par_chunks_mut(line.max(1)).enumerate().for_each(|(element, line)| {
                let (channel, dy, dx) = (element / (kh * kw), element / kw % kh, element % kw);
                for (image, line) in chunk.images.clone().zip(line.chunks_mut(places)) {
                    let plane = &images[(image * geometry.channels + channel) * plane..][..plane];
                    geometry.stretches((dy, dx), &chunk.rows, |place, start, count| {
                        let line = &mut line[place..place + count];
                        if geometry.stride == 1 {
                            line.copy_from_slice(&plane[start..start + count]);
                        } else {
                            let from = plane[start..].iter().step_by(geometry.stride);
                            line.iter_mut().zip(from).for_each(|(to, &from)| *to = from);
                        }
                    });
                }
            });
            out
        }
        let storage = match images {
            CpuStorage::F32(_) => CpuStorage::F32(run(self, slice(images, layout)?)),
            CpuStorage::F64(_) => CpuStorage::F64(run(self, slice(images, layout)?)),
            _ => bail!("unfold takes f32 and f64"),
        };
        let places = self.chunk.images.len() * self.chunk.places(&self.geometry);
        Ok((storage, Shape::from((self.geometry.elements(), places))))
    }
}

struct Fold {
    geometry: Geometry,
    chunk: Chunk,
}

impl InplaceOp2 for Fold {
    fn name(&self) -> &'static str {
        "fold"
    }

    fn cpu_fwd(
        &self,
        images: &mut CpuStorage,
        images_layout: &Layout,
        columns: &CpuStorage,
        columns_layout: &Layout,
    ) -> Result<()> {
        fn run<T: WithDType>(Fold { geometry, chunk }: &Fold, images: &mut [T], columns: &[T]) {
            let (kh, kw) = geometry.window;
            let (places, plane) = (chunk.places(geometry), geometry.height * geometry.width);
            let line = chunk.images.len() * places;
            let first = chunk.images.start * geometry.channels;
            let planes = chunk.images.len() * geometry.channels;
            images[first * plane..][..planes * plane].par_chunks_mut(plane.max(1)).enumerate().for_each(
                |(index, plane)| {
                    let (image, channel) = (index / geometry.channels, index % geometry.channels);
                    for (dy, dx) in (0..kh).flat_map(|dy| (0..kw).map(move |dx| (dy, dx))) {
                        let element = (channel * kh + dy) * kw + dx;
                        let line = &columns[element * line + image * places..][..places];
                        geometry.stretches((dy, dx), &chunk.rows, |place, start, count| {
                            let line = &line[place..place + count];
                            if geometry.stride == 1 {
                                let to = &mut plane[start..start + count];
                                to.iter_mut().zip(line).for_each(|(to, &from)| *to += from);
                            } else {
                                let to = plane[start..].iter_mut().step_by(geometry.stride);
                                to.zip(line).for_each(|(to, &from)| *to += from);
                            }
                        });
                    }
                },
            );
        }
        let Some((start, end)) = images_layout.contiguous_offsets() else {
            bail!("fold takes contiguous images")
        };
        match images {
            CpuStorage::F32(images) => run(self, &mut images[start..end], slice(columns, columns_layout)?),
            CpuStorage::F64(images) => run(self, &mut images[start..end], slice(columns, columns_layout)?),
            _ => bail!("fold takes f32 and f64"),
        }
        Ok(())
    }
}

struct Take {
    geometry: Geometry,
    chunk: Chunk,
}

impl CustomOp1 for Take {
    fn name(&self) -> &'static str {
        "take_places"
    }

    fn cpu_fwd(&self, map: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        fn run<T: WithDType>(Take { geometry, chunk }: &Take, channels: usize, map: &[T]) -> Vec<T> {
            let (places, plane) = (chunk.places(geometry), geometry.rows * geometry.columns);
            let start = chunk.rows.start * geometry.columns;
            let mut out = Vec::with_capacity(channels * chunk.images.len() * places);
            for channel in 0..channels {
                for image in chunk.images.clone() {
                    let first = (image * channels + channel) * plane + start;
                    out.extend_from_slice(&map[first..first + places]);
                }
            }
            out
        }
        let (_, channels, _, _) = layout.shape().dims4()?;
        let storage = match map {
            CpuStorage::F32(_) => CpuStorage::F32(run(self, channels, slice(map, layout)?)),
            CpuStorage::F64(_) => CpuStorage::F64(run(self, channels, slice(map, layout)?)),
            _ => bail!("take_places takes f32 and f64"),
        };
        let places = self.chunk.images.len() * self.chunk.places(&self.geometry);
        Ok((storage, Shape::from((channels, places))))
    }
}

struct Put {
    geometry: Geometry,
    chunk: Chunk,
}

impl InplaceOp2 for Put {
    fn name(&self) -> &'static str {
        "put_places"
    }

    fn cpu_fwd(
        &self,
        map: &mut CpuStorage,
        map_layout: &Layout,
        matrix: &CpuStorage,
        matrix_layout: &Layout,
    ) -> Result<()> {
        fn run<T: WithDType>(Put { geometry, chunk }: &Put, channels: usize, map: &mut [T], matrix: &[T]) {
            let (places, plane) = (chunk.places(geometry), geometry.rows * geometry.columns);
            let start = chunk.rows.start * geometry.columns;
            let mut lines = matrix.chunks(places.max(1));
            for channel in 0..channels {
                for image in chunk.images.clone() {
                    let first = (image * channels + channel) * plane + start;
                    map[first..first + places].copy_from_slice(lines.next().unwrap_or_default());
                }
            }
        }
        let (_, channels, _, _) = map_layout.shape().dims4()?;
        let Some((start, end)) = map_layout.contiguous_offsets() else {
            bail!("put_places takes contiguous maps")
        };
        match map {
            CpuStorage::F32(map) => run(self, channels, &mut map[start..end], slice(matrix, matrix_layout)?),
            CpuStorage::F64(map) => run(self, channels, &mut map[start..end], slice(matrix, matrix_layout)?),
            _ => bail!("put_places takes f32 and f64"),
        }
        Ok(())
    }
}
