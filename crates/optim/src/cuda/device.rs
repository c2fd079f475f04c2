//! A GPU as a [`Machine`]. The unsafe code of this crate is here and nowhere else.
#![allow(unsafe_code)]

use std::collections::HashMap;
use std::sync::{Arc, LazyLock, Mutex, PoisonError};

use candle_core::backend::{BackendDevice, BackendStorage};
use candle_core::cuda_backend::cudarc::nvrtc::{CompileError, CompileOptions, compile_ptx_with_opts};
use candle_core::cuda_backend::{CudaStorageSlice, WrapErr};
use candle_core::op::BackpropOp;
use candle_core::{CudaDevice, CudaStorage, DType, Device, Layout, Result, Shape, Storage, Tensor, bail};
use kernel_launch::device;

use super::text::NAME;
use super::{Arg, Elements, Grid, Kernel, Machine, Precision};
use crate::GradientChange;
use crate::sweep::Rule;

/// Applies `rule` to a parameter on a GPU, each array with its layout; gives the sum of what it measures.
pub(crate) fn pass<const STATES: usize, R: Rule<STATES>>(
    rule: R,
    change: GradientChange,
    (value, value_layout): (&mut CudaStorage, &Layout),
    (gradient, gradient_layout): (&CudaStorage, &Layout),
    states: &mut [CudaStorage],
) -> Result<f64> {
    let (Some((start, end)), Some((from, to))) =
        (value_layout.contiguous_offsets(), gradient_layout.contiguous_offsets())
    else {
        bail!("an optimiser takes contiguous parameters and gradients")
    };
    let count = end - start;
    let device = value.device.clone();
    // The kernel goes over `count` elements of every array.
    if to - from != count || states.iter().any(|state| len(state) != count) {
        bail!("an optimiser's gradient or states have another size than their parameter")
    }
    if [gradient].into_iter().chain(&*states).any(|other| !other.device.same_device(&device)) {
        bail!("an optimiser's gradient or states lie on another device than their parameter")
    }
    let dtypes = [value.dtype(), gradient.dtype()];
    let precision = match dtypes {
        [DType::F32, DType::F32] => Precision::F32,
        [DType::F64, DType::F64] => Precision::F64,
        [value, gradient] => {
            bail!("an optimiser's kernels take f32 or f64, not {} and {}", value.as_str(), gradient.as_str())
        }
    };
    if states.iter().any(|state| state.dtype() != dtypes[0]) {
        bail!("an optimiser's states have another type")
    }
    let elements = Elements { precision, count, value: (value, start), gradient: (gradient, from), states };
    super::pass(&device, rule, change, elements)
}

/// How many numbers a storage of f32 or f64 holds; 0 for others.
fn len(storage: &CudaStorage) -> usize {
    match &storage.slice {
        CudaStorageSlice::F32(slice) => slice.len(),
        CudaStorageSlice::F64(slice) => slice.len(),
        _ => 0,
    }
}

/// A copy of a tensor's numbers on a GPU, in their order.
pub(crate) fn storage(tensor: &Tensor, device: &Device) -> Result<CudaStorage> {
    let tensor = tensor.to_device(device)?;
    let (storage, layout) = tensor.storage_and_layout();
    match &*storage {
        Storage::Cuda(storage) => copy(storage, layout),
        _ => bail!("an optimiser's states go to a GPU"),
    }
}

/// A tensor with a copy of a storage's numbers.
pub(crate) fn tensor(storage: &CudaStorage, shape: &Shape) -> Result<Tensor> {
    let copy = copy(storage, &Layout::contiguous(shape))?;
    Ok(Tensor::from_storage(Storage::Cuda(copy), shape, BackpropOp::none(), false))
}

fn copy(storage: &CudaStorage, layout: &Layout) -> Result<CudaStorage> {
    let mut copy = storage.device.zeros_impl(layout.shape(), storage.dtype())?;
    storage.copy_strided_src(&mut copy, 0, layout)?;
    Ok(copy)
}

impl Machine for CudaDevice {
    type Array = CudaStorage;

    fn sums(&self, len: usize) -> Result<CudaStorage> {
        Ok(CudaStorage::wrap_cuda_slice(self.alloc_zeros::<f64>(len)?, self.clone()))
    }

