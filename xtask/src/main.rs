//! The project's commands: `cargo xtask COMMAND`.

mod bench;
mod cell;
mod cluster;
mod compare;
mod conform;
mod cuda_toolkit;
mod data;
mod estimate;
mod fetch;
mod gpu_check;
mod new_method;
mod report;
mod reproduce;
mod score;
mod synthesize;
mod tidy;
mod tune;

use std::io::{IsTerminal, Write};
use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};

/// Keeps freed buffers, which the next step needs again, instead of giving their pages back and having them cleared anew.
#[cfg(feature = "mimalloc")]
#[global_allocator]
static GLOBAL: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// The allocator's name, for benchmarks.
const ALLOCATOR: &str = if cfg!(feature = "mimalloc") { "mimalloc" } else { "system" };

/// The project's commands.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", disable_help_subcommand = true)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Bench(bench::Bench),
    /// Take part in `bench`: read turns from standard input, tell their times on standard output.
    #[command(hide = true)]
    BenchChild,
    Compare(compare::Compare),
    Conform(conform::Conform),
    CudaToolkit(cuda_toolkit::CudaToolkit),
    Data(data::Data),
    Fetch(fetch::Fetch),
    GpuCheck(gpu_check::GpuCheck),
    NewMethod(new_method::NewMethod),
    Report(report::Report),
    Reproduce(Box<reproduce::Reproduce>),
    Score(score::Score),
    #[command(hide = true)]
    Cell(cell::Cell),
    #[command(hide = true)]
    Collect(cluster::Collect),
    /// Check the workspace's structure: who depends on whom, and what every crate must have.
    Tidy,
    Tune(Box<tune::Tune>),
}

fn main() -> ExitCode {
    tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        // No escapes for colours in files.
        .with_ansi(std::io::stderr().is_terminal())
        .with_env_filter(
            tracing_subscriber::EnvFilter::builder()
                .with_default_directive(tracing_subscriber::filter::LevelFilter::WARN.into())
                .from_env_lossy(),
        )
        .without_time()
        .init();
    let result = match Arguments::parse().command {
        Command::Bench(bench) => bench.run(),
        Command::BenchChild => bench::run_child(),
        Command::Compare(compare) => compare.run(),
        Command::Conform(conform) => conform.run(&conformance_units()),
        Command::CudaToolkit(cuda_toolkit) => cuda_toolkit.run(),
        Command::Data(data) => data.run(),
        Command::Fetch(fetch) => fetch.run(),
        Command::GpuCheck(gpu_check) => gpu_check.run(),
        Command::NewMethod(new_method) => new_method.run(),
        Command::Report(report) => report.run(),
        Command::Reproduce(reproduce) => reproduce.run(),
        Command::Score(score) => score.run(),
        Command::Cell(cell) => cell.run(),
        Command::Collect(collect) => collect.run(),
        Command::Tidy => tidy::run(),
        Command::Tune(tune) => tune.run(),
    };
    result.unwrap_or_else(|error| {
        // If standard error is closed there is nobody left to tell.
        writeln!(std::io::stderr(), "error: {error:#}").ok();
        ExitCode::FAILURE
    })
}

/// The numeric units of every crate that has some.
fn conformance_units() -> Vec<conformance::Unit> {
    [
        advit_gmdn::conformance_units(),
        anogan_trans::conformance_units(),
        datasets::conformance_units(),
        generalad::conformance_units(),
        image_prep::conformance_units(),
        kdad::conformance_units(),
        metrics::units::conformance_units(),
        simplenet::conformance_units(),
        transformaly::conformance_units(),
        vit_backbone::conformance_units(),
        vtadl_registers::conformance_units(),
    ]
    .concat()
}

/// Writes a line to standard output.
fn say(line: &str) -> Result<()> {
    Ok(writeln!(std::io::stdout(), "{line}")?)
}
