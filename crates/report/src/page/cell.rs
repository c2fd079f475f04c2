//! One cell: curves, histogram, pictures, configuration, provenance; folded until it is opened.

use std::collections::BTreeMap;

use maud::{Markup, html};

use super::charts::{self, FRAME, Series};
use super::operating::{self, Operating};
use super::pictures::pictures;
use crate::{Cell, CellFiles, Error, Evaluation, ScoreTable, Selection, Status, words};

/// More positions than this a slider's thumb cannot tell apart.
const SLIDER_STEPS: usize = 200;

pub(crate) fn cell(index: usize, files: &CellFiles) -> Result<Markup, Error> {
    let cell = &files.cell;
    let auroc = cell.results.faithful.as_ref().and_then(|evaluation| evaluation.image_auroc);
    let pictures = pictures(files)?;
    let curves = files.scores.as_ref().map(|scores| scores_and_roc(cell, scores)).transpose()?;
    Ok(html! {
        details.cell id=(format!("cell-{index}")) {
            summary {
                span.name { (cell.category) span.light { " seed " (cell.seed) } }
                @if cell.status == Status::Ok {
                    span.value { span.light { "AUROC " } b { (words::fraction(auroc)) } }
                } @else {
                    span.badge.bad { (cell.status.word()) }
                }
            }
            div.body {
                @if cell.status != Status::Ok {
                    pre.error { (cell.error.as_deref().unwrap_or("no reason recorded")) }
                }
                @if let Some(curves) = &curves { (curves) }
                (results(cell))
                (training(cell))
                (pictures)
                (configuration(cell))
            }
        }
    })
}

fn scores_and_roc(cell: &Cell, table: &ScoreTable) -> Result<Markup, Error> {
    table.check(&format!("cell {}", cell.cell))?;
    if table.rows.is_empty() {
        return Ok(html! {});
    }
    let failed = |source| Error::Metric { cell: cell.cell.clone(), source };
    let (scores, labels) = (table.scores(), table.labels());
    let of = |label: bool| -> Vec<f32> {
        table.rows.iter().filter(|row| row.label == label).map(|row| row.score).collect()
    };
    let (normal, anomalous) = (of(false), of(true));
    let axis = charts::score_axis(&scores);
    if normal.is_empty() || anomalous.is_empty() {
        return Ok(html! {
            div.charts { (charts::histogram(&axis, &normal, &anomalous, None)) }
            p.note { "No ROC curve: it needs normal and anomalous test images." }
        });
    }
    let points = operating::all(&scores, &labels).map_err(failed)?;
    let best = operating::best(&points, &scores, &labels).map_err(failed)?;
    let curve = |points: &[Operating]| {
        let rates = points.iter().map(|point| (point.false_positive_rate(), point.true_positive_rate()));
        std::iter::once((0.0, 0.0)).chain(rates).collect::<Vec<_>>()
    };
    let auroc = cell.results.faithful.as_ref().and_then(|evaluation| evaluation.image_auroc);
    let mut series = vec![Series { name: "score", note: words::fraction(auroc), points: curve(&points) }];
    for (index, name) in table.terms.iter().enumerate() {
        let auroc = cell.terms.get(name).and_then(|term| term.image_auroc);
        let points = curve(&operating::all(&table.term(index), &labels).map_err(failed)?);
        series.push(Series { name, note: words::fraction(auroc), points });
    }
    Ok(html! {
        div.charts data-cell="" {
            (charts::histogram(&axis, &normal, &anomalous, Some(&points[best])))
            (charts::roc(&series, &points[best]))
            (threshold(&points, best, &axis))
        }
    })
}

/// The movable threshold with its counts; without a script it shows those of the best F1.
fn threshold(points: &[Operating], best: usize, axis: &super::axis::Axis) -> Markup {
    let (mut points, best) = operating::thinned(points, best, SLIDER_STEPS);
    // The slider runs from low scores to high ones.
    points.reverse();
    let best = points.len() - 1 - best;
    let at = points[best];
    let data: Vec<String> = points
        .iter()
        .map(|point| {
            let threshold = words::score(point.threshold);
            let x = super::axis::px(axis.at(point.threshold));
            format!("{threshold} {x} {} {}", point.true_positives, point.false_positives)
        })
        .collect();
    let frame = format!("{} {} {} {}", FRAME.left, FRAME.top, FRAME.right, FRAME.bottom);
    html! {
        div.threshold data-points=(data.join(";")) data-frame=(frame) data-anomalous=(at.anomalous) data-normal=(at.normal) {
            label hidden {
                span { "Threshold" }
                input type="range" min="0" max=(points.len() - 1) value=(best) step="1";
            }
            dl aria-live="polite" {
                div { dt { "score ≥" } dd data-show="threshold" { (words::score(at.threshold)) } }
                div { dt { "found" } dd { b data-show="tp" { (at.true_positives) } " of " (at.anomalous) " anomalous" } }
                div { dt { "false alarms" } dd { b data-show="fp" { (at.false_positives) } " of " (at.normal) " normal" } }
                div { dt { "F1" } dd data-show="f1" { (words::fraction(Some(at.f1()))) } }
            }
            p.note { "Starts at the threshold with the best F1, which is chosen on the test images." }
        }
    }
}

