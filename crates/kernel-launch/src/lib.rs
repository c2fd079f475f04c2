//! Launches CUDA kernels on candle's numbers, and runs the same kernels on the host to test them.
//!
//! What is launched with which arguments is written once, over [`Arg`]; a GPU runs it by `device` (feature `cuda`), a
//! test by `host` (feature `host`).
//!
//! ```
//! use kernel_launch::{Arg, Grid};
//!
//! let (numbers, mut out) = (vec![1_f32, 2.], vec![0_f32; 2]);
//! let args = [Arg::Read(&numbers, 0), Arg::Write(&mut out, 0), Arg::Size(2), Arg::F32(0.5)];
//! let grid = Grid { blocks: (1, 1), threads: 256 };
//! assert_eq!(args.len(), 4);
//! assert_eq!(grid.threads, 256);
//! ```

#[cfg(feature = "cuda")]
pub mod device;
#[cfg(feature = "host")]
pub mod host;

/// One argument of a kernel; arrays are of type `A`.
#[derive(Debug)]
pub enum Arg<'a, A> {
    /// An array, from an element on.
    Read(&'a A, usize),
    /// An array that the kernel changes or fills, from an element on.
    Write(&'a mut A, usize),
    /// No array.
    Null,
    /// `unsigned int`.
    U32(u32),
    /// `size_t`.
    Size(usize),
    /// `float`.
    F32(f32),
    /// `double`.
    F64(f64),
    /// A struct of nothing but 32-bit words, passed by value.
    Words(&'a [u32]),
}

/// How many threads run a kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Grid {
    /// Blocks along x and y.
    pub blocks: (u32, u32),
    /// Threads a block, along x.
    pub threads: u32,
}
