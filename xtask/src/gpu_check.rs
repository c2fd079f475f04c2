//! `cargo xtask gpu-check`: whether a GPU computes what the CPU computes, on a machine that has one.
//!
//! `--bundle` makes a folder to carry there: a program with the feature `cuda`, the numeric cases, and one script.

mod networks;
mod operations;
mod optimizers;

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use anyhow::{Context, Result, ensure};
use benchmark::DeviceChoice;
use candle_core::{DType, Device, Tensor};

use crate::cuda_toolkit::{Toolkit, make_executable};
use crate::say;

/// Compare every operation's values and gradients on a device with the CPU's in f64, in f32, f16 and bf16, the embedded
/// backbone at each precision with the CPU's, and some steps of every optimiser, in f32 and f64; or, with `--bundle`,
/// make a folder that does this and more on a machine with a GPU and without Rust.
#[derive(Debug, clap::Args)]
pub(crate) struct GpuCheck {
    /// The device to check: `cpu` or `cuda:N`
    #[arg(long, default_value = "cuda:0")]
    device: DeviceChoice,
    /// Make a folder to carry instead, with a program, the numeric cases and a script `run.sh`
    #[arg(long, value_name = "DIR", conflicts_with = "device")]
    bundle: Option<PathBuf>,
    /// A program built with the feature `cuda`; if left out it is built with the toolkit of `cuda-toolkit`
    #[arg(long, value_name = "FILE", requires = "bundle")]
    binary: Option<PathBuf>,
    /// The numeric cases
    #[arg(long, value_name = "DIR", default_value = "tests/fixtures", requires = "bundle")]
    fixtures: PathBuf,
    #[command(flatten)]
    toolkit: Toolkit,
}

const SCRIPT: &str = include_str!("../templates/gpu-check/run.sh");

/// What the script unpacks: the program and the cases.
const ARCHIVE: &str = "payload.tar.xz";

/// What a bundle may weigh, in bytes.
const LARGEST_BUNDLE: u64 = 60_000_000;

