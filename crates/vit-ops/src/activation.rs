// A kernel is compiled for an instruction set only where all of it is inlined: see `lanes`.
#![allow(clippy::inline_always)]

use candle_core::{CpuStorage, CustomOp1, CustomOp2, D, Layout, Shape, Tensor, bail};

use crate::kernels::written;
use crate::lanes::{Kernel, Lanes, Real, constant, map, update};
use crate::rows::{AddTo, Held, add_row, add_up, by_type, has_kernels, slice};
use crate::types::{floating, widened};
use crate::{Error, Result};

/// The three forms of GELU (Hendrycks and Gimpel 2016, arXiv 1606.08415) that published networks were trained with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Gelu {
    /// `x/2 (1 + erf(x / sqrt 2))`: nearly every ViT.
    #[default]
    Erf,
    /// `x/2 (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3)))`.
    Tanh,
    /// `x sigmoid(1.702 x)`: `OpenAI`'s CLIP.
    Quick,
}

/// GELU of every element.
///
/// # Errors
///
/// If `x` is not of a floating-point type.
pub fn gelu(x: &Tensor, form: Gelu) -> Result<Tensor> {
    floating("gelu", "x", x)?;
    if has_kernels(x) && x.rank() > 0 {
        return Ok(x.contiguous()?.apply_op1(Alone(Gate::of(form)))?);
    }
    #[cfg(feature = "cuda")]
    if let Some(result) = crate::cuda::operations::activation(x, None, form.into())? {
        return Ok(result);
    }
    // candle's gradient of the tanh form cubes in the type itself.
    if let Some([wide]) = widened([x])? {
        return Ok(gelu(&wide, form)?.to_dtype(x.dtype())?);
    }
    Ok(match form {
        Gelu::Erf => x.gelu_erf()?,
        Gelu::Tanh => x.gelu()?,
        // One node of candle's for the sigmoid: written out with exp, far negative inputs would give 0 * inf backward.
        Gelu::Quick => (candle_nn::ops::sigmoid(&(x * 1.702)?)? * x)?,
    })
}

/// GELU of `x + bias`; `x` is `(.., D)`, `bias` is `(D,)`.
///
/// # Errors
///
/// If the shapes don't fit or `x` is not of a floating-point type.
pub fn bias_gelu(x: &Tensor, bias: &Tensor, form: Gelu) -> Result<Tensor> {
    if fits("bias_gelu", x, bias)? {
        return Ok(x.contiguous()?.apply_op2(&bias.contiguous()?, Biased(Gate::of(form)))?);
    }
    #[cfg(feature = "cuda")]
    if let Some(result) = crate::cuda::operations::activation(x, Some(bias), form.into())? {
        return Ok(result);
    }
    gelu(&add_row("bias_gelu", x, bias)?, form)
}

/// `x sigmoid(x)`, the gate of `SwiGLU`.
///
/// # Errors
///
/// If `x` is not of a floating-point type.
pub fn silu(x: &Tensor) -> Result<Tensor> {
    floating("silu", "x", x)?;
    if has_kernels(x) && x.rank() > 0 {
        return Ok(x.contiguous()?.apply_op1(Alone(Gate::Silu))?);
    }
    #[cfg(feature = "cuda")]
    if let Some(result) = crate::cuda::operations::activation(x, None, crate::cuda::elements::Form::Silu)? {
        return Ok(result);
    }
    Ok((candle_nn::ops::sigmoid(x)? * x)?)
}

/// `silu(gate) value` of a packed layer's output: `x` `(.., 2 M)` holds gates, then values, to which `bias` `(2 M,)`
/// is added first. The result is `(.., M)`. (Shazeer 2020, arXiv 2002.05202.)
///
/// # Errors
///
/// If the last axis is odd, the bias has another length, or `x` is not of a floating-point type.
pub fn swiglu(x: &Tensor, bias: Option<&Tensor>) -> Result<Tensor> {
    let width = x.dim(D::Minus1)?;
    if !width.is_multiple_of(2) {
        return Err(Error::shape("swiglu", "x", "(.., 2 M)", x.shape()));
    }
    match bias {
        Some(bias) if fits("swiglu", x, bias)? => {
            return Ok(x.contiguous()?.apply_op2(&bias.contiguous()?, Gated)?);
        }
        None if has_kernels(x) => return Ok(x.contiguous()?.apply_op1(Gated)?),
        _ => {}
    }
    let both = match bias {
        Some(bias) => &add_row("swiglu", x, bias)?,
        None => x,
    };
    let half = |i: usize| both.narrow(D::Minus1, i * (width / 2), width / 2);
    Ok((silu(&half(0)?)? * half(1)?)?)
}

