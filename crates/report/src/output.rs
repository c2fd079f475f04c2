//! The files of a whole run.

use std::path::Path;

use crate::{Cell, CellFiles, Error, Header, atomic, csv, json, markdown, page};

/// Writes `summary.json`, `summary.csv`, `summary.md` and `report.html` into `folder`, which must exist, each
/// atomically. The cells appear in the order given.
///
/// # Errors
/// [`Error::Io`], [`Error::Record`] if a figure is not finite, [`Error::PictureFormat`] if a picture is not a PNG
/// file. Nothing is written if any of the four cannot be made.
pub fn write_report(folder: &Path, header: &Header, cells: &[CellFiles]) -> Result<(), Error> {
    let records: Vec<Cell> = cells.iter().map(|files| files.cell.clone()).collect();
    let files = [
        ("summary.json", json::summary(&records)?),
        ("summary.csv", csv(&records)?),
        ("summary.md", markdown(header, &records)),
        ("report.html", page(header, cells)?),
    ];
    for (name, text) in files {
        atomic::write(&folder.join(name), text.as_bytes())?;
    }
    Ok(())
}
