//! Element-wise updates in place, parallel on the host; from candle's own operations on other devices.

use candle_core::{CpuStorage, DType, InplaceOp3, Layout, Tensor, Var, WithDType, bail};
use rayon::prelude::*;

/// A number type of parameters, with what an update needs beside plain arithmetic.
pub(crate) trait Real: WithDType {
    fn root(self) -> Self;
}

impl Real for f32 {
    fn root(self) -> Self {
        self.sqrt()
    }
}

impl Real for f64 {
    fn root(self) -> Self {
        self.sqrt()
    }
}

/// `target <- f(target, a, b)`, element by element.
pub(crate) trait Update: Sync {
    const NAME: &'static str;

    /// On slices of one length.
    fn on_slices<T: Real>(&self, target: &mut [T], a: &[T], b: &[T]);

    /// The same with tensors, for devices without a slice.
    fn on_tensors(&self, target: &Tensor, a: &Tensor, b: &Tensor) -> candle_core::Result<Tensor>;
}

/// Applies `update` to `target` in place; all three are contiguous and of one shape.
pub(crate) fn apply(update: &impl Update, target: &Var, a: &Tensor, b: &Tensor) -> candle_core::Result<()> {
    if target.device().is_cpu() && matches!(target.dtype(), DType::F32 | DType::F64) {
        target.inplace_op3(a, b, &Host(update))
    } else {
        target.set(&update.on_tensors(&target.detach(), &a.detach(), &b.detach())?)
    }
}

/// Elements a task: enough to be worth a thread, few enough to stay in its cache.
const CHUNK: usize = 16_384;

struct Host<'a, U>(&'a U);

impl<U: Update> InplaceOp3 for Host<'_, U> {
    fn name(&self) -> &'static str {
        U::NAME
    }

    fn cpu_fwd(
        &self,
        target: &mut CpuStorage,
        target_layout: &Layout,
        a: &CpuStorage,
        a_layout: &Layout,
        b: &CpuStorage,
        b_layout: &Layout,
    ) -> candle_core::Result<()> {
        match target {
            CpuStorage::F32(target) => {
                run(self.0, range_mut(target, target_layout)?, range(a, a_layout)?, range(b, b_layout)?);
            }
            CpuStorage::F64(target) => {
                run(self.0, range_mut(target, target_layout)?, range(a, a_layout)?, range(b, b_layout)?);
            }
            _ => bail!("{} takes f32 and f64", U::NAME),
        }
        Ok(())
    }
}

fn run<T: Real>(update: &impl Update, target: &mut [T], a: &[T], b: &[T]) {
    target
        .par_chunks_mut(CHUNK)
        .zip(a.par_chunks(CHUNK))
        .zip(b.par_chunks(CHUNK))
        .for_each(|((target, a), b)| update.on_slices(target, a, b));
}

fn range<'a, T: WithDType>(storage: &'a CpuStorage, layout: &Layout) -> candle_core::Result<&'a [T]> {
    match layout.contiguous_offsets() {
        Some((start, end)) => Ok(&storage.as_slice::<T>()?[start..end]),
        None => bail!("an optimiser's update takes contiguous tensors"),
    }
}

fn range_mut<'a, T>(data: &'a mut [T], layout: &Layout) -> candle_core::Result<&'a mut [T]> {
    match layout.contiguous_offsets() {
        Some((start, end)) => Ok(&mut data[start..end]),
        None => bail!("an optimiser's update takes contiguous parameters"),
    }
}

#[cfg(test)]
pub(crate) mod tests {
    #![allow(clippy::unwrap_used)]
    use super::{Update, apply};
    use candle_core::{DType, Device, Tensor, Var};

    /// The way of the host and the way of other devices must give the same numbers.
    pub(crate) fn both_ways_agree(update: &impl Update) {
        let tensor = |offset: f64, dtype| {
            let values: Vec<f64> =
                (0..40_000).map(|i| ((f64::from(i) + offset) * 0.37).sin().abs()).collect();
            Tensor::new(values, &Device::Cpu).unwrap().to_dtype(dtype).unwrap()
        };
        for (dtype, tolerance) in [(DType::F64, 1e-13), (DType::F32, 1e-6)] {
            let (target, a, b) = (tensor(0.0, dtype), tensor(1.0, dtype), tensor(2.0, dtype));
            let wanted = update.on_tensors(&target, &a, &b).unwrap();
            let var = Var::from_tensor(&target).unwrap();
            apply(update, &var, &a, &b).unwrap();
            let far = (var.as_detached_tensor() - wanted).unwrap().abs().unwrap().max_all().unwrap();
            let far = far.to_dtype(DType::F64).unwrap().to_scalar::<f64>().unwrap();
            assert!(far <= tolerance, "{dtype:?}: {far}");
        }
    }
}
