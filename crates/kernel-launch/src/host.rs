//! Kernels as programs of the host.
//!
//! `host.cpp` plays the GPU: it runs a block's threads in turns, forward or backward, and checks every argument's size
//! and the arrays' ends. A kernel's source lists itself by `LIST_KERNEL(name)` of `host.h`.

use std::ffi::OsStr;
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};

use candle_core::{DType, Result, bail};
use tempfile::TempDir;

use crate::{Arg, Grid};

/// The folder of `host.h` and `host.cpp`.
const FOLDER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/src/host");

/// An array in the host's memory.
#[derive(Debug, Clone)]
pub struct HostArray {
    /// The type of its numbers.
    pub dtype: DType,
    /// The numbers, little-endian.
    pub bytes: Vec<u8>,
}

impl HostArray {
    /// `len` numbers with all bits 1: NaN, so that numbers that no kernel wrote are seen.
    pub fn unwritten(dtype: DType, len: usize) -> Self {
        Self { dtype, bytes: vec![0xff; len * dtype.size_in_bytes()] }
    }
}

/// Kernels compiled as C++, in a folder that goes with it.
#[derive(Debug)]
pub struct Program {
    folder: TempDir,
}

impl Program {
    /// Compiles `sources`; `options` are the compiler's.
    ///
    /// # Errors
    ///
    /// If there is no compiler called `c++`, or it refuses a source.
    pub fn compile<S: AsRef<OsStr>>(sources: &[S], options: &[&str]) -> Result<Self> {
        let folder = TempDir::new()?;
        let output = Command::new("c++")
            .args(["-std=c++17", "-O1", "-DKERNELS_ON_HOST", "-I", FOLDER])
            .args(options)
            .args(["-x", "c++"])
            .arg(Path::new(FOLDER).join("host.cpp"))
            .args(sources)
            .arg("-o")
            .arg(folder.path().join("kernels"))
            .output();
        match output {
            Ok(output) if output.status.success() => Ok(Self { folder }),
            Ok(output) => {
                bail!("the kernels do not compile as C++:\n{}", String::from_utf8_lossy(&output.stderr))
            }
            Err(error) => bail!("the kernels need a C++ compiler called `c++`: {error}"),
        }
    }