/// Whether kernels take `x` and `bias`, which must be a row of it.
fn fits(operation: &'static str, x: &Tensor, bias: &Tensor) -> Result<bool> {
    floating(operation, "x", x)?;
    let width = x.dim(D::Minus1)?;
    if bias.dims() != [width] {
        return Err(Error::shape(operation, "bias", format!("({width},)"), bias.shape()));
    }
    Ok(has_kernels(x) && bias.dtype() == x.dtype())
}

/// GELU of every number, in place.
pub(crate) fn gelu_in_place(form: Gelu) -> fn(&mut [f32]) {
    fn run<const GATE: u8>(numbers: &mut [f32]) {
        let gate = match GATE {
            0 => Gate::Erf,
            1 => Gate::Tanh,
            _ => Gate::Quick,
        };
        f32::run(InPlace { gate, numbers });
    }
    match form {
        Gelu::Erf => run::<0>,
        Gelu::Tanh => run::<1>,
        Gelu::Quick => run::<2>,
    }
}

/// `x s(x)` for one of these s.
#[derive(Debug, Clone, Copy)]
enum Gate {
    /// The normal distribution.
    Erf,
    /// `sigmoid(2 sqrt(2/pi) (x + 0.044715 x^3))`, which is `(1 + tanh(half of that)) / 2`.
    Tanh,
    /// `sigmoid(1.702 x)`.
    Quick,
    /// `sigmoid(x)`.
    Silu,
}

/// `2 sqrt(2/pi)`.
const TANH: f64 = 1.595_769_121_605_730_7;
const CUBE: f64 = 0.044_715;
const QUICK: f64 = 1.702;

impl Gate {
    fn of(form: Gelu) -> Self {
        match form {
            Gelu::Erf => Self::Erf,
            Gelu::Tanh => Self::Tanh,
            Gelu::Quick => Self::Quick,
        }
    }

    #[inline(always)]
    fn value<L: Lanes>(self, lanes: L, x: L::Vector) -> L::Vector {
        let share = match self {
            Self::Erf => lanes.normal(x).0,
            Self::Tanh => lanes.sigmoid(tanh_argument(lanes, x)),
            Self::Quick => lanes.sigmoid(lanes.mul(x, constant(lanes, QUICK))),
            Self::Silu => lanes.sigmoid(x),
        };
        lanes.mul(x, share)
    }

    /// The derivative.
    #[inline(always)]
    fn slope<L: Lanes>(self, lanes: L, x: L::Vector) -> L::Vector {
        match self {
            Self::Erf => {
                let (share, density) = lanes.normal(x);
                lanes.mul_add(x, density, share)
            }
            Self::Tanh => {
                let square = lanes.mul(x, x);
                let inner = lanes.mul_add(square, constant(lanes, 3.0 * TANH * CUBE), constant(lanes, TANH));
                logistic(lanes, x, tanh_argument(lanes, x), inner)
            }
            Self::Quick => {
                let steepness = constant(lanes, QUICK);
                logistic(lanes, x, lanes.mul(x, steepness), steepness)
            }
            Self::Silu => logistic(lanes, x, x, constant(lanes, 1.0)),
        }
    }
}

/// The derivative of `x s` with `s = sigmoid(argument)`, of which `inner` is the argument's derivative:
/// `s + x s (1 - s) inner`.
#[inline(always)]
fn logistic<L: Lanes>(lanes: L, x: L::Vector, argument: L::Vector, inner: L::Vector) -> L::Vector {
    let share = lanes.sigmoid(argument);
    let rest = lanes.sub(constant(lanes, 1.0), share);
    lanes.mul_add(x, lanes.mul(lanes.mul(share, rest), inner), share)
}

#[inline(always)]
fn tanh_argument<L: Lanes>(lanes: L, x: L::Vector) -> L::Vector {
    let square = lanes.mul(x, x);
    lanes.mul(x, lanes.mul_add(square, constant(lanes, TANH * CUBE), constant(lanes, TANH)))
}

