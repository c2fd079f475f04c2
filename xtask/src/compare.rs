//! `cargo xtask compare`: runs beside each other, cell by cell.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Result, bail};
use report::{CompareOptions, Comparison, Evaluation, RunFolder, Selection};

use crate::say;

/// Compare runs with the first of them: differences with bootstrap intervals, and what else differs.
#[derive(Debug, clap::Args)]
pub(crate) struct Compare {
    /// Output folders of `reproduce`; the first is what the others are compared with.
    #[arg(required = true, num_args = 2.., value_name = "RUN")]
    runs: Vec<PathBuf>,
    /// The figure that the tables show; the files have all of them.
    #[arg(long, value_name = "METRIC", default_value = "image_auroc", value_parser = Evaluation::METRICS)]
    metric: String,
    /// Which of each cell's results: `faithful`, `honest` or `last`.
    #[arg(long, value_name = "CHOICE", default_value = "faithful", value_parser = selection)]
    selection: Selection,
    /// How often pairs, or test images, are drawn again.
    #[arg(long, value_name = "N", default_value_t = 2000)]
    draws: usize,
    /// The confidence level of intervals.
    #[arg(long, value_name = "LEVEL", default_value_t = 0.95)]
    level: f64,
    /// Where the draws start.
    #[arg(long, value_name = "SEED", default_value_t = 0)]
    seed: u64,
    /// Write everything there as JSON.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Write every row there as CSV.
    #[arg(long, value_name = "FILE")]
    csv: Option<PathBuf>,
}

impl Compare {
    /// Compares, and prints the tables.
    pub(crate) fn run(self) -> Result<ExitCode> {
        let runs = self.runs.iter().map(|run| RunFolder::read(run)).collect::<Result<Vec<_>, _>>()?;
        let Some((baseline, others)) = runs.split_first() else { bail!("expected at least two runs") };
        let bootstrap = metrics::Bootstrap { draws: self.draws, level: self.level, seed: self.seed };
        let options = CompareOptions { selection: self.selection, bootstrap };
        let compared = others.iter().map(|run| report::compare(baseline, run, &options));
        let comparisons = compared.collect::<Result<Vec<Comparison>, _>>()?;
        for comparison in &comparisons {
            say(&comparison.terminal_table(&self.metric))?;
        }
        if let Some(path) = &self.json {
            report::write_atomic(path, report::comparisons_json(&comparisons)?.as_bytes())?;
        }
        if let Some(path) = &self.csv {
            report::write_atomic(path, report::comparisons_csv(&comparisons)?.as_bytes())?;
        }
        Ok(ExitCode::SUCCESS)
    }
}

fn selection(text: &str) -> Result<Selection, String> {
    let known = Selection::ALL.into_iter().find(|selection| selection.word() == text);
    known.ok_or_else(|| format!("expected `faithful`, `honest` or `last`, found `{text}`"))
}
