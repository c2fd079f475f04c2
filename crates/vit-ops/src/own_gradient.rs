//! Values with a gradient of their own: for operations that are easily computed by candle, but differentiated wrongly.

use std::sync::{Mutex, PoisonError};

use candle_core::backend::BackendStorage;
use candle_core::{
    CpuStorage, CudaStorage, CustomOp1, CustomOp2, Layout, MetalStorage, Result, Shape, Storage, Tensor, bail,
};

/// `value`, which was computed from `x`, with the gradient that `backward` makes of `x`, the value and the value's
/// gradient.
pub(crate) fn with_gradient(
    x: &Tensor,
    value: &Tensor,
    backward: impl Fn(&Tensor, &Tensor, &Tensor) -> Result<Tensor> + Send + Sync + 'static,
) -> Result<Tensor> {
    if x.track_op() { x.apply_op1(OfOne { value: Known::new(value)?, backward }) } else { Ok(value.detach()) }
}

/// `value`, which was computed from `a` and `b`, with the gradients that `backward` makes of `a`, `b` and the value's
/// gradient.
pub(crate) fn with_gradients(
    a: &Tensor,
    b: &Tensor,
    value: &Tensor,
    backward: impl Fn(&Tensor, &Tensor, &Tensor) -> Result<(Tensor, Tensor)> + Send + Sync + 'static,
) -> Result<Tensor> {
    if a.track_op() || b.track_op() {
        a.apply_op2(b, OfTwo { value: Known::new(value)?, backward })
    } else {
        Ok(value.detach())
    }
}

/// A value on its way into the graph, which asks for it once.
struct Known(Mutex<Option<Tensor>>);

impl Known {
    fn new(value: &Tensor) -> Result<Self> {
        Ok(Self(Mutex::new(Some(value.detach().contiguous()?))))
    }

    fn take(&self) -> Result<Tensor> {
        match self.0.lock().unwrap_or_else(PoisonError::into_inner).take() {
            Some(value) => Ok(value),
            None => bail!("a value was asked for twice"),
        }
    }

    fn on_host(&self) -> Result<(CpuStorage, Shape)> {
        let value = self.take()?;
        let (storage, layout) = value.storage_and_layout();
        match &*storage {
            Storage::Cpu(storage) => Ok((storage.try_clone(layout)?, layout.shape().clone())),
            _ => bail!("a value lies on another device than its argument"),
        }
    }

    fn on_cuda(&self) -> Result<(CudaStorage, Shape)> {
        let value = self.take()?;
        let (storage, layout) = value.storage_and_layout();
        match &*storage {
            Storage::Cuda(storage) => Ok((storage.try_clone(layout)?, layout.shape().clone())),
            _ => bail!("a value lies on another device than its argument"),
        }
    }

    fn on_metal(&self) -> Result<(MetalStorage, Shape)> {
        let value = self.take()?;
        let (storage, layout) = value.storage_and_layout();
        match &*storage {
            Storage::Metal(storage) => Ok((storage.try_clone(layout)?, layout.shape().clone())),
            _ => bail!("a value lies on another device than its argument"),
        }
    }
}

struct OfOne<F> {
    value: Known,
    backward: F,
}

impl<F: Fn(&Tensor, &Tensor, &Tensor) -> Result<Tensor>> CustomOp1 for OfOne<F> {
    fn name(&self) -> &'static str {
        "own_gradient"
    }

    fn cpu_fwd(&self, _: &CpuStorage, _: &Layout) -> Result<(CpuStorage, Shape)> {
        self.value.on_host()
    }

    fn cuda_fwd(&self, _: &CudaStorage, _: &Layout) -> Result<(CudaStorage, Shape)> {
        self.value.on_cuda()
    }

    fn metal_fwd(&self, _: &MetalStorage, _: &Layout) -> Result<(MetalStorage, Shape)> {
        self.value.on_metal()
    }

    fn bwd(&self, x: &Tensor, value: &Tensor, gradient: &Tensor) -> Result<Option<Tensor>> {
        (self.backward)(&x.detach(), &value.detach(), gradient).map(Some)
    }
}

struct OfTwo<F> {
    value: Known,
    backward: F,
}

impl<F: Fn(&Tensor, &Tensor, &Tensor) -> Result<(Tensor, Tensor)>> CustomOp2 for OfTwo<F> {
    fn name(&self) -> &'static str {
        "own_gradients"
    }

    fn cpu_fwd(&self, _: &CpuStorage, _: &Layout, _: &CpuStorage, _: &Layout) -> Result<(CpuStorage, Shape)> {
        self.value.on_host()
    }

    fn cuda_fwd(
        &self,
        _: &CudaStorage,
        _: &Layout,
        _: &CudaStorage,
        _: &Layout,
    ) -> Result<(CudaStorage, Shape)> {
        self.value.on_cuda()
    }

    fn metal_fwd(
        &self,
        _: &MetalStorage,
        _: &Layout,
        _: &MetalStorage,
        _: &Layout,
    ) -> Result<(MetalStorage, Shape)> {
        self.value.on_metal()
    }

    fn bwd(
        &self,
        a: &Tensor,
        b: &Tensor,
        _: &Tensor,
        gradient: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let (of_a, of_b) = (self.backward)(&a.detach(), &b.detach(), gradient)?;
        Ok((Some(of_a), Some(of_b)))
    }
}
