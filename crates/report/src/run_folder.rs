//! A run's output folder, read back from its records.

use std::path::{Path, PathBuf};

use crate::{CellFiles, Error, ScoreTable, Selection, json};

/// A run as its records have it.
#[derive(Debug, Clone, PartialEq)]
pub struct RunFolder {
    /// What it is called: the folder as it was given.
    pub name: String,
    /// The folder.
    pub path: PathBuf,
    /// Its cells, in the order of its `summary.json`; those that are not in there come last, by their ids.
    pub cells: Vec<CellFiles>,
}

impl RunFolder {
    /// Reads `cells/*/` below `folder`. What is still at work has no record yet and is left out.
    ///
    /// # Errors
    /// [`Error::NoRun`] if there are no records; otherwise as [`CellFiles::read`].
    pub fn read(folder: &Path) -> Result<Self, Error> {
        let cells = folder.join("cells");
        let io = |source| Error::Io { path: cells.clone(), source };
        let mut ids = Vec::new();
        if cells.is_dir() {
            for item in std::fs::read_dir(&cells).map_err(io)? {
                let item = item.map_err(io)?;
                if item.path().join("result.json").is_file() {
                    ids.push(item.file_name().to_string_lossy().into_owned());
                }
            }
        }
        if ids.is_empty() {
            return Err(Error::NoRun { path: folder.to_owned() });
        }
        let summary = folder.join("summary.json");
        let order: Vec<String> = if summary.is_file() {
            json::read_summary(&summary)?.into_iter().map(|cell| cell.cell).collect()
        } else {
            Vec::new()
        };
        ids.sort_by_cached_key(|id| {
            (order.iter().position(|known| known == id).unwrap_or(usize::MAX), id.clone())
        });
        let read = ids.iter().map(|id| CellFiles::read(&cells.join(id))).collect::<Result<_, _>>()?;
        Ok(Self { name: folder.display().to_string(), path: folder.to_owned(), cells: read })
    }

    /// The scores of the detector that `selection` chose in the cell `id`, if they are there.
    ///
    /// # Errors
    /// As [`ScoreTable::read`].
    pub fn scores(&self, id: &str, selection: Selection) -> Result<Option<ScoreTable>, Error> {
        let folder = self.path.join("cells").join(id);
        // A choice with scores of its own has a file of its own.
        for name in [format!("scores-{}.csv", selection.word()), "scores.csv".to_owned()] {
            let path = folder.join(name);
            if path.is_file() {
                return ScoreTable::read(&path).map(Some);
            }
        }
        Ok(None)
    }
}
