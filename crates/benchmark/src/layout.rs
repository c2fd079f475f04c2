//! What lies where in an output folder, and how a finished cell gets there in one step.
//!
//! ```text
//! cells/<id>/        a finished cell: appears whole, by one rename
//!   result.json        the record
//!   scores.csv         what the faithful choice said about each test image; scores-honest.csv and scores-last.csv
//!                      only where those are other detectors
//!   split.json         the ids of the images: trained on, held out, tested on
//!   pictures/          the most and the least anomalous test images
//!   detectors/         faithful, honest and last, if they were to be saved
//!   events.jsonl       all that was told while it ran, with times
//! work/<id>/         a cell in progress: checkpoint, kept detectors, curves; removed when it is finished
//! work/<id>.lock     held by the process that works on the cell
//! tracking/          the log of each profile's runs, if they are tracked elsewhere
//! features/          features of frozen backbones, shared by all cells, if they are kept on the disk: can be removed
//! summary.*, report.html
//! ```
//!
//! Temporary files are only ever made below `work`, so nothing half-written is to be found beside results, and what a
//! killed process left is removed by whoever takes the cell up next.

use std::path::{Path, PathBuf};

use report::{Cell, CellFiles, Status};

use crate::{Error, Lock, cell_log};

/// An output folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layout {
    root: PathBuf,
}

impl Layout {
    /// The output folder at `root`; nothing is made yet.
    pub fn new(root: &Path) -> Self {
        Self { root: root.to_owned() }
    }

    /// The folder itself.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Where the cell `id` lies once it is finished.
    pub fn cell(&self, id: &str) -> PathBuf {
        self.root.join("cells").join(id)
    }

    /// Where the cell `id` keeps what it needs while it runs.
    pub fn work(&self, id: &str) -> PathBuf {
        self.root.join("work").join(id)
    }

    /// The lock of the cell `id`.
    pub fn lock(&self, id: &str) -> PathBuf {
        self.root.join("work").join(format!("{id}.lock"))
    }

    /// The record of the cell `id`, if there is one.
    ///
    /// # Errors
    /// [`Error::Report`] if there is one that can't be read.
    pub fn record(&self, id: &str) -> Result<Option<Cell>, Error> {
        let path = self.cell(id).join("result.json");
        if !path.exists() {
            return Ok(None);
        }
        Ok(Some(report::json::read_result(&path)?))
    }

    /// Whether the cell `id` is finished and well.
    ///
    /// # Errors
    /// As [`Layout::record`].
    pub fn is_done(&self, id: &str) -> Result<bool, Error> {
        Ok(self.record(id)?.is_some_and(|cell| cell.status == Status::Ok))
    }

    /// Makes the working folder of the cell `id` and removes temporary files that a killed process left in it. Call it
    /// with the cell's lock held.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn open_work(&self, id: &str) -> Result<PathBuf, Error> {
        let work = self.work(id);
        std::fs::create_dir_all(&work).map_err(|e| Error::io(&work, "can't make the folder", e))?;
        for folder in [Self::finished(&work), Self::replaced(&work)] {
            remove_folder(&folder)?;
        }
        let listing = std::fs::read_dir(&work).map_err(|e| Error::io(&work, "can't list", e))?;
        for item in listing {
            let item = item.map_err(|e| Error::io(&work, "can't list", e))?;
            if item.file_name().to_string_lossy().starts_with('.') {
                let path = item.path();
                std::fs::remove_file(&path).map_err(|e| Error::io(&path, "can't remove what was left", e))?;
            }
        }
        Ok(work)
    }

    /// The folder in which the result of the cell in `work` is put together.
    pub fn finished(work: &Path) -> PathBuf {
        work.join("finished")
    }

    fn replaced(work: &Path) -> PathBuf {
        work.join("replaced")
    }

    /// Puts `files` into the cell's place in one step, in place of an older record that was not well, together with
    /// whatever already lies in [`Layout::finished`]. Call it with the cell's lock held.
    ///
    /// A process that is killed at any point leaves the old record, the new one, or none.
    ///
    /// # Errors
    /// [`Error::Io`] and [`Error::Report`].
    pub fn finish(&self, id: &str, files: &CellFiles) -> Result<(), Error> {
        let (work, cell) = (self.work(id), self.cell(id));
        let finished = Self::finished(&work);
        std::fs::create_dir_all(&finished).map_err(|e| Error::io(&finished, "can't make the folder", e))?;
        files.write(&finished)?;
        if let Err(e) = cell_log::close(&work, &finished, &files.cell) {
            tracing::warn!("{id}: {e}; the result is whole, its log is not");
        }
        let cells = self.root.join("cells");
        std::fs::create_dir_all(&cells).map_err(|e| Error::io(&cells, "can't make the folder", e))?;
        if cell.exists() {
            // A rename replaces no folder that holds files.
            let replaced = Self::replaced(&work);
            remove_folder(&replaced)?;
            std::fs::rename(&cell, &replaced).map_err(|e| Error::io(&cell, "can't replace", e))?;
        }
        std::fs::rename(&finished, &cell).map_err(|e| Error::io(&cell, "can't put in place", e))?;
        // The rename must reach the disk before the working state goes; not every system lets a folder be opened.
        if let Ok(folder) = std::fs::File::open(&cells) {
            let _ = folder.sync_all();
        }
        Ok(())
    }

    /// Removes the working folder of the cell `id`. Call it with the cell's lock held.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn close_work(&self, id: &str) -> Result<(), Error> {
        remove_folder(&self.work(id))
    }

    /// Removes working folders of finished cells, whose process was killed before it could; then `work` itself if
    /// nothing is left in it.
    ///
    /// # Errors
    /// [`Error::Io`] and [`Error::Report`].
    pub fn tidy(&self) -> Result<(), Error> {
        let work = self.root.join("work");
        let Ok(listing) = std::fs::read_dir(&work) else { return Ok(()) };
        for item in listing {
            let item = item.map_err(|e| Error::io(&work, "can't list", e))?;
            let name = item.file_name().to_string_lossy().into_owned();
            if let Some(id) = name.strip_suffix(".lock") {
                // A killed process leaves its lock's file; taking and releasing the lock removes it.
                Lock::is_free(&self.lock(id))?;
            } else if self.is_done(&name)?
                && let Some(_lock) = Lock::try_take(&self.lock(&name))?
            {
                self.close_work(&name)?;
            }
        }
        // Fails while something is left in it, which is then still needed.
        let _ = std::fs::remove_dir(&work);
        Ok(())
    }
}

