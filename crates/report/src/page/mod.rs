//! `report.html`: one page with everything in it.

mod axis;
mod cell;
mod charts;
mod operating;
mod pictures;
mod section;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use maud::{DOCTYPE, Markup, PreEscaped, html};
use sha2::{Digest, Sha256};

use crate::tables::sections;
use crate::words;
use crate::{Cell, CellFiles, Error, Header, Status, json};

const STYLE: &str = include_str!("style.css");
const SCRIPT: &str = include_str!("page.js");

/// The whole report as one HTML page that needs nothing else: no network, no other file. The same input always gives
/// the same page.
///
/// # Errors
/// [`Error::Record`] if a figure is not finite, [`Error::PictureFormat`] if a picture is not a PNG file.
pub fn page(header: &Header, cells: &[CellFiles]) -> Result<String, Error> {
    let records: Vec<&Cell> = cells.iter().map(|files| &files.cell).collect();
    for record in &records {
        json::check(record, &format!("cell {}", record.cell))?;
    }
    let sections = sections(&records);
    let mut bodies = Vec::new();
    for (index, section) in sections.iter().enumerate() {
        bodies.push(section::section(index, section, cells)?);
    }
    let page = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta http-equiv="Content-Security-Policy" content=(policy());
                meta name="color-scheme" content="light dark";
                meta name="generator" content="vitad report";
                // Without this, a browser that gets the page over HTTP asks its server for an icon.
                link rel="icon" href="data:,";
                title { (header.profile) " · vitad" }
                style { (PreEscaped(STYLE)) }
            }
            body {
                header {
                    p.over { "vitad · anomaly-detection report" }
                    h1 { (header.profile) }
                    @if let Some(description) = &header.description { p.lead { (description) } }
                    dl.facts {
                        @for (name, value) in header.all_facts(&records) {
                            div { dt { (name) } dd { (value) } }
                        }
                    }
                    @if sections.len() > 1 {
                        nav aria-label="Sections" {
                            @for (index, section) in sections.iter().enumerate() {
                                a href=(format!("#section-{index}")) { (section.dataset) " · " (section.protocol) }
                            }
                        }
                    }
                }
                main {
                    (unfinished(&records))
                    @for body in &bodies { (body) }
                    @if cells.is_empty() { p { "No cells." } }
                }
                footer {
                    p {
                        "Figures are percentages. " b { "Faithful" } ": the detector the reference's own rule chooses, which \
                        often looks at the test images. " b { "Honest" } ": chosen without looking at them. " b { "Last" }
                        ": the end of training. Several seeds: mean ± sample standard deviation. Scores are raw; \
                        higher is more anomalous."
                    }
                }
                script { (PreEscaped(SCRIPT)) }
            }
        }
    };
    Ok(page.into_string())
}

/// Nothing may be loaded, and only this page's own script and style run, whatever the records contain.
fn policy() -> String {
    let hash = |text: &str| BASE64_STANDARD.encode(Sha256::digest(text.as_bytes()));
    format!(
        "default-src 'none'; img-src data:; style-src 'sha256-{}'; script-src 'sha256-{}'; base-uri 'none'; \
         form-action 'none'",
        hash(STYLE),
        hash(SCRIPT)
    )
}

/// The cells without figures, at the top where they are not overlooked.
fn unfinished(cells: &[&Cell]) -> Markup {
    let unfinished: Vec<(usize, &&Cell)> =
        cells.iter().enumerate().filter(|(_, cell)| cell.status != Status::Ok).collect();
    html! {
        @if !unfinished.is_empty() {
            section.alarm aria-label="Cells without figures" {
                h2 { (unfinished.len()) " of " (cells.len()) " cells ended without figures" }
                ul {
                    @for (index, cell) in unfinished {
                        li {
                            a href=(format!("#cell-{index}")) { (cell.method) " · " (cell.dataset) " · " (cell.category) " · seed " (cell.seed) }
                            " " span.badge.bad { (cell.status.word()) }
                            @if let Some(error) = &cell.error { div.error { (words::one_line(error)) } }
                        }
                    }
                }
            }
        }
    }
}
