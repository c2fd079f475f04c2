//! A launch on a GPU. The unsafe code of this crate is here and nowhere else.
#![allow(unsafe_code)]

use candle_core::backend::BackendStorage;
use candle_core::cuda_backend::cudarc::driver::{
    CudaSlice, CudaStream, DevicePtr, DevicePtrMut, LaunchConfig, PushKernelArg, SyncOnDrop,
};
use candle_core::cuda_backend::{CudaStorageSlice, WrapErr};
use candle_core::{CudaDevice, CudaStorage, DType, Result, bail};
use half::{bf16, f16};

use crate::{Arg, Grid};

/// A kernel in the code of its module.
#[derive(Debug, Clone, Copy)]
pub struct Kernel<'a> {
    /// The function's name.
    pub name: &'a str,
    /// A name that no other module of the process has: devices keep their modules under it.
    pub module: &'a str,
    /// The module as PTX.
    pub ptx: &'a str,
}

/// The values of arguments, which must stay in place until the launch.
enum Value<'a> {
    Number32(u32),
    Number64(u64),
    F32(f32),
    F64(f64),
    Words(&'a [u32]),
}

/// The address of element `start`, and the guard that tells the device when the numbers have been read.
fn read<'a>(storage: &'a CudaStorage, start: usize, stream: &'a CudaStream) -> Result<(u64, SyncOnDrop<'a>)> {
    fn of<'a, T>(slice: &'a CudaSlice<T>, start: usize, stream: &'a CudaStream) -> (u64, SyncOnDrop<'a>) {
        let (address, guard) = slice.device_ptr(stream);
        (address + (start * size_of::<T>()) as u64, guard)
    }
    Ok(match &storage.slice {
        CudaStorageSlice::U8(slice) => of(slice, start, stream),
        CudaStorageSlice::U32(slice) => of(slice, start, stream),
        CudaStorageSlice::F32(slice) => of(slice, start, stream),
        CudaStorageSlice::F64(slice) => of(slice, start, stream),
        CudaStorageSlice::F16(slice) => of(slice, start, stream),
        CudaStorageSlice::BF16(slice) => of(slice, start, stream),
        _ => bail!("CUDA kernels take u8, u32, f32, f64, f16 and bf16, not {}", storage.dtype().as_str()),
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
        CudaStorageSlice::F64(slice) => of(slice, start, stream),
        CudaStorageSlice::F16(slice) => of(slice, start, stream),
        CudaStorageSlice::BF16(slice) => of(slice, start, stream),
        _ => bail!("CUDA kernels fill f32, f64, f16 and bf16, not {}", dtype.as_str()),
    })
}

/// `len` numbers of type `dtype`, one at least, for a kernel to fill.
///
/// # Errors
///
/// If the type is none of f32, f64, f16 and bf16, or the memory is not there.
///
/// # Safety
///
/// The numbers must not be read before a kernel has written them.
pub unsafe fn array(device: &CudaDevice, dtype: DType, len: usize) -> Result<CudaStorage> {
    // A kernel is never given an empty array, and the driver allocates none.
    let len = len.max(1);
    // SAFETY: by this function's contract.
    Ok(unsafe {
        match dtype {
            DType::F32 => CudaStorage::wrap_cuda_slice(device.alloc::<f32>(len)?, device.clone()),
            DType::F64 => CudaStorage::wrap_cuda_slice(device.alloc::<f64>(len)?, device.clone()),
            DType::F16 => CudaStorage::wrap_cuda_slice(device.alloc::<f16>(len)?, device.clone()),
            DType::BF16 => CudaStorage::wrap_cuda_slice(device.alloc::<bf16>(len)?, device.clone()),
            other => bail!("CUDA kernels fill f32, f64, f16 and bf16, not {}", other.as_str()),
        }
    })
}

/// Runs a kernel after those launched before.
///
/// # Errors
///
/// If the driver takes the module or the launch not, or an array has a type that no kernel takes.
///
/// # Safety
///
/// The arguments must be those of the kernel in number, order and type, and the arrays as large as the kernel takes them
/// to be.
pub unsafe fn launch(
    device: &CudaDevice,
    kernel: Kernel<'_>,
    grid: Grid,
    args: &mut [Arg<'_, CudaStorage>],
) -> Result<()> {
    let function = device.get_or_load_custom_func(kernel.name, kernel.module, kernel.ptx)?;
    let stream = device.cuda_stream();
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
            Arg::F32(number) => Value::F32(*number),
            Arg::F64(number) => Value::F64(*number),
            Arg::Words([]) => bail!("a kernel's struct has no words"),
            Arg::Words(words) => Value::Words(words),
        });
    }
    let mut builder = function.builder();
    for value in &values {
        match value {
            Value::Number32(number) => builder.arg(number),
            Value::Number64(number) => builder.arg(number),
            Value::F32(number) => builder.arg(number),
            Value::F64(number) => builder.arg(number),
            // The driver is given where the struct starts, and takes as much as the kernel's parameter has.
            Value::Words(words) => builder.arg(&words[0]),
        };
    }
    let config = LaunchConfig {
        grid_dim: (grid.blocks.0, grid.blocks.1, 1),
        block_dim: (grid.threads, 1, 1),
        shared_mem_bytes: 0,
    };
    // SAFETY: by this function's contract; the guards keep the arrays until the kernel is done.
    unsafe { builder.launch(config) }.w()?;
    drop(guards);
    Ok(())
}
