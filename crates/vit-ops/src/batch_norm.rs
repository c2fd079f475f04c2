// A kernel is compiled for an instruction set only where all of it is inlined: see `lanes`.
#![allow(clippy::inline_always)]

use candle_core::{CpuStorage, CustomOp3, DType, Layout, Shape, Tensor, bail};
use rayon::prelude::*;

use crate::lanes::{Kernel, Lanes, Real, map, sum};
use crate::rows::{Held, by_type, has_kernels, slice};
use crate::types::widened;
use crate::variance::detached_mean;
use crate::{Error, Result, VarianceGradient};

/// Which variance of a batch goes into the running one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum RunningVariance {
    /// Divided by `n - 1` (`PyTorch`), although the batch itself is normalised by the one divided by `n`.
    #[default]
    Unbiased,
    /// Divided by `n` (Keras).
    Biased,
}

/// What [`batch_norm_train`] returns.
#[derive(Debug, Clone)]
pub struct BatchNormed {
    /// The shape of `x`.
    pub y: Tensor,
    /// What it was normalised by.
    pub statistics: BatchStatistics,
}

impl BatchNormed {
    /// The same numbers in another type.
    pub(crate) fn to_dtype(&self, dtype: DType) -> Result<Self> {
        let BatchStatistics { mean, variance, count } = &self.statistics;
        let statistics = BatchStatistics {
            mean: mean.to_dtype(dtype)?,
            variance: variance.to_dtype(dtype)?,
            count: *count,
        };
        Ok(Self { y: self.y.to_dtype(dtype)?, statistics })
    }
}

/// Mean and variance of a batch, channel by channel, without a graph.
#[derive(Debug, Clone)]
pub struct BatchStatistics {
    /// `(C,)`.
    pub mean: Tensor,
    /// `(C,)`, divided by `n`.
    pub variance: Tensor,
    /// Numbers a channel, `n = B H W`.
    pub count: usize,
}

impl BatchStatistics {
    /// Running mean and variance, `(C,)` each, after this batch: `momentum` of them is the batch's (`PyTorch`'s sense;
    /// 0.1 there. Keras names what is kept: its 0.99 is 0.01 here).
    ///
    /// # Errors
    ///
    /// If the shapes differ, or the unbiased variance of one number is wanted.
    pub fn blend(
        &self,
        mean: &Tensor,
        variance: &Tensor,
        momentum: f64,
        rule: RunningVariance,
    ) -> Result<(Tensor, Tensor)> {
        let factor = match rule {
            RunningVariance::Biased => 1.0,
            RunningVariance::Unbiased if self.count > 1 => self.count as f64 / (self.count - 1) as f64,
            RunningVariance::Unbiased => {
                return Err(Error::Range {
                    operation: "batch_norm",
                    argument: "numbers a channel",
                    expected: "at least 2 for an unbiased variance",
                    found: self.count as f64,
                });
            }
        };
        let kept = 1.0 - momentum;
        Ok((
            ((mean.detach() * kept)? + (&self.mean * momentum)?)?,
            ((variance.detach() * kept)? + (&self.variance * (momentum * factor))?)?,
        ))
    }
}

/// Batch normalisation of `x` `(B, C, H, W)` by the batch's own mean and variance, channel by channel:
/// `(x - mean) / sqrt(var + eps) * weight + bias` with `weight` and `bias` `(C,)`. (Ioffe and Szegedy 2015,
/// arXiv 1502.03167.)
///
/// The running statistics of evaluation are the caller's: see [`BatchStatistics::blend`] and [`batch_norm`].
///
/// # Errors
///
/// If the shapes are not these, or types or devices differ.
pub fn batch_norm_train(
    x: &Tensor,
    weight: &Tensor,
    bias: &Tensor,
    eps: f64,
    gradient: VarianceGradient,
) -> Result<BatchNormed> {
    let channels = channels("batch_norm_train", x, &[("weight", weight), ("bias", bias)])?;
    let count = x.elem_count() / channels.max(1);
    if has_kernels(x) && weight.dtype() == x.dtype() && bias.dtype() == x.dtype() {
        let x = x.contiguous()?;
        let (mean, variance) = moments(&x)?;
        let scale = variance.iter().map(|v| 1.0 / (v + eps).sqrt()).collect();
        let tensor = |values: &[f64]| Tensor::from_slice(values, channels, x.device())?.to_dtype(x.dtype());
        let statistics = BatchStatistics { mean: tensor(&mean)?, variance: tensor(&variance)?, count };
        let y = x.apply_op3(&weight.contiguous()?, &bias.contiguous()?, Fused { mean, scale, gradient })?;
        return Ok(BatchNormed { y, statistics });
    }
    composed(x, weight, bias, eps, gradient)
}

