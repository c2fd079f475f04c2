//! Batch normalisation of channels that come last: whole rows are read at a time.
// A kernel is compiled for an instruction set only where all of it is inlined: see `lanes`.
#![allow(clippy::inline_always)]

use std::sync::Arc;

use candle_core::{CpuStorage, CustomOp3, D, DType, Layout, Shape, Tensor, bail};
use rayon::prelude::*;

use crate::kernels::{BLOCK, written};
use crate::lanes::{Kernel, Lanes, Real, map, update};
use crate::rows::{AddTo, Held, add_up, by_type, has_kernels, slice};
use crate::types::widened;
use crate::{BatchNormed, BatchStatistics, Error, Result};

/// [`batch_norm_train`](crate::batch_norm_train) of `x` `(.., C)`, whose channels come last: each less its mean over all
/// else, divided by `sqrt(variance + eps)`, times `weight`, plus `bias`, both `(C,)`. The variance is the biased one;
/// gradients go through mean and variance.
///
/// # Errors
///
/// If the shapes are not these or `x` is empty, or types or devices differ.
pub fn batch_norm_rows_train(x: &Tensor, weight: &Tensor, bias: &Tensor, eps: f64) -> Result<BatchNormed> {
    let channels = check("batch_norm_rows_train", x, &[("weight", weight), ("bias", bias)])?;
    if fits(x, &[weight, bias]) {
        let x = x.contiguous()?;
        let found = moments(&x)?;
        let tensor = |numbers: &[f64]| Tensor::from_slice(numbers, channels, x.device())?.to_dtype(x.dtype());
        let (mean, variance) = (tensor(&found.mean)?, tensor(&found.variance)?);
        let statistics = BatchStatistics { mean, variance, count: found.count };
        let normalise = Normalise { constants: Constants::new(&found, eps), own: true };
        let y = x.apply_op3(&weight.contiguous()?, &bias.contiguous()?, normalise)?;
        return Ok(BatchNormed { y, statistics });
    }
    if let Some([wide, weight, bias]) = widened([x, weight, bias])? {
        return batch_norm_rows_train(&wide, &weight, &bias, eps)?.to_dtype(x.dtype());
    }
    let count = x.elem_count() / channels;
    let flat = x.reshape((count, channels))?;
    let mean = flat.mean(0)?;
    let centred = flat.broadcast_sub(&mean)?;
    let variance = centred.sqr()?.mean(0)?;
    let normed = centred.broadcast_div(&(&variance + eps)?.sqrt()?)?;
    let y = normed.broadcast_mul(weight)?.broadcast_add(bias)?.reshape(x.shape())?;
    let statistics = BatchStatistics { mean: mean.detach(), variance: variance.detach(), count };
    Ok(BatchNormed { y, statistics })
}

/// [`batch_norm`](crate::batch_norm) of `x` `(.., C)`, whose channels come last, by running statistics `(C,)`; `weight`
/// and `bias` are `(C,)`.
///
/// # Errors
///
/// If the shapes are not these or `x` is empty, or types or devices differ.
pub fn batch_norm_rows(
    x: &Tensor,
    weight: &Tensor,
    bias: &Tensor,
    mean: &Tensor,
    variance: &Tensor,
    eps: f64,
) -> Result<Tensor> {
    let all = [("weight", weight), ("bias", bias), ("mean", mean), ("variance", variance)];
    check("batch_norm_rows", x, &all)?;
    // The kernel takes mean and variance as constants.
    if fits(x, &[weight, bias]) && !mean.track_op() && !variance.track_op() {
        let numbers = |t: &Tensor| t.to_dtype(DType::F64)?.to_vec1::<f64>();
        let running = Moments { mean: numbers(mean)?, variance: numbers(variance)?, count: 0 };
        let normalise = Normalise { constants: Constants::new(&running, eps), own: false };
        return Ok(x.contiguous()?.apply_op3(&weight.contiguous()?, &bias.contiguous()?, normalise)?);
    }
    let scale = (variance + eps)?.sqrt()?.recip()?;
    let normed = x.broadcast_sub(mean)?.broadcast_mul(&scale)?;
    Ok(normed.broadcast_mul(weight)?.broadcast_add(bias)?)
}

/// The number of channels, after a look at the shapes.
fn check(operation: &'static str, x: &Tensor, vectors: &[(&'static str, &Tensor)]) -> Result<usize> {
    let channels = match x.dims().last() {
        Some(&channels) if x.elem_count() > 0 => channels,
        _ => return Err(Error::shape(operation, "x", "(.., C), nothing empty", x.shape())),
    };
    for (argument, tensor) in vectors {
        if tensor.dims() != [channels] {
            return Err(Error::shape(operation, argument, format!("({channels},)"), tensor.shape()));
        }
    }
    Ok(channels)
}