impl GpuCheck {
    /// Checks the device, or makes the bundle.
    ///
    /// # Errors
    /// The device can't be had, the program can't be built, or a file can't be written.
    pub(crate) fn run(self) -> Result<ExitCode> {
        let Some(bundle) = &self.bundle else {
            let (device, choice) = self.device.open()?;
            let Outcome { passed, failed } =
                operations::check(&device)?.with(networks::check(&device)?).with(optimizers::check(&device)?);
            say(&format!(
                "operations, networks and optimisers on {choice}: {passed} passed, {failed} failed"
            ))?;
            return Ok(if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE });
        };
        let binary = match &self.binary {
            Some(binary) => binary.clone(),
            None => self.toolkit.prepare()?.build_xtask()?,
        };
        let size = make_bundle(bundle, &binary, &self.fixtures)?;
        say(&format!(
            "{}: {:.1} MB; carry it to a machine with a GPU and start run.sh",
            bundle.display(),
            size as f64 / 1e6
        ))?;
        Ok(ExitCode::SUCCESS)
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

/// Fills the folder and gives its size in bytes.
fn make_bundle(bundle: &Path, binary: &Path, fixtures: &Path) -> Result<u64> {
    ensure!(
        !bundle.exists() || bundle.read_dir().is_ok_and(|mut entries| entries.next().is_none()),
        "{} is there already; give a new folder",
        bundle.display()
    );
    std::fs::create_dir_all(bundle.join("bin"))
        .with_context(|| format!("can't create {}", bundle.display()))?;
    let program = bundle.join("bin/xtask");
    std::fs::copy(binary, &program).with_context(|| format!("can't copy {}", binary.display()))?;
    make_executable(&program)?;
    copy_cases(fixtures, &bundle.join("fixtures"))?;
    pack(bundle, &["bin", "fixtures"])?;
    let script = bundle.join("run.sh");
    std::fs::write(&script, SCRIPT).with_context(|| format!("can't write {}", script.display()))?;
    make_executable(&script)?;
    let size = size_of(bundle)?;
    ensure!(
        size <= LARGEST_BUNDLE,
        "{} has {:.1} MB, more than the {:.0} MB a bundle may have",
        bundle.display(),
        size as f64 / 1e6,
        LARGEST_BUNDLE as f64 / 1e6
    );
    Ok(size)
}

/// Puts folders of the bundle into its one archive, by xz: the program carries a backbone and GPU code, and gzip leaves
/// more than a bundle may weigh.
fn pack(bundle: &Path, folders: &[&str]) -> Result<()> {
    let mut tar = Command::new("tar");
    tar.arg("-C").arg(bundle).arg("-cJf").arg(bundle.join(ARCHIVE)).args(folders);
    let status = tar.status().context("can't start tar, which packs the bundle with xz")?;
    ensure!(status.success(), "tar failed ({status}); is xz there?");
    for folder in folders {
        let folder = bundle.join(folder);
        std::fs::remove_dir_all(&folder).with_context(|| format!("can't remove {}", folder.display()))?;
    }
    Ok(())
}

/// Copies the case files below a folder.
fn copy_cases(from: &Path, to: &Path) -> Result<()> {
    std::fs::create_dir_all(to).with_context(|| format!("can't create {}", to.display()))?;
    for entry in from.read_dir().with_context(|| format!("can't read the cases in {}", from.display()))? {
        let path = entry?.path();
        let Some(name) = path.file_name() else { continue };
        if path.is_dir() {
            copy_cases(&path, &to.join(name))?;
        } else if path.extension().is_some_and(|extension| extension == "safetensors") {
            std::fs::copy(&path, to.join(name)).with_context(|| format!("can't copy {}", path.display()))?;
        }
    }
    Ok(())
}

fn size_of(folder: &Path) -> Result<u64> {
    let mut size = 0;
    for entry in folder.read_dir().with_context(|| format!("can't read {}", folder.display()))? {
        let entry = entry?;
        let metadata = entry.metadata()?;
        size += if metadata.is_dir() { size_of(&entry.path())? } else { metadata.len() };
    }
    Ok(size)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::{ARCHIVE, error, make_bundle};
    use candle_core::{Device, Tensor};
    use std::process::Command;

    #[test]
    fn a_bundle_holds_the_program_the_cases_and_the_script() {
        let folder = tempfile::tempdir().unwrap();
        let (program, cases) = (folder.path().join("xtask"), folder.path().join("cases"));
        std::fs::write(&program, "a program").unwrap();
        std::fs::create_dir_all(cases.join("method")).unwrap();
        std::fs::write(cases.join("method/case.safetensors"), "a case").unwrap();
        std::fs::write(cases.join("method/README.md"), "words").unwrap();
        let bundle = folder.path().join("bundle");
        let size = make_bundle(&bundle, &program, &cases).unwrap();
        let packed = bundle.join(ARCHIVE).metadata().unwrap().len();
        let script = std::fs::read_to_string(bundle.join("run.sh")).unwrap();
        assert!(
            script.contains("conform") && script.contains("bench") && script.contains(ARCHIVE),
            "{script}"
        );
        assert_eq!(size, packed + script.len() as u64);

        let unpacked = folder.path().join("unpacked");
        std::fs::create_dir(&unpacked).unwrap();
        let mut tar = Command::new("tar");
        tar.arg("-C").arg(&unpacked).arg("-xJf").arg(bundle.join(ARCHIVE));
        assert!(tar.status().unwrap().success());
        assert!(unpacked.join("fixtures/method/case.safetensors").is_file());
        assert!(!unpacked.join("fixtures/method/README.md").exists());
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            for file in [unpacked.join("bin/xtask"), bundle.join("run.sh")] {
                let mode = file.metadata().unwrap().permissions().mode();
                assert_eq!(mode & 0o111, 0o111, "{}", file.display());
            }
        }
        let message = make_bundle(&bundle, &program, &cases).unwrap_err().to_string();
        assert!(message.contains("new folder"), "{message}");
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
