//! `reproduce` and `tune` with `--executor slurm`: cells as the tasks of a Slurm job array.

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use benchmark::cluster::{
    ClusterOptions, FollowOptions, Followed, News, Submitted, TaskState, conclude, follow, note_ends, submit,
    submitted_plan,
};
use benchmark::{Cancellation, DeviceChoice, Error, Layout, Outcome, Plan, RunCells, Tracking};
use slurm_array::{Limits, Resources, Slurm, Verdict};
use tracking::Tracker;

use crate::reproduce::tell;
use crate::say;

/// How long the job that writes the report waits for records that are on their way.
const COLLECT_AT_MOST: Duration = Duration::from_secs(600);

/// Where cells run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Executor {
    /// In processes on this machine.
    Local,
    /// As the tasks of a Slurm job array; the output folder must be visible on the nodes under the same path.
    Slurm,
}

/// How cells run on a cluster.
#[derive(Debug, Clone, clap::Args)]
#[command(next_help_heading = "Slurm")]
pub(crate) struct Cluster {
    /// Where cells run.
    #[arg(long, value_enum, default_value = "local")]
    pub(crate) executor: Executor,
    /// How many tasks run at a time at most.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    max_parallel: Option<u32>,
    /// CPUs a task.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    cpus: Option<u32>,
    /// Memory a task, as Slurm writes it: `16G`.
    #[arg(long, value_name = "SIZE")]
    mem: Option<String>,
    /// GPUs a task; each cell computes on the first.
    #[arg(long, value_name = "N")]
    gpus: Option<u32>,
    /// The longest a task may take, as Slurm writes it: `4:00:00`.
    #[arg(long, value_name = "TIME")]
    time: Option<String>,
    /// The partition.
    #[arg(long, value_name = "NAME")]
    partition: Option<String>,
    /// A further flag of `sbatch`, such as `--sbatch=--account=vision`; can be repeated.
    #[arg(long, value_name = "FLAG", allow_hyphen_values = true)]
    sbatch: Vec<String>,
    /// How many cells make up a task. If left out, one, and cells that earlier runs show to be short share a task.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    cells_per_task: Option<u32>,
    /// Submit and leave. The same call without it watches.
    #[arg(long, conflicts_with = "follow")]
    detach: bool,
    /// Submit nothing: watch what was submitted from the output folder, from any machine that sees it.
    #[arg(long)]
    pub(crate) follow: bool,
    /// Seconds between two questions to the queue.
    #[arg(long, value_name = "SECONDS", default_value = "15", value_parser = seconds)]
    poll: Duration,
    /// Seconds between two signs of life of a task; after six times that without one it counts as a ghost.
    #[arg(long, value_name = "SECONDS", default_value = "30", value_parser = seconds)]
    heartbeat: Duration,
    /// Seconds that files written on a node may take to be visible here.
    #[arg(long, value_name = "SECONDS", default_value = "60", value_parser = seconds)]
    grace: Duration,
}

/// A time above 0 and of at most four minutes: Slurm forgets a task after five.
fn seconds(text: &str) -> Result<Duration, String> {
    let seconds = text.parse::<f64>().ok().filter(|&seconds| seconds > 0.0 && seconds <= 240.0);
    seconds
        .map(Duration::from_secs_f64)
        .ok_or_else(|| format!("expected seconds above 0, at most 240, found `{text}`"))
}

impl Cluster {
    /// Where cells compute, which this machine need not have.
    pub(crate) fn device(&self, asked: DeviceChoice) -> Result<DeviceChoice> {
        let found = match (asked, self.gpus.unwrap_or(0)) {
            (DeviceChoice::Auto, 0) => DeviceChoice::Cpu,
            (DeviceChoice::Auto, _) => DeviceChoice::Cuda(0),
            (device, _) => device,
        };
        if found != DeviceChoice::Cpu && !cfg!(feature = "cuda") {
            bail!(
                "tasks are to compute on {found}, but this program was built without the feature `cuda` (docs/gpu.md)"
            );
        }
        Ok(found)
    }

