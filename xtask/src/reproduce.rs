//! `cargo xtask reproduce`: run a matrix, see every number beside the published one.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use anomaly_core::FeaturePrecision;
use anyhow::{Context, Result, bail};
use benchmark::{
    Cancellation, DeviceChoice, FeatureFolder, FeatureOptions, Layout, Outcome, Plan, PlanOptions,
    PrecisionSetting, Profile, PublishedFigures, RunOptions, Tracking,
};
use tracking::{Destination, Tracker};

use crate::cluster::{Cluster, Executor};
use crate::{estimate, say};

/// Run a benchmark matrix and write its tables and report.
///
/// What is already finished in the output folder is kept; only the rest is computed.
#[derive(Debug, clap::Args)]
#[allow(clippy::struct_excessive_bools, reason = "each is a flag of its own")]
pub(crate) struct Reproduce {
    /// A profile of `matrix/` by name, or the path of a TOML file.
    #[arg(long, value_name = "NAME|FILE", default_value = "quick")]
    profile: String,
    /// Where results go; `runs/<profile>` if left out.
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// How many cells run at a time; they share the cores in equal parts. On GPUs one each, from the one of `--device` on.
    /// If left out, one a core up to four; with `--device auto` one a GPU, with `cuda:N` one.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    workers: Option<u16>,
    /// How much memory cells may take together (`8GiB`); what is available if left out. Cells that need more than there is
    /// are refused, with the figure; others wait for room.
    #[arg(long, value_name = "SIZE", value_parser = size)]
    memory: Option<u64>,
    /// Where to compute: `auto`, `cpu`, `cuda` or `cuda:N`.
    #[arg(long, value_name = "DEVICE", default_value = "auto")]
    device: DeviceChoice,
    /// How frozen networks multiply: `f32`, `bf16x3` (as three bf16 products), `bf16`, or `auto` (bf16x3 on processors
    /// with AMX tiles, else f32). What it comes to is part of each cell's id.
    #[arg(long, value_name = "PRECISION", default_value = "f32")]
    precision: PrecisionSetting,
    /// Print the cells and whether they are done, and run none. Fetches weights that are not here: a cell's id, by which
    /// it is known to be done, is made of their hash too. With `HF_HUB_OFFLINE=1` their cells are `blocked` instead.
    #[arg(long)]
    dry_run: bool,
    /// Print what is there, what must be downloaded and under which licences, and how much disk, memory and time the rest
    /// takes on this machine, from short probes of each method and backbone. Downloads and runs nothing else.
    #[arg(long, conflicts_with = "dry_run")]
    estimate: bool,
    /// Only cells whose name (`method/dataset/protocol/category/seedN`) fits; `*` also stands for slashes.
    #[arg(long, value_name = "GLOB")]
    only: Option<String>,
    /// Keep the chosen detectors beside each result: `score` uses them.
    #[arg(long)]
    save_detectors: bool,
    /// How much of frozen backbones' features each running cell keeps in memory (`500MB`, `1GiB`; 0 for none).
    #[arg(long, value_name = "SIZE", default_value = "1GiB", value_parser = size)]
    feature_memory: u64,
    /// How much of them is kept in a folder that all cells share, and later runs too; 0 for none.
    #[arg(long, value_name = "SIZE", default_value = "4GiB", value_parser = size)]
    feature_disk: u64,
    /// That folder; `features` in the output folder if left out.
    #[arg(long, value_name = "DIR")]
    feature_dir: Option<PathBuf>,
    /// In how many bits they are kept: `f32`, with the results of computing them anew, or `f16`, in half the room, from
    /// which methods learn slightly other numbers (part of each cell's id).
    #[arg(long, value_name = "BITS", default_value = "f32")]
    feature_precision: FeaturePrecision,
    /// Run on data that `data check` finds faults in, without the images that can't be used. What is left out is recorded.
    #[arg(long)]
    accept_data_problems: bool,
    /// Also track the run there: `tensorboard` (event files in the output folder), `tensorboard=DIR`, `mlflow=URL` (a
    /// server) or `mlflow=DIR` (its file layout). May be given several times.
    #[arg(long, value_name = "WHERE")]
    track: Vec<Destination>,
    #[command(flatten)]
    cluster: Cluster,
}

