//! Runs every rule's kernel on the host, from the text that a GPU runs, and compares with the host's own pass.
#![allow(clippy::unwrap_used)]

use std::cell::{Cell, RefCell};
use std::collections::HashMap;

use candle_core::{DType, Device, Result, Tensor, Var};
use kernel_launch::host::{HostArray, Program};

use super::text::NAME;
use super::{Arg, Elements, Grid, Kernel, Machine, Precision, pass};
use crate::GradientChange;
use crate::number::Number;
use crate::sweep::tests::{Check, numbers};
use crate::sweep::{Changed, Rule, States, sweep};

/// Numbers of a tensor.
fn array(tensor: &Tensor) -> HostArray {
    let tensor = tensor.flatten_all().unwrap();
    let bytes = match tensor.dtype() {
        DType::F32 => tensor.to_vec1::<f32>().unwrap().iter().flat_map(|v| v.to_le_bytes()).collect(),
        DType::F64 => tensor.to_vec1::<f64>().unwrap().iter().flat_map(|v| v.to_le_bytes()).collect(),
        other => panic!("{other:?}"),
    };
    HostArray { dtype: tensor.dtype(), bytes }
}

/// The host, its threads running in this order or in the reverse.
struct Host {
    backward: Cell<bool>,
    /// The program of each kernel so far.
    programs: RefCell<HashMap<Kernel, Program>>,
}

impl Host {
    fn new() -> Self {
        Self { backward: Cell::new(false), programs: RefCell::default() }
    }

    fn compiled(kernel: &Kernel) -> Program {
        let folder = tempfile::tempdir().unwrap();
        let source = folder.path().join("step.cu");
        std::fs::write(&source, format!("{}LIST_KERNEL({NAME})\n", kernel.text())).unwrap();
        Program::compile(&[source], &["-ffp-contract=off", "-include", "host.h"]).unwrap()
    }
}

impl Machine for Host {
    type Array = HostArray;

    fn sums(&self, len: usize) -> Result<HostArray> {
        Ok(HostArray::unwritten(DType::F64, len))
    }

    fn launch(&self, kernel: &Kernel, grid: Grid, args: &mut [Arg<'_, HostArray>]) -> Result<()> {
        let mut programs = self.programs.borrow_mut();
        let program = programs.entry(kernel.clone()).or_insert_with(|| Self::compiled(kernel));
        program.launch(NAME, grid, self.backward.get(), args)
    }

    fn numbers(&self, sums: &HostArray) -> Result<Vec<f64>> {
        let (numbers, rest) = sums.bytes.as_chunks();
        assert!(rest.is_empty());
        Ok(numbers.iter().map(|bytes| f64::from_le_bytes(*bytes)).collect())
    }
}

/// What a step starts from.
struct Start {
    value: Tensor,
    gradient: Tensor,
    states: Vec<Tensor>,
}

impl Start {
    /// Gradients have both signs, and some are beyond the limit.
    fn new(count: usize, states: usize, dtype: DType) -> Self {
        let gradient = (numbers(count, 1.0, DType::F64) - 0.5).unwrap() * 4.0;
        Self {
            value: numbers(count, 0.0, dtype),
            gradient: gradient.unwrap().to_dtype(dtype).unwrap(),
            states: (0..states).map(|state| numbers(count, 2.0 + state as f64, dtype)).collect(),
        }
    }