/// Which gate it is must be known outside of the loops.
macro_rules! each_gate {
    ($gate:expr, $name:ident => $body:expr) => {
        match $gate {
            Gate::Erf => {
                let $name = Gate::Erf;
                $body
            }
            Gate::Tanh => {
                let $name = Gate::Tanh;
                $body
            }
            Gate::Quick => {
                let $name = Gate::Quick;
                $body
            }
            Gate::Silu => {
                let $name = Gate::Silu;
                $body
            }
        }
    };
}

struct InPlace<'a, T> {
    gate: Gate,
    numbers: &'a mut [T],
}

impl<T: Real> Kernel<T> for InPlace<'_, T> {
    type Output = ();
    #[inline(always)]
    fn run<L: Lanes<Number = T>>(self, lanes: L) {
        each_gate!(self.gate, gate => update(lanes, self.numbers, [], #[inline(always)] |x, []| gate.value(lanes, x)));
    }
}

/// One row of the value, or of the derivative times a gradient.
struct Row<'a, T> {
    gate: Gate,
    out: &'a mut [T],
    x: &'a [T],
    bias: Option<&'a [T]>,
    gradient: Option<&'a [T]>,
}

impl<T: Real> Kernel<T> for Row<'_, T> {
    type Output = ();
    #[inline(always)]
    fn run<L: Lanes<Number = T>>(self, lanes: L) {
        let Self { gate, out, x, bias, gradient } = self;
        each_gate!(gate, gate => match (bias, gradient) {
            (None, None) => map(lanes, out, [x], #[inline(always)] |[x]| gate.value(lanes, x)),
            (Some(bias), None) => map(lanes, out, [x, bias], #[inline(always)] |[x, b]| gate.value(lanes, lanes.add(x, b))),
            (None, Some(g)) => map(lanes, out, [x, g], #[inline(always)] |[x, g]| lanes.mul(g, gate.slope(lanes, x))),
            (Some(bias), Some(g)) => map(lanes, out, [x, bias, g], #[inline(always)] |[x, b, g]| {
                lanes.mul(g, gate.slope(lanes, lanes.add(x, b)))
            }),
        });
    }
}

fn value<T: Real>(x: &[T], bias: Option<&[T]>, width: usize, gate: Gate) -> Vec<T> {
    let fill = |(): &mut (), index: usize, out: &mut [T]| {
        T::run(Row { gate, out, x: &x[index * width..][..width], bias, gradient: None });
    };
    written(x.len() / width, width, || (), fill).0
}

/// The gradient of x, and its sum over rows if there is a bias.
fn gradients<T: Real>(
    x: &Tensor,
    bias: Option<&Tensor>,
    gradient: &Tensor,
    gate: Gate,
) -> candle_core::Result<(Tensor, Option<Tensor>)> {
    let width = x.dim(D::Minus1)?;
    let of_bias = bias.is_some_and(Tensor::track_op);
    let (of_x, sums) = {
        let (x, bias, gradient) = (Held::new(x), bias.map(Held::new), Held::new(gradient));
        let (x, gradient) = (x.slice::<T>()?, gradient.slice::<T>()?);
        let bias = bias.as_ref().map(Held::slice::<T>).transpose()?;
        let start = || vec![T::ZERO; if of_bias { width } else { 0 }];
        written(x.len() / width, width, start, |sums: &mut Vec<T>, index, out| {
            let row = index * width..(index + 1) * width;
            T::run(Row { gate, out, x: &x[row.clone()], bias, gradient: Some(&gradient[row]) });
            if of_bias {
                T::run(AddTo(sums, out));
            }
        })
    };
    let sums = of_bias.then(|| Tensor::from_vec(add_up(&sums, width), width, x.device())).transpose()?;
    Ok((Tensor::from_vec(of_x, x.shape(), x.device())?, sums))
}

struct Alone(Gate);

impl CustomOp1 for Alone {
    fn name(&self) -> &'static str {
        "gate"
    }

    fn cpu_fwd(&self, x: &CpuStorage, layout: &Layout) -> candle_core::Result<(CpuStorage, Shape)> {
        let width = layout.shape().dims().last().copied().unwrap_or(1);
        let storage = match x {
            CpuStorage::F32(_) => CpuStorage::F32(value(slice(x, layout)?, None, width, self.0)),
            CpuStorage::F64(_) => CpuStorage::F64(value(slice(x, layout)?, None, width, self.0)),
            _ => bail!("the kernel of gates takes f32 and f64"),
        };
        Ok((storage, layout.shape().clone()))
    }

    fn bwd(&self, x: &Tensor, _: &Tensor, gradient: &Tensor) -> candle_core::Result<Option<Tensor>> {
        let gradient = gradient.contiguous()?;
        let (of_x, _) = by_type!(x, "gates", gradients(x, None, &gradient, self.0))?;
        Ok(Some(of_x))
    }
}

