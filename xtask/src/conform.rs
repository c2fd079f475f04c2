//! `cargo xtask conform`: the numeric cases, run against the code.

use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

use benchmark::DeviceChoice;
use conformance::{CaseLine, Unit, run_dir, self_test};

/// Run the numeric cases below some directories and compare by their own rules.
///
/// Prints a line per case with the largest share of a tolerance that was used; the last line is
/// `N passed, M failed`. Exits with 1 if a case failed.
#[derive(Debug, clap::Args)]
pub(crate) struct Conform {
    /// Directories (searched with everything below them) or single files
    #[arg(default_value = "tests/fixtures")]
    dir: Vec<PathBuf>,
    /// Skip the cases of units that do not exist yet, instead of failing them
    #[arg(long)]
    allow_missing: bool,
    /// Where to compute: `auto`, `cpu`, `cuda` or `cuda:N`. The cases' tolerances are for single precision, so a GPU
    /// must meet them too
    #[arg(long, value_name = "DEVICE", default_value = "cpu")]
    device: DeviceChoice,
    /// Run no unit; check instead that shifting what is expected by three times its tolerance is seen in every case
    #[arg(long, conflicts_with = "allow_missing")]
    self_test: bool,
}

impl Conform {
    /// Runs the cases with the unit that each names.
    ///
    /// # Errors
    /// A path cannot be read, there is no case below it, the device is not there, or standard output is closed.
    pub(crate) fn run(self, units: &[Unit]) -> anyhow::Result<ExitCode> {
        let (device, found) = self.device.open()?;
        if found != DeviceChoice::Cpu {
            anyhow::ensure!(
                conformance::set_context(device).is_ok(),
                "the units were told of a device before"
            );
        }
        let mut written = Ok(());
        let mut show = |line: &CaseLine| {
            if written.is_ok() {
                written = writeln!(std::io::stdout(), "{line}");
            }
        };
        let summary = if self.self_test {
            self_test(&self.dir, &mut show)?
        } else {
            run_dir(&self.dir, units, self.allow_missing, &mut show)?
        };
        written?;
        writeln!(std::io::stdout(), "{summary}")?;
        Ok(if summary.failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }
}
