//! Figures as a table, or as JSON.

use std::process::ExitCode;

use anyhow::{Result, bail};
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
}

/// Measures all comparisons that are wanted and prints the figures. `make` is called for one name after the other, so
/// that only one comparison's inputs exist at a time.
///
/// # Errors
/// If none is wanted, or one fails.
pub(crate) fn report<T>(
    options: &Options,
    items: impl IntoIterator<Item = (String, T)>,
    make: impl Fn(&str, T) -> Result<(Comparison, tempfile::TempDir)>,
) -> Result<ExitCode> {
    let items: Vec<(String, T)> = items.into_iter().collect();
    let names: Vec<String> = items.iter().map(|(name, _)| name.clone()).collect();
    let conditions = Conditions::here(options)?;
    if !options.json {
        say(&conditions.text())?;
    }
    let mut comparisons = Vec::new();
    for (name, item) in items.into_iter().filter(|(name, _)| options.wants(name)) {
        let (comparison, _inputs) = make(&name, item)?;
        let measured = comparison.measure(options)?;
        if !options.json {
            say(&text(&measured))?;
        }
        comparisons.push(measured);
    }
    if comparisons.is_empty() {
        let filter = options.filter.as_deref().unwrap_or_default();
        bail!("no comparison's name contains `{filter}`; there are: {}", names.join(", "));
    }
    if options.json {
        say(&serde_json::to_string_pretty(&Report { conditions, comparisons })?)?;
    } else {
        say(&format!("\n{LEGEND}"))?;
        if conditions.on_gpu() {
            say(ON_GPU)?;
        }
    }
    Ok(ExitCode::SUCCESS)
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
    use super::super::comparison::{Measured, Standing};
    use super::super::figures::{Figures, Ratio};
    use super::super::memory::{Memory, MemoryRatio};
    use super::text;

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