impl Reproduce {
    /// Runs the matrix; the exit status says whether every cell is finished and well.
    pub(crate) fn run(self) -> Result<ExitCode> {
        let root = root();
        let profile = Profile::find(&self.profile, &root.join("matrix"))?;
        let layout = Layout::new(&self.out.unwrap_or_else(|| Path::new("runs").join(&profile.name)));
        if self.cluster.follow {
            return self.cluster.watch(&layout, open(&self.track, &layout)?, &cancelled_by_signals()?);
        }
        let device = match self.cluster.executor {
            Executor::Local => resolved(self.device)?,
            Executor::Slurm => self.cluster.device(self.device)?,
        };
        let folder = self.feature_dir.unwrap_or_else(|| layout.root().join("features"));
        let features = FeatureOptions {
            memory: self.feature_memory,
            folder: (self.feature_disk > 0)
                .then(|| absolute(&folder).map(|path| FeatureFolder { path, budget: self.feature_disk }))
                .transpose()?,
            precision: self.feature_precision,
        };
        let options = PlanOptions {
            device,
            precision: self.precision,
            only: self.only,
            save_detectors: self.save_detectors,
            features,
            checks: Some(layout.root().join("checks")),
            accept_data_problems: self.accept_data_problems,
            rehearsal: None,
            offline: self.estimate,
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
        if self.estimate {
            return estimate::run(&plan, &layout, self.feature_disk, cancellation);
        }
        if self.cluster.executor == Executor::Slurm {
            return self.cluster.run(&plan, &layout, open(&self.track, &layout)?, &cancellation);
        }
        let any_gpu = self.device == DeviceChoice::Auto;
        let run = RunOptions {
            memory: self.memory,
            ..on_this_machine(device, any_gpu, self.workers, cancellation)?
        };
        run_here(&plan, &layout, &run, open(&self.track, &layout)?)
    }
}

/// The device that is meant, with a word about it if it is not the one asked for.
pub(crate) fn resolved(asked: DeviceChoice) -> Result<DeviceChoice> {
    let (device, fell_back) = asked.resolve()?;
    if let Some(why) = fell_back {
        tracing::warn!("{why}");
    }
    Ok(device)
}

/// How cells run on this machine: on `device` alone or, if any GPU is meant, on all there are; `workers` at a time if that is
/// said.
pub(crate) fn on_this_machine(
    device: DeviceChoice,
    any_gpu: bool,
    workers: Option<u16>,
    cancellation: Cancellation,
) -> Result<RunOptions> {
    let asked = workers.map(usize::from);
    let gpus = gpus(device, any_gpu, asked, benchmark::gpu_count())?;
    let workers = if gpus.is_empty() { asked.unwrap_or_else(usual_workers) } else { gpus.len() };
    Ok(RunOptions { workers, gpus, memory: None, child: child()?, cancellation })
}

/// Runs a matrix on this machine, tracked, and reports on it.
pub(crate) fn run_here(
    plan: &Plan,
    layout: &Layout,
    run: &RunOptions,
    trackers: Vec<Box<dyn Tracker>>,
) -> Result<ExitCode> {
    let tracking = Tracking::start(plan, layout, trackers)?;
    let outcome = benchmark::run_plan(plan, layout, run)?;
    benchmark::write_summary(layout, &plan.header(), &outcome.cells)?;
    tracking.finish(&outcome)?;
    tell(&outcome, layout)
}

/// What tracks runs at these places; those without a folder of their own are in the output folder.
pub(crate) fn open(places: &[Destination], layout: &Layout) -> Result<Vec<Box<dyn Tracker>>> {
    Ok(places.iter().map(|place| place.open(layout.root())).collect::<Result<_, _>>()?)
}

/// The program and arguments of a cell's process.
pub(crate) fn child() -> Result<Vec<OsString>> {
    Ok(vec![std::env::current_exe().context("this program's path")?.into(), OsString::from("cell")])
}

/// Shows how a run ended; the exit status says whether every cell is finished and well.
pub(crate) fn tell(outcome: &Outcome, layout: &Layout) -> Result<ExitCode> {
    say(&benchmark::terminal_table(&outcome.cells))?;
    say(&format!("report: {}", layout.root().join("report.html").display()))?;
    if outcome.is_complete() {
        return Ok(ExitCode::SUCCESS);
    }
    say(&format!("{} cells failed, {} unfinished", outcome.failed, outcome.unfinished))?;
    Ok(ExitCode::FAILURE)
}

/// `folder` whatever directory a cell's process is in.
pub(crate) fn absolute(folder: &Path) -> Result<PathBuf> {
    std::path::absolute(folder).with_context(|| format!("can't find {}", folder.display()))
}

/// A number of bytes: `4096`, `500kB`, `500MB`, `2GB`, `1TB`, or in powers of 1024 `KiB`, `MiB`, `GiB`, `TiB`.
pub(crate) fn size(text: &str) -> Result<u64, String> {
    let wrong = || format!("expected a number of bytes such as `500MB` or `1.5GiB`, found `{text}`");
    let digits = text.find(|c: char| !(c.is_ascii_digit() || c == '.')).unwrap_or(text.len());
    let number: f64 = text[..digits].parse().map_err(|_| wrong())?;
    let (base, power) = match text[digits..].trim() {
        "" | "B" => (1.0, 0),
        "kB" => (1e3, 1),
        "MB" => (1e3, 2),
        "GB" => (1e3, 3),
        "TB" => (1e3, 4),
        "KiB" => (1024.0, 1),
        "MiB" => (1024.0, 2),
        "GiB" => (1024.0, 3),
        "TiB" => (1024.0, 4),
        _ => return Err(wrong()),
    };
    Ok((number * f64::powi(base, power)) as u64)
}

/// Small cells keep one core busy better than several; large ones would not fit into memory many times over.
fn usual_workers() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from).min(4)
}