fn composed(
    x: &Tensor,
    weight: &Tensor,
    bias: &Tensor,
    eps: f64,
    gradient: VarianceGradient,
) -> Result<BatchNormed> {
    if let Some([wide, weight, bias]) = widened([x, weight, bias])? {
        return composed(&wide, &weight, &bias, eps, gradient)?.to_dtype(x.dtype());
    }
    let count = x.elem_count() / x.dim(1)?.max(1);
    let mean = x.mean_keepdim((0, 2, 3))?;
    let centred = x.broadcast_sub(&mean)?;
    let variance = centred.sqr()?.mean_keepdim((0, 2, 3))?;
    let statistics = BatchStatistics {
        mean: mean.detach().flatten_all()?,
        variance: variance.detach().flatten_all()?,
        count,
    };
    let variance = match gradient {
        VarianceGradient::True => variance,
        VarianceGradient::DetachedMean => detached_mean(&variance, &x.sqr()?.mean_keepdim((0, 2, 3))?)?,
    };
    let normed = centred.broadcast_div(&(variance + eps)?.sqrt()?)?;
    let wide = (1, weight.elem_count(), 1, 1);
    let y = normed.broadcast_mul(&weight.reshape(wide)?)?.broadcast_add(&bias.reshape(wide)?)?;
    Ok(BatchNormed { y, statistics })
}

/// Batch normalisation of `x` `(B, C, H, W)` by running statistics `(C,)`, as in evaluation; `weight` and `bias` are
/// `(C,)`.
///
/// # Errors
///
/// If the shapes are not these, or types or devices differ.
pub fn batch_norm(
    x: &Tensor,
    weight: &Tensor,
    bias: &Tensor,
    mean: &Tensor,
    variance: &Tensor,
    eps: f64,
) -> Result<Tensor> {
    let all = [("weight", weight), ("bias", bias), ("mean", mean), ("variance", variance)];
    let wide = (1, channels("batch_norm", x, &all)?, 1, 1);
    let scale = (weight / (variance + eps)?.sqrt()?)?;
    let centred = x.broadcast_sub(&mean.reshape(wide)?)?;
    Ok(centred.broadcast_mul(&scale.reshape(wide)?)?.broadcast_add(&bias.reshape(wide)?)?)
}

fn channels(operation: &'static str, x: &Tensor, vectors: &[(&'static str, &Tensor)]) -> Result<usize> {
    let Ok((_, channels, _, _)) = x.dims4() else {
        return Err(Error::shape(operation, "x", "(B, C, H, W)", x.shape()));
    };
    for (argument, tensor) in vectors {
        if tensor.dims() != [channels] {
            return Err(Error::shape(operation, argument, format!("({channels},)"), tensor.shape()));
        }
    }
    Ok(channels)
}

/// Numbers that are added up in their own type before the sum goes on in f64: a plane may hold a quarter of a million.
const STRETCH: usize = 4096;

/// Planes of a contiguous tensor.
#[derive(Clone, Copy)]
struct Planes {
    channels: usize,
    area: usize,
}

impl Planes {
    fn of(dims: &[usize]) -> candle_core::Result<Self> {
        match *dims {
            [_, channels, height, width] => Ok(Self { channels, area: height * width }),
            _ => bail!("batch normalisation takes four axes, not {}", dims.len()),
        }
    }