struct Biased(Gate);

impl CustomOp2 for Biased {
    fn name(&self) -> &'static str {
        "bias_gate"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        layout: &Layout,
        bias: &CpuStorage,
        bias_layout: &Layout,
    ) -> candle_core::Result<(CpuStorage, Shape)> {
        let width = bias_layout.shape().elem_count();
        let storage = match x {
            CpuStorage::F32(_) => {
                CpuStorage::F32(value(slice(x, layout)?, Some(slice(bias, bias_layout)?), width, self.0))
            }
            CpuStorage::F64(_) => {
                CpuStorage::F64(value(slice(x, layout)?, Some(slice(bias, bias_layout)?), width, self.0))
            }
            _ => bail!("the kernel of gates takes f32 and f64"),
        };
        Ok((storage, layout.shape().clone()))
    }

    fn bwd(
        &self,
        x: &Tensor,
        bias: &Tensor,
        _: &Tensor,
        gradient: &Tensor,
    ) -> candle_core::Result<(Option<Tensor>, Option<Tensor>)> {
        let gradient = gradient.contiguous()?;
        let (of_x, of_bias) = by_type!(x, "gates", gradients(x, Some(bias), &gradient, self.0))?;
        Ok((Some(of_x), of_bias))
    }
}

/// `silu(gate) value`.
struct Gated;

/// One row, and its gradient.
struct GatedRow<'a, T> {
    /// M numbers forward, 2 M backward.
    out: &'a mut [T],
    x: &'a [T],
    /// As long as x.
    bias: &'a [T],
    gradient: Option<&'a [T]>,
}

impl<T: Real> Kernel<T> for GatedRow<'_, T> {
    type Output = ();
    #[inline(always)]
    fn run<L: Lanes<Number = T>>(self, lanes: L) {
        let Self { out, x, bias, gradient } = self;
        let half = x.len() / 2;
        let ((a, b), (bias_a, bias_b)) = (x.split_at(half), bias.split_at(half));
        match gradient {
            None => map(
                lanes,
                out,
                [a, b, bias_a, bias_b],
                #[inline(always)]
                |[a, b, bias_a, bias_b]| {
                    lanes.mul(Gate::Silu.value(lanes, lanes.add(a, bias_a)), lanes.add(b, bias_b))
                },
            ),
            Some(g) => {
                let (of_a, of_b) = out.split_at_mut(half);
                map(
                    lanes,
                    of_a,
                    [a, b, bias_a, bias_b, g],
                    #[inline(always)]
                    |[a, b, bias_a, bias_b, g]| {
                        let slope = Gate::Silu.slope(lanes, lanes.add(a, bias_a));
                        lanes.mul(lanes.mul(g, lanes.add(b, bias_b)), slope)
                    },
                );
                map(
                    lanes,
                    of_b,
                    [a, bias_a, g],
                    #[inline(always)]
                    |[a, bias_a, g]| lanes.mul(g, Gate::Silu.value(lanes, lanes.add(a, bias_a))),
                );
            }
        }
    }
}

fn gated<T: Real>(x: &[T], bias: Option<&[T]>, width: usize) -> Vec<T> {
    let zeros = vec![T::ZERO; if bias.is_none() { width } else { 0 }];
    let bias = bias.unwrap_or(&zeros);
    let fill = |(): &mut (), index: usize, out: &mut [T]| {
        T::run(GatedRow { out, x: &x[index * width..][..width], bias, gradient: None });
    };
    written(x.len() / width, width / 2, || (), fill).0
}

