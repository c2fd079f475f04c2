//! `cargo xtask report`: the report of one or several runs, made from their records.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use ::report::{Allowed, Cell, Header, RunFolder};
use anyhow::{Context, Result, bail};

use crate::say;

/// Make a report from the records of one or several runs.
///
/// Records that don't belong together are refused, each reason by name, unless an option says otherwise.
#[derive(Debug, clap::Args)]
pub(crate) struct Report {
    /// Output folders of `reproduce`.
    #[arg(required = true, value_name = "DIR")]
    runs: Vec<PathBuf>,
    /// Where `summary.*` and `report.html` go; the run's own folder if there is one run only.
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// The report's title; the runs' names if left out.
    #[arg(long, value_name = "TEXT")]
    title: Option<String>,
    /// Where a cell has other figures in two runs, take the first run's.
    #[arg(long)]
    prefer_first: bool,
    /// Take figures of different number revisions of one crate together.
    #[arg(long)]
    mixed_revisions: bool,
    /// Take figures on different data under one data set's name together.
    #[arg(long)]
    mixed_data: bool,
}

impl Report {
    /// Merges, and writes the report.
    pub(crate) fn run(self) -> Result<ExitCode> {
        let out = match (&self.out, &self.runs[..]) {
            (Some(out), _) => out.clone(),
            (None, [run]) => run.clone(),
            _ => bail!("expected --out DIR: several runs have no folder of their own"),
        };
        let runs = self.runs.iter().map(|run| RunFolder::read(run)).collect::<Result<Vec<_>, _>>()?;
        let allowed = Allowed {
            conflicting_figures: self.prefer_first,
            mixed_revisions: self.mixed_revisions,
            mixed_data: self.mixed_data,
        };
        let cells = ::report::merge(&runs, allowed)?;
        std::fs::create_dir_all(&out).with_context(|| format!("can't make {}", out.display()))?;
        let header = Header {
            profile: self
                .title
                .unwrap_or_else(|| self.runs.iter().map(|run| name(run)).collect::<Vec<_>>().join(" + ")),
            description: (runs.len() > 1).then(|| format!("Made from the records of {} runs", runs.len())),
            ..Header::default()
        };
        ::report::write_report(&out, &header, &cells)?;
        let records: Vec<Cell> = cells.into_iter().map(|files| files.cell).collect();
        say(&report::terminal_table(&records))?;
        say(&format!("report: {}", out.join("report.html").display()))?;
        Ok(ExitCode::SUCCESS)
    }
}

/// A run's name: its folder's.
fn name(run: &Path) -> String {
    run.file_name().map_or_else(|| run.display().to_string(), |name| name.to_string_lossy().into_owned())
}