    /// What `f` makes of each plane, added up over the images, channel by channel, in the order of the images.
    fn add_up<const S: usize>(
        self,
        planes: usize,
        f: impl Fn(usize) -> [f64; S] + Send + Sync,
    ) -> Vec<[f64; S]> {
        let parts: Vec<[f64; S]> = (0..planes).into_par_iter().map(f).collect();
        let mut sums = vec![[0.0; S]; self.channels];
        for (plane, part) in parts.iter().enumerate() {
            for (sum, value) in sums[plane % self.channels].iter_mut().zip(part) {
                *sum += value;
            }
        }
        sums
    }
}

/// The sums of the distances of a plane's numbers from `centre`, and of their squares.
struct Distances<'a, T> {
    plane: &'a [T],
    centre: T,
}

impl<T: Real> Kernel<T> for Distances<'_, T> {
    type Output = [f64; 2];
    #[inline(always)]
    fn run<L: Lanes<Number = T>>(self, lanes: L) -> [f64; 2] {
        let centre = lanes.splat(self.centre);
        let mut totals = [0.0; 2];
        for part in self.plane.chunks(STRETCH) {
            let [first, second] = sum(
                lanes,
                [part],
                #[inline(always)]
                |[v]| {
                    let distance = lanes.sub(v, centre);
                    [distance, lanes.mul(distance, distance)]
                },
            );
            totals[0] += first.to_f64();
            totals[1] += second.to_f64();
        }
        totals
    }
}

/// Means and variances (divided by `n`) of the channels of a contiguous `x`.
fn moments(x: &Tensor) -> candle_core::Result<(Vec<f64>, Vec<f64>)> {
    by_type!(x, "batch_norm", moments_of(x))
}

fn moments_of<T: Real>(x: &Tensor) -> candle_core::Result<(Vec<f64>, Vec<f64>)> {
    let planes = Planes::of(x.dims())?;
    let held = Held::new(x);
    let x = held.slice::<T>()?;
    let count = x.len() / planes.area;
    let numbers = (x.len() / planes.channels) as f64;
    let plane = |at: usize| &x[at * planes.area..][..planes.area];
    let first = planes.add_up(count, |at| T::run(Distances { plane: plane(at), centre: T::ZERO }));
    let rough: Vec<f64> = first.iter().map(|[sum, _]| sum / numbers).collect();
    // Around the rounded mean, and what rounding left is taken off: no digit is lost where the mean is large.
    let second = planes.add_up(count, |at| {
        T::run(Distances { plane: plane(at), centre: T::of(rough[at % planes.channels]) })
    });
    let mut means = Vec::with_capacity(planes.channels);
    let mut variances = Vec::with_capacity(planes.channels);
    for (rough, [sum, squares]) in rough.iter().zip(second) {
        let left = sum / numbers;
        means.push(T::of(*rough).to_f64() + left);
        let variance = squares / numbers - left * left;
        // Not `max`, which would make 0 of NaN.
        variances.push(if variance < 0.0 { 0.0 } else { variance });
    }
    Ok((means, variances))
}

/// Two passes over the planes each way.
struct Fused {
    mean: Vec<f64>,
    /// One over the standard deviation.
    scale: Vec<f64>,
    gradient: VarianceGradient,
}

/// `(plane - mean) * slope + level`.
struct Forward<'a, T> {
    out: &'a mut [T],
    plane: &'a [T],
    mean: T,
    slope: T,
    level: T,
}

impl<T: Real> Kernel<T> for Forward<'_, T> {
    type Output = ();
    #[inline(always)]
    fn run<L: Lanes<Number = T>>(self, lanes: L) {
        let (mean, slope, level) = (lanes.splat(self.mean), lanes.splat(self.slope), lanes.splat(self.level));
        map(
            lanes,
            self.out,
            [self.plane],
            #[inline(always)]
            |[v]| lanes.mul_add(lanes.sub(v, mean), slope, level),
        );
    }
}

/// The sums of a plane's gradient, and of its products with the distances from the mean.
struct GradientSums<'a, T> {
    plane: &'a [T],
    gradient: &'a [T],
    mean: T,
}

impl<T: Real> Kernel<T> for GradientSums<'_, T> {
    type Output = [f64; 2];
    #[inline(always)]
    fn run<L: Lanes<Number = T>>(self, lanes: L) -> [f64; 2] {
        let mean = lanes.splat(self.mean);
        let mut totals = [0.0; 2];
        for (part, gradient) in self.plane.chunks(STRETCH).zip(self.gradient.chunks(STRETCH)) {
            let [first, second] = sum(
                lanes,
                [part, gradient],
                #[inline(always)]
                |[v, g]| [g, lanes.mul(g, lanes.sub(v, mean))],
            );
            totals[0] += first.to_f64();
            totals[1] += second.to_f64();
        }
        totals
    }
}