    fn launch(&self, kernel: &Kernel, grid: Grid, args: &mut [Arg<'_, CudaStorage>]) -> Result<()> {
        let capability = self.cuda_stream().context().compute_capability().w()?;
        let compiled = compiled(kernel, capability)?;
        let kernel = device::Kernel { name: NAME, module: &compiled.module, ptx: &compiled.ptx };
        // SAFETY: the arguments are those of the kernel in number, order and type (the tests run every rule's kernel on
        // the host, which checks them); `pass` has made sure that every array holds the elements that the kernel goes
        // over, and that there is a sum for each block; no array is given twice.
        unsafe { device::launch(self, kernel, grid, args) }
    }

    fn numbers(&self, sums: &CudaStorage) -> Result<Vec<f64>> {
        self.clone_dtoh(sums.as_cuda_slice::<f64>()?)
    }
}

/// A kernel as a driver takes it.
#[derive(Debug)]
struct Compiled {
    /// A name that no other kernel has: devices keep their modules under it.
    module: String,
    ptx: String,
}

/// Compiles a kernel the first time that this process asks for it.
fn compiled(kernel: &Kernel, capability: (i32, i32)) -> Result<Arc<Compiled>> {
    type All = HashMap<(Kernel, (i32, i32)), Arc<Compiled>>;
    static ALL: LazyLock<Mutex<All>> = LazyLock::new(Mutex::default);
    // A kernel is entered whole or not at all, whatever happened to the thread that held the lock.
    let mut all = ALL.lock().unwrap_or_else(PoisonError::into_inner);
    let key = (kernel.clone(), capability);
    if let Some(compiled) = all.get(&key) {
        return Ok(compiled.clone());
    }
    let module = format!("optim_{}", all.len());
    let compiled = Arc::new(Compiled { module, ptx: compile(&kernel.text(), capability)? });
    all.insert(key, compiled.clone());
    Ok(compiled)
}

/// A kernel's text as PTX for this compute capability, with the roundings of the host's pass: one for each operation.
fn compile(text: &str, (major, minor): (i32, i32)) -> Result<String> {
    let options = CompileOptions {
        name: Some("step.cu".to_owned()),
        fmad: Some(false),
        ftz: Some(false),
        prec_div: Some(true),
        prec_sqrt: Some(true),
        options: vec![format!("--gpu-architecture=compute_{major}{minor}")],
        ..CompileOptions::default()
    };
    match compile_ptx_with_opts(text, options) {
        Ok(ptx) => Ok(ptx.to_src()),
        Err(CompileError::CompileError { nvrtc, log, .. }) => {
            bail!("NVRTC refuses an optimiser's kernel ({nvrtc:?}):\n{}\n{text}", log.to_string_lossy())
        }
        Err(other) => bail!("NVRTC gave no code for an optimiser's kernel: {other:?}"),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::{compile, compiled};
    use crate::GradientChange;
    use crate::cuda::formula::Formula;
    use crate::cuda::{Kernel, Precision};
    use crate::sweep::Rule;
    use crate::sweep::tests::Check;

    struct Compiles;

    impl Check for Compiles {
        fn rule<const STATES: usize>(&self, rule: impl Rule<STATES>) {
            let (formula, _) = Formula::of(rule, GradientChange::default());
            for precision in [Precision::F32, Precision::F64] {
                let kernel = Kernel { formula: formula.clone(), precision };
                let found = compiled(&kernel, (9, 0)).unwrap();
                assert!(found.ptx.contains(".entry step("), "{}", found.ptx);
                // The driver fuses and approximates nothing that is written like this.
                let inexact = ["fma.", ".approx", ".ftz", "add.f", "sub.f", "mul.f"];
                assert!(!inexact.iter().any(|word| found.ptx.contains(word)), "{}", found.ptx);
                assert_eq!(compiled(&kernel, (9, 0)).unwrap().module, found.module);
                assert_ne!(compiled(&kernel, (8, 0)).unwrap().module, found.module);
            }
        }
    }

    #[test]
    fn nvrtc_takes_every_kernel() {
        crate::adam::tests::every_form(&Compiles);
        crate::sgd::tests::every_form(&Compiles);
        crate::rms_prop::tests::every_form(&Compiles);
        crate::adagrad::tests::every_form(&Compiles);
        crate::adadelta::tests::every_form(&Compiles);
    }

    #[test]
    fn a_text_that_nvrtc_refuses_comes_with_its_log() {
        let message = compile("extern \"C\" __global__ void step() { nothing = 1; }", (9, 0)).unwrap_err();
        let message = message.to_string();
        assert!(message.contains("step.cu(1): error") && message.contains("\"nothing\""), "{message}");
    }
}