    /// Submits what is missing, and watches it unless told to leave.
    pub(crate) fn run(
        &self,
        plan: &Plan,
        layout: &Layout,
        trackers: Vec<Box<dyn Tracker>>,
        cancellation: &Cancellation,
    ) -> Result<ExitCode> {
        if self.detach && !trackers.is_empty() {
            bail!("--track: with --detach nobody is there to track; give it to the call that watches");
        }
        let submitted = submit(plan, layout, &self.submission(true)?)?;
        if submitted.tasks + submitted.held == 0 && submitted.refused.is_none() {
            say("every cell that can be run is done: nothing to submit")?;
            let tracking = Tracking::start_shared(plan, layout, trackers)?;
            let outcome = benchmark::recorded(plan, layout)?;
            benchmark::write_summary(layout, &plan.header(), &outcome.cells)?;
            tracking.finish(&outcome)?;
            return tell(&outcome, layout);
        }
        for line in told(&submitted) {
            say(&line)?;
        }
        if self.detach {
            say("to watch: the same call without --detach")?;
            return Ok(if submitted.refused.is_some() { ExitCode::FAILURE } else { ExitCode::SUCCESS });
        }
        self.watch_tracked(plan, layout, trackers, cancellation)
    }

    /// How cells are submitted; a matrix has a job that writes its report.
    fn submission(&self, report: bool) -> Result<ClusterOptions> {
        Ok(ClusterOptions {
            resources: Resources {
                max_parallel: self.max_parallel,
                cpus: self.cpus,
                memory: self.mem.clone(),
                gpus: self.gpus,
                time: self.time.clone(),
                partition: self.partition.clone(),
                extra: self.sbatch.clone(),
            },
            cells_per_task: self.cells_per_task.map(|n| n as usize),
            beat: self.heartbeat,
            report,
            program: std::env::current_exe().context("this program's path")?,
            slurm: Slurm::default(),
        })
    }

    fn following(&self, cancellation: &Cancellation) -> FollowOptions {
        FollowOptions {
            poll: self.poll,
            limits: Limits { stale: self.heartbeat * 6, grace: self.grace },
            slurm: Slurm::default(),
            cancellation: cancellation.clone(),
            at_most: None,
        }
    }

    /// How the cells of a search run: each rung of a batch of trials is one submission.
    pub(crate) fn for_search(&self, cancellation: &Cancellation) -> Result<SearchOnSlurm> {
        Ok(SearchOnSlurm {
            submission: self.submission(false)?,
            following: self.following(cancellation),
            detach: self.detach,
        })
    }

    /// Watches what was submitted, from whatever machine.
    pub(crate) fn watch(
        &self,
        layout: &Layout,
        trackers: Vec<Box<dyn Tracker>>,
        cancellation: &Cancellation,
    ) -> Result<ExitCode> {
        self.watch_tracked(&submitted_plan(layout)?, layout, trackers, cancellation)
    }

    /// Watches until nothing more is to come, then writes the report; a request to stop ends the watching alone.
    fn watch_tracked(
        &self,
        plan: &Plan,
        layout: &Layout,
        trackers: Vec<Box<dyn Tracker>>,
        cancellation: &Cancellation,
    ) -> Result<ExitCode> {
        let tracking = Tracking::start_shared(plan, layout, trackers)?;
        let followed = follow(layout, &self.following(cancellation), &mut log)?;
        if !followed.settled {
            say("no longer watching; the tasks go on, and the same call with --follow watches again")?;
            return Ok(ExitCode::FAILURE);
        }
        let outcome = conclude(layout, &followed, &writer())?;
        tracking.finish(&outcome)?;
        if let Some(advice) = advice(&followed) {
            say(&advice)?;
        }
        tell(&outcome, layout)
    }
}

/// What a submission came to, a line each.
fn told(submitted: &Submitted) -> Vec<String> {
    let mut lines: Vec<String> = submitted
        .arrays
        .iter()
        .map(|array| format!("submitted {} tasks as job array {array}", submitted.tasks))
        .collect();
    if submitted.held > 0 {
        lines.push(format!("{} tasks were in Slurm's hands already", submitted.held));
    }
    lines.extend(submitted.report.map(|job| format!("job {job} writes the report when they are over")));
    lines.extend(submitted.refused.clone());
    lines
}

