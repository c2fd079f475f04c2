//! A GPU as a [`Machine`]. The unsafe code of the CUDA side is here and nowhere else.
#![allow(unsafe_code)]

use candle_core::backend::BackendStorage;
use candle_core::cuda_backend::cudarc::driver::{
    CudaSlice, CudaStream, DevicePtr, DevicePtrMut, DeviceRepr, LaunchConfig, PushKernelArg, SyncOnDrop,
};
use candle_core::cuda_backend::{CudaStorageSlice, WrapErr};
use candle_core::{CudaDevice, CudaStorage, DType, Layout, Result, bail};
use half::{bf16, f16};

use super::attention::Words;
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

// SAFETY: `Words` is an array of 32-bit words without padding, as is `struct Shape` of attention.cu.
unsafe impl DeviceRepr for Words {}

/// The values of arguments, which must stay in place until the launch.
enum Value {
    Number32(u32),
    Number64(u64),
    Float(f32),
    Words(Words),
}

/// A device's numbers from `start` on, for reading; the guard tells the device when they have been read.
fn read<'a>(storage: &'a CudaStorage, start: usize, stream: &'a CudaStream) -> Result<(u64, SyncOnDrop<'a>)> {
    fn of<'a, T>(slice: &'a CudaSlice<T>, start: usize, stream: &'a CudaStream) -> (u64, SyncOnDrop<'a>) {
        let (address, guard) = slice.device_ptr(stream);
        (address + (start * size_of::<T>()) as u64, guard)
    }
    Ok(match &storage.slice {
        CudaStorageSlice::U8(slice) => of(slice, start, stream),
        CudaStorageSlice::U32(slice) => of(slice, start, stream),
        CudaStorageSlice::F32(slice) => of(slice, start, stream),
        CudaStorageSlice::F16(slice) => of(slice, start, stream),
        CudaStorageSlice::BF16(slice) => of(slice, start, stream),
        _ => bail!("the CUDA kernels take u8, u32, f32, f16 and bf16, not {}", storage.dtype().as_str()),
    })
}

/// As [`read`], for writing.
fn write<'a>(
    storage: &'a mut CudaStorage,
    start: usize,
    stream: &'a CudaStream,
) -> Result<(u64, SyncOnDrop<'a>)> {
    fn of<'a, T>(slice: &'a mut CudaSlice<T>, start: usize, stream: &'a CudaStream) -> (u64, SyncOnDrop<'a>) {
        let (address, guard) = slice.device_ptr_mut(stream);
        (address + (start * size_of::<T>()) as u64, guard)
    }
    let dtype = storage.dtype();
    Ok(match &mut storage.slice {
        CudaStorageSlice::F32(slice) => of(slice, start, stream),
        CudaStorageSlice::F16(slice) => of(slice, start, stream),
        CudaStorageSlice::BF16(slice) => of(slice, start, stream),
        _ => bail!("the CUDA kernels fill f32, f16 and bf16, not {}", dtype.as_str()),
    })
}

impl Machine for CudaDevice {
    type Array = CudaStorage;

    fn array(&self, dtype: DType, len: usize) -> Result<CudaStorage> {
        // A kernel is never given an empty array, and the driver allocates none.
        let len = len.max(1);
        // SAFETY: the numbers are not read before a kernel has written them: every caller launches one that fills the
        // whole array.
        Ok(unsafe {
            match dtype {
                DType::F32 => CudaStorage::wrap_cuda_slice(self.alloc::<f32>(len)?, self.clone()),
                DType::F16 => CudaStorage::wrap_cuda_slice(self.alloc::<f16>(len)?, self.clone()),
                DType::BF16 => CudaStorage::wrap_cuda_slice(self.alloc::<bf16>(len)?, self.clone()),
                other => bail!("the CUDA kernels fill f32, f16 and bf16, not {}", other.as_str()),
            }
        })
    }

    fn launch(&self, launch: &Launch, args: &mut [Arg<'_, CudaStorage>]) -> Result<()> {
        // Other crates' modules share the device's list.
        let module = format!("vit_ops_{}", launch.module.name());
        let function = self.get_or_load_custom_func(&launch.kernel, &module, launch.module.code())?;
        let stream = self.cuda_stream();
        let mut guards = Vec::with_capacity(args.len());
        let mut values = Vec::with_capacity(args.len());
        for arg in args {
            values.push(match arg {
                Arg::Read(storage, start) => {
                    let (address, guard) = read(storage, *start, &stream)?;
                    guards.push(guard);
                    Value::Number64(address)
                }
                Arg::Write(storage, start) => {
                    let (address, guard) = write(storage, *start, &stream)?;
                    guards.push(guard);
                    Value::Number64(address)
                }
                Arg::Null => Value::Number64(0),
                Arg::U32(number) => Value::Number32(*number),
                Arg::Size(number) => Value::Number64(*number as u64),
                Arg::F32(number) => Value::Float(*number),
                Arg::Shape(words) => Value::Words(**words),
            });
        }
        let mut builder = function.builder();
        for value in &values {
            match value {
                Value::Number32(number) => builder.arg(number),
                Value::Number64(number) => builder.arg(number),
                Value::Float(number) => builder.arg(number),
                Value::Words(words) => builder.arg(words),
            };
        }
        let (x, y) = launch.blocks;
        let config =
            LaunchConfig { grid_dim: (x, y, 1), block_dim: (launch.threads, 1, 1), shared_mem_bytes: 0 };
        // SAFETY: the arguments are those of the kernel in number, order and type (the tests run every launch on the
        // host, which checks them), the arrays have the sizes that the kernel's bounds are computed from, and the
        // guards keep them until the kernel is done.
        unsafe { builder.launch(config) }.w()?;
        drop(guards);
        Ok(())
    }
}

/// A contiguous tensor to read.
pub(crate) fn input<'a>(storage: &'a CudaStorage, layout: &Layout) -> Result<Input<'a, CudaStorage>> {
    match layout.contiguous_offsets() {
        Some((start, _)) => Ok(Input { array: storage, start }),
        None => bail!("a CUDA kernel takes contiguous tensors"),
    }
}
