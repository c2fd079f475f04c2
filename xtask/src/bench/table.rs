//! Figures as a table, or as JSON.

use std::collections::BTreeSet;
use std::io::Write;
use std::process::ExitCode;

use anyhow::{Result, bail, ensure};
use comfy_table::presets::UTF8_HORIZONTAL_ONLY;
use comfy_table::{CellAlignment, ContentArrangement, LineStyle, Table};
use serde::Serialize;

use super::comparison::{Comparison, Measured, Standing};
use super::conditions::Conditions;
use super::options::Options;
use crate::say;

/// All that a run measured.
#[derive(Debug, Serialize)]
struct Report {
    conditions: Conditions,
    comparisons: Vec<Measured>,
    /// What failed that must not: one of ours, or what a whole comparison needs.
    failures: Vec<String>,
}

/// Measures all comparisons that are wanted and prints the figures. `make` is called for one name after the other, so
/// that only one comparison's inputs exist at a time. Figures are kept whatever else fails.
///
/// # Errors
/// If no comparison is wanted; at the end, if one failed or one of ours in it.
pub(crate) fn report<T>(
    options: &Options,
    items: impl IntoIterator<Item = (String, T)>,
    make: impl Fn(&str, T) -> Result<(Comparison, tempfile::TempDir)>,
) -> Result<ExitCode> {
    let (wanted, others): (Vec<_>, Vec<_>) = items.into_iter().partition(|(name, _)| options.wants(name));
    if wanted.is_empty() {
        let filter = options.filter.as_deref().unwrap_or_default();
        let names: Vec<String> = others.into_iter().map(|(name, _)| name).collect();
        bail!("no comparison's name contains `{filter}`; there are: {}", names.join(", "));
    }
    let mut report =
        Report { conditions: Conditions::here(options)?, comparisons: Vec::new(), failures: Vec::new() };
    report.write(options)?;
    if !options.json {
        say(&report.conditions.text())?;
    }
    let count = wanted.len();
    for (number, (name, item)) in wanted.into_iter().enumerate() {
        // If standard error is closed nobody waits for news.
        writeln!(std::io::stderr(), "{} of {count}: {name}", number + 1).ok();
        let measured = make(&name, item)
            .and_then(|(comparison, _inputs)| comparison.measure(options, report.conditions.on_gpu()));
        match measured {
            Ok(measured) => {
                if !options.json {
                    say(&text(&measured))?;
                }
                report.add(measured);
            }
            Err(error) => report.failures.push(format!("{name}: {error:#}")),
        }
        report.write(options)?;
    }
    if options.json {
        say(&report.json()?)?;
    } else {
        say(&format!("\n{LEGEND}"))?;
        if report.conditions.on_gpu() {
            say(ON_GPU)?;
        }
        say(&report.summary())?;
    }
    ensure!(report.failures.is_empty(), "{}", report.failures.join("; "));
    Ok(ExitCode::SUCCESS)
}

impl Report {
    fn add(&mut self, measured: Measured) {
        let failed = measured.standings.iter().filter(|standing| standing.required);
        self.failures.extend(failed.filter_map(|standing| {
            let why = standing.left_out.as_ref()?;
            Some(format!("{}: {}: {why}", measured.name, standing.contender))
        }));
        self.comparisons.push(measured);
    }

    fn json(&self) -> Result<String> {
        Ok(serde_json::to_string_pretty(self)?)
    }

    /// Writes what there is so far, where a file is wanted.
    fn write(&self, options: &Options) -> Result<()> {
        let Some(path) = &options.json_file else { return Ok(()) };
        anomaly_core::write_atomic(path, (self.json()? + "\n").as_bytes())?;
        Ok(())
    }

    /// One line: how many comparisons there are and who is missing in some.
    fn summary(&self) -> String {
        let standings = self.comparisons.iter().flat_map(|measured| &measured.standings);
        let missing: BTreeSet<&str> = standings
            .filter(|standing| standing.left_out.is_some())
            .map(|standing| standing.contender.as_str())
            .collect();
        let missing = missing.into_iter().collect::<Vec<_>>().join("; ");
        let missing = if missing.is_empty() { "nobody" } else { &missing };
        format!("comparisons: {}; left out: {missing}", self.comparisons.len())
    }
}

const HEADINGS: [&str; 11] = [
    "contender",
    "best ms",
    "median ms",
    "spread",
    "time ratio",
    "base MiB",
    "peak MiB",
    "running MiB",
    "memory ratio",
    "less base",
    "difference",
];

/// What the columns are.
const LEGEND: &str = "\
Ratios are to the baseline's, below 1 is faster or smaller: of times the best and the median; of memory the peak of the
process and its peak once all was loaded (running). Base: what the process took when its libraries were loaded and no
input was read; less base: the ratios of memory without it on either side. Difference: the largest, as a share of the
largest value.";

/// What stands below it on a GPU.
const ON_GPU: &str = "Memory is the host's, not the GPU's, and has no ratio.";