/// The GPUs that cells compute on, one cell at a time each; none if they compute on the CPU.
fn gpus(device: DeviceChoice, any: bool, workers: Option<usize>, there: usize) -> Result<Vec<usize>> {
    let DeviceChoice::Cuda(first) = device else { return Ok(Vec::new()) };
    // Where the driver does not tell how many there are, the one that was opened is there.
    let there = there.max(first + 1);
    let count = workers.unwrap_or(if any { there } else { 1 });
    if first + count > there {
        bail!(
            "--workers {count}: expected at most {}, a GPU each from {device} on, since this machine has {there}",
            there - first
        );
    }
    Ok((first..first + count).collect())
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
pub(crate) fn cancelled_by_signals() -> Result<Cancellation> {
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use benchmark::DeviceChoice;

    use super::{gpus, size};

    #[test]
    fn cells_have_a_gpu_each() {
        let of = |device, any, workers| gpus(device, any, workers, 4);
        assert_eq!(of(DeviceChoice::Cpu, true, Some(3)).unwrap(), [0; 0]);
        assert_eq!(of(DeviceChoice::Cuda(0), true, None).unwrap(), [0, 1, 2, 3]);
        assert_eq!(of(DeviceChoice::Cuda(1), false, None).unwrap(), [1]);
        assert_eq!(of(DeviceChoice::Cuda(1), false, Some(3)).unwrap(), [1, 2, 3]);
        let message = of(DeviceChoice::Cuda(2), false, Some(3)).unwrap_err().to_string();
        assert!(message.contains("at most 2") && message.contains("has 4"), "{message}");
        assert_eq!(gpus(DeviceChoice::Cuda(0), true, None, 0).unwrap(), [0]);
    }

    #[test]
    fn sizes_are_read_with_their_units() {
        assert_eq!(size("0"), Ok(0));
        assert_eq!(size("500MB"), Ok(500_000_000));
        assert_eq!(size("1.5GiB"), Ok(3 << 29));
        for wrong in ["", "GiB", "1GiBs", "-1", "1.2.3", "many"] {
            assert!(size(wrong).is_err_and(|e| e.contains("500MB")), "{wrong}");
        }
    }
}