fn fits(x: &Tensor, vectors: &[&Tensor]) -> bool {
    has_kernels(x) && vectors.iter().all(|vector| vector.dtype() == x.dtype())
}

/// Mean and biased variance of each channel.
struct Moments {
    mean: Vec<f64>,
    variance: Vec<f64>,
    count: usize,
}

/// `sums += (row - mean)^2`, number by number.
struct AddSquares<'a, T> {
    sums: &'a mut [T],
    row: &'a [T],
    mean: &'a [T],
}

impl<T: Real> Kernel<T> for AddSquares<'_, T> {
    type Output = ();
    #[inline(always)]
    fn run<L: Lanes<Number = T>>(self, lanes: L) {
        update(
            lanes,
            self.sums,
            [self.row, self.mean],
            #[inline(always)]
            |sum, [value, mean]| {
                let distance = lanes.sub(value, mean);
                lanes.mul_add(distance, distance, sum)
            },
        );
    }
}

/// Over all but the last axis of a contiguous tensor.
fn moments(rows: &Tensor) -> candle_core::Result<Moments> {
    by_type!(rows, "batch_norm_rows", moments_of(rows))
}

/// Blocks of rows are summed in the numbers' own type, the blocks in f64.
fn moments_of<T: Real>(rows: &Tensor) -> candle_core::Result<Moments> {
    let width = rows.dim(D::Minus1)?;
    let held = Held::new(rows);
    let numbers = held.slice::<T>()?;
    let count = numbers.len() / width;
    let share = |add: &(dyn Fn(&mut [T], &[T]) + Sync)| -> Vec<f64> {
        let part = |block: &[T]| {
            let mut sums = vec![T::ZERO; width];
            block.chunks_exact(width).for_each(|row| add(&mut sums, row));
            sums
        };
        let parts: Vec<Vec<T>> = numbers.par_chunks(BLOCK * width).map(part).collect();
        let mut sums = vec![0.0; width];
        for part in parts {
            sums.iter_mut().zip(part).for_each(|(sum, number)| *sum += number.to_f64());
        }
        sums.into_iter().map(|sum| sum / count as f64).collect()
    };
    let mean = share(&|sums, row| T::run(AddTo(sums, row)));
    let centre: Vec<T> = mean.iter().map(|&mean| T::of(mean)).collect();
    let variance = share(&|sums, row| T::run(AddSquares { sums, row, mean: &centre }));
    Ok(Moments { mean, variance, count })
}

/// A channel's mean, and one over its standard deviation.
#[derive(Clone)]
struct Constants {
    mean: Arc<[f64]>,
    scale: Arc<[f64]>,
    count: usize,
}

impl Constants {
    fn new(statistics: &Moments, eps: f64) -> Self {
        Self {
            mean: statistics.mean.as_slice().into(),
            scale: statistics.variance.iter().map(|variance| 1.0 / (variance + eps).sqrt()).collect(),
            count: statistics.count,
        }
    }

    fn of<T: Real>(&self) -> (Vec<T>, Vec<T>) {
        let typed = |numbers: &[f64]| numbers.iter().map(|&number| T::of(number)).collect();
        (typed(&self.mean), typed(&self.scale))
    }
}

struct Normalise {
    constants: Constants,
    /// Whether the statistics are those of the batch itself, so that gradients go through them.
    own: bool,
}

#[inline(always)]
fn normed<L: Lanes>(lanes: L, v: L::Vector, mean: L::Vector, scale: L::Vector) -> L::Vector {
    lanes.mul(lanes.sub(v, mean), scale)
}

struct Forward<'a, T> {
    out: &'a mut [T],
    row: &'a [T],
    mean: &'a [T],
    scale: &'a [T],
    weight: &'a [T],
    bias: &'a [T],
}

impl<T: Real> Kernel<T> for Forward<'_, T> {
    type Output = ();
    #[inline(always)]
    fn run<L: Lanes<Number = T>>(self, lanes: L) {
        map(
            lanes,
            self.out,
            [self.row, self.mean, self.scale, self.weight, self.bias],
            #[inline(always)]
            |[v, mean, scale, w, b]| lanes.mul_add(normed(lanes, v, mean, scale), w, b),
        );
    }
}

/// What a row adds to the gradients of weight and bias.
struct AddGradients<'a, T> {
    of_weight: &'a mut [T],
    of_bias: &'a mut [T],
    row: &'a [T],
    gradient: &'a [T],
    mean: &'a [T],
    scale: &'a [T],
}

