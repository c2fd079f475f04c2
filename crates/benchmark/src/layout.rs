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
//! work/<id>@<attempt>/  the same as work/<id> for a task of a cluster, where nothing can be locked: each attempt has its own
//! slurm/             what was submitted to a cluster and what came of it
//! features/          features of frozen backbones, shared by all cells, if they are kept on the disk: can be removed
//! summary.*, report.html
//! ```
//!
//! Temporary files are only ever made below `work`, so nothing half-written is to be found beside results, and what a
//! killed process left is removed by whoever takes the cell up next.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use report::{Cell, CellFiles, Status};

use crate::{CellSpec, Error, Lock, cell_log};

/// What attempts are called that only record how a cell ended.
const NOTE: &str = "note";

/// An output folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layout {
    root: PathBuf,
    /// The attempt of a cluster's task that this is for.
    attempt: Option<String>,
}

impl Layout {
    /// The output folder at `root`; nothing is made yet.
    pub fn new(root: &Path) -> Self {
        Self { root: root.to_owned(), attempt: None }
    }

    /// The output folder at `root` for one attempt of a cluster's task. Its working folders are its own, since other
    /// attempts at the same cell may still be writing and a shared file system may have no locks.
    pub(crate) fn of_attempt(root: &Path, attempt: &str) -> Self {
        Self { root: root.to_owned(), attempt: Some(attempt.to_owned()) }
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
        let name = self.attempt.as_ref().map_or_else(|| id.to_owned(), |attempt| format!("{id}@{attempt}"));
        self.root.join("work").join(name)
    }

