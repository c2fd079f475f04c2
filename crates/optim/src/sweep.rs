//! One pass over a parameter, its gradient and its state, element by element: vectorised and parallel on the host, a
//! kernel on CUDA, composed of candle's operations on other devices and for other types.

use std::cell::{Cell, RefCell};

use candle_core::{CpuStorage, DType, Device, InplaceOp2, Layout, Tensor, Var, WithDType, bail};
use pulp::Arch;
use rayon::prelude::*;

use crate::GradientChange;
#[cfg(feature = "cuda")]
use crate::cuda::device;
use crate::number::{Composed, Number, Real};

/// An element of a parameter and the numbers kept for it, after a step.
pub(crate) type Changed<N, const STATES: usize> = Result<(N, [N; STATES]), <N as Number>::Error>;

/// How one element of a parameter changes, given its gradient and the `STATES` numbers that are kept for it.
pub(crate) trait Rule<const STATES: usize>: Copy + Send + Sync {
    fn change<N: Number>(&self, value: N, gradient: N, states: [N; STATES]) -> Changed<N, STATES>;

    /// A number to be added up over the parameter, from the gradient and the states after the change.
    #[inline(always)]
    fn measure<N: Number>(&self, _gradient: &N, _states: &[N; STATES]) -> Result<Option<N>, N::Error> {
        Ok(None)
    }
}

/// The numbers kept for each element of a parameter.
#[derive(Debug)]
pub(crate) enum States {
    F32(Vec<Vec<f32>>),
    F64(Vec<Vec<f64>>),
    #[cfg(feature = "cuda")]
    Cuda(Vec<candle_core::CudaStorage>),
    Composed(Vec<Tensor>),
}

impl States {
    /// `count` numbers an element, all `initial`.
    pub(crate) fn new(var: &Var, count: usize, initial: f64) -> candle_core::Result<Self> {
        let tensors = vec![(var.ones_like()?.detach() * initial)?; count];
        Self::from_tensors(&tensors, var)
    }

    /// One tensor of the parameter's shape and type for each number.
    pub(crate) fn from_tensors(tensors: &[Tensor], var: &Var) -> candle_core::Result<Self> {
        fn host<T: WithDType>(tensors: &[Tensor]) -> candle_core::Result<Vec<Vec<T>>> {
            tensors.iter().map(|t| t.flatten_all()?.to_vec1()).collect()
        }
        Ok(match (var.device(), var.dtype()) {
            (Device::Cpu, DType::F32) => Self::F32(host(tensors)?),
            (Device::Cpu, DType::F64) => Self::F64(host(tensors)?),
            #[cfg(feature = "cuda")]
            (device @ Device::Cuda(_), DType::F32 | DType::F64) => {
                Self::Cuda(tensors.iter().map(|t| device::storage(t, device)).collect::<Result<_, _>>()?)
            }
            _ => Self::Composed(
                tensors.iter().map(|t| t.detach().to_device(var.device())).collect::<Result<_, _>>()?,
            ),
        })
    }

    /// The inverse of [`States::from_tensors`].
    pub(crate) fn to_tensors(&self, var: &Var) -> candle_core::Result<Vec<Tensor>> {
        let shape = var.shape();
        match self {
            Self::F32(all) => all.iter().map(|s| Tensor::from_slice(s, shape, var.device())).collect(),
            Self::F64(all) => all.iter().map(|s| Tensor::from_slice(s, shape, var.device())).collect(),
            #[cfg(feature = "cuda")]
            Self::Cuda(all) => all.iter().map(|s| device::tensor(s, shape)).collect(),
            Self::Composed(all) => all.iter().map(Tensor::copy).collect(),
        }
    }
}

/// Applies `rule` to all of `value`, and gives the sum of what it measures.
pub(crate) fn sweep<const STATES: usize, R: Rule<STATES>>(
    rule: R,
    change: GradientChange,
    value: &Var,
    gradient: &Tensor,
    states: &mut States,
) -> candle_core::Result<f64> {
    if value.elem_count() == 0 {
        return Ok(0.0);
    }
    match states {
        States::Composed(states) => composed(rule, change, value, gradient, states),
        own => {
            let pass = Pass { rule, change, states: RefCell::new(own), sum: Cell::new(0.0) };
            value.inplace_op2(gradient, &pass)?;
            Ok(pass.sum.get())
        }
    }
}

