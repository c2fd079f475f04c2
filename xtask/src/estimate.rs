//! `reproduce --estimate`: what a matrix will take, before anything of it runs.

use std::process::ExitCode;

use anyhow::{Context, Result};
use benchmark::{Cancellation, Estimate, EstimateOptions, Layout, Pair, Plan, bytes_in_words};
use comfy_table::{Table, presets};
use dataset_fetch::Access;

use crate::reproduce::child;
use crate::say;

/// What a finished cell leaves: its record, scores and pictures. Detectors, if they are saved, are more.
const CELL_BYTES: u64 = 1 << 20;

/// Measures and prints.
pub(crate) fn run(
    plan: &Plan,
    layout: &Layout,
    feature_disk: u64,
    cancellation: Cancellation,
) -> Result<ExitCode> {
    let scratch = tempfile::tempdir().context("can't make a folder for probes")?;
    let options = EstimateOptions { child: child()?, scratch: scratch.path().to_owned(), cancellation };
    let estimate = benchmark::estimate(plan, layout, &options)?;
    let missing = estimate.cells - estimate.finished;
    say(&format!("{} cells, {} finished, {missing} to run", estimate.cells, estimate.finished))?;
    downloads(&estimate)?;
    for (name, licence) in &estimate.licences {
        say(&format!("here: data set {name} ({licence})"))?;
    }
    let results = missing as u64 * CELL_BYTES;
    say(&format!(
        "disk: about {} of results, and up to {} of kept features (`--feature-disk`), besides downloads",
        bytes_in_words(results),
        bytes_in_words(feature_disk)
    ))?;
    if !estimate.pairs.is_empty() {
        times(&estimate.pairs)?;
    }
    Ok(ExitCode::SUCCESS)
}

/// What must be had first, from where, and on what terms.
fn downloads(estimate: &Estimate) -> Result<()> {
    for (name, bytes, licence) in &estimate.weights {
        let size = bytes
            .map_or_else(|| "size not known".to_owned(), |bytes| format!("about {}", bytes_in_words(bytes)));
        let licence = licence
            .or_else(|| cnn_licence(name))
            .map_or_else(|| "licence not known here".to_owned(), |licence| format!("licence {licence}"));
        say(&format!("to download: weights of {name}, {size}, {licence}; fetched by the run itself"))?;
    }
    for (name, root, why) in &estimate.data {
        let place =
            root.as_ref().map_or_else(|| "its usual place".to_owned(), |root| root.display().to_string());
        // Variants of a data set are the same files.
        let source = dataset_fetch::SOURCES.iter().filter(|source| name.starts_with(source.name));
        let Some(source) = source.max_by_key(|source| source.name.len()) else {
            say(&format!("to get: data set {name}, in {place}: {why}"))?;
            continue;
        };
        let way = match source.access {
            Access::Free(files) => {
                let known: Option<u64> = files.iter().map(|file| file.bytes).sum();
                let size = known.map_or_else(|| "size not stated".to_owned(), bytes_in_words);
                format!("`cargo xtask fetch {}` ({size})", source.name)
            }
            Access::Manual { .. } => format!("by hand, `cargo xtask fetch {}` says how", source.name),
        };
        say(&format!("to get: data set {name}, licence {}, {way}, in {place}", source.licence))?;
    }
    Ok(())
}

/// The licence of a residual network's weights.
fn cnn_licence(name: &str) -> Option<&'static str> {
    name.contains("resnet").then_some("BSD-3-Clause")
}

/// Times and memory of each pair, and the sum.
fn times(pairs: &[Pair]) -> Result<()> {
    let mut table = Table::new();
    table.load_style(presets::UTF8_HORIZONTAL_ONLY);
    table.set_header(["method", "backbone", "size", "cells", "hours", "memory a cell", ""]);
    let (mut hours, mut left_out) = (0.0, 0);
    for pair in pairs {
        let mut notes = Vec::new();
        let time = match &pair.hours {
            Ok(time) => {
                hours += time;
                left_out += pair.unknown;
                format!("{time:.2}")
            }
            Err(why) => {
                left_out += pair.cells;
                notes.push(format!("not measured: {why}"));
                "?".to_owned()
            }
        };
        if pair.unknown > 0 {
            notes.push(format!("{} cells of data of unknown size are not in it", pair.unknown));
        }
        if let Some(stand_in) = pair.stand_in {
            notes.push(format!("scaled from {stand_in}"));
        }
        table.add_row([
            pair.method.clone(),
            pair.backbone.clone().unwrap_or_else(|| "–".to_owned()),
            pair.image_size.map_or_else(|| "–".to_owned(), |size| size.to_string()),
            pair.cells.to_string(),
            time,
            bytes_in_words(pair.memory),
            notes.join("; "),
        ]);
    }
    say(&table.to_string())?;
    say(&format!(
        "about {hours:.1} hours on this machine, one cell after the other{}; from probes of 8 images, so take it as an \
         order of magnitude",
        if left_out > 0 {
            format!(", without {left_out} cells that could not be estimated")
        } else {
            String::new()
        }
    ))
}
