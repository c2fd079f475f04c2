//! The records of a benchmark and everything made from them: JSON, CSV, Markdown, a table for the terminal, and one
//! HTML page that needs nothing else.
//!
//! For whoever runs cells of a method × dataset matrix: fill a [`Cell`] for each, with its [`ScoreTable`] and its
//! pictures ([`CellFiles`]), and [`write_report`] makes the files people read. Nothing here knows a method, looks at a
//! clock or at the machine; the same input gives the same bytes. An unknown figure is a dash, never zero, and a number
//! that is not finite is refused. All writing is atomic ([`write_atomic`]).
//!
//! ```
//! use report::{Cell, CellFiles, Evaluation, Header, Results, ScoreRow, ScoreTable, Status, json};
//!
//! let row = |id: &str, label, score| ScoreRow { id: id.into(), label, score, terms: vec![] };
//! let scores = ScoreTable { terms: vec![], rows: vec![row("a.png", false, 0.1), row("b.png", true, 0.7)] };
//! let image_auroc = metrics::auroc(&scores.scores(), &scores.labels())?;
//!
//! // Most fields have a default, in JSON as in Rust.
//! let mut cell: Cell = json::parse_result(
//!     r#"{"cell": "pixel-knn-bottle", "method": "pixel-knn", "dataset": "mvtec-ad", "category": "bottle",
//!         "protocol": "class-separated", "seed": 0, "precision": "f32", "status": "ok"}"#,
//!     "an example",
//! )?;
//! cell.results.faithful = Some(Evaluation {
//!     selection: "the only one".into(),
//!     image_auroc: Some(image_auroc),
//!     ..Evaluation::default()
//! });
//!
//! assert!(report::terminal_table(&[cell.clone()]).contains("100.00"));
//! let files = CellFiles { scores: Some(scores), ..CellFiles::bare(cell) };
//! let page = report::page(&Header { profile: "example".into(), ..Header::default() }, &[files])?;
//! assert!(page.starts_with("<!DOCTYPE html>"));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod atomic;
mod cell;
mod columns;
mod compare;
mod error;
mod files;
mod finite;
mod flat;
mod header;
mod heat;
pub mod json;
mod markdown;
mod merge;
mod output;
mod page;
mod run_folder;
mod scores;
mod tables;
mod terminal;
mod tuning;
mod words;

pub use atomic::write as write_atomic;
pub use cell::{
    Cell, CurvePoint, Evaluation, MadePicture, Picture, PictureGroup, Provenance, Published, Results, Scale,
    Seconds, Selection, Status, Term,
};
pub use compare::{
    CompareOptions, ComparedInterval, ComparedRow, Comparison, Difference, FigurePair, Unpaired, compare,
    comparisons_csv, comparisons_json,
};
pub use error::Error;
pub use files::CellFiles;
pub use flat::csv;
pub use header::Header;
pub use heat::{Map, Pixels, grey_map, overlay, png};
pub use markdown::markdown;
pub use merge::{Allowed, merge};
pub use output::write_report;
pub use page::page;
pub use run_folder::RunFolder;
pub use scores::{ScoreRow, ScoreTable};
pub use terminal::terminal_table;
pub use tuning::{TunedDimension, TunedFigure, TunedTrial, TuningReport};
