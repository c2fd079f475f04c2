//! Tables, curves, histograms, heat maps and one self-contained HTML page
mod atomic;
mod cell;
mod columns;
mod error;
mod files;
mod finite;
mod flat;
mod header;
mod heat;
pub mod json;
mod markdown;
mod output;
mod page;
mod scores;
mod tables;
mod terminal;
mod words;

pub use atomic::write as write_atomic;
pub use cell::{
    Cell, CurvePoint, Evaluation, Picture, PictureGroup, Provenance, Published, Results, Scale, Seconds, Selection,
    Status, Term,
};
pub use error::Error;
pub use files::CellFiles;
pub use flat::csv;
pub use header::Header;
pub use heat::{Map, Pixels, overlay, png};
pub use markdown::markdown;
pub use output::write_report;
pub use page::page;
pub use scores::{ScoreRow, ScoreTable};
pub use terminal::terminal_table;
