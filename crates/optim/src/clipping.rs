use candle_core::backprop::GradStore;
use candle_core::{CpuStorage, DType, Storage, Tensor, Var, WithDType};
use pulp::{Arch, NullaryFnOnce};
use rayon::prelude::*;

use crate::{Error, Result};

/// What is done to every element of every gradient on its way into a step.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct GradientChange {
    /// What it is multiplied by; 1.
    pub scale: f64,
    /// How far from zero it may be after that (`PyTorch`'s `clip_grad_value_`); infinity.
    pub limit: f64,
}

impl Default for GradientChange {
    fn default() -> Self {
        Self { scale: 1.0, limit: f64::INFINITY }
    }
}

impl GradientChange {
    /// What brings gradients of the norm `norm` to at most `max_norm`: the scale `max_norm / (norm + 1e-6)`, at
    /// most 1 (`PyTorch`'s `clip_grad_norm_`).
    ///
    /// # Errors
    ///
    /// If the norm is NaN or infinite: no clipping makes a usable step of that. If `max_norm` is NaN or below 0.
    pub fn to_norm(norm: f64, max_norm: f64) -> Result<Self> {
        if !norm.is_finite() {
            return Err(Error::NotFinite(norm));
        }
        if max_norm.is_nan() || max_norm < 0.0 {
            return Err(Error::Option { option: "max_norm", expected: "not negative", found: max_norm });
        }
        Ok(Self { scale: (max_norm / (norm + 1e-6)).min(1.0), ..Self::default() })
    }

    pub(crate) fn check(&self) -> Result<()> {
        if !self.scale.is_finite() {
            return Err(Error::Option { option: "scale", expected: "finite", found: self.scale });
        }
        if self.limit.is_nan() || self.limit < 0.0 {
            return Err(Error::Option { option: "limit", expected: "not negative", found: self.limit });
        }
        Ok(())
    }
}

/// The Euclidean norm of all gradients of `parameters` taken together; those without gradient count nothing. Squares
/// are added up in f64.
///
/// # Errors
///
/// If the device cannot compute it.
pub fn gradient_norm<'a>(
    gradients: &GradStore,
    parameters: impl IntoIterator<Item = &'a Var>,
) -> Result<f64> {
    let mut sum = 0.0;
    let mut elsewhere = Vec::new();
    for var in parameters {
        if let Some(gradient) = gradients.get(var) {
            match on_host(&gradient.detach()) {
                Some(squares) => sum += squares,
                None => elsewhere.push(squares(&gradient.detach())?),
            }
        }
    }
    sum += read(&elsewhere)?.iter().sum::<f64>();
    Ok(sum.sqrt())
}

/// Scales the gradients of `parameters` in place as [`GradientChange::to_norm`] says, and returns the norm before it.
/// [`Optimizer::step_clipped`](crate::Optimizer::step_clipped) does the same on the way, without another pass.
///
/// # Errors
///
/// As [`GradientChange::to_norm`].
pub fn clip_grad_norm<'a>(
    gradients: &mut GradStore,
    parameters: impl IntoIterator<Item = &'a Var>,
    max_norm: f64,
) -> Result<f64> {
    let parameters: Vec<&Var> = parameters.into_iter().collect();
    let norm = gradient_norm(gradients, parameters.iter().copied())?;
    let change = GradientChange::to_norm(norm, max_norm)?;
    if change.scale < 1.0 {
        for var in parameters {
            if let Some(gradient) = gradients.remove(var) {
                gradients.insert(var, (gradient * change.scale)?);
            }
        }
    }
    Ok(norm)
}

/// The sum of squares of contiguous numbers on the host.
fn on_host(gradient: &Tensor) -> Option<f64> {
    let (storage, layout) = gradient.storage_and_layout();
    let (start, end) = layout.contiguous_offsets()?;
    match &*storage {
        Storage::Cpu(CpuStorage::F32(numbers)) => Some(on_slice(&numbers[start..end])),
        Storage::Cpu(CpuStorage::F64(numbers)) => Some(on_slice(&numbers[start..end])),
        _ => None,
    }
}

/// The sum of squares, a number where the gradient is.
fn squares(gradient: &Tensor) -> candle_core::Result<Tensor> {
    gradient.to_dtype(DType::F64)?.sqr()?.sum_all()
}

/// Single numbers, of which those on one device are waited for together.
fn read(numbers: &[Tensor]) -> candle_core::Result<Vec<f64>> {
    let mut found = Vec::with_capacity(numbers.len());
    for numbers in numbers.chunk_by(|a, b| a.device().same_device(b.device())) {
        found.extend(Tensor::stack(numbers, 0)?.to_vec1::<f64>()?);
    }
    Ok(found)
}

/// Elements a task.
const CHUNK: usize = 65_536;
const LANES: usize = 32;

fn on_slice<T: WithDType>(numbers: &[T]) -> f64 {
    let arch = Arch::new();
    if numbers.len() <= CHUNK {
        return arch.dispatch(Squares(numbers));
    }
    // Added up in their order, so that the sum is the same for every number of threads.
    let sums: Vec<f64> = numbers.par_chunks(CHUNK).map(|numbers| arch.dispatch(Squares(numbers))).collect();
    sums.iter().sum()
}

struct Squares<'a, T>(&'a [T]);

