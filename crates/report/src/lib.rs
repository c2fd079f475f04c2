//! Tables, curves, histograms, heat maps and one self-contained HTML page
mod atomic;
mod cell;
mod error;
mod finite;
pub mod json;
mod scores;

pub use atomic::write as write_atomic;
pub use cell::{
    Cell, CurvePoint, Evaluation, Picture, PictureGroup, Provenance, Published, Results, Seconds, Selection, Status,
    Term,
};
pub use error::Error;
pub use scores::{ScoreRow, ScoreTable};