impl<T: Real> Kernel<T> for AddGradients<'_, T> {
    type Output = ();
    #[inline(always)]
    fn run<L: Lanes<Number = T>>(self, lanes: L) {
        update(
            lanes,
            self.of_weight,
            [self.gradient, self.row, self.mean, self.scale],
            #[inline(always)]
            |sum, [g, v, mean, scale]| lanes.mul_add(g, normed(lanes, v, mean, scale), sum),
        );
        update(
            lanes,
            self.of_bias,
            [self.gradient],
            #[inline(always)]
            |sum, [g]| lanes.add(sum, g),
        );
    }
}

/// A row's gradient: `slope (g - level - normed tilt)`.
struct Backward<'a, T> {
    out: &'a mut [T],
    row: &'a [T],
    gradient: &'a [T],
    mean: &'a [T],
    scale: &'a [T],
    slope: &'a [T],
    level: &'a [T],
    tilt: &'a [T],
}

impl<T: Real> Kernel<T> for Backward<'_, T> {
    type Output = ();
    #[inline(always)]
    fn run<L: Lanes<Number = T>>(self, lanes: L) {
        map(
            lanes,
            self.out,
            [self.row, self.gradient, self.mean, self.scale, self.slope, self.level, self.tilt],
            #[inline(always)]
            |[v, g, mean, scale, slope, level, tilt]| {
                let rest = lanes.sub(lanes.sub(g, level), lanes.mul(normed(lanes, v, mean, scale), tilt));
                lanes.mul(slope, rest)
            },
        );
    }
}

impl Normalise {
    fn forward<T: Real>(&self, x: &[T], weight: &[T], bias: &[T]) -> Vec<T> {
        let width = weight.len();
        let (mean, scale) = self.constants.of::<T>();
        let fill = |(): &mut (), index: usize, out: &mut [T]| {
            let row = &x[index * width..][..width];
            T::run(Forward { out, row, mean: &mean, scale: &scale, weight, bias });
        };
        written(x.len() / width, width, || (), fill).0
    }

    fn backward<T: Real>(
        &self,
        x: &Tensor,
        weight: &Tensor,
        gradient: &Tensor,
    ) -> candle_core::Result<(Tensor, Tensor, Tensor)> {
        let width = weight.elem_count();
        let (held_x, held_weight, held_gradient) = (Held::new(x), Held::new(weight), Held::new(gradient));
        let numbers = held_x.slice::<T>()?;
        let (weights, gradients) = (held_weight.slice::<T>()?, held_gradient.slice::<T>()?);
        let (mean, scale) = self.constants.of::<T>();
        let part = |(rows, gradients): (&[T], &[T])| {
            let mut sums = vec![T::ZERO; 2 * width];
            let (of_weight, of_bias) = sums.split_at_mut(width);
            for (row, gradient) in rows.chunks_exact(width).zip(gradients.chunks_exact(width)) {
                let (mean, scale) = (&mean, &scale);
                T::run(AddGradients { of_weight, of_bias, row, gradient, mean, scale });
            }
            sums
        };
        let parts: Vec<Vec<T>> =
            numbers.par_chunks(BLOCK * width).zip(gradients.par_chunks(BLOCK * width)).map(part).collect();
        let mut of_weight = add_up(&parts, 2 * width);
        let of_bias = of_weight.split_off(width);

        let slope: Vec<T> = weights.iter().zip(&scale).map(|(&w, &s)| w * s).collect();
        // What the batch's mean and variance take away.
        let n = T::of(self.constants.count.max(1) as f64);
        let taken = |sums: &[T]| -> Vec<T> {
            sums.iter().map(|&sum| if self.own { sum / n } else { T::ZERO }).collect()
        };
        let (level, tilt) = (taken(&of_bias), taken(&of_weight));
        let fill = |(): &mut (), index: usize, out: &mut [T]| {
            let at = index * width..(index + 1) * width;
            T::run(Backward {
                out,
                row: &numbers[at.clone()],
                gradient: &gradients[at],
                mean: &mean,
                scale: &scale,
                slope: &slope,
                level: &level,
                tilt: &tilt,
            });
        };
        let (of_x, _) = written(numbers.len() / width, width, || (), fill);
        let device = x.device();
        Ok((
            Tensor::from_vec(of_x, x.shape(), device)?,
            Tensor::from_vec(of_weight, width, device)?,
            Tensor::from_vec(of_bias, width, device)?,
        ))
    }
}

