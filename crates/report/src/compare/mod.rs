//! Two runs beside each other: what changed, by how much, and how sure that is.

mod differences;
mod pairs;
#[cfg(test)]
mod tests;
mod text;

use metrics::{Bootstrap, Ranking};
use serde::Serialize;

pub use differences::Difference;

use crate::{Error, Evaluation, RunFolder, Selection, Status, finite};
use pairs::{Pair, Pairs};

/// How runs are compared.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct CompareOptions {
    /// Which of each cell's results.
    pub selection: Selection,
    /// How intervals are drawn.
    pub bootstrap: Bootstrap,
}

impl Default for CompareOptions {
    fn default() -> Self {
        Self { selection: Selection::Faithful, bootstrap: Bootstrap::default() }
    }
}

/// One run against another. Differences are the second's figures minus the first's, as fractions.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Comparison {
    /// The run that is compared with.
    pub baseline: String,
    /// The run that is compared.
    pub run: String,
    /// Which of each cell's results.
    pub selection: &'static str,
    /// One for each method, data set, protocol, category and metric that both have; seeds are pairs.
    pub rows: Vec<ComparedRow>,
    /// The mean over all pairs of a method on a data set under a protocol, for each metric; only where there are several
    /// categories.
    pub means: Vec<ComparedRow>,
    /// What else differs between paired cells.
    pub differences: Vec<Difference>,
    /// Cells of the baseline that have no partner, by their ids, with the reason.
    pub only_in_baseline: Vec<Unpaired>,
    /// Cells of the run that have no partner.
    pub only_in_run: Vec<Unpaired>,
}

/// A cell without a partner.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Unpaired {
    /// The cell's id.
    pub cell: String,
    /// Why it has none.
    pub reason: String,
}

/// The same figure of paired cells.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ComparedRow {
    /// The method.
    pub method: String,
    /// Backbone and image size, where the method was run in several settings.
    pub setting: String,
    /// The data set.
    pub dataset: String,
    /// Who is normal.
    pub protocol: String,
    /// The category; `mean` for all of them.
    pub category: String,
    /// Which figure: one of [`Evaluation::METRICS`].
    pub metric: String,
    /// The figures, a pair for each seed and category.
    pub pairs: Vec<FigurePair>,
    /// The mean of the baseline's figures.
    #[serde(serialize_with = "finite::plain")]
    pub baseline: f64,
    /// The mean of the run's figures.
    #[serde(serialize_with = "finite::plain")]
    pub run: f64,
    /// The mean of the pairs' differences.
    #[serde(serialize_with = "finite::plain")]
    pub difference: f64,
    /// How sure that is, where it can be said.
    #[serde(serialize_with = "finite::part")]
    pub interval: Option<ComparedInterval>,
}

/// One figure in both runs.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct FigurePair {
    /// The category.
    pub category: String,
    /// The seed, the same in both.
    pub seed: u64,
    /// The baseline's figure.
    #[serde(serialize_with = "finite::plain")]
    pub baseline: f64,
    /// The run's.
    #[serde(serialize_with = "finite::plain")]
    pub run: f64,
}

/// A bootstrap interval of a difference.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct ComparedInterval {
    /// Its lower end.
    #[serde(serialize_with = "finite::plain")]
    pub low: f64,
    /// Its upper end.
    #[serde(serialize_with = "finite::plain")]
    pub high: f64,
    /// The confidence level, in (0, 1).
    #[serde(serialize_with = "finite::plain")]
    pub level: f64,
    /// What was drawn again: `pairs`, or `test images` where there is one pair only.
    pub over: &'static str,
}

/// Compares `run` with `baseline`, cell by cell.
///
/// Cells are partners if method, data set, protocol, category and seed agree. Where a run has several such cells, the one
/// with the same id, else the same configuration, else the same backbone and size is taken, and what stays ambiguous is
/// said to be so. Intervals are drawn over pairs where there are several, and for a single pair's image AUROC over the
/// test images, the same for both.
///
/// # Errors
/// [`Error::Io`] and [`Error::Scores`] for score tables that can't be read, [`Error::Bootstrap`] for options that can't be meant.
pub fn compare(baseline: &RunFolder, run: &RunFolder, options: &CompareOptions) -> Result<Comparison, Error> {
    let paired = Pairs::of(&baseline.cells, &run.cells);
    let mut rows: Vec<ComparedRow> = Vec::new();
    let mut means: Vec<ComparedRow> = Vec::new();
    for group in paired.by_method() {
        for metric in Evaluation::METRICS {
            let mut of_method: Vec<ComparedRow> = Vec::new();
            for category in group.categories() {
                let pairs: Vec<&Pair> =
                    group.pairs.iter().copied().filter(|pair| pair.category() == category).collect();
                if let Some(row) = row(&group.labelled(category, metric), &pairs, baseline, run, options)? {
                    of_method.push(row);
                }
            }
            if of_method.len() > 1 {
                let pairs = of_method.iter().flat_map(|row| row.pairs.clone()).collect();
                means.push(summed(&group.labelled("mean", metric), pairs, None, options)?);
            }
            rows.extend(of_method);
        }
    }
    Ok(Comparison {
        baseline: baseline.name.clone(),
        run: run.name.clone(),
        selection: options.selection.word(),
        rows,
        means,
        differences: differences::differences(&paired.found),
        only_in_baseline: paired.only_first,
        only_in_run: paired.only_second,
    })
}