fn text(measured: &Measured) -> String {
    let mut table = Table::new();
    table
        .load_style(UTF8_HORIZONTAL_ONLY.row_separator(LineStyle::none()))
        .set_content_arrangement(ContentArrangement::Disabled)
        .force_no_tty();
    table.set_header(HEADINGS);
    for standing in &measured.standings {
        table.add_row(row(standing));
    }
    for index in 1..HEADINGS.len() {
        if let Some(column) = table.column_mut(index) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    let baseline = measured.baseline.as_ref().map(|label| format!(" · baseline {label}")).unwrap_or_default();
    let mut lines = vec![format!("\n{}{baseline}", measured.name), table.trim_fmt()];
    for standing in &measured.standings {
        let facts: Vec<String> =
            standing.versions.iter().map(|(name, version)| format!("{name} {version}")).collect();
        match &standing.left_out {
            Some(why) => lines.push(format!("{} is left out: {why}", standing.contender)),
            None if facts.is_empty() => {}
            None => lines.push(format!("{}: {}", standing.contender, facts.join(", "))),
        }
    }
    lines.join("\n")
}

fn row(standing: &Standing) -> [String; HEADINGS.len()] {
    let blank = String::new;
    let milliseconds = |seconds: f64| format!("{:.2}", 1e3 * seconds);
    let mebibytes = |bytes: Option<u64>| bytes.map_or_else(blank, |bytes| (bytes >> 20).to_string());
    let (seconds, ratio) = (standing.seconds.as_ref(), standing.ratio.as_ref());
    [
        standing.contender.clone(),
        seconds.map_or_else(blank, |s| milliseconds(s.best)),
        seconds.map_or_else(blank, |s| milliseconds(s.median)),
        seconds.map_or_else(blank, |s| format!("{:.0} %", 1e2 * s.spread)),
        ratio.map_or_else(blank, |r| format!("{:.2}, {:.2}", r.best, r.median)),
        mebibytes(standing.memory.base),
        mebibytes(standing.memory.peak),
        mebibytes(standing.memory.running),
        standing.memory_ratio.map_or_else(blank, |m| format!("{:.2}, {:.2}", m.peak, m.running)),
        standing
            .memory_ratio
            .and_then(|m| m.peak_less_base.zip(m.running_less_base))
            .map_or_else(blank, |(peak, running)| format!("{peak:.2}, {running:.2}")),
        standing.difference.map_or_else(blank, |d| format!("{d:.1e}")),
    ]
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::ffi::OsString;

    use super::super::comparison::{Comparison, Measured, Standing};
    use super::super::contender::Contender;
    use super::super::figures::{Figures, Ratio};
    use super::super::memory::{Memory, MemoryRatio};
    use super::super::options::Options;
    use super::{report, text};

    #[derive(clap::Parser)]
    struct Arguments {
        #[command(flatten)]
        options: Options,
    }

    #[test]
    fn a_comparison_that_fails_leaves_the_figures_of_the_others() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("figures.json");
        let arguments = ["bench", "--rounds", "1", "--python", "no-such-python", "--json-file"];
        let Arguments { options } = clap::Parser::parse_from(
            arguments.into_iter().map(OsString::from).chain([file.clone().into_os_string()]),
        );
        let peer = Contender::peer("a peer", "bench_torch.py", serde_json::Value::Null);
        let ours = Contender { required: true, label: "ours".to_owned(), ..peer.clone() };
        let make = |name: &str, fails: bool| {
            anyhow::ensure!(!fails, "no inputs");
            // What is written so far is whole at any time.
            let so_far: serde_json::Value = serde_json::from_slice(&std::fs::read(&file)?)?;
            assert!(so_far["conditions"]["date"].is_string(), "{so_far}");
            let contenders =
                if name == "third" { vec![peer.clone(), ours.clone()] } else { vec![peer.clone()] };
            let comparison = Comparison { name: name.to_owned(), contenders, baseline: "a peer".to_owned() };
            Ok((comparison, tempfile::tempdir()?))
        };
        let items = [("first", false), ("second", true), ("third", false)];
        let items = items.map(|(name, fails)| (name.to_owned(), fails));
        let message = report(&options, items, make).unwrap_err().to_string();
        assert!(message.contains("second: no inputs; third: ours: can't start no-such-python"), "{message}");

        let written: serde_json::Value = serde_json::from_slice(&std::fs::read(&file).unwrap()).unwrap();
        let names: Vec<_> =
            written["comparisons"].as_array().unwrap().iter().map(|one| &one["name"]).collect();
        assert_eq!(names, ["first", "third"]);
        assert_eq!(written["failures"].as_array().unwrap().len(), 2, "{written}");
        assert!(written["comparisons"][0]["standings"][0]["left_out"].is_string(), "{written}");
    }

    #[test]
    fn figures_ratios_and_reasons_are_shown() {
        let ours = Standing {
            contender: "ours f32".to_owned(),
            seconds: Figures::of(&[vec![0.25, 0.75]]),
            ratio: Ratio::of(&[vec![0.25]], &[vec![0.5]]),
            memory: Memory { peak: Some(5 << 20), ..Memory::default() },
            memory_ratio: Some(MemoryRatio {
                peak: 0.5,
                running: 0.625,
                peak_less_base: Some(1.25),
                running_less_base: Some(1.5),
            }),
            difference: Some(1.5e-6),
            ..Standing::default()
        };
        let peer = Standing {
            contender: "PyTorch f32".to_owned(),
            left_out: Some("No module named 'torch'".to_owned()),
            ..Standing::default()
        };
        let measured = Measured { name: "work".to_owned(), baseline: None, standings: vec![ours, peer] };
        let text = text(&measured);
        for part in [
            "250.00",
            "500.00",
            "25 %",
            "0.50, 0.50",
            "5",
            "0.50, 0.62",
            "1.25, 1.50",
            "1.5e-6",
            "is left out: No module named 'torch'",
        ] {
            assert!(text.contains(part), "{part} in {text}");
        }
    }
}