fn gated_forward(
    (x, layout): (&CpuStorage, &Layout),
    bias: Option<(&CpuStorage, &Layout)>,
) -> candle_core::Result<(CpuStorage, Shape)> {
    let mut dims = layout.shape().dims().to_vec();
    let Some(last) = dims.last_mut() else { bail!("swiglu takes an axis") };
    let width = *last;
    *last /= 2;
    let storage = match x {
        CpuStorage::F32(_) => {
            let bias = bias.map(|(bias, layout)| slice(bias, layout)).transpose()?;
            CpuStorage::F32(gated(slice(x, layout)?, bias, width))
        }
        CpuStorage::F64(_) => {
            let bias = bias.map(|(bias, layout)| slice(bias, layout)).transpose()?;
            CpuStorage::F64(gated(slice(x, layout)?, bias, width))
        }
        _ => bail!("the kernel of swiglu takes f32 and f64"),
    };
    Ok((storage, Shape::from(dims)))
}

fn gated_gradients<T: Real>(
    x: &Tensor,
    bias: Option<&Tensor>,
    gradient: &Tensor,
) -> candle_core::Result<(Tensor, Option<Tensor>)> {
    let width = x.dim(D::Minus1)?;
    let of_bias = bias.is_some_and(Tensor::track_op);
    let (of_x, sums) = {
        let (x, bias, gradient) = (Held::new(x), bias.map(Held::new), Held::new(gradient));
        let (x, gradient) = (x.slice::<T>()?, gradient.slice::<T>()?);
        let zeros = vec![T::ZERO; if bias.is_none() { width } else { 0 }];
        let bias = bias.as_ref().map_or(Ok(&zeros[..]), Held::slice::<T>)?;
        let start = || vec![T::ZERO; if of_bias { width } else { 0 }];
        written(x.len() / width, width, start, |sums: &mut Vec<T>, index, out| {
            let gradient = Some(&gradient[index * (width / 2)..][..width / 2]);
            T::run(GatedRow { out, x: &x[index * width..][..width], bias, gradient });
            if of_bias {
                T::run(AddTo(sums, out));
            }
        })
    };
    let sums = of_bias.then(|| Tensor::from_vec(add_up(&sums, width), width, x.device())).transpose()?;
    Ok((Tensor::from_vec(of_x, x.shape(), x.device())?, sums))
}

impl CustomOp1 for Gated {
    fn name(&self) -> &'static str {
        "swiglu"
    }

    fn cpu_fwd(&self, x: &CpuStorage, layout: &Layout) -> candle_core::Result<(CpuStorage, Shape)> {
        gated_forward((x, layout), None)
    }

    fn bwd(&self, x: &Tensor, _: &Tensor, gradient: &Tensor) -> candle_core::Result<Option<Tensor>> {
        let gradient = gradient.contiguous()?;
        let (of_x, _) = by_type!(x, "swiglu", gated_gradients(x, None, &gradient))?;
        Ok(Some(of_x))
    }
}

