//! CUDA kernels of the operations, and how each is launched.
//!
//! The sources (`*.cu` beside this module) become PTX when the crate is built with the feature `cuda`: candle needs
//! nvcc for its own kernels at that moment anyway, so compiling ours then costs users nothing, finds mistakes at build
//! time, and spares every process (each cell of a matrix is one) a compilation at run time. The program also carries
//! no headers.
//!
//! What is launched with which arguments is written once, over [`Machine`]: in a program that is a GPU (`device`), in
//! the tests the host, which runs the very same sources thread by thread (`on_host`).

#[cfg(feature = "cuda")]
mod device;
#[cfg(test)]
mod on_host;

pub(crate) mod attention;
pub(crate) mod columns;
pub(crate) mod elements;
#[cfg(feature = "cuda")]
pub(crate) mod map_operations;
pub(crate) mod maps;
#[cfg(feature = "cuda")]
pub(crate) mod operations;
pub(crate) mod rows;
pub(crate) mod ssim;

use candle_core::{DType, Result, bail};
pub(crate) use kernel_launch::Arg;
use kernel_launch::Grid;

/// The file that a kernel is in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Module {
    Attention,
    Columns,
    Elements,
    Maps,
    Rows,
    Ssim,
}

impl Module {
    /// The file's name without its ending.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Attention => "attention",
            Self::Columns => "columns",
            Self::Elements => "elements",
            Self::Maps => "maps",
            Self::Rows => "rows",
            Self::Ssim => "ssim",
        }
    }
}

/// One launch of a kernel.
#[derive(Debug)]
pub(crate) struct Launch {
    pub(crate) module: Module,
    /// The kernel's name in its file.
    pub(crate) kernel: String,
    pub(crate) grid: Grid,
}

impl Launch {
    /// Of `kernel` for numbers of type `dtype`.
    fn new(module: Module, kernel: &str, dtype: DType, blocks: (u32, u32), threads: u32) -> Result<Self> {
        let grid = Grid { blocks, threads };
        Ok(Self { module, kernel: format!("{kernel}_{}", suffix(dtype)?), grid })
    }
}

/// What runs kernels.
pub(crate) trait Machine {
    /// Numbers of one type in the memory that kernels see.
    type Array;

    /// `len` numbers of type `dtype` with any values.
    fn array(&self, dtype: DType, len: usize) -> Result<Self::Array>;

    /// Runs a kernel after those launched before.
    fn launch(&self, launch: &Launch, args: &mut [Arg<'_, Self::Array>]) -> Result<()>;
}

/// Numbers to read: an array from an element on, row by row.
#[derive(Debug)]
pub(crate) struct Input<'a, A> {
    pub(crate) array: &'a A,
    pub(crate) start: usize,
}

// Not derived: that would ask the array to be `Copy`.
impl<A> Clone for Input<'_, A> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<A> Copy for Input<'_, A> {}

impl<'a, A> Input<'a, A> {
    fn arg(self) -> Arg<'a, A> {
        Arg::Read(self.array, self.start)
    }

    /// The argument, or a null pointer.
    fn optional(input: Option<Self>) -> Arg<'a, A> {
        input.map_or(Arg::Null, Self::arg)
    }
}

/// A matrix by its rows: the last axis against all others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Rows {
    pub(crate) count: usize,
    pub(crate) width: usize,
}

impl Rows {
    fn elements(self) -> usize {
        self.count * self.width
    }
}

/// What a kernel's name ends in.
fn suffix(dtype: DType) -> Result<&'static str> {
    Ok(match dtype {
        DType::F32 => "f32",
        DType::F16 => "f16",
        DType::BF16 => "bf16",
        other => bail!("the CUDA kernels take f32, f16 and bf16, not {}", other.as_str()),
    })
}

/// A number that a kernel takes in 32 bits.
fn small(number: usize) -> Result<u32> {
    match u32::try_from(number) {
        Ok(number) => Ok(number),
        Err(_) => bail!("{number} is more than a CUDA kernel takes (2^32 - 1)"),
    }
}

/// Blocks along x for `count` pieces of work, `each` a block; at least one.
fn blocks(count: usize, each: usize) -> Result<u32> {
    let blocks = count.div_ceil(each).max(1);
    match i32::try_from(blocks) {
        Ok(_) => small(blocks),
        Err(_) => bail!("{blocks} blocks are more than one launch takes (2^31 - 1)"),
    }
}
