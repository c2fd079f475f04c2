//! Records as JSON: `result.json` of one cell, `summary.json` of all.

use std::path::Path;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::{Cell, Error, atomic};

/// `summary.json`: the cells as an array, in the order given.
///
/// # Errors
/// [`Error::Record`] if a figure is not finite; it names the field.
pub fn summary(cells: &[Cell]) -> Result<String, Error> {
    text(cells, "summary")
}

/// Takes a `summary.json` apart. `what` names the text in errors.
///
/// # Errors
/// [`Error::Record`] for anything that is not an array of cells, unknown fields among it.
pub fn parse_summary(json: &str, what: &str) -> Result<Vec<Cell>, Error> {
    parse(json, what)
}

/// One cell's `result.json`.
///
/// # Errors
/// [`Error::Record`] if a figure is not finite; it names the field.
pub fn result(cell: &Cell) -> Result<String, Error> {
    text(cell, &format!("cell {}", cell.cell))
}

/// Takes a `result.json` apart. `what` names the text in errors.
///
/// # Errors
/// [`Error::Record`] for anything that is not a cell, unknown fields among it.
pub fn parse_result(json: &str, what: &str) -> Result<Cell, Error> {
    parse(json, what)
}

/// Writes `summary.json` to `path`, atomically.
///
/// # Errors
/// As [`summary`], and [`Error::Io`].
pub fn write_summary(path: &Path, cells: &[Cell]) -> Result<(), Error> {
    atomic::write(path, text(cells, &path.display().to_string())?.as_bytes())
}

/// Reads the `summary.json` at `path`.
///
/// # Errors
/// As [`parse_summary`], and [`Error::Io`].
pub fn read_summary(path: &Path) -> Result<Vec<Cell>, Error> {
    parse(&atomic::read(path)?, &path.display().to_string())
}

/// Writes one cell's `result.json` to `path`, atomically.
///
/// # Errors
/// As [`result`], and [`Error::Io`].
pub fn write_result(path: &Path, cell: &Cell) -> Result<(), Error> {
    atomic::write(path, text(cell, &path.display().to_string())?.as_bytes())
}

/// Reads one cell's `result.json` from `path`.
///
/// # Errors
/// As [`parse_result`], and [`Error::Io`].
pub fn read_result(path: &Path) -> Result<Cell, Error> {
    parse(&atomic::read(path)?, &path.display().to_string())
}

/// Refuses records that could not be written as JSON, so that no other form of them is written either.
pub(crate) fn check<T: Serialize + ?Sized>(records: &T, what: &str) -> Result<(), Error> {
    into(records, what, std::io::sink())
}

fn into<T: Serialize + ?Sized>(value: &T, what: &str, writer: impl std::io::Write) -> Result<(), Error> {
    let mut json = serde_json::Serializer::pretty(writer);
    let mut track = serde_path_to_error::Track::new();
    let outcome = value.serialize(serde_path_to_error::Serializer::new(&mut json, &mut track));
    outcome.map_err(|source| Error::Record { what: what.to_owned(), field: track.path().to_string(), source })
}

pub(crate) fn text<T: Serialize + ?Sized>(value: &T, what: &str) -> Result<String, Error> {
    let mut bytes = Vec::new();
    into(value, what, &mut bytes)?;
    bytes.push(b'\n');
    // JSON text is UTF-8 by construction; were it not, the replacement would be seen on reading back.
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

fn parse<T: DeserializeOwned>(json: &str, what: &str) -> Result<T, Error> {
    let mut deserializer = serde_json::Deserializer::from_str(json);
    let value = serde_path_to_error::deserialize(&mut deserializer).map_err(|error| Error::Record {
        what: what.to_owned(),
        field: error.path().to_string(),
        source: error.into_inner(),
    })?;
    deserializer.end().map_err(|source| Error::Record {
        what: what.to_owned(),
        field: ".".to_owned(),
        source,
    })?;
    Ok(value)
}
