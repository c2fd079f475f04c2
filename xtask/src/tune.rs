//! `cargo xtask tune`: search settings of a method, on training images alone.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Result, bail};
use benchmark::{
    Budget, DeviceChoice, FeatureFolder, FeatureOptions, Layout, Plan, PlanOptions, PrecisionSetting,
    Profile, Pruner, PublishedFigures, Sampler, Search, Space, StudySettings,
};
use tracking::Destination;

use crate::cluster::{Cluster, Executor};
use crate::reproduce::{
    absolute, cancelled_by_signals, commit, on_this_machine, open, resolved, root, run_here, size,
};
use crate::say;

/// Search settings of a profile's method.
///
/// Trials are judged by normal images held out of the training images, against the same with pasted defects; test images never
/// enter. A search that was stopped goes on where it was, and one that is done goes on with more trials.
#[derive(Debug, clap::Args)]
pub(crate) struct Tune {
    /// A profile of `matrix/` by name, or the path of a TOML file: one method, on whatever it is to be good at.
    #[arg(value_name = "PROFILE")]
    profile: String,
    /// What is searched: a TOML file with a table for each setting (`low` and `high`, `log`, `whole`; or `choice`).
    #[arg(long, value_name = "FILE")]
    space: PathBuf,
    /// How many trials there are to be in all.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    trials: u16,
    /// How points are chosen: `tpe`, or `random` to compare with.
    #[arg(long, value_name = "SAMPLER", default_value = "tpe")]
    sampler: Sampler,
    /// How many trials are chosen at once; their cells run side by side.
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = clap::value_parser!(u16).range(1..))]
    batch: u16,
    /// A setting that says how long a trial takes, and its values: those that are good at the first get the next, …
    /// (`epochs=3,9,27`).
    #[arg(long, value_name = "SETTING=N,N…")]
    budget: Option<Budget>,
    /// Which trials stop before they had the whole budget: the worse half of each batch (`halving`, which is what it is if left
    /// out); those whose best figure so far is worse than the median of complete trials' at the same budget, once five (or N)
    /// are complete (`median`, `median=N`); or `none`.
    #[arg(long, value_name = "PRUNER")]
    pruner: Option<Pruner>,
    /// The figure that is to be high; or, to be low, `normal_mean/TERM`, the mean of a term of the method's score over the held-out
    /// normal images, or `held_out_loss`, the method's loss on them.
    #[arg(long, value_name = "METRIC", default_value = "image_auroc")]
    metric: String,
    /// Where the search's draws and the pasted defects start.
    #[arg(long, value_name = "SEED", default_value_t = 0)]
    seed: u64,
    /// After the search, evaluate the best trial on test data, with all seeds of the profile; only ever one trial.
    #[arg(long = "final")]
    finally: bool,
    /// Where the search goes; `runs/tune-<profile>` if left out.
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// How many cells run at a time.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    workers: Option<u16>,
    /// Where to compute: `auto`, `cpu`, `cuda` or `cuda:N`.
    #[arg(long, value_name = "DEVICE", default_value = "auto")]
    device: DeviceChoice,
    /// How frozen networks multiply, as for `reproduce`.
    #[arg(long, value_name = "PRECISION", default_value = "f32")]
    precision: PrecisionSetting,
    /// How much of frozen features all trials share on the disk; 0 for none.
    #[arg(long, value_name = "SIZE", default_value = "4GiB", value_parser = size)]
    feature_disk: u64,
    /// Run on data that `data check` finds faults in, without the images that can't be used.
    #[arg(long)]
    accept_data_problems: bool,
    /// Also track the search there, each trial as a run within it: `tensorboard` (event files in the output folder),
    /// `tensorboard=DIR`, `mlflow=URL` (a server) or `mlflow=DIR` (its file layout). May be given several times.
    #[arg(long, value_name = "WHERE")]
    track: Vec<Destination>,
    #[command(flatten)]
    cluster: Cluster,
}

impl Tune {
    /// Searches; with `--final` the exit status also says whether the final evaluation is complete.
    pub(crate) fn run(self) -> Result<ExitCode> {
        let root = root();
        let profile = Profile::find(&self.profile, &root.join("matrix"))?;
        let space = Space::read(&self.space)?;
        let out = self.out.unwrap_or_else(|| Path::new("runs").join(format!("tune-{}", profile.name)));
        if self.cluster.follow {
            bail!(
                "--follow: what comes next follows from what came before, so the call without it goes on and watches"
            );
        }
        let on_slurm = self.cluster.executor == Executor::Slurm;
        let device = if on_slurm { self.cluster.device(self.device)? } else { resolved(self.device)? };
        let folder = (self.feature_disk > 0)
            .then(|| {
                absolute(&out.join("features")).map(|path| FeatureFolder { path, budget: self.feature_disk })
            })
            .transpose()?;
        let options = PlanOptions {
            device,
            precision: self.precision,
            features: FeatureOptions { folder, ..FeatureOptions::default() },
            checks: Some(out.join("checks")),
            accept_data_problems: self.accept_data_problems,
            commit: commit(&root),
            versions: benchmark::locked_versions(&root.join("Cargo.lock"))?,
            ..PlanOptions::default()
        };
        let cancellation = cancelled_by_signals()?;
        let settings = StudySettings {
            profile: profile.name.clone(),
            sampler: self.sampler,
            seed: self.seed,
            batch: usize::from(self.batch),
            metric: self.metric,
            budget: self.budget,
            pruner: self.pruner,
            dimensions: space.dimensions,
        };
        let layout = Layout::new(&out);
        let trials = usize::from(self.trials);
        let wanted =
            Search { profile: &profile, settings: &settings, trials, layout: &layout, plan: &options };
        let trackers = open(&self.track, &layout)?;
        let here = (!on_slurm)
            .then(|| {
                let any_gpu = self.device == DeviceChoice::Auto;
                on_this_machine(device, any_gpu, self.workers, cancellation.clone())
            })
            .transpose()?;
        let study = match here.clone() {
            Some(mut run) => benchmark::tune(&wanted, &mut run, trackers)?,
            None => benchmark::tune(&wanted, &mut self.cluster.for_search(&cancellation)?, trackers)?,
        };
        say(&study.report().markdown())?;
        if study.stopped {
            bail!("stopped after {} trials; the same command goes on", study.trials.len());
        }
        say(&format!("report: {}", out.join("tuning.html").display()))?;
        if study.best().is_none() {
            bail!("no trial is complete; the records in {} say why", out.join("cells").display());
        }
        if !self.finally {
            return Ok(ExitCode::SUCCESS);
        }
        let last = Layout::new(&out.join("final"));
        let chosen = benchmark::final_evaluation(&profile, &study, &last)?;
        let published = PublishedFigures::read(&root.join("assets/published"))?;
        let plan = Plan::new(&chosen, &published, &options)?;
        // Beside the search, where event files go in the output folder.
        let trackers = open(&self.track, &layout)?;
        match here {
            Some(run) => run_here(&plan, &last, &run, trackers),
            None => self.cluster.run(&plan, &last, trackers, &cancellation),
        }
    }
}
