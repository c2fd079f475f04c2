//! What can go wrong.

use std::path::PathBuf;

/// Why something could not be written or read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file or folder could not be read or written.
    #[error("{path}: {source}")]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A record does not have the expected form, or holds a number that is not finite.
    #[error("{what}: field `{field}`: {source}")]
    Record {
        /// The file, or a word for what was being written.
        what: String,
        /// The path of the field inside the record, such as `[3].results.last.image_ap`.
        field: String,
        /// What was expected and found.
        source: serde_json::Error,
    },
    /// A table of scores does not have the expected form.
    #[error("{what}: line {line}: {problem}")]
    Scores {
        /// The file, or a word for what was being written.
        what: String,
        /// The line, counted from 1; the header is line 1.
        line: u64,
        /// What was expected and found.
        problem: String,
    },
    /// A CSV file could not be written or taken apart.
    #[error("{what}: {source}")]
    Csv {
        /// The file, or a word for what was being written.
        what: String,
        /// What the CSV reader or writer said.
        source: csv::Error,
    },
    /// A picture's name leaves the cell's folder.
    #[error("cell {cell}: picture `{name}`: expected a relative path below the cell's folder")]
    PictureName {
        /// The cell's id.
        cell: String,
        /// The offending name.
        name: String,
    },
    /// A picture is not a PNG file.
    #[error("cell {cell}: picture `{name}`: expected a PNG file, found other bytes")]
    PictureFormat {
        /// The cell's id.
        cell: String,
        /// The picture's name.
        name: String,
    },
    /// Sizes do not fit together.
    #[error("{what}: expected {expected}, found {found}")]
    Size {
        /// What was measured.
        what: &'static str,
        /// The expected size, in words.
        expected: String,
        /// The size found, in words.
        found: String,
    },
    /// A value that must be finite is not.
    #[error("{what}: expected finite numbers, found {found}")]
    NotFinite {
        /// What holds the value.
        what: &'static str,
        /// The value.
        found: f32,
    },
    /// An image could not be encoded.
    #[error("PNG encoding: {0}")]
    Png(#[from] image::ImageError),
    /// A folder holds no records.
    #[error("{}: expected the output folder of a run, with records in `cells`, found none", path.display())]
    NoRun {
        /// The folder.
        path: PathBuf,
    },
    /// Records of several runs don't belong together.
    #[error("the records don't belong together:\n{}", problems.join("\n"))]
    Incompatible {
        /// What does not agree, and where.
        problems: Vec<String>,
    },
    /// An interval could not be drawn.
    #[error("the interval of a difference: {0}")]
    Bootstrap(metrics::Error),
    /// A curve could not be computed.
    #[error("cell {cell}: {source}")]
    Metric {
        /// The cell's id.
        cell: String,
        /// What the metric said.
        source: metrics::Error,
    },
}