/// The cells of a search as job arrays.
pub(crate) struct SearchOnSlurm {
    submission: ClusterOptions,
    following: FollowOptions,
    /// Submit and leave.
    detach: bool,
}

impl RunCells for SearchOnSlurm {
    fn run_cells(&mut self, plan: &Plan, layout: &Layout) -> Result<Option<Outcome>, Error> {
        let submitted = submit(plan, layout, &self.submission)?;
        told(&submitted).iter().for_each(mention);
        if let Some(why) = submitted.refused {
            // What comes next would be refused as well.
            return Err(Error::Cluster(why));
        }
        if submitted.tasks + submitted.held > 0 {
            if self.detach {
                return Ok(None);
            }
            let followed = follow(layout, &self.following, &mut log)?;
            if !followed.settled {
                return Ok(None);
            }
            note_ends(layout, &followed, &writer())?;
            advice(&followed).iter().for_each(mention);
        }
        benchmark::recorded(plan, layout).map(Some)
    }

    fn is_shared(&self) -> bool {
        true
    }
}

/// Writes a line beside the search's table, which is all that standard output has.
fn mention(line: impl AsRef<str>) {
    // If standard error is gone there is nobody left to tell.
    writeln!(std::io::stderr(), "{}", line.as_ref()).ok();
}

/// Tells this process from others that write into the shared folder.
fn writer() -> String {
    format!("{}.{}", slurm_array::Attempt::node(), std::process::id())
}

#[allow(clippy::needless_pass_by_value, reason = "as `follow` calls it")]
fn log(news: News<'_>) {
    let line = match news {
        News::Counts(counts) => {
            let words: Vec<String> = counts.iter().map(|(word, count)| format!("{count} {word}")).collect();
            format!("tasks: {}", words.join(", "))
        }
        News::Task(task) => {
            let verdict = task.verdict.as_ref().map(ToString::to_string).unwrap_or_default();
            format!(
                "task {}: {verdict}\n  cells: {}\n  log: {}",
                task.address(),
                task.open.join(", "),
                task.log.display()
            )
        }
        News::NoAnswer(why) => format!("the queue can't be asked, so nothing is concluded from it: {why}"),
    };
    // If standard error is gone there is nobody left to tell.
    writeln!(std::io::stderr(), "{line}").ok();
}

/// What a person can do about tasks that Slurm still holds and that won't end by themselves.
fn advice(followed: &Followed) -> Option<String> {
    let held = |task: &&TaskState| task.verdict.as_ref().is_some_and(Verdict::is_held);
    let held: Vec<String> = followed.tasks.iter().filter(held).map(TaskState::address).collect();
    (!held.is_empty()).then(|| {
        format!(
            "Slurm still holds {} tasks that won't end by themselves; to submit them anew, first: scancel {}",
            held.len(),
            held.join(" ")
        )
    })
}

/// Wait for the tasks of an output folder to end, and write its report: the job that `reproduce` leaves behind.
#[derive(Debug, clap::Args)]
pub(crate) struct Collect {
    /// The output folder.
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
}

impl Collect {
    /// Writes the report.
    pub(crate) fn run(self) -> Result<ExitCode> {
        let layout = Layout::new(&self.out);
        let options = FollowOptions {
            poll: Duration::from_secs(5),
            limits: Limits::default(),
            slurm: Slurm::default(),
            cancellation: Cancellation::default(),
            at_most: Some(COLLECT_AT_MOST),
        };
        let followed = follow(&layout, &options, &mut log)?;
        let outcome = conclude(&layout, &followed, &writer())?;
        tell(&outcome, &layout)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::seconds;

    #[test]
    fn seconds_are_read_within_their_limits() {
        assert_eq!(seconds("0.5"), Ok(Duration::from_millis(500)));
        for wrong in ["", "0", "-1", "241", "NaN", "soon"] {
            assert!(seconds(wrong).is_err_and(|e| e.contains("240")), "{wrong}");
        }
    }
}