fn composed<const STATES: usize, R: Rule<STATES>>(
    rule: R,
    change: GradientChange,
    value: &Var,
    gradient: &Tensor,
    states: &mut Vec<Tensor>,
) -> candle_core::Result<f64> {
    let mut gradient = Composed(gradient.detach()).scaled(change.scale)?;
    if change.limit < f64::INFINITY {
        gradient = Composed(gradient.0.clamp(-change.limit, change.limit)?);
    }
    let before: Vec<Composed> = states.iter().map(|t| Composed(t.detach())).collect();
    let Ok(before) = <[Composed; STATES]>::try_from(before) else {
        bail!("a rule of {STATES} states was given {}", states.len())
    };
    let (after, kept) = rule.change(Composed(value.as_detached_tensor()), gradient.clone(), before)?;
    let sum = match rule.measure(&gradient, &kept)? {
        Some(measured) => measured.0.to_dtype(DType::F64)?.sum_all()?.to_scalar()?,
        None => 0.0,
    };
    value.set(&after.0)?;
    *states = kept.into_iter().map(|Composed(t)| t).collect();
    Ok(sum)
}

/// One pass over numbers with states of their own kind.
struct Pass<'a, R, const STATES: usize> {
    rule: R,
    change: GradientChange,
    states: RefCell<&'a mut States>,
    sum: Cell<f64>,
}

impl<const STATES: usize, R: Rule<STATES>> InplaceOp2 for Pass<'_, R, STATES> {
    fn name(&self) -> &'static str {
        "optimiser_step"
    }

    fn cpu_fwd(
        &self,
        value: &mut CpuStorage,
        value_layout: &Layout,
        gradient: &CpuStorage,
        gradient_layout: &Layout,
    ) -> candle_core::Result<()> {
        let sum = match &mut **self.states.borrow_mut() {
            States::F32(s) => self.on::<f32>(value, value_layout, gradient, gradient_layout, s)?,
            States::F64(s) => self.on::<f64>(value, value_layout, gradient, gradient_layout, s)?,
            #[cfg(feature = "cuda")]
            States::Cuda(_) => return elsewhere(),
            States::Composed(_) => return elsewhere(),
        };
        self.sum.set(sum);
        Ok(())
    }

    #[cfg(feature = "cuda")]
    fn cuda_fwd(
        &self,
        value: &mut candle_core::CudaStorage,
        value_layout: &Layout,
        gradient: &candle_core::CudaStorage,
        gradient_layout: &Layout,
    ) -> candle_core::Result<()> {
        let States::Cuda(states) = &mut **self.states.borrow_mut() else {
            return elsewhere();
        };
        let (value, gradient) = ((value, value_layout), (gradient, gradient_layout));
        self.sum.set(device::pass(self.rule, self.change, value, gradient, states)?);
        Ok(())
    }
}

impl<const STATES: usize, R: Rule<STATES>> Pass<'_, R, STATES> {
    fn on<T: Real>(
        &self,
        value: &mut CpuStorage,
        value_layout: &Layout,
        gradient: &CpuStorage,
        gradient_layout: &Layout,
        states: &mut [Vec<T>],
    ) -> candle_core::Result<f64> {
        let (Some((start, end)), Some((from, to))) =
            (value_layout.contiguous_offsets(), gradient_layout.contiguous_offsets())
        else {
            bail!("an optimiser takes contiguous parameters and gradients")
        };
        let Some(numbers) = T::of(value) else { bail!("an optimiser's states have another type") };
        let slices: Vec<&mut [T]> = states.iter_mut().map(Vec::as_mut_slice).collect();
        let found = slices.len();
        let Ok(states) = <[&mut [T]; STATES]>::try_from(slices) else {
            bail!("a rule of {STATES} states was given {found}")
        };
        let part = Part {
            rule: self.rule,
            change: self.change,
            value: &mut numbers[start..end],
            gradient: &gradient.as_slice::<T>()?[from..to],
            states,
        };
        Ok(part.run())
    }
}

fn elsewhere<T>() -> candle_core::Result<T> {
    bail!("an optimiser's states lie on another device than its parameter")
}

