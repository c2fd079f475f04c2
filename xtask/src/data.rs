//! `cargo xtask data`: the data sets that are known, and whether one on disk is as it must be.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Result, bail};
use datasets::{CheckReport, ENTRIES, Part, Split, SplitOptions, Task};

use crate::say;

/// List the known data sets, check one on disk, or show a split of one.
#[derive(Debug, clap::Args)]
pub(crate) struct Data {
    #[command(subcommand)]
    command: DataCommand,
}

#[derive(Debug, clap::Subcommand)]
enum DataCommand {
    Check(Check),
    /// Name every data set and layout, and what its root holds.
    List,
    Split(ShowSplit),
    Synthesize(crate::synthesize::Synthesize),
}

/// Look at every file and every pixel of a data set, and tell everything that is wrong with it.
///
/// Faults (missing, wrong or unpaired masks, undecodable images, empty classes, misspelt folders, test images among the
/// training images) make the exit status 1; a run does not start on such data unless told to. Notes (mixed sizes or
/// channels, masks that mark nothing, other numbers of images than published) do not.
#[derive(Debug, clap::Args)]
struct Check {
    /// The data set's root; its usual place if left out
    path: Option<PathBuf>,
    /// Its name or layout, as `data list` tells
    #[arg(long, value_name = "NAME")]
    layout: String,
    /// Write the whole report as JSON instead
    #[arg(long)]
    json: bool,
}

/// Show how a protocol divides a data set: numbers, and the hash that results carry.
#[derive(Debug, clap::Args)]
struct ShowSplit {
    /// The data set's root; its usual place if left out
    path: Option<PathBuf>,
    /// Its name or layout, as `data list` tells
    #[arg(long, value_name = "NAME")]
    layout: String,
    /// `unimodal`, `multimodal`, `one-class-abnormal`, `class-separated` or `multi-class`, each also `…-4-shot`; the usual
    /// one if left out
    #[arg(long, value_name = "PROTOCOL")]
    protocol: Option<Task>,
    /// The category; all of them, one after the other, if left out
    #[arg(long)]
    category: Option<String>,
    /// Seeds what is drawn
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// The share of the training images that is held out, 0 to 1
    #[arg(long, default_value_t = 0.0)]
    held_out: f64,
    /// List the ids, too
    #[arg(long)]
    ids: bool,
}

impl Data {
    /// Does what was asked; the exit status says whether the data passed.
    pub(crate) fn run(self) -> Result<ExitCode> {
        match self.command {
            DataCommand::List => list(),
            DataCommand::Check(check) => check.run(),
            DataCommand::Split(split) => split.run(),
            DataCommand::Synthesize(synthesize) => synthesize.run(),
        }
    }
}

fn list() -> Result<ExitCode> {
    for entry in ENTRIES {
        let place = entry.root.unwrap_or("nothing: it is part of the program");
        say(&format!(
            "{:<22} {}\n{:<22} usual protocol {}; root: {place}",
            entry.name, entry.title, "", entry.protocol
        ))?;
    }
    Ok(ExitCode::SUCCESS)
}

impl Check {
    fn run(self) -> Result<ExitCode> {
        if !ENTRIES.iter().any(|entry| entry.name == self.layout) {
            // Its error names the nearest one.
            datasets::open(&self.layout, self.path.as_deref())?;
        }
        let report = datasets::check(&self.layout, self.path.as_deref());
        if self.json {
            say(&serde_json::to_string_pretty(&report)?)?;
        } else {
            tell(&report)?;
        }
        Ok(if report.passed() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }
}

fn tell(report: &CheckReport) -> Result<()> {
    for (word, problems) in
        [("fault", report.faults().collect::<Vec<_>>()), ("note", report.notes().collect())]
    {
        for problem in problems {
            say(&format!("{word}  {:<20} {problem}", problem.kind.name()))?;
        }
    }
    let (faults, notes) = (report.faults().count(), report.notes().count());
    say(&format!("{}: {} images, {faults} faults, {notes} notes", report.dataset, report.images))
}

impl ShowSplit {
    fn run(self) -> Result<ExitCode> {
        let dataset = datasets::open(&self.layout, self.path.as_deref())?;
        let Task { protocol, shots } = self.protocol.unwrap_or_else(|| dataset.card().protocol.into());
        let categories = match self.category {
            Some(category) => vec![category],
            None => dataset.classes().iter().map(|class| class.key.clone()).collect(),
        };
        if categories.is_empty() {
            bail!("`{}` has no classes", self.layout);
        }
        let options =
            SplitOptions { shots, held_out_share: self.held_out, seed: self.seed, ..SplitOptions::default() };
        for category in categories {
            let split = Split::new(&*dataset, protocol, &category, &options)?;
            let anomalous = split.anomalous.iter().filter(|anomalous| **anomalous).count();
            say(&format!(
                "{category}: {} to train, {} held out, {} to test ({anomalous} anomalous), lists {}",
                split.train.len(),
                split.held_out.len(),
                split.test.len(),
                split.fingerprint(&*dataset)?.split
            ))?;
            if !self.ids {
                continue;
            }
            let lists =
                [(Part::Train, &split.train), (Part::Validation, &split.held_out), (Part::Test, &split.test)];
            for (part, list) in lists {
                for (at, &index) in list.iter().enumerate() {
                    let anomalous = part == Part::Test && split.anomalous[at];
                    let label = if anomalous { "anomalous" } else { "normal" };
                    say(&format!("  {:<10} {label:<9} {}", part.name(), dataset.items()[index].id))?;
                }
            }
        }
        Ok(ExitCode::SUCCESS)
    }
}