    /// Takes over what an earlier attempt at the cell `id` left, so that this one goes on from its checkpoint. An
    /// attempt that still runs then finds its folder gone, and ends.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub(crate) fn take_over(&self, id: &str) -> Result<(), Error> {
        let ours = self.work(id);
        if self.attempt.is_none() || ours.exists() {
            return Ok(());
        }
        let others = |path: &PathBuf| {
            let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
            let attempt = name.strip_prefix(id).and_then(|rest| rest.strip_prefix('@'));
            path.is_dir() && (name == id || attempt.is_some_and(|attempt| !attempt.starts_with(NOTE)))
        };
        let changed = |path: &PathBuf| std::fs::metadata(path).and_then(|data| data.modified()).ok();
        let mut left: Vec<PathBuf> = self.below_work()?.into_iter().filter(others).collect();
        left.sort_by_key(changed);
        if let Some(newest) = left.pop()
            && let Err(e) = std::fs::rename(&newest, &ours)
            // Its own process may just have finished it.
            && e.kind() != std::io::ErrorKind::NotFound
        {
            return Err(Error::io(&newest, "can't take over", e));
        }
        left.iter().try_for_each(|folder| remove_folder(folder))
    }

    /// The working folders there are, by the ids of their cells: of the run on this machine, and of attempts on a cluster.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub(crate) fn working_folders(&self) -> Result<BTreeMap<String, Vec<PathBuf>>, Error> {
        let mut found: BTreeMap<String, Vec<PathBuf>> = BTreeMap::new();
        for path in self.below_work()? {
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            let (id, attempt) = name.split_once('@').unwrap_or((&name, ""));
            if !attempt.starts_with(NOTE) && path.extension().is_none_or(|ending| ending != "lock") {
                found.entry(id.to_owned()).or_default().push(path);
            }
        }
        Ok(found)
    }

    /// What lies in `work`.
    fn below_work(&self) -> Result<Vec<PathBuf>, Error> {
        let work = self.root.join("work");
        let Ok(listing) = std::fs::read_dir(&work) else { return Ok(Vec::new()) };
        listing
            .map(|item| item.map(|item| item.path()).map_err(|e| Error::io(&work, "can't list", e)))
            .collect()
    }

    /// Records how a cell ended that has no result, unless it has one after all, and closes its log with that. `who` tells
    /// this writer from others.
    ///
    /// # Errors
    /// [`Error::Io`] and [`Error::Report`].
    pub(crate) fn note(&self, cell: &CellSpec, status: Status, why: &str, who: &str) -> Result<(), Error> {
        let id = cell.id();
        let writer = Self::of_attempt(&self.root, &format!("{NOTE}.{who}"));
        let work = writer.open_work(&id)?;
        if let Err(e) = cell_log::carry(cell, &writer, &work) {
            tracing::warn!("{id}: {e}; how it ended is in its record, not in its log");
        }
        writer.finish(&id, &CellFiles::bare(cell.record(status, Some(why.to_owned()))))?;
        writer.close_work(&id)
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
    /// A process that is killed at any point leaves the old record, the new one, or none. An attempt on a cluster, which
    /// holds no lock, never replaces a good result.
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
        let unlocked = self.attempt.is_some();
        if unlocked && self.is_done(id)? {
            return Ok(());
        }
        if cell.exists() {
            // A rename replaces no folder that holds files.
            let replaced = Self::replaced(&work);
            remove_folder(&replaced)?;
            std::fs::rename(&cell, &replaced).map_err(|e| Error::io(&cell, "can't replace", e))?;
            let record = replaced.join("result.json");
            if unlocked && report::json::read_result(&record).is_ok_and(|cell| cell.status == Status::Ok) {
                // It was finished in this very moment.
                return std::fs::rename(&replaced, &cell).map_err(|e| Error::io(&cell, "can't put back", e));
            }
        }
        if let Err(e) = std::fs::rename(&finished, &cell) {
            // Another attempt may have been quicker.
            if !(unlocked && self.is_done(id)?) {
                return Err(Error::io(&cell, "can't put in place", e));
            }
        }
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
        self.tidy_attempts()?;
        for path in self.below_work()? {
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
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
        let _ = std::fs::remove_dir(self.root.join("work"));
        Ok(())
    }

    /// Removes what attempts on a cluster left of cells that are finished. Locks nothing.
    ///
    /// # Errors
    /// [`Error::Io`] and [`Error::Report`].
    pub(crate) fn tidy_attempts(&self) -> Result<(), Error> {
        for path in self.below_work()? {
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            if let Some((id, _)) = name.split_once('@')
                && self.is_done(id)?
            {
                // An attempt may be at it that finished the cell or was too late for it; what it leaves goes next time.
                let _ = std::fs::remove_dir_all(&path);
            }
        }
        let _ = std::fs::remove_dir(self.root.join("work"));
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
    fn an_attempt_takes_over_the_last_one_s_work_and_replaces_no_good_result() {
        let folder = tempfile::tempdir().unwrap();
        let spec = crate::spec::tests::spec();
        let id = &spec.id();
        let first = Layout::of_attempt(folder.path(), "12_3.0");
        first.take_over(id).unwrap();
        let work = first.open_work(id).unwrap();
        std::fs::write(work.join("checkpoint.safetensors"), "x").unwrap();
        first.note(&spec, Status::Failed, "killed", "me").unwrap();
        assert_eq!(first.record(id).unwrap().unwrap().status, Status::Failed);

        let second = Layout::of_attempt(folder.path(), "12_3.1");
        second.take_over(id).unwrap();
        second.open_work(id).unwrap();
        assert!(!work.exists() && second.work(id).join("checkpoint.safetensors").exists());
        second.finish(id, &CellFiles::bare(record(id, Status::Ok))).unwrap();
        // The first attempt still runs, and somebody thinks that both are lost.
        first.open_work(id).unwrap();
        first.finish(id, &CellFiles::bare(record(id, Status::Cancelled))).unwrap();
        first.note(&spec, Status::Failed, "killed", "me").unwrap();
        assert!(first.is_done(id).unwrap());
        Layout::new(folder.path()).tidy().unwrap();
        assert_eq!(files_below(folder.path()), [format!("cells/{id}/result.json")]);
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