/// Removes a folder and all in it, if it is there.
pub(crate) fn remove_folder(folder: &Path) -> Result<(), Error> {
    match std::fs::remove_dir_all(folder) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(Error::io(folder, "can't remove", e)),
        _ => Ok(()),
    }
}

#[cfg(test)]
pub(crate) mod tests {
    #![allow(clippy::unwrap_used)]
    use std::path::Path;

    use report::{Cell, CellFiles, Status};
    use serde_json::json;

    use super::Layout;
    use crate::Lock;

    /// A record with nothing but its names.
    pub(crate) fn record(id: &str, status: Status) -> Cell {
        let names = json!({
            "cell": id, "method": "m", "dataset": "d", "category": "c", "protocol": "p", "seed": 0,
            "precision": "f32", "status": status.word(),
        });
        serde_json::from_value(names).unwrap()
    }

    fn files_below(folder: &Path) -> Vec<String> {
        let mut found = Vec::new();
        let mut open = vec![folder.to_owned()];
        while let Some(next) = open.pop() {
            for item in next.read_dir().unwrap() {
                let path = item.unwrap().path();
                if path.is_dir() {
                    open.push(path);
                } else {
                    found.push(path.strip_prefix(folder).unwrap().to_string_lossy().into_owned());
                }
            }
        }
        found.sort();
        found
    }

    #[test]
    fn a_cell_appears_whole_replaces_a_failed_one_and_leaves_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let layout = Layout::new(folder.path());
        assert!(layout.record("a").unwrap().is_none());
        for status in [Status::Failed, Status::Ok] {
            let lock = Lock::try_take(&layout.lock("a")).unwrap().unwrap();
            layout.open_work("a").unwrap();
            layout.finish("a", &CellFiles::bare(record("a", status))).unwrap();
            layout.close_work("a").unwrap();
            drop(lock);
            assert_eq!(layout.record("a").unwrap().unwrap().status, status);
        }
        assert!(layout.is_done("a").unwrap());
        layout.tidy().unwrap();
        assert_eq!(files_below(folder.path()), ["cells/a/result.json"]);
        assert!(!folder.path().join("work").exists());
    }

    #[test]
    fn what_a_killed_process_left_goes_and_what_a_cell_needs_stays() {
        let folder = tempfile::tempdir().unwrap();
        let layout = Layout::new(folder.path());
        // `a` was killed between its last two steps, `b` while it trained.
        layout.open_work("a").unwrap();
        layout.finish("a", &CellFiles::bare(record("a", Status::Ok))).unwrap();
        let work = layout.open_work("b").unwrap();
        for name in ["checkpoint.safetensors", ".abc.tmp", "finished/result.json"] {
            let path = work.join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, "x").unwrap();
        }
        std::fs::write(layout.lock("b"), "").unwrap();
        layout.tidy().unwrap();
        layout.open_work("b").unwrap();
        assert_eq!(files_below(folder.path()), ["cells/a/result.json", "work/b/checkpoint.safetensors"]);
    }
}