/// What a row is about.
struct Labels {
    method: String,
    setting: String,
    dataset: String,
    protocol: String,
    category: String,
    metric: String,
}

/// The row of some pairs, `None` if the metric is not known in both cells of any.
fn row(
    labels: &Labels,
    pairs: &[&Pair<'_>],
    baseline: &RunFolder,
    run: &RunFolder,
    options: &CompareOptions,
) -> Result<Option<ComparedRow>, Error> {
    let figure =
        |cell: &crate::Cell| cell.results.get(options.selection).and_then(|it| it.figure(&labels.metric));
    let mut figures = Vec::new();
    let mut last = None;
    for pair in pairs {
        if let (Some(first), Some(second)) = (figure(pair.first), figure(pair.second)) {
            let (category, seed) = (pair.first.category.clone(), pair.first.seed);
            figures.push(FigurePair { category, seed, baseline: first, run: second });
            last = Some(pair);
        }
    }
    let Some(pair) = last else { return Ok(None) };
    let over_images = if figures.len() == 1 && labels.metric == "image_auroc" {
        over_images(pair, baseline, run, options)?
    } else {
        None
    };
    summed(labels, figures, over_images, options).map(Some)
}

fn summed(
    labels: &Labels,
    pairs: Vec<FigurePair>,
    over_images: Option<ComparedInterval>,
    options: &CompareOptions,
) -> Result<ComparedRow, Error> {
    let mean =
        |figure: &dyn Fn(&FigurePair) -> f64| pairs.iter().map(figure).sum::<f64>() / pairs.len() as f64;
    let differences: Vec<f64> = pairs.iter().map(|pair| pair.run - pair.baseline).collect();
    let interval = if differences.len() > 1 {
        let interval = options.bootstrap.mean(&differences).map_err(Error::Bootstrap)?;
        Some(ComparedInterval {
            low: interval.low,
            high: interval.high,
            level: interval.level,
            over: "pairs",
        })
    } else {
        over_images
    };
    Ok(ComparedRow {
        method: labels.method.clone(),
        setting: labels.setting.clone(),
        dataset: labels.dataset.clone(),
        protocol: labels.protocol.clone(),
        category: labels.category.clone(),
        metric: labels.metric.clone(),
        baseline: mean(&|pair| pair.baseline),
        run: mean(&|pair| pair.run),
        difference: mean(&|pair| pair.run - pair.baseline),
        interval,
        pairs,
    })
}

/// The interval over test images, if both cells scored the same ones.
fn over_images(
    pair: &Pair<'_>,
    baseline: &RunFolder,
    run: &RunFolder,
    options: &CompareOptions,
) -> Result<Option<ComparedInterval>, Error> {
    let (Some(first), Some(second)) = (
        baseline.scores(&pair.first.cell, options.selection)?,
        run.scores(&pair.second.cell, options.selection)?,
    ) else {
        return Ok(None);
    };
    let images = |table: &crate::ScoreTable| -> Vec<(String, bool)> {
        table.rows.iter().map(|row| (row.id.clone(), row.label)).collect()
    };
    if images(&first) != images(&second) {
        return Ok(None);
    }
    let (labels, figure) = (first.labels(), |ranking: &Ranking<f32>| ranking.auroc());
    let interval = options
        .bootstrap
        .difference(&first.scores(), &second.scores(), &labels, figure)
        .map_err(Error::Bootstrap)?;
    let (low, high, level) = (interval.low, interval.high, interval.level);
    Ok(Some(ComparedInterval { low, high, level, over: "test images" }))
}

/// Comparisons as JSON: an array, with every digit.
///
/// # Errors
/// [`Error::Record`] if a figure is not finite.
pub fn comparisons_json(comparisons: &[Comparison]) -> Result<String, Error> {
    text::to_json(comparisons)
}

/// Comparisons as CSV: a header, then a line for each row and each mean, with every digit.
///
/// # Errors
/// [`Error::Csv`] if the writer fails.
pub fn comparisons_csv(comparisons: &[Comparison]) -> Result<String, Error> {
    text::to_csv(comparisons)
}

/// Whether a cell has figures.
fn is_well(cell: &crate::Cell) -> bool {
    cell.status == Status::Ok
}
