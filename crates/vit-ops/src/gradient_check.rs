//! For the tests: gradients against central differences, in f64.
#![allow(clippy::unwrap_used)]

use candle_core::{DType, Device, Tensor, Var};
use random_streams::Streams;

use crate::Result;

/// Standard normal numbers, f64, of `shape`; every `seed` has its own.
pub(crate) fn normal(shape: &[usize], seed: u64) -> Tensor {
    let mut draws = vec![0_f32; shape.iter().product()];
    Streams::new(seed).stream("test").fill_normal(&mut draws);
    Tensor::from_vec(draws, shape, &Device::Cpu).unwrap().to_dtype(DType::F64).unwrap()
}

/// All elements, row by row.
pub(crate) fn values(t: &Tensor) -> Vec<f64> {
    t.to_dtype(DType::F64).unwrap().flatten_all().unwrap().to_vec1().unwrap()
}

/// Same shape, and no element further apart than `tolerance`.
#[track_caller]
pub(crate) fn same(a: &Tensor, b: &Tensor, tolerance: f64) {
    assert_eq!(a.dims(), b.dims());
    for (i, (a, b)) in values(a).into_iter().zip(values(b)).enumerate() {
        assert!((a - b).abs() <= tolerance, "element {i}: {a} and {b}");
    }
}

/// Every input must have a gradient, and the one that central differences give.
#[track_caller]
pub(crate) fn check_gradients(inputs: &[Tensor], f: impl Fn(&[Tensor]) -> Result<Tensor>) {
    let vars: Vec<Var> = inputs.iter().map(|t| Var::from_tensor(t).unwrap()).collect();
    let tensors: Vec<Tensor> = vars.iter().map(|v| v.as_tensor().clone()).collect();
    let y = f(&tensors).unwrap();
    // A plain sum would hide errors that cancel (the rows of a softmax sum to 1).
    let weights = normal(y.dims(), 1_000_003);
    let gradients = (&y * &weights).unwrap().sum_all().unwrap().backward().unwrap();
    let loss = |tensors: &[Tensor]| -> f64 {
        (f(tensors).unwrap() * &weights).unwrap().sum_all().unwrap().to_scalar().unwrap()
    };
    for (which, var) in vars.iter().enumerate() {
        let gradient = gradients.get(var).unwrap_or_else(|| panic!("input {which} has no gradient"));
        assert_eq!(gradient.dims(), var.dims());
        let found = values(gradient);
        let start = values(&inputs[which]);
        for element in 0..start.len() {
            let step = 1e-5;
            let moved = |by: f64| {
                let mut data = start.clone();
                data[element] += by;
                let mut all = inputs.to_vec();
                all[which] = Tensor::from_vec(data, inputs[which].shape(), &Device::Cpu).unwrap();
                loss(&all)
            };
            let wanted = (moved(step) - moved(-step)) / (2.0 * step);
            let tolerance = 1e-6 * (1.0 + wanted.abs());
            assert!(
                (found[element] - wanted).abs() <= tolerance,
                "input {which}, element {element}: gradient {} but differences give {wanted}",
                found[element]
            );
        }
    }
}
