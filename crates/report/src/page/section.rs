//! A dataset under a protocol: its tables and its cells.

use maud::{Markup, html};

use super::cell::cell;
use crate::columns::{Column, columns};
use crate::tables::{Figure, MethodRows, Row, Section, sources};
use crate::{CellFiles, Error, Selection, words};

pub(crate) fn section(index: usize, section: &Section, cells: &[CellFiles]) -> Result<Markup, Error> {
    let mut details: Vec<Vec<Markup>> = Vec::new();
    for method in &section.methods {
        let positions = method.rows.iter().flat_map(|row| row.cells.iter().copied());
        details.push(positions.map(|position| cell(position, &cells[position])).collect::<Result<_, _>>()?);
    }
    Ok(html! {
        section id=(format!("section-{index}")) {
            h2 { (section.dataset) " " span.light { (section.protocol) } }
            @if section.categories.len() > 1 && section.methods.len() > 1 { (overview(section)) }
            (figures(index, section, cells))
            h3 { "Cells" }
            @for (method, details) in section.methods.iter().zip(&details) {
                h4 { (method.method) " " span.light { (method.details()) } }
                @for detail in details { (detail) }
            }
        }
    })
}

/// Methods by categories, the faithful image AUROC; the best of each column stands out.
fn overview(section: &Section) -> Markup {
    let find = |method: &MethodRows, category: &str| -> Option<Figure> {
        method.rows.iter().find(|row| row.category == category).and_then(|row| row.image_auroc[0])
    };
    let mean = |method: &MethodRows| method.mean.as_ref().and_then(|row| row.image_auroc[0]);
    let best = |figures: &mut dyn Iterator<Item = Option<Figure>>| -> Option<f64> {
        figures.flatten().map(|figure| figure.mean).max_by(f64::total_cmp)
    };
    let best_mean = best(&mut section.methods.iter().map(mean));
    let best_of: Vec<Option<f64>> = section
        .categories
        .iter()
        .map(|category| best(&mut section.methods.iter().map(|method| find(method, category))))
        .collect();
    let entry = |figure: Option<Figure>, best: Option<f64>| {
        let is_best = figure.is_some() && figure.map(|figure| figure.mean) == best;
        html! { td.number.strong[is_best] { (percent(figure)) } }
    };
    html! {
        h3 { "Methods by categories" }
        div.scroll tabindex="0" role="region" aria-label="Image AUROC of methods by categories" {
            table {
                thead { tr { th { "method" } th.number { "mean" } @for category in &section.categories { th.number { (category) } } } }
                tbody {
                    @for method in &section.methods {
                        tr {
                            th scope="row" { (method.method) div.light { (method.details()) } }
                            (entry(mean(method), best_mean))
                            @for (category, best) in section.categories.iter().zip(&best_of) {
                                (entry(find(method, category), *best))
                            }
                        }
                    }
                }
            }
        }
        p.note { "Image AUROC of the faithful detector, %. Bold: the best of the column." }
    }
}

/// Every method and category with all figures.
fn figures(index: usize, section: &Section, cells: &[CellFiles]) -> Markup {
    let columns = columns(section);
    let sources = sources(section);
    html! {
        h3 { "Figures" }
        div.scroll tabindex="0" role="region" aria-label="All figures" {
            table.figures {
                thead { tr { th { "category" } @for column in &columns { th.number[column.is_number()] { (column.heading()) } } } }
                @for method in &section.methods {
                    tbody {
                        tr.method { th colspan=(columns.len() + 1) scope="rowgroup" { span.stay { (method.method) " " span.light { (method.details()) } } } }
                        @for row in method.rows.iter().chain(&method.mean) {
                            tr.mean[row.cells.is_empty()] {
                                th scope="row" { (label(row, cells)) }
                                @for column in &columns { (entry(index, *column, row, &sources)) }
                            }
                        }
                    }
                }
            }
        }
        p.note { "Faithful, honest and last: image AUROC, %." @if !sources.is_empty() { " Difference: faithful minus published, in percentage points." } }
        @if !sources.is_empty() {
            ol.sources {
                @for (number, source) in sources.iter().enumerate() {
                    li id=(format!("source-{index}-{number}")) { (source) }
                }
            }
        }
    }
}

fn label(row: &Row, cells: &[CellFiles]) -> Markup {
    html! {
        @match row.cells.as_slice() {
            [] => (row.category),
            [only] => a href=(format!("#cell-{only}")) { (row.category) },
            several => {
                (row.category)
                div.seeds { "seeds" @for &position in several { " " a href=(format!("#cell-{position}")) { (cells[position].cell.seed) } } }
            }
        }
        @if row.missing > 0 { " " span.badge.bad { @if row.total == 1 { "no figures" } @else { (row.missing) " of " (row.total) " without figures" } } }
    }
}

fn entry(index: usize, column: Column, row: &Row, sources: &[String]) -> Markup {
    let source = row
        .published
        .as_ref()
        .and_then(|published| sources.iter().position(|source| *source == published.source))
        // The mean over categories has no source of its own.
        .filter(|_| !row.cells.is_empty());
    html! {
        @match column {
            Column::ImageAuroc(selection) => td.number.strong[selection == Selection::Faithful] { (percent(column.figure(row))) },
            Column::Other(_) => td.number { (percent(column.figure(row))) },
            Column::Published => td.number {
                (column.text(row))
                @if let Some(number) = source {
                    sup { a href=(format!("#source-{index}-{number}")) aria-label=(format!("source {}", number + 1)) { (number + 1) } }
                }
            },
            // A true minus is as wide as the plus above it.
            Column::Difference => td.number { (column.text(row).replace('-', "−")) },
            Column::Terms => td.terms {
                @for (name, figure) in &row.terms { div { (name) " " span.value { (words::fraction(Some(figure.mean))) } } }
                @if row.terms.is_empty() { (words::DASH) }
            },
            Column::Fit => td.number { (column.text(row)) },
        }
    }
}

/// A percentage whose deviation stands back.
fn percent(figure: Option<Figure>) -> Markup {
    let text = words::percent(figure);
    html! {
        @match text.split_once(" ± ") {
            Some((mean, sd)) => { (mean) span.sd { " ± " (sd) } },
            None => (text),
        }
    }
}