/// `(gradient - level - (plane - centre) * slope) * scale`.
struct Backward<'a, T> {
    out: &'a mut [T],
    plane: &'a [T],
    gradient: &'a [T],
    centre: T,
    slope: T,
    level: T,
    scale: T,
}

impl<T: Real> Kernel<T> for Backward<'_, T> {
    type Output = ();
    #[inline(always)]
    fn run<L: Lanes<Number = T>>(self, lanes: L) {
        let (centre, slope) = (lanes.splat(self.centre), lanes.splat(self.slope));
        let (level, scale) = (lanes.splat(self.level), lanes.splat(self.scale));
        map(
            lanes,
            self.out,
            [self.plane, self.gradient],
            #[inline(always)]
            |[v, g]| {
                let rest = lanes.sub(lanes.sub(g, level), lanes.mul(lanes.sub(v, centre), slope));
                lanes.mul(rest, scale)
            },
        );
    }
}

impl Fused {
    fn forward<T: Real>(&self, x: &[T], weight: &[T], bias: &[T], planes: Planes) -> Vec<T> {
        let mut out = vec![T::ZERO; x.len()];
        out.par_chunks_mut(planes.area).zip(x.par_chunks(planes.area)).enumerate().for_each(
            |(at, (out, plane))| {
                let channel = at % planes.channels;
                let slope = T::of(weight[channel].to_f64() * self.scale[channel]);
                T::run(Forward { out, plane, mean: T::of(self.mean[channel]), slope, level: bias[channel] });
            },
        );
        out
    }
}

fn backward<T: Real>(
    fused: &Fused,
    x: &Tensor,
    weight: &Tensor,
    gradient: &Tensor,
) -> candle_core::Result<(Tensor, Tensor, Tensor)> {
    let planes = Planes::of(x.dims())?;
    let (held_x, held_weight, held_gradient) = (Held::new(x), Held::new(weight), Held::new(gradient));
    let (values, weights, gradients) =
        (held_x.slice::<T>()?, held_weight.slice::<T>()?, held_gradient.slice::<T>()?);
    let area = planes.area;
    let sums = planes.add_up(values.len() / area, |at| {
        T::run(GradientSums {
            plane: &values[at * area..][..area],
            gradient: &gradients[at * area..][..area],
            mean: T::of(fused.mean[at % planes.channels]),
        })
    });
    let numbers = (values.len() / planes.channels) as f64;
    let mut out = vec![T::ZERO; values.len()];
    out.par_chunks_mut(area)
        .zip(values.par_chunks(area).zip(gradients.par_chunks(area)))
        .enumerate()
        .for_each(|(at, (out, (plane, gradient)))| {
            let channel = at % planes.channels;
            let ([level, product], scale) = (sums[channel], fused.scale[channel]);
            let centre = match fused.gradient {
                VarianceGradient::True => fused.mean[channel],
                VarianceGradient::DetachedMean => 0.0,
            };
            T::run(Backward {
                out,
                plane,
                gradient,
                centre: T::of(centre),
                slope: T::of(product * scale * scale / numbers),
                level: T::of(level / numbers),
                scale: T::of(weights[channel].to_f64() * scale),
            });
        });
    let of_weight: Vec<T> = sums.iter().zip(&fused.scale).map(|([_, p], scale)| T::of(p * scale)).collect();
    let of_bias: Vec<T> = sums.iter().map(|[level, _]| T::of(*level)).collect();
    let device = x.device();
    Ok((
        Tensor::from_vec(out, x.shape(), device)?,
        Tensor::from_vec(of_weight, planes.channels, device)?,
        Tensor::from_vec(of_bias, planes.channels, device)?,
    ))
}

