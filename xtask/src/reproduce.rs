//! `cargo xtask reproduce`: run a matrix, see every number beside the published one.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use anyhow::{Context, Result};
use benchmark::{
    Cancellation, DeviceChoice, Layout, Plan, PlanOptions, PrecisionSetting, Profile, PublishedFigures,
    RunOptions,
};

use crate::say;

/// Run a benchmark matrix and write its tables and report.
///
/// What is already finished in the output folder is kept; only the rest is computed.
#[derive(Debug, clap::Args)]
pub(crate) struct Reproduce {
    /// A profile of `matrix/` by name, or the path of a TOML file.
    #[arg(long, value_name = "NAME|FILE", default_value = "quick")]
    profile: String,
    /// Where results go; `runs/<profile>` if left out.
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// How many cells run at a time; they share the cores. If left out, one on a GPU, else one a core up to four.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    workers: Option<u16>,
    /// Where to compute: `auto`, `cpu`, `cuda` or `cuda:N`.
    #[arg(long, value_name = "DEVICE", default_value = "auto")]
    device: DeviceChoice,
    /// How frozen networks multiply: `f32`, `bf16x3` (as three bf16 products), `bf16`, or `auto` (bf16x3 on processors
    /// with AMX tiles, else f32). What it comes to is part of each cell's id.
    #[arg(long, value_name = "PRECISION", default_value = "f32")]
    precision: PrecisionSetting,
    /// Print the cells and whether they are done, and run nothing.
    #[arg(long)]
    dry_run: bool,
    /// Only cells whose name (`method/dataset/protocol/category/seedN`) fits; `*` also stands for slashes.
    #[arg(long, value_name = "GLOB")]
    only: Option<String>,
    /// Keep the chosen detectors beside each result.
    #[arg(long)]
    save_detectors: bool,
    /// Run on data that `data check` finds faults in, without the images that can't be used. What is left out is recorded.
    #[arg(long)]
    accept_data_problems: bool,
}

impl Reproduce {
    /// Runs the matrix; the exit status says whether every cell is finished and well.
    pub(crate) fn run(self) -> Result<ExitCode> {
        let root = root();
        let profile = Profile::find(&self.profile, &root.join("matrix"))?;
        let layout = Layout::new(&self.out.unwrap_or_else(|| Path::new("runs").join(&profile.name)));
        let (device, fell_back) = self.device.resolve()?;
        if let Some(why) = fell_back {
            tracing::warn!("{why}");
        }
        let options = PlanOptions {
            device,
            precision: self.precision,
            only: self.only,
            save_detectors: self.save_detectors,
            checks: Some(layout.root().join("checks")),
            accept_data_problems: self.accept_data_problems,
            commit: commit(&root),
            versions: benchmark::locked_versions(&root.join("Cargo.lock"))?,
        };
        let published = PublishedFigures::read(&root.join("assets/published"))?;
        let plan = Plan::new(&profile, &published, &options)?;
        if self.dry_run {
            say(plan.listing(&layout)?.trim_end())?;
            return Ok(ExitCode::SUCCESS);
        }
        let cancellation = cancelled_by_signals()?;
        let child =
            vec![std::env::current_exe().context("this program's path")?.into(), OsString::from("cell")];
        let workers = self.workers.map_or_else(|| usual_workers(device), usize::from);
        let run = RunOptions { workers, child, cancellation };
        let outcome = benchmark::run_plan(&plan, &layout, &run)?;
        benchmark::write_summary(&layout, &plan.header(), &outcome.cells)?;
        say(&benchmark::terminal_table(&outcome.cells))?;
        say(&format!("report: {}", layout.root().join("report.html").display()))?;
        if outcome.is_complete() {
            return Ok(ExitCode::SUCCESS);
        }
        say(&format!("{} cells failed, {} unfinished", outcome.failed, outcome.unfinished))?;
        Ok(ExitCode::FAILURE)
    }
}

/// Small cells keep one core busy better than several; large ones would not fit into memory many times over.
fn usual_workers(device: DeviceChoice) -> usize {
    match device {
        DeviceChoice::Cpu => std::thread::available_parallelism().map_or(1, usize::from).min(4),
        _ => 1,
    }
}

/// The workspace this program was built from.
pub(crate) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().map_or_else(PathBuf::new, Path::to_owned)
}

/// The commit that is checked out, with `+` if files differ from it; `None` outside a repository.
pub(crate) fn commit(root: &Path) -> Option<String> {
    let git = |arguments: &[&str]| {
        let output = Command::new("git").arg("-C").arg(root).args(arguments).output().ok()?;
        output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
    };
    let commit = git(&["rev-parse", "HEAD"])?;
    let changed = git(&["status", "--porcelain", "--untracked-files=no"])?;
    Some(if changed.is_empty() { commit } else { format!("{commit}+") })
}

/// Set by the first Ctrl-C or request to terminate; the second ends the program at once, and its cells with it.
fn cancelled_by_signals() -> Result<Cancellation> {
    let cancellation = Cancellation::default();
    let flag = cancellation.clone();
    ctrlc::set_handler(move || {
        if flag.is_cancelled() {
            std::process::exit(130);
        }
        flag.cancel();
    })
    .context("can't listen for Ctrl-C")?;
    Ok(cancellation)
}