impl CustomOp3 for Normalise {
    fn name(&self) -> &'static str {
        "batch_norm_rows"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        x_layout: &Layout,
        weight: &CpuStorage,
        weight_layout: &Layout,
        bias: &CpuStorage,
        bias_layout: &Layout,
    ) -> candle_core::Result<(CpuStorage, Shape)> {
        let out = match x {
            CpuStorage::F32(_) => CpuStorage::F32(self.forward(
                slice(x, x_layout)?,
                slice(weight, weight_layout)?,
                slice(bias, bias_layout)?,
            )),
            CpuStorage::F64(_) => CpuStorage::F64(self.forward(
                slice(x, x_layout)?,
                slice(weight, weight_layout)?,
                slice(bias, bias_layout)?,
            )),
            _ => bail!("the kernel of batch_norm_rows takes f32 and f64"),
        };
        Ok((out, x_layout.shape().clone()))
    }

    fn bwd(
        &self,
        x: &Tensor,
        weight: &Tensor,
        _: &Tensor,
        _: &Tensor,
        gradient: &Tensor,
    ) -> candle_core::Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        fn run<T: Real>(
            operation: &Normalise,
            x: &Tensor,
            weight: &Tensor,
            gradient: &Tensor,
        ) -> candle_core::Result<(Tensor, Tensor, Tensor)> {
            operation.backward::<T>(x, weight, gradient)
        }
        let gradient = gradient.contiguous()?;
        let (of_x, of_weight, of_bias) = by_type!(x, "batch_norm_rows", run(self, x, weight, &gradient))?;
        Ok((Some(of_x), Some(of_weight), Some(of_bias)))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::{batch_norm_rows, batch_norm_rows_train};
    use crate::gradient_check::{check_gradients, normal, same};
    use crate::{VarianceGradient, batch_norm, batch_norm_train};
    use candle_core::{DType, Tensor};

    fn last(x: &Tensor) -> Tensor {
        x.permute((0, 2, 3, 1)).unwrap().contiguous().unwrap()
    }

    #[test]
    fn values_and_statistics_are_those_of_the_other_order() {
        // More rows than a block has, far from 0.
        let x = (normal(&[40, 3, 2, 4], 0) + 5.0).unwrap();
        let (weight, bias) = (normal(&[3], 1), normal(&[3], 2));
        let wanted = batch_norm_train(&x, &weight, &bias, 1e-3, VarianceGradient::True).unwrap();
        let found = batch_norm_rows_train(&last(&x), &weight, &bias, 1e-3).unwrap();
        same(&found.y, &last(&wanted.y), 1e-12);
        same(&found.statistics.mean, &wanted.statistics.mean, 1e-12);
        same(&found.statistics.variance, &wanted.statistics.variance, 1e-12);
        assert_eq!(found.statistics.count, 320);
        let single = |t: &Tensor| t.to_dtype(DType::F32).unwrap();
        let in_single = batch_norm_rows_train(&single(&last(&x)), &single(&weight), &single(&bias), 1e-3);
        same(&in_single.unwrap().y, &found.y, 1e-5);

        let (mean, variance) = (normal(&[3], 3), normal(&[3], 4).sqr().unwrap());
        let wanted = batch_norm(&x, &weight, &bias, &mean, &variance, 1e-3).unwrap();
        let found = batch_norm_rows(&last(&x), &weight, &bias, &mean, &variance, 1e-3).unwrap();
        same(&found, &last(&wanted), 1e-11);
    }

    #[test]
    fn gradients_are_right_both_ways() {
        for rows in [4, 70] {
            let inputs = [normal(&[rows, 3], 6), normal(&[3], 7), normal(&[3], 8)];
            check_gradients(&inputs, |t| Ok(batch_norm_rows_train(&t[0], &t[1], &t[2], 1e-3)?.y));
            let (mean, variance) = (normal(&[3], 9), normal(&[3], 10).sqr().unwrap());
            check_gradients(&inputs, |t| batch_norm_rows(&t[0], &t[1], &t[2], &mean, &variance, 1e-3));
        }
    }

    #[test]
    fn other_shapes_are_refused() {
        let (x, right, wrong) = (normal(&[2, 3], 0), normal(&[3], 0), normal(&[2], 0));
        let message = batch_norm_rows_train(&x, &wrong, &right, 1e-5).unwrap_err().to_string();
        assert!(message.contains("weight"), "{message}");
        let message = batch_norm_rows(&x, &right, &right, &right, &wrong, 1e-5).unwrap_err().to_string();
        assert!(message.contains("variance"), "{message}");
        let none = Tensor::zeros((0, 3), DType::F64, x.device()).unwrap();
        assert!(batch_norm_rows_train(&none, &right, &right, 1e-5).is_err());
    }

    #[test]
    fn running_statistics_have_gradients_too() {
        let [x, weight, bias, mean] = [(0, vec![5, 3]), (1, vec![3]), (2, vec![3]), (3, vec![3])]
            .map(|(seed, shape)| normal(&shape, seed));
        let variance = (normal(&[3], 4).sqr().unwrap() + 0.5).unwrap();
        check_gradients(&[x, weight, bias, mean, variance], |t| {
            batch_norm_rows(&t[0], &t[1], &t[2], &t[3], &t[4], 1e-3)
        });
    }
}