impl CustomOp3 for Fused {
    fn name(&self) -> &'static str {
        "batch_norm"
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
        let planes = Planes::of(x_layout.dims())?;
        let storage = match x {
            CpuStorage::F32(_) => CpuStorage::F32(self.forward(
                slice(x, x_layout)?,
                slice(weight, weight_layout)?,
                slice(bias, bias_layout)?,
                planes,
            )),
            CpuStorage::F64(_) => CpuStorage::F64(self.forward(
                slice(x, x_layout)?,
                slice(weight, weight_layout)?,
                slice(bias, bias_layout)?,
                planes,
            )),
            _ => bail!("the kernel of batch_norm takes f32 and f64"),
        };
        Ok((storage, x_layout.shape().clone()))
    }

    fn bwd(
        &self,
        x: &Tensor,
        weight: &Tensor,
        _: &Tensor,
        _: &Tensor,
        gradient: &Tensor,
    ) -> candle_core::Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let gradient = gradient.contiguous()?;
        let (of_x, of_weight, of_bias) = by_type!(x, "batch_norm", backward(self, x, weight, &gradient))?;
        Ok((Some(of_x), Some(of_weight), Some(of_bias)))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::{BatchStatistics, RunningVariance, batch_norm, batch_norm_train, composed};
    use crate::VarianceGradient;
    use crate::gradient_check::{check_gradients, normal, same, values};
    use candle_core::{DType, Device, Tensor, Var};

    #[test]
    fn gradients_are_right_both_ways() {
        let inputs = [normal(&[3, 2, 4, 5], 0), normal(&[2], 1), normal(&[2], 2)];
        check_gradients(&inputs, |t| {
            Ok(batch_norm_train(&t[0], &t[1], &t[2], 1e-3, VarianceGradient::True)?.y)
        });
        check_gradients(&inputs, |t| Ok(composed(&t[0], &t[1], &t[2], 1e-3, VarianceGradient::True)?.y));
        let strided = [normal(&[4, 2, 3, 5], 3), normal(&[2], 1), normal(&[2], 2)];
        check_gradients(&strided, |t| {
            let x = t[0].transpose(0, 2)?;
            Ok(batch_norm_train(&x, &t[1], &t[2], 1e-3, VarianceGradient::True)?.y)
        });
        let all = [normal(&[2, 3, 2, 2], 4), normal(&[3], 5), normal(&[3], 6), normal(&[3], 7)];
        let variance = normal(&[3], 8).sqr().unwrap();
        check_gradients(&all, |t| batch_norm(&t[0], &t[1], &t[2], &t[3], &variance, 1e-3));
    }

    #[test]
    fn both_gradients_of_the_variance_are_those_of_the_composed_form() {
        let inputs = [(normal(&[3, 2, 4, 5], 9) + 0.8).unwrap(), normal(&[2], 10), normal(&[2], 11)];
        let weights = normal(&[3, 2, 4, 5], 12);
        for gradient in [VarianceGradient::True, VarianceGradient::DetachedMean] {
            let found: Vec<Vec<Tensor>> = [true, false]
                .iter()
                .map(|fused| {
                    let vars: Vec<Var> = inputs.iter().map(|t| Var::from_tensor(t).unwrap()).collect();
                    let form = if *fused { batch_norm_train } else { composed };
                    let normed = form(&vars[0], &vars[1], &vars[2], 1e-3, gradient).unwrap();
                    let store = (&normed.y * &weights).unwrap().sum_all().unwrap().backward().unwrap();
                    let mut all = vec![normed.y, normed.statistics.mean, normed.statistics.variance];
                    all.extend(vars.iter().map(|var| store.get(var).unwrap().clone()));
                    all
                })
                .collect();
            for (ours, theirs) in found[0].iter().zip(&found[1]) {
                same(ours, theirs, 1e-12);
            }
        }
    }

    #[test]
    fn the_detached_mean_differentiates_the_literal_formula() {
        let x = Var::from_tensor(&(normal(&[2, 1, 3, 3], 13) + 0.5).unwrap()).unwrap();
        let (one, zero) = (
            Tensor::ones(1, DType::F64, &Device::Cpu).unwrap(),
            Tensor::zeros(1, DType::F64, &Device::Cpu).unwrap(),
        );
        let weights = normal(&[2, 1, 3, 3], 14);
        let gradient = |y: &Tensor| {
            let store = (y * &weights).unwrap().sum_all().unwrap().backward().unwrap();
            store.get(&x).unwrap().clone()
        };
        let ours = batch_norm_train(&x, &one, &zero, 1e-3, VarianceGradient::DetachedMean).unwrap().y;
        let mean = x.mean_all().unwrap();
        let variance = (x.sqr().unwrap().mean_all().unwrap() - mean.detach().sqr().unwrap()).unwrap();
        let literal = x.broadcast_sub(&mean).unwrap();
        let literal = literal.broadcast_div(&(variance + 1e-3).unwrap().sqrt().unwrap()).unwrap();
        same(&ours, &literal, 1e-12);
        same(&gradient(&ours), &gradient(&literal), 1e-12);
    }

    #[test]
    fn a_large_mean_costs_no_digits_and_statistics_are_the_batch_s() {
        // 70 000 numbers a channel, more than a stretch, far from zero.
        let wide = (normal(&[2, 2, 175, 200], 15) + 300.0).unwrap();
        let x = wide.to_dtype(DType::F32).unwrap();
        let (one, zero) = (
            Tensor::ones(2, DType::F32, &Device::Cpu).unwrap(),
            Tensor::zeros(2, DType::F32, &Device::Cpu).unwrap(),
        );
        let found = batch_norm_train(&x, &one, &zero, 1e-5, VarianceGradient::True).unwrap();
        let exact = {
            let (one, zero) = (one.to_dtype(DType::F64).unwrap(), zero.to_dtype(DType::F64).unwrap());
            composed(&x.to_dtype(DType::F64).unwrap(), &one, &zero, 1e-5, VarianceGradient::True).unwrap()
        };
        same(&found.y, &exact.y, 1e-4);
        same(&found.statistics.variance, &exact.statistics.variance, 1e-6);
        assert_eq!(found.statistics.count, 70_000);
    }

    #[test]
    fn running_statistics_follow_either_rule() {
        let tensor = |value: f64| Tensor::new(&[value], &Device::Cpu).unwrap();
        let statistics = BatchStatistics { mean: tensor(2.0), variance: tensor(3.0), count: 4 };
        let (mean, variance) =
            statistics.blend(&tensor(1.0), &tensor(1.0), 0.1, RunningVariance::Unbiased).unwrap();
        assert!((values(&mean)[0] - 1.1).abs() < 1e-12 && (values(&variance)[0] - 1.3).abs() < 1e-12);
        let (_, variance) =
            statistics.blend(&tensor(1.0), &tensor(1.0), 0.01, RunningVariance::Biased).unwrap();
        assert!((values(&variance)[0] - 1.02).abs() < 1e-12);
        let one = BatchStatistics { count: 1, ..statistics };
        let refused = one.blend(&tensor(1.0), &tensor(1.0), 0.1, RunningVariance::Unbiased);
        assert!(refused.unwrap_err().to_string().contains("at least 2"));
    }

    #[test]
    fn shapes_that_do_not_fit_are_named() {
        let (x, two) = (normal(&[1, 2, 2, 2], 16), normal(&[2], 17));
        let says = |error: crate::Error, word: &str| assert!(error.to_string().contains(word), "{error}");
        let three = normal(&[3], 18);
        says(batch_norm_train(&x, &three, &two, 1e-3, VarianceGradient::True).unwrap_err(), "weight");
        says(batch_norm(&x, &two, &two, &three, &two, 1e-3).unwrap_err(), "mean");
        says(batch_norm(&two, &two, &two, &two, &two, 1e-3).unwrap_err(), "(B, C, H, W)");
    }

    #[test]
    fn a_nan_is_not_lost_in_the_statistics() {
        let x = Tensor::new(&[[[[1.0, f64::NAN]], [[1.0, 2.0]]]], &Device::Cpu).unwrap();
        let ones = Tensor::ones(2, DType::F64, &Device::Cpu).unwrap();
        let statistics = batch_norm_train(&x, &ones, &ones, 1e-5, VarianceGradient::True).unwrap().statistics;
        let variance = values(&statistics.variance);
        assert!(variance[0].is_nan() && variance[1] == 0.25, "{variance:?}");
    }
}