/// Elements a task: with four arrays of floats a quarter of a megabyte, which a core's own cache holds.
const CHUNK: usize = 16_384;
/// Below this many elements, waking the other threads takes longer than the pass itself: most parameters of a network
/// (biases, norms) are so small.
const SERIAL: usize = 2 * CHUNK;
/// A stretch of a parameter, its gradient and its states.
pub(crate) struct Part<'a, T, R, const STATES: usize> {
    pub(crate) rule: R,
    pub(crate) change: GradientChange,
    pub(crate) value: &'a mut [T],
    pub(crate) gradient: &'a [T],
    pub(crate) states: [&'a mut [T]; STATES],
}

impl<T: Real, R: Rule<STATES>, const STATES: usize> Part<'_, T, R, STATES> {
    fn run(self) -> f64 {
        let arch = Arch::new();
        if self.value.len() <= SERIAL {
            return T::pass(self, arch);
        }
        let Self { rule, change, value, gradient, states } = self;
        let mut states = states.map(|s| s.chunks_mut(CHUNK));
        let parts: Vec<_> = value
            .chunks_mut(CHUNK)
            .zip(gradient.chunks(CHUNK))
            .map(|(value, gradient)| {
                let states = states.each_mut().map(|s| s.next().unwrap_or_default());
                Part { rule, change, value, gradient, states }
            })
            .collect();
        // Added up in their order, so that the sum is the same for every number of threads.
        let sums: Vec<f64> = parts.into_par_iter().map(|part| T::pass(part, arch)).collect();
        sums.iter().sum()
    }
}

#[cfg(test)]
pub(crate) mod tests {
    #![allow(clippy::unwrap_used)]
    use candle_core::{DType, Device, Tensor, Var};

    use super::{Rule, States, sweep};
    use crate::GradientChange;

    /// What is asked of the rules of every optimiser, in all their forms.
    pub(crate) trait Check {
        fn rule<const STATES: usize>(&self, rule: impl Rule<STATES>);
    }

    pub(crate) fn numbers(count: usize, offset: f64, dtype: DType) -> Tensor {
        let values: Vec<f64> = (0..count).map(|i| ((i as f64 + offset) * 0.37).sin().abs()).collect();
        Tensor::new(values, &Device::Cpu).unwrap().to_dtype(dtype).unwrap()
    }

    fn far(a: &Tensor, b: &Tensor) -> f64 {
        let difference = (a - b).unwrap().abs().unwrap().max_all().unwrap();
        difference.to_dtype(DType::F64).unwrap().to_scalar().unwrap()
    }

    /// The way of the host and the way of other devices must give the same numbers.
    pub(crate) struct BothWaysAgree;

    impl Check for BothWaysAgree {
        fn rule<const STATES: usize>(&self, rule: impl Rule<STATES>) {
            both_ways_agree(rule);
        }
    }

    fn both_ways_agree<const STATES: usize>(rule: impl Rule<STATES>) {
        let change = GradientChange { scale: 0.7, limit: 0.5 };
        // Below a block, with a rest, and in several parallel tasks.
        for count in [5, 100, 40_000] {
            for (dtype, tolerance) in [(DType::F64, 1e-12), (DType::F32, 2e-6)] {
                let start = numbers(count, 0.0, dtype);
                let gradient = numbers(count, 1.0, dtype);
                let kept: Vec<Tensor> = (0..STATES).map(|s| numbers(count, 2.0 + s as f64, dtype)).collect();
                let (host, other) = (Var::from_tensor(&start).unwrap(), Var::from_tensor(&start).unwrap());
                let mut on_host = States::from_tensors(&kept, &host).unwrap();
                let mut elsewhere = States::Composed(kept);
                let sum = sweep(rule, change, &host, &gradient, &mut on_host).unwrap();
                let wanted = sweep(rule, change, &other, &gradient, &mut elsewhere).unwrap();
                assert!((sum - wanted).abs() <= tolerance * (1.0 + wanted.abs()), "{sum} {wanted}");
                assert!(far(&host, &other) <= tolerance);
                assert!(far(&host, &start) > 0.0, "nothing changed");
                let (found, wanted) =
                    (on_host.to_tensors(&host).unwrap(), elsewhere.to_tensors(&other).unwrap());
                for (found, wanted) in found.iter().zip(&wanted) {
                    assert!(far(found, wanted) <= tolerance);
                }
            }
        }
    }
}
