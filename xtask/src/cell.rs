//! `cell`: what `reproduce` starts, on this machine or as a task of a cluster.

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result};
use benchmark::Cancellation;
use benchmark::cluster::run_task;

/// The exit code of a task that could not begin: its plan can't be read, or it is no task.
const BAD_INPUT: u8 = 2;

/// Run one cell for `reproduce`: read it from standard input, tell how it goes on standard output. With a plan, run the
/// cells of one task of a Slurm job array.
#[derive(Debug, clap::Args)]
pub(crate) struct Cell {
    /// The plan file.
    #[arg(long, value_name = "FILE", requires = "index", requires = "plan_sha256")]
    plan: Option<PathBuf>,
    /// Its sha256.
    #[arg(long, value_name = "HEX", requires = "plan")]
    plan_sha256: Option<String>,
    /// The task's index.
    #[arg(long, value_name = "N", requires = "plan")]
    index: Option<u32>,
}

impl Cell {
    /// Runs the cell, or the task.
    pub(crate) fn run(self) -> Result<ExitCode> {
        let (Some(plan), Some(hash), Some(index)) = (self.plan, self.plan_sha256, self.index) else {
            return Ok(benchmark::run_child());
        };
        let cancellation = Cancellation::default();
        let flag = cancellation.clone();
        // Slurm tells a task to end, and kills it some time later; that it tells it twice is no reason for haste.
        ctrlc::set_handler(move || flag.cancel()).context("can't listen for signals")?;
        // The log; if it can't be written the records still tell.
        let mut log = |line: &str| {
            writeln!(std::io::stdout(), "{line}").ok();
        };
        let code = run_task(&plan, &hash, index, &cancellation, &mut log).unwrap_or_else(|error| {
            writeln!(std::io::stderr(), "error: {error}").ok();
            BAD_INPUT
        });
        Ok(ExitCode::from(code))
    }
}
