//! A GPU as a [`Machine`]. The unsafe code of the CUDA side is here and nowhere else.
#![allow(unsafe_code)]

use candle_core::{CudaDevice, CudaStorage, DType, Layout, Result, bail};
use kernel_launch::device::{self, Kernel};

use super::{Arg, Input, Launch, Machine, Module};

// Written by cudaforge, with wider visibility than it needs.
#[allow(unreachable_pub)]
mod ptx {
    include!(concat!(env!("OUT_DIR"), "/ptx.rs"));
}

impl Module {
    fn code(self) -> &'static str {
        match self {
            Self::Attention => ptx::ATTENTION,
            Self::Columns => ptx::COLUMNS,
            Self::Elements => ptx::ELEMENTS,
            Self::Maps => ptx::MAPS,
            Self::Rows => ptx::ROWS,
            Self::Ssim => ptx::SSIM,
        }
    }
}

impl Machine for CudaDevice {
    type Array = CudaStorage;

    fn array(&self, dtype: DType, len: usize) -> Result<CudaStorage> {
        // SAFETY: the numbers are not read before a kernel has written them: every caller launches one that fills the
        // whole array.
        unsafe { device::array(self, dtype, len) }
    }

    fn launch(&self, launch: &Launch, args: &mut [Arg<'_, CudaStorage>]) -> Result<()> {
        // Other crates' modules share the device's list.
        let module = format!("vit_ops_{}", launch.module.name());
        let kernel = Kernel { name: &launch.kernel, module: &module, ptx: launch.module.code() };
        // SAFETY: the arguments are those of the kernel in number, order and type (the tests run every launch on the
        // host, which checks them), and the arrays have the sizes that the kernel's bounds are computed from.
        unsafe { device::launch(self, kernel, launch.grid, args) }
    }
}

/// A contiguous tensor to read.
pub(crate) fn input<'a>(storage: &'a CudaStorage, layout: &Layout) -> Result<Input<'a, CudaStorage>> {
    match layout.contiguous_offsets() {
        Some((start, _)) => Ok(Input { array: storage, start }),
        None => bail!("a CUDA kernel takes contiguous tensors"),
    }
}