    /// Runs a kernel, the threads of a block in their order or `backward`.
    ///
    /// # Errors
    ///
    /// If there is no such kernel, it takes other arguments, writes beyond an array or to one that it should only read, or
    /// its threads wait for each other for ever.
    pub fn launch(
        &self,
        kernel: &str,
        grid: Grid,
        backward: bool,
        args: &mut [Arg<'_, HostArray>],
    ) -> Result<()> {
        let mut child = Command::new(self.folder.path().join("kernels"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()?;
        if let Some(mut stdin) = child.stdin.take() {
            // If the program refuses the request, its last words say more than a broken pipe.
            stdin.write_all(&request(kernel, grid, backward, args)).ok();
        }
        let output = child.wait_with_output()?;
        if !output.status.success() {
            bail!("{kernel}: {}", String::from_utf8_lossy(&output.stderr));
        }
        let mut rest = &output.stdout[..];
        for arg in args {
            let (Arg::Read(HostArray { bytes, .. }, _) | Arg::Write(HostArray { bytes, .. }, _)) = &*arg
            else {
                continue;
            };
            let Some((found, behind)) = rest.split_at_checked(bytes.len()) else {
                bail!("{kernel} gave fewer arrays back than it took")
            };
            rest = behind;
            match arg {
                Arg::Write(array, _) => array.bytes.copy_from_slice(found),
                _ if bytes == found => {}
                _ => bail!("{kernel} wrote to what it should only read"),
            }
        }
        Ok(())
    }
}

/// What `host.cpp` reads.
fn request(kernel: &str, grid: Grid, backward: bool, args: &[Arg<'_, HostArray>]) -> Vec<u8> {
    let mut request = Vec::new();
    let word = |request: &mut Vec<u8>, number: usize| request.extend((number as u64).to_le_bytes());
    word(&mut request, kernel.len());
    request.extend(kernel.as_bytes());
    let (x, y) = grid.blocks;
    for number in [x, y, grid.threads, u32::from(backward)] {
        word(&mut request, number as usize);
    }
    let arrays: Vec<&HostArray> = args
        .iter()
        .filter_map(|arg| match arg {
            Arg::Read(array, _) => Some(*array),
            Arg::Write(array, _) => Some(&**array),
            _ => None,
        })
        .collect();
    word(&mut request, arrays.len());
    for array in arrays {
        word(&mut request, array.bytes.len());
        request.extend(&array.bytes);
    }
    let mut index = 0;
    word(&mut request, args.len());
    for arg in args {
        let bytes = match arg {
            Arg::Read(HostArray { dtype, .. }, start) | Arg::Write(HostArray { dtype, .. }, start) => {
                let size = dtype.size_in_bytes();
                for number in [size, index, start * size] {
                    word(&mut request, number);
                }
                index += 1;
                continue;
            }
            Arg::Null => {
                // Any size of element will do: there is none.
                for number in [1, usize::MAX, 0] {
                    word(&mut request, number);
                }
                continue;
            }
            Arg::U32(number) => number.to_le_bytes().to_vec(),
            Arg::Size(number) => (*number as u64).to_le_bytes().to_vec(),
            Arg::F32(number) => number.to_le_bytes().to_vec(),
            Arg::F64(number) => number.to_le_bytes().to_vec(),
            Arg::Words(words) => words.iter().flat_map(|word| word.to_le_bytes()).collect(),
        };
        word(&mut request, 0);
        word(&mut request, bytes.len());
        request.extend(bytes);
    }
    request
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::{HostArray, Program};
    use crate::{Arg, Grid};
    use candle_core::DType;

    const SOURCE: &str = r#"
#include "host.h"
extern "C" __global__ void reverse(const float* x, float* out, unsigned count) {
    __shared__ float held[32];
    const unsigned i = threadIdx.x;
    if (i < count) held[i] = x[i];
    __syncthreads();
    if (i < count) out[count - 1 - i] = held[i];
}
LIST_KERNEL(reverse)
extern "C" __global__ void leave_early(float* out, unsigned count) {
    if (threadIdx.x >= count) return;
    __syncthreads();
    out[threadIdx.x] = 1.f;
}
LIST_KERNEL(leave_early)
extern "C" __global__ void cheat(const float* x) { const_cast<float*>(x)[threadIdx.x] = 7.f; }
LIST_KERNEL(cheat)
"#;

    fn program() -> (tempfile::TempDir, Program) {
        let folder = tempfile::tempdir().unwrap();
        let source = folder.path().join("reverse.cu");
        std::fs::write(&source, SOURCE).unwrap();
        let program = Program::compile(&[source], &[]).unwrap();
        (folder, program)
    }

    fn floats(values: &[f32]) -> HostArray {
        HostArray { dtype: DType::F32, bytes: values.iter().flat_map(|v| v.to_le_bytes()).collect() }
    }

    const GRID: Grid = Grid { blocks: (1, 1), threads: 8 };

    #[test]
    #[ignore = "needs a C++ compiler"]
    fn kernels_on_host_run_and_what_they_may_not_do_is_seen() {
        let (_folder, program) = program();
        for backward in [false, true] {
            let (x, mut out) = (floats(&[1., 2., 3.]), HostArray::unwritten(DType::F32, 3));
            let mut args = [Arg::Read(&x, 0), Arg::Write(&mut out, 0), Arg::U32(3)];
            program.launch("reverse", GRID, backward, &mut args).unwrap();
            assert_eq!(out.bytes, floats(&[3., 2., 1.]).bytes);
        }
        let x = floats(&[0.; 8]);
        let mut out = floats(&[0.; 8]);
        let refused = |kernel: &str, args: &mut [Arg<'_, HostArray>]| {
            program.launch(kernel, GRID, false, args).unwrap_err().to_string()
        };
        for (found, wanted) in [
            (refused("nothing", &mut []), "no kernel nothing"),
            (refused("reverse", &mut [Arg::Read(&x, 0)]), "wrong number of arguments"),
            (refused("reverse", &mut [Arg::Read(&x, 0), Arg::Null, Arg::F64(3.)]), "argument 2: wrong size"),
            (refused("reverse", &mut [Arg::Read(&x, 0), Arg::Write(&mut out, 6), Arg::U32(8)]), "beyond"),
            (refused("leave_early", &mut [Arg::Write(&mut out, 0), Arg::U32(3)]), "end where others wait"),
            (refused("cheat", &mut [Arg::Read(&x, 0)]), "only read"),
        ] {
            assert!(found.contains(wanted), "{found}");
        }
    }
}