impl<T: WithDType> NullaryFnOnce for Squares<'_, T> {
    type Output = f64;

    #[inline(always)]
    fn call(self) -> f64 {
        let (blocks, rest) = self.0.as_chunks::<LANES>();
        let mut sums = [0.0; LANES];
        for block in blocks {
            for (sum, number) in sums.iter_mut().zip(block) {
                let number = number.to_f64();
                *sum += number * number;
            }
        }
        let rest: f64 = rest.iter().map(|number| number.to_f64() * number.to_f64()).sum();
        sums.iter().sum::<f64>() + rest
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::{GradientChange, clip_grad_norm, gradient_norm};
    use crate::{Error, Optimizer, ParameterGroup, Sgd, SgdOptions};
    use candle_core::backprop::GradStore;
    use candle_core::{DType, Device, Tensor, Var};

    fn case() -> (Var, Var, GradStore) {
        let (a, b) =
            (Var::new(&[1_f32, 1.], &Device::Cpu).unwrap(), Var::new(&[1_f32], &Device::Cpu).unwrap());
        let loss = ((a.sum_all().unwrap() * 3.0).unwrap() + (b.sum_all().unwrap() * 4.0).unwrap()).unwrap();
        let store = loss.backward().unwrap();
        (a, b, store)
    }

    #[test]
    fn long_gradients_are_cut_and_short_ones_stay() {
        let (a, b, mut store) = case();
        let wanted = (9.0_f64 + 9.0 + 16.0).sqrt();
        assert!((clip_grad_norm(&mut store, [&a, &b], 100.0).unwrap() - wanted).abs() < 1e-9);
        assert_eq!(store.get(&b).unwrap().to_vec1::<f32>().unwrap(), [4.0]);
        assert!((clip_grad_norm(&mut store, [&a, &b], 1.0).unwrap() - wanted).abs() < 1e-9);
        assert!((gradient_norm(&store, [&a, &b]).unwrap() - 1.0).abs() < 1e-6);
        let ratio = store.get(&b).unwrap().to_vec1::<f32>().unwrap()[0]
            / store.get(&a).unwrap().to_vec1::<f32>().unwrap()[0];
        assert!((ratio - 4.0 / 3.0).abs() < 1e-6);
    }

    #[test]
    fn nan_is_refused() {
        let (a, b, mut store) = case();
        for max_norm in [f64::NAN, -1.0] {
            let message = clip_grad_norm(&mut store, [&a, &b], max_norm).unwrap_err().to_string();
            assert!(message.contains("max_norm"), "{message}");
        }
        assert!(GradientChange::to_norm(5.0, f64::INFINITY).unwrap() == GradientChange::default());
        let nan = (store.get(&b).unwrap() * f64::NAN).unwrap();
        store.insert(&b, nan);
        assert!(matches!(clip_grad_norm(&mut store, [&a, &b], 1.0), Err(Error::NotFinite(_))));
    }

    #[test]
    fn the_norm_is_that_of_all_elements_in_every_layout() {
        for dtype in [DType::F32, DType::F64] {
            let values = Tensor::arange(0_f64, 300_000., &Device::Cpu).unwrap().to_dtype(dtype).unwrap();
            let values = (values / 1e5).unwrap().reshape((300, 1000)).unwrap();
            let wanted: f64 = (0..300_000).map(|i| (f64::from(i) / 1e5).powi(2)).sum::<f64>().sqrt();
            let var = Var::zeros((1000, 300), dtype, &Device::Cpu).unwrap();
            let mut store = var.sum_all().unwrap().backward().unwrap();
            for gradient in [values.t().unwrap(), values.t().unwrap().contiguous().unwrap()] {
                store.insert(&var, gradient);
                let found = gradient_norm(&store, [&var]).unwrap();
                assert!((found / wanted - 1.0).abs() < 1e-6, "{found} {wanted}");
            }
            // Several, of which some are read together.
            let vars = [(); 3].map(|()| Var::zeros((1000, 300), dtype, &Device::Cpu).unwrap());
            let strided = values.t().unwrap();
            for (var, gradient) in
                vars.iter().zip([strided.clone(), strided.contiguous().unwrap(), (strided * 2.0).unwrap()])
            {
                store.insert(var, gradient);
            }
            let found = gradient_norm(&store, &vars).unwrap();
            assert!((found / wanted - 6_f64.sqrt()).abs() < 1e-6, "{found} {wanted}");
        }
    }

    #[test]
    fn a_clipped_step_is_a_step_along_clipped_gradients() {
        let (a, b, mut store) = case();
        let group = ParameterGroup::new([("a".to_owned(), a.clone()), ("b".to_owned(), b.clone())]);
        let mut sgd =
            Sgd::new(vec![group], SgdOptions { learning_rate: 1.0, ..SgdOptions::default() }).unwrap();
        let norm = sgd.step_clipped(&store, 2.0).unwrap();
        assert!((norm - 34_f64.sqrt()).abs() < 1e-9);
        let moved = [1.0 - a.to_vec1::<f32>().unwrap()[0], 1.0 - b.to_vec1::<f32>().unwrap()[0]];
        let scale = 2.0 / 34_f32.sqrt();
        assert!((moved[0] - 3.0 * scale).abs() < 1e-6 && (moved[1] - 4.0 * scale).abs() < 1e-6);

        let before = b.to_vec1::<f32>().unwrap()[0];
        sgd.step_with(&store, GradientChange { scale: 0.5, limit: 1.75 }).unwrap();
        assert!((before - b.to_vec1::<f32>().unwrap()[0] - 1.75).abs() < 1e-6);
        assert!(sgd.step_with(&store, GradientChange { scale: 1.0, limit: -1.0 }).is_err());
        assert!(sgd.step_with(&store, GradientChange { scale: f64::NAN, limit: 1.0 }).is_err());
        let nan = (store.get(&b).unwrap() * f64::NAN).unwrap();
        store.insert(&b, nan);
        let before = a.to_vec1::<f32>().unwrap();
        assert!(matches!(sgd.step_clipped(&store, 2.0), Err(Error::NotFinite(_))));
        assert_eq!(a.to_vec1::<f32>().unwrap(), before);
    }
}