fn results(cell: &Cell) -> Markup {
    let found: Vec<(Selection, &Evaluation)> = Selection::ALL
        .into_iter()
        .filter_map(|selection| cell.results.get(selection).map(|evaluation| (selection, evaluation)))
        .collect();
    let metrics: Vec<&str> = Evaluation::METRICS
        .into_iter()
        .filter(|metric| found.iter().any(|(_, evaluation)| evaluation.figure(metric).is_some()))
        .collect();
    html! {
        @if !found.is_empty() {
            h5 { "Results" }
            div.scroll tabindex="0" role="region" aria-label="Results" {
                table {
                    thead { tr {
                        th { "detector" } th.number { "step" }
                        @for metric in &metrics { th.number { (words::metric(metric)) } }
                        th { "chosen by" }
                    } }
                    tbody { @for (selection, evaluation) in &found { tr {
                        th scope="row" { (selection.word()) }
                        td.number { (evaluation.step.map_or_else(|| words::DASH.to_owned(), |step| step.to_string())) }
                        @for metric in &metrics { td.number { (words::fraction(evaluation.figure(metric))) } }
                        td.words.light { (evaluation.selection) }
                    } } }
                }
            }
        }
        @if !cell.terms.is_empty() {
            h5 { "Parts of the score" }
            div.scroll.narrow tabindex="0" role="region" aria-label="Parts of the score" {
                table {
                    thead { tr { th { "part" } th.number { "image AUROC" } } }
                    tbody { @for (name, term) in &cell.terms { tr {
                        th scope="row" { (name) } td.number { (words::fraction(term.image_auroc)) }
                    } } }
                }
            }
        }
    }
}

/// Training curves; those named `group/member` share a chart.
fn training(cell: &Cell) -> Markup {
    let mut groups: BTreeMap<&str, Vec<Series>> = BTreeMap::new();
    for (name, curve) in cell.curves.iter().filter(|(_, curve)| !curve.is_empty()) {
        let (group, member) = name.split_once('/').unwrap_or((name, name));
        let points: Vec<(f64, f64)> = curve.iter().map(|point| (point.0 as f64, point.1)).collect();
        let last = points.last().map_or_else(String::new, |point| words::score(point.1));
        groups.entry(group).or_default().push(Series { name: member, note: last, points });
    }
    let mut marks: Vec<(String, u64)> = Vec::new();
    for selection in [Selection::Faithful, Selection::Honest] {
        let Some(step) = cell.results.get(selection).and_then(|evaluation| evaluation.step) else { continue };
        match marks.iter_mut().find(|mark| mark.1 == step) {
            Some(mark) => mark.0 = format!("{}, {}", mark.0, selection.word()),
            None => marks.push((selection.word().to_owned(), step)),
        }
    }
    html! {
        @if !groups.is_empty() {
            h5 { "Training" }
            div.charts { @for (group, series) in &groups { (charts::training(group, series, &marks)) } }
        }
    }
}

fn configuration(cell: &Cell) -> Markup {
    let provenance = &cell.provenance;
    let text = |value: &Option<String>| value.clone().unwrap_or_else(|| words::DASH.to_owned());
    let count =
        |value: Option<usize>| value.map_or_else(|| words::DASH.to_owned(), |count| count.to_string());
    let limited = |value: Option<usize>, limit: Option<usize>| match limit {
        Some(limit) => format!("{} (limit {limit})", count(value)),
        None => count(value),
    };
    let list = |pairs: Vec<String>| if pairs.is_empty() { words::DASH.to_owned() } else { pairs.join(", ") };
    let mut facts = vec![
        ("cell", cell.cell.clone()),
        ("backbone", text(&cell.backbone)),
        ("weights, SHA-256", text(&provenance.weights_sha256)),
        ("precision", cell.precision.clone()),
        ("image size", count(cell.image_size)),
        ("device", text(&provenance.device)),
        ("precision asked for", text(&provenance.precision_setting)),
        (
            "relative error of a product",
            provenance.precision_error.map_or_else(|| words::DASH.to_owned(), |error| format!("{error:.1e}")),
        ),
        ("fit", words::seconds(cell.seconds.map(|seconds| seconds.fit))),
        ("score", words::seconds(cell.seconds.map(|seconds| seconds.score))),
        ("peak memory", words::bytes(cell.peak_memory_bytes)),
        ("training images", limited(provenance.train_images, provenance.train_limit)),
        ("test images", limited(provenance.test_images, provenance.test_limit)),
        ("anomalous among them", count(provenance.test_anomalous)),
        ("dataset fingerprint", text(&provenance.dataset_fingerprint)),
        ("dataset licence", text(&provenance.licence)),
        ("commit", text(&provenance.commit)),
        (
            "versions",
            list(provenance.versions.iter().map(|(name, version)| format!("{name} {version}")).collect()),
        ),
        (
            "number revisions",
            list(provenance.revisions.iter().map(|(name, it)| format!("{name} {it}")).collect()),
        ),
    ];
    if let Some(published) = &cell.published {
        let value =
            format!("{} {}", words::metric(&published.metric), words::fraction(Some(published.value)));
        let difference = words::points(published.difference);
        facts.push(("published", format!("{value} (difference {difference}), {}", published.source)));
    }
    if let Some(at) = cell.results.faithful.as_ref().and_then(|evaluation| evaluation.pixels_compared.clone())
    {
        facts.push(("maps and masks compared at", at));
    }
    // A tree of JSON values always has a text.
    let config = serde_json::to_string_pretty(&cell.config).unwrap_or_default();
    html! {
        details.more {
            summary { "Configuration and provenance" }
            dl.provenance { @for (name, value) in &facts { div { dt { (name) } dd { (value) } } } }
            @if !cell.config.is_null() { pre { (config) } }
        }
    }
}
