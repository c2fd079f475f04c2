//! A cell's folder: its record, its scores and its pictures.

use std::collections::BTreeMap;
use std::path::{Component, Path, PathBuf};

use crate::{Cell, Error, ScoreTable, atomic, json};

/// Everything a report shows of one cell.
#[derive(Debug, Clone, PartialEq)]
pub struct CellFiles {
    /// The record, `result.json`.
    pub cell: Cell,
    /// The test images' scores, `scores.csv`; `None` where the cell ended without.
    pub scores: Option<ScoreTable>,
    /// The PNG files that the record's pictures name.
    pub pictures: BTreeMap<String, Vec<u8>>,
}

impl CellFiles {
    /// A cell that has nothing but its record, such as a failed one.
    pub fn bare(cell: Cell) -> Self {
        Self { cell, scores: None, pictures: BTreeMap::new() }
    }

    /// Reads a cell's folder: `result.json`, `scores.csv` if it is there, and the pictures the record names.
    ///
    /// # Errors
    /// [`Error::Io`], [`Error::Record`], [`Error::Scores`], [`Error::Csv`] naming the file, [`Error::PictureName`] for
    /// a picture outside the folder.
    pub fn read(folder: &Path) -> Result<Self, Error> {
        let cell = json::read_result(&folder.join("result.json"))?;
        let scores = folder.join("scores.csv");
        let there = scores.try_exists().map_err(|source| Error::Io { path: scores.clone(), source })?;
        let scores = if there { Some(ScoreTable::read(&scores)?) } else { None };
        let mut pictures = BTreeMap::new();
        for name in names(&cell) {
            let path = below(folder, &cell, name)?;
            let bytes = std::fs::read(&path).map_err(|source| Error::Io { path, source })?;
            pictures.insert(name.to_owned(), bytes);
        }
        Ok(Self { cell, scores, pictures })
    }

    /// Writes the folder's files, each atomically and the record last, so that a folder with a record is whole. The
    /// folder must exist.
    ///
    /// # Errors
    /// [`Error::Io`], [`Error::Record`] or [`Error::Scores`] for numbers that are not finite, [`Error::PictureName`]
    /// for a picture outside the folder.
    pub fn write(&self, folder: &Path) -> Result<(), Error> {
        // What cannot be written is found before anything is.
        let record = json::result(&self.cell)?;
        for (name, bytes) in &self.pictures {
            let path = below(folder, &self.cell, name)?;
            if let Some(parent) = path.parent() {
                std::fs::create_dir_all(parent)
                    .map_err(|source| Error::Io { path: parent.to_path_buf(), source })?;
            }
            atomic::write(&path, bytes)?;
        }
        if let Some(scores) = &self.scores {
            scores.write(&folder.join("scores.csv"))?;
        }
        atomic::write(&folder.join("result.json"), record.as_bytes())
    }
}

fn names(cell: &Cell) -> impl Iterator<Item = &str> {
    cell.pictures.iter().flat_map(|picture| {
        let made = picture.made.iter().map(|made| made.image.as_str());
        std::iter::once(picture.image.as_str()).chain(picture.overlay.as_deref()).chain(made)
    })
}

/// The picture's path, refused if it could leave the folder.
fn below(folder: &Path, cell: &Cell, name: &str) -> Result<PathBuf, Error> {
    let relative = Path::new(name);
    let plain =
        !name.contains('\\') && relative.components().all(|part| matches!(part, Component::Normal(_)));
    if plain && !name.is_empty() {
        Ok(folder.join(relative))
    } else {
        Err(Error::PictureName { cell: cell.cell.clone(), name: name.to_owned() })
    }
}
