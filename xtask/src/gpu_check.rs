//! `cargo xtask gpu-check`: whether a GPU computes what the CPU computes, on a machine that has one.
//!
//! `--bundle` makes a folder to carry there: a program with the feature `cuda`, the numeric cases, and one script.

mod bundle;
mod networks;
mod operations;
mod optimizers;
#[cfg(all(test, unix))]
mod run_script;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use benchmark::DeviceChoice;
use candle_core::{DType, Device, Tensor};

use crate::cuda_toolkit::Toolkit;
use crate::reproduce::{commit, root};
use crate::say;
use bundle::{Bundle, ensure_uses_gpu};

/// Compare every operation's values and gradients on a device with the CPU's in f64, in f32, f16 and bf16, the embedded
/// backbone at each precision with the CPU's, and some steps of every optimiser, in f32 and f64; or, with `--bundle`,
/// make a folder that does this and more on a machine with a GPU and without Rust.
#[derive(Debug, clap::Args)]
pub(crate) struct GpuCheck {
    /// The device to check: `cpu` or `cuda:N`
    #[arg(long, default_value = "cuda:0", value_parser = cpu_or_gpu)]
    device: DeviceChoice,
    /// Make a folder to carry instead, with a program, the numeric cases and a script `run.sh`
    #[arg(long, value_name = "DIR", conflicts_with = "device")]
    bundle: Option<PathBuf>,
    /// A program built with the feature `cuda`; if left out it is built with the toolkit of `cuda-toolkit`
    #[arg(long, value_name = "FILE", requires = "bundle")]
    binary: Option<PathBuf>,
    /// The numeric cases [default: tests/fixtures of the workspace]
    #[arg(long, value_name = "DIR", requires = "bundle")]
    fixtures: Option<PathBuf>,
    #[command(flatten)]
    toolkit: Toolkit,
}

impl GpuCheck {
    /// Checks the device, or makes the bundle.
    ///
    /// # Errors
    /// The device can't be had, the program can't be built, or a file can't be written.
    pub(crate) fn run(self) -> Result<ExitCode> {
        let Some(folder) = &self.bundle else {
            let (device, choice) = self.device.open()?;
            let Outcome { passed, failed } =
                operations::check(&device)?.with(networks::check(&device)?).with(optimizers::check(&device)?);
            say(&format!(
                "operations, networks and optimisers on {choice}: {passed} passed, {failed} failed"
            ))?;
            return Ok(if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE });
        };
        let fixtures = self.fixtures.clone().unwrap_or_else(|| root().join("tests/fixtures"));
        // What is wrong with the arguments shows before the build, which takes long.
        let bundle = Bundle::new(folder, &fixtures)?;
        let commit = commit(&root()).unwrap_or_else(|| "unknown".to_owned());
        let size = if let Some(program) = &self.binary {
            ensure_uses_gpu(program)?;
            bundle.fill(program, &format!("{commit} (the program was given)"))?
        } else {
            bundle.fill(&self.toolkit.prepare()?.build_xtask()?, &commit)?
        };
        say(&format!(
            "{}: {:.1} MB; carry it to a machine with a GPU and start run.sh",
            folder.display(),
            size as f64 / 1e6
        ))?;
        Ok(ExitCode::SUCCESS)
    }
}

/// A device by its name; `auto` might check the CPU with itself.
fn cpu_or_gpu(text: &str) -> Result<DeviceChoice, String> {
    match text.parse() {
        Ok(DeviceChoice::Auto) => Err("expected `cpu`, `cuda` or `cuda:N`".to_owned()),
        Ok(device) => Ok(device),
        Err(error) => Err(error.to_string()),
    }
}

/// How many checks went how.
#[derive(Debug, Clone, Copy, Default)]
struct Outcome {
    passed: usize,
    failed: usize,
}

impl Outcome {
    fn count(&mut self, good: bool) {
        *(if good { &mut self.passed } else { &mut self.failed }) += 1;
    }

    fn with(self, other: Self) -> Self {
        Self { passed: self.passed + other.passed, failed: self.failed + other.failed }
    }
}

/// The largest difference, as a share of the largest number wanted.
fn error(found: &Tensor, wanted: &Tensor) -> Result<f64> {
    anyhow::ensure!(found.dims() == wanted.dims(), "shape {:?}, not {:?}", found.dims(), wanted.dims());
    let numbers = |t: &Tensor| -> Result<Vec<f64>> {
        Ok(t.to_device(&Device::Cpu)?.to_dtype(DType::F64)?.flatten_all()?.to_vec1()?)
    };
    let (mut largest, mut worst) = (0_f64, 0_f64);
    for (found, wanted) in numbers(found)?.into_iter().zip(numbers(wanted)?) {
        let difference = (found - wanted).abs();
        // NaN must not pass for small.
        worst = if difference.is_nan() { f64::INFINITY } else { worst.max(difference) };
        largest = largest.max(wanted.abs());
    }
    Ok(if worst == 0.0 { 0.0 } else { worst / largest })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::{cpu_or_gpu, error};
    use candle_core::{Device, Tensor};

    #[test]
    fn a_device_is_chosen_by_name() {
        assert!(cpu_or_gpu("cpu").is_ok() && cpu_or_gpu("cuda:1").is_ok());
        assert!(cpu_or_gpu("auto").unwrap_err().contains("`cuda:N`"));
        assert!(cpu_or_gpu("tpu").unwrap_err().contains("tpu"));
    }

    #[test]
    fn errors_are_shares_of_the_largest_number_and_nan_is_seen() {
        let t = |v: &[f64]| Tensor::new(v, &Device::Cpu).unwrap();
        assert_eq!(error(&t(&[1., -4.5]), &t(&[1., -4.])).unwrap(), 0.125);
        assert_eq!(error(&t(&[0., 0.]), &t(&[0., 0.])).unwrap(), 0.0);
        assert_eq!(error(&t(&[f64::NAN, 1.]), &t(&[1., 1.])).unwrap(), f64::INFINITY);
        assert!(error(&t(&[1.]), &t(&[1., 2.])).is_err());
    }
}