    /// The host's pass and the kernel, in both orders of its threads, must give the same bits; sums of what is measured
    /// are added up in other orders, the host's blocks in the type itself.
    fn check<const STATES: usize, R: Rule<STATES>>(&self, host: &Host, rule: R) {
        let change = GradientChange { scale: 0.7, limit: 0.5 };
        let var = Var::from_tensor(&self.value).unwrap();
        let mut wanted = States::from_tensors(&self.states, &var).unwrap();
        let wanted_sum = sweep(rule, change, &var, &self.gradient, &mut wanted).unwrap();
        let wanted = wanted.to_tensors(&var).unwrap();
        let count = self.value.elem_count();
        let (precision, tolerance) = match self.value.dtype() {
            DType::F32 => (Precision::F32, 2e-6),
            _ => (Precision::F64, 1e-12),
        };
        let mut sums = Vec::new();
        for backward in [false, true] {
            host.backward.set(backward);
            // Numbers before the gradient's own, as in a part of a tensor.
            let gradient = array(&Tensor::cat(&[&self.gradient, &self.gradient], 0).unwrap());
            let mut value = array(&self.value);
            let mut states: Vec<HostArray> = self.states.iter().map(array).collect();
            let elements = Elements {
                precision,
                count,
                value: (&mut value, 0),
                gradient: (&gradient, count),
                states: &mut states,
            };
            sums.push(pass(host, rule, change, elements).unwrap());
            assert!(value.bytes == array(&var).bytes, "{count} values, {precision:?}");
            for (place, (found, wanted)) in states.iter().zip(&wanted).enumerate() {
                assert!(found.bytes == array(wanted).bytes, "{count} of state {place}, {precision:?}");
            }
        }
        assert_eq!(sums[0], sums[1]);
        assert!(
            (sums[0] - wanted_sum).abs() <= tolerance * (1.0 + wanted_sum.abs()),
            "{sums:?} {wanted_sum}"
        );
    }
}

struct Runs(Host);

impl Check for Runs {
    fn rule<const STATES: usize>(&self, rule: impl Rule<STATES>) {
        for count in [5, 100, 40_000] {
            for dtype in [DType::F64, DType::F32] {
                Start::new(count, STATES, dtype).check(&self.0, rule);
            }
        }
    }
}

#[test]
#[ignore = "needs a C++ compiler"]
fn kernels_on_host_adam() {
    crate::adam::tests::every_form(&Runs(Host::new()));
}

#[test]
#[ignore = "needs a C++ compiler"]
fn kernels_on_host_sgd() {
    crate::sgd::tests::every_form(&Runs(Host::new()));
}

#[test]
#[ignore = "needs a C++ compiler"]
fn kernels_on_host_rms_prop() {
    crate::rms_prop::tests::every_form(&Runs(Host::new()));
}

#[test]
#[ignore = "needs a C++ compiler"]
fn kernels_on_host_adagrad() {
    crate::adagrad::tests::every_form(&Runs(Host::new()));
}

#[test]
#[ignore = "needs a C++ compiler"]
fn kernels_on_host_adadelta() {
    crate::adadelta::tests::every_form(&Runs(Host::new()));
}

/// Puts the gradient into the value and the larger of both into the state; measures that.
#[derive(Clone, Copy)]
struct Keep;

impl Rule<1> for Keep {
    fn change<N: Number>(&self, value: N, gradient: N, _: [N; 1]) -> Changed<N, 1> {
        let larger = gradient.larger(&value)?;
        Ok((gradient, [larger]))
    }

    fn measure<N: Number>(&self, _: &N, [larger]: &[N; 1]) -> std::result::Result<Option<N>, N::Error> {
        Ok(Some(larger.clone()))
    }
}

#[test]
#[ignore = "needs a C++ compiler"]
fn kernels_on_host_go_over_more_elements_than_threads() {
    Start::new(1_060_000, 1, DType::F64).check(&Host::new(), Keep);
}

#[test]
#[ignore = "needs a C++ compiler"]
fn kernels_on_host_keep_nan_and_cut_infinity() {
    let t = |values: &[f32]| Tensor::new(values, &Device::Cpu).unwrap();
    let host = Host::new();
    let (nan, inf) = (f32::NAN, f32::INFINITY);
    let gradient = array(&t(&[nan, inf, -inf, 0.1, nan]));
    let (mut value, mut states) = (array(&t(&[0., 0., 0., nan, 9.])), [array(&t(&[0.; 5]))]);
    let elements = Elements {
        precision: Precision::F32,
        count: 5,
        value: (&mut value, 0),
        gradient: (&gradient, 0),
        states: &mut states,
    };
    let sum = pass(&host, Keep, GradientChange { scale: 1.0, limit: 0.5 }, elements).unwrap();
    let found = |array: &HostArray| -> Vec<f32> {
        array.bytes.as_chunks().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect()
    };
    let value = found(&value);
    assert!(sum.is_nan() && value[0].is_nan() && value[4].is_nan());
    assert_eq!(value[1..4], [0.5, -0.5, 0.1]);
    let larger = found(&states[0]);
    assert!(larger[0].is_nan() && larger[4].is_nan());
    assert_eq!(larger[1..4], [0.5, 0.0, 0.1]);
}
