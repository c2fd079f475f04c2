//! `cargo xtask bench`: how fast the project's work is, beside what others take for the same.
//!
//! A benchmark is a list of [`comparison::Comparison`]s: one piece of work, and the contenders that do it. Every
//! contender is a process of its own that speaks lines of JSON ([`protocol`]), so that this program, another build of it
//! (`--against`) and a peer in Python are started, timed and weighed alike: the same number of threads, the peak memory
//! of each by itself, and turns that alternate within each round, so that what disturbs the machine disturbs all.
//! A contender that cannot run here (no Python, no torch) or fails is left out with its reason, and the figures of the
//! others stay; a run in which ours fails has failed in the end.
//!
//! # Adding a benchmark
//!
//! 1. `bench/<name>.rs` with a serde struct `Case` (what one contender of ours has to do; files it reads lie in a folder
//!    the case names), and a type that implements [`work::Work`] and is made from the case in the child process.
//! 2. An arm of [`work::Case`], which makes that type. Its name is the tag that peers see.
//! 3. A `#[derive(clap::Args)]` struct with `#[command(flatten)] options: Options` whose `run` builds the comparisons
//!    and hands them to [`table::report`]; an arm of [`What`] that calls it.
//! 4. `tests/peers/bench_<name>.py`, which imports `contender` beside it and calls `contender.serve`.

mod anogan_trans;
mod backbone;
mod child;
mod comparison;
mod conditions;
mod contender;
mod data;
mod figures;
mod generalad;
mod memory;
mod metrics;
mod ops;
mod optimizers;
mod options;
mod peak;
mod protocol;
mod table;
mod train_step;
mod work;

use std::process::ExitCode;

use anyhow::Result;

pub(crate) use child::run_child;
pub(crate) use conditions::COMMIT_FILE;

/// Measure speed and memory, beside PyTorch where Python has it, alternating in one run.
#[derive(Debug, clap::Args)]
pub(crate) struct Bench {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, clap::Subcommand)]
enum What {
    AnoganTrans(anogan_trans::AnoganTrans),
    Backbone(backbone::Backbone),
    Data(data::Data),
    #[command(name = "generalad")]
    GeneralAd(generalad::GeneralAd),
    Metrics(metrics::Metrics),
    Ops(ops::Ops),
    Optimizers(optimizers::Optimizers),
    TrainStep(train_step::TrainStep),
}

impl Bench {
    /// Measures, and prints a table or JSON.
    pub(crate) fn run(self) -> Result<ExitCode> {
        match self.what {
            What::AnoganTrans(anogan_trans) => anogan_trans.run(),
            What::Backbone(backbone) => backbone.run(),
            What::Data(data) => data.run(),
            What::GeneralAd(generalad) => generalad.run(),
            What::Metrics(metrics) => metrics.run(),
            What::Ops(ops) => ops.run(),
            What::Optimizers(optimizers) => optimizers.run(),
            What::TrainStep(train_step) => train_step.run(),
        }
    }
}