impl CustomOp2 for Gated {
    fn name(&self) -> &'static str {
        "bias_swiglu"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        layout: &Layout,
        bias: &CpuStorage,
        bias_layout: &Layout,
    ) -> candle_core::Result<(CpuStorage, Shape)> {
        gated_forward((x, layout), Some((bias, bias_layout)))
    }

    fn bwd(
        &self,
        x: &Tensor,
        bias: &Tensor,
        _: &Tensor,
        gradient: &Tensor,
    ) -> candle_core::Result<(Option<Tensor>, Option<Tensor>)> {
        let gradient = gradient.contiguous()?;
        let (of_x, of_bias) = by_type!(x, "swiglu", gated_gradients(x, Some(bias), &gradient))?;
        Ok((Some(of_x), of_bias))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::{Gelu, bias_gelu, gelu, gelu_in_place, silu, swiglu};
    use crate::gradient_check::{check_gradients, normal, same};
    use candle_core::{DType, Device, Tensor, Var};

    fn at(x: f64, form: Gelu) -> f64 {
        let x = Tensor::new(&[x], &Device::Cpu).unwrap();
        gelu(&x, form).unwrap().to_vec1::<f64>().unwrap()[0]
    }

    #[test]
    fn the_forms_have_their_known_values() {
        // Phi(1) = 0.841344746068543; the others by the formula.
        assert!((at(1.0, Gelu::Erf) - 0.841_344_746_068_543).abs() < 1e-7);
        let tanh = 0.5 * (1.0 + ((2.0 / std::f64::consts::PI).sqrt() * 1.044_715_f64).tanh());
        assert!((at(1.0, Gelu::Tanh) - tanh).abs() < 1e-12);
        assert!((at(1.0, Gelu::Quick) - 1.0 / (1.0 + (-1.702_f64).exp())).abs() < 1e-12);
        let x = Tensor::new(&[2_f64], &Device::Cpu).unwrap();
        let found = silu(&x).unwrap().to_vec1::<f64>().unwrap()[0];
        assert!((found - 2.0 / (1.0 + (-2_f64).exp())).abs() < 1e-12);
    }

    #[test]
    fn gradients_are_right() {
        for form in [Gelu::Erf, Gelu::Tanh, Gelu::Quick] {
            check_gradients(&[normal(&[3, 4], 0), normal(&[4], 1)], |t| bias_gelu(&t[0], &t[1], form));
            check_gradients(&[normal(&[4, 3], 2)], |t| gelu(&t[0].t()?, form));
        }
        check_gradients(&[normal(&[3, 4], 3)], |t| silu(&t[0]));
        check_gradients(&[normal(&[70, 6], 4), normal(&[6], 5)], |t| swiglu(&t[0], Some(&t[1])));
        check_gradients(&[normal(&[4, 3], 6)], |t| swiglu(&t[0].t()?, None));
    }

    #[test]
    fn f32_is_as_good_as_f64() {
        // Widths that leave a rest, and values far out.
        let (x, bias) = ((normal(&[67, 37], 7) * 4.0).unwrap(), normal(&[37], 8));
        let single = |t: &Tensor| t.to_dtype(DType::F32).unwrap();
        for form in [Gelu::Erf, Gelu::Tanh, Gelu::Quick] {
            let gradients = |x: &Tensor, bias: &Tensor| {
                let (x, bias) = (Var::from_tensor(x).unwrap(), Var::from_tensor(bias).unwrap());
                let y = bias_gelu(&x, &bias, form).unwrap();
                let found = y.sqr().unwrap().mean_all().unwrap().backward().unwrap();
                (y.detach(), found.get(&x).unwrap().clone(), found.get(&bias).unwrap().clone())
            };
            let (wanted, found) = (gradients(&x, &bias), gradients(&single(&x), &single(&bias)));
            same(&found.0, &wanted.0, 3e-6);
            same(&found.1, &wanted.1, 1e-8);
            same(&found.2, &wanted.2, 1e-7);
            let mut in_place = single(&x).flatten_all().unwrap().to_vec1::<f32>().unwrap();
            gelu_in_place(form)(&mut in_place);
            let in_place = Tensor::from_vec(in_place, x.shape(), &Device::Cpu).unwrap();
            same(&in_place, &gelu(&x, form).unwrap(), 3e-6);
        }
        let narrow = normal(&[5, 6], 9);
        same(&swiglu(&single(&narrow), None).unwrap(), &swiglu(&narrow, None).unwrap(), 1e-6);
    }

    #[test]
    fn other_types_are_composed() {
        let x = normal(&[3, 4], 10);
        let half = x.to_dtype(DType::F16).unwrap();
        for form in [Gelu::Erf, Gelu::Tanh, Gelu::Quick] {
            same(&gelu(&half, form).unwrap(), &gelu(&x, form).unwrap(), 4e-3);
        }
        same(&swiglu(&half, None).unwrap(), &swiglu(&x, None).unwrap(), 4e-3);
    }

    #[test]
    fn far_values_stay_finite_both_ways() {
        let x = Var::from_tensor(&Tensor::new(&[-1e4_f32, -100., 100., 1e4], &Device::Cpu).unwrap()).unwrap();
        for form in [Gelu::Erf, Gelu::Tanh, Gelu::Quick] {
            let y = gelu(&x, form).unwrap();
            let gradient = y.sum_all().unwrap().backward().unwrap().get(&x).unwrap().clone();
            for t in [y, gradient] {
                let values = t.to_dtype(DType::F32).unwrap().to_vec1::<f32>().unwrap();
                assert!(values.iter().all(|v| v.is_finite()), "{form:?}: {values:?}");
            }
        }
    }

    #[test]
    fn wrong_shapes_are_named() {
        let message = swiglu(&normal(&[2, 3], 0), None).unwrap_err().to_string();
        assert!(message.contains("(.., 2 M)"), "{message}");
        let message = bias_gelu(&normal(&[2, 3], 0), &normal(&[2], 0), Gelu::Erf).unwrap_err().to_string();
        assert!(message.contains("bias_gelu") && message.contains("(3,)"), "{message}");
    }
}
