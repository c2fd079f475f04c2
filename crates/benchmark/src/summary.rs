//! The files that sum a run up.

use std::path::Path;
use std::time::Duration;

use report::{Cell, CellFiles, Header};

use crate::layout::remove_folder;
use crate::{Error, Layout, Lock};

/// Writes `summary.json`, `summary.md`, `summary.csv` and `report.html` into the output folder, each in one step.
///
/// Two runs on one folder take turns: whoever is last wins.
///
/// # Errors
/// [`Error::Io`] and [`Error::Report`].
pub fn write_summary(layout: &Layout, header: &Header, cells: &[Cell]) -> Result<(), Error> {
    let work = layout.root().join("work");
    let lock = loop {
        match Lock::try_take(&work.join("summary.lock"))? {
            Some(lock) => break lock,
            None => std::thread::sleep(Duration::from_millis(100)),
        }
    };
    write_in(&work.join("summary"), layout, header, cells)?;
    drop(lock);
    layout.tidy()
}

/// The same on a file system that may have no locks; `who` tells this writer from others.
pub(crate) fn write_summary_unlocked(
    layout: &Layout,
    header: &Header,
    cells: &[Cell],
    who: &str,
) -> Result<(), Error> {
    write_in(&layout.root().join("work").join(format!("summary@{who}")), layout, header, cells)?;
    layout.tidy_attempts()
}

/// Puts the files together in `folder`, below `work`, so that a killed process leaves nothing half-written beside the
/// results.
fn write_in(folder: &Path, layout: &Layout, header: &Header, cells: &[Cell]) -> Result<(), Error> {
    remove_folder(folder)?;
    std::fs::create_dir_all(folder).map_err(|e| Error::io(folder, "can't make the folder", e))?;
    let files: Vec<CellFiles> =
        cells.iter().map(|cell| CellFiles::read(&layout.cell(&cell.cell))).collect::<Result<_, _>>()?;
    let texts = [
        ("summary.json", report::json::summary(cells)?),
        ("summary.md", report::markdown(header, cells)),
        ("summary.csv", report::csv(cells)?),
        ("report.html", report::page(header, &files)?),
    ];
    for (name, text) in texts {
        put(&folder.join(name), &layout.root().join(name), &text)?;
    }
    remove_folder(folder)
}

fn put(temporary: &Path, path: &Path, text: &str) -> Result<(), Error> {
    report::write_atomic(temporary, text.as_bytes())?;
    std::fs::rename(temporary, path).map_err(|e| Error::io(path, "can't put in place", e))
}
