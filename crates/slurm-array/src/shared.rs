//! The folder that tasks and followers share.
//!
//! ```text
//! submissions/<array>.json               what was submitted: indices, time, flags
//! tasks/<index>/<attempt>.started.json   an attempt began; an attempt is ARRAY_INDEX.RESTARTS
//! tasks/<index>/<attempt>.beat.json      its sign of life
//! tasks/<index>/<attempt>.ended.json     how it ended, in its own words
//! seen/<array>_<index>.json              the end that Slurm told, which it forgets after minutes
//! logs/
//! ```
//!
//! Every file has one writer, and is written under another name, synchronised and renamed; nothing is locked, since not
//! every shared file system can.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::{Attempt, Entry, Error};

/// What was submitted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Submission {
    /// The array's id.
    pub array: u64,
    /// Its indices.
    pub indices: BTreeSet<u32>,
    /// The arguments of `sbatch`; none if whoever submitted could not note it and the queue told.
    pub arguments: Vec<String>,
}

/// An attempt began.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Started {
    /// The attempt.
    pub attempt: Attempt,
    /// The node.
    pub node: String,
    /// Its process.
    pub process: u32,
}

/// A sign of life.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Beat {
    /// The attempt.
    pub attempt: Attempt,
    /// Grows with each; clocks of several machines are not compared.
    pub count: u64,
    /// What it is at.
    pub at: String,
}

/// How an attempt ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Ending {
    /// All its work is done.
    Done,
    /// Some of it failed.
    Failed,
    /// It did not begin, since what it was to do is not what was submitted.
    Refused,
    /// It was told to stop.
    Stopped,
}

impl Ending {
    /// The exit code of a task's process: small and fixed, so that it can't be taken for a signal's.
    pub fn code(self) -> u8 {
        match self {
            Self::Done => 0,
            Self::Failed => 1,
            Self::Refused => 3,
            Self::Stopped => 4,
        }
    }
}

/// An attempt's last word.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Ended {
    /// The attempt.
    pub attempt: Attempt,
    /// The node.
    pub node: String,
    /// How it ended.
    pub ending: Ending,
    /// Why, in words; empty if all is done.
    pub why: String,
}

/// The folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shared {
    root: PathBuf,
}

impl Shared {
    /// The folder at `root`.
    pub fn new(root: &Path) -> Self {
        Self { root: root.to_owned() }
    }

    /// The folder itself.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The folder of the logs; made if it is not there.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn logs(&self) -> Result<PathBuf, Error> {
        let logs = self.root.join("logs");
        std::fs::create_dir_all(&logs).map_err(|e| Error::io(&logs, "can't make the folder", e))?;
        Ok(logs)
    }

    /// Writes `bytes` to `name`: the whole of it appears in one step.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn put(&self, name: &str, bytes: &[u8]) -> Result<(), Error> {
        let path = self.root.join(name);
        let folder = path.parent().unwrap_or(&self.root).to_owned();
        let write = || -> std::io::Result<()> {
            std::fs::create_dir_all(&folder)?;
            let mut file = tempfile::Builder::new().prefix(".writing-").tempfile_in(&folder)?;
            file.write_all(bytes)?;
            file.as_file().sync_all()?;
            file.persist(&path).map_err(|e| e.error)?;
            // The rename must reach the disk too; not every file system lets a folder be opened for that.
            if let Ok(folder) = std::fs::File::open(&folder) {
                let _ = folder.sync_all();
            }
            Ok(())
        };
        write().map_err(|e| Error::io(&path, "can't write", e))
    }

    fn put_json(&self, name: &str, value: &impl Serialize) -> Result<(), Error> {
        let text = serde_json::to_vec_pretty(value)
            .map_err(|source| Error::Record { path: self.root.join(name), source })?;
        self.put(name, &text)
    }

    /// Records what was submitted.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn submitted(&self, submission: &Submission) -> Result<(), Error> {
        self.put_json(&format!("submissions/{}.json", submission.array), submission)
    }

    /// All that was submitted, by array.
    ///
    /// # Errors
    /// [`Error::Io`] and [`Error::Record`].
    pub fn submissions(&self) -> Result<BTreeMap<u64, Submission>, Error> {
        let mut found = BTreeMap::new();
        for path in list(&self.root.join("submissions"))? {
            if let Some(submission) = read::<Submission>(&path)? {
                found.insert(submission.array, submission);
            }
        }
        Ok(found)
    }

    /// Records that an attempt began.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn started(&self, started: &Started) -> Result<(), Error> {
        self.put_json(&of_attempt(&started.attempt, "started"), started)
    }

    /// Records a sign of life.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn beat(&self, beat: &Beat) -> Result<(), Error> {
        self.put_json(&of_attempt(&beat.attempt, "beat"), beat)
    }

    /// Records an attempt's last word.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn ended(&self, ended: &Ended) -> Result<(), Error> {
        self.put_json(&of_attempt(&ended.attempt, "ended"), ended)
    }

    /// Keeps the end that Slurm told of a task.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn seen(&self, entry: &Entry) -> Result<(), Error> {
        self.put_json(&format!("seen/{}.json", entry.address()), entry)
    }

    /// The end that Slurm once told of a task of an array.
    ///
    /// # Errors
    /// [`Error::Io`] and [`Error::Record`].
    pub fn last_seen(&self, array: u64, index: u32) -> Result<Option<Entry>, Error> {
        read(&self.root.join(format!("seen/{array}_{index}.json")))
    }

    /// What the last attempt of a task of `array` wrote: that it began, its latest sign of life, its last word.
    ///
    /// # Errors
    /// [`Error::Io`] and [`Error::Record`].
    #[allow(clippy::type_complexity, reason = "three files, each of which may be missing")]
    pub fn latest(
        &self,
        array: u64,
        index: u32,
    ) -> Result<(Option<Started>, Option<Beat>, Option<Ended>), Error> {
        let folder = self.root.join("tasks").join(index.to_string());
        let start = format!("{array}_{index}.");
        let restarts = list(&folder)?.into_iter().filter_map(|path| {
            let name = path.file_name()?.to_str()?.strip_prefix(&start)?.to_owned();
            name.split('.').next()?.parse::<u32>().ok()
        });
        let Some(restarts) = restarts.max() else { return Ok((None, None, None)) };
        let attempt = Attempt { array, index, restarts };
        let path = |kind| self.root.join(of_attempt(&attempt, kind));
        Ok((read(&path("started"))?, read(&path("beat"))?, read(&path("ended"))?))
    }
}

fn of_attempt(attempt: &Attempt, kind: &str) -> String {
    format!("tasks/{}/{attempt}.{kind}.json", attempt.index)
}

/// The files of a folder but those being written; none if it is not there.
fn list(folder: &Path) -> Result<Vec<PathBuf>, Error> {
    let failed = |e| Error::io(folder, "can't list", e);
    let listing = match std::fs::read_dir(folder) {
        Ok(listing) => listing,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(e) => return Err(failed(e)),
    };
    let mut paths = Vec::new();
    for item in listing {
        let item = item.map_err(failed)?;
        if !item.file_name().to_string_lossy().starts_with('.') {
            paths.push(item.path());
        }
    }
    Ok(paths)
}

fn read<T: DeserializeOwned>(path: &Path) -> Result<Option<T>, Error> {
    match std::fs::read(path) {
        Ok(bytes) => serde_json::from_slice(&bytes)
            .map(Some)
            .map_err(|source| Error::Record { path: path.to_owned(), source }),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(Error::io(path, "can't read", e)),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::{Beat, Ended, Ending, Shared, Started, Submission};
    use crate::{Attempt, Entry};

    #[test]
    fn the_latest_attempt_of_the_array_asked_for_is_read() {
        let folder = tempfile::tempdir().unwrap();
        let shared = Shared::new(folder.path());
        assert_eq!(shared.latest(12, 3).unwrap(), (None, None, None));
        assert!(shared.submissions().unwrap().is_empty());
        for restarts in [0, 10, 2] {
            let attempt = Attempt { array: 12, index: 3, restarts };
            shared.started(&Started { attempt, node: "n1".into(), process: 7 }).unwrap();
            shared.beat(&Beat { attempt, count: u64::from(restarts), at: "x".into() }).unwrap();
        }
        let first = Attempt { array: 12, index: 3, restarts: 0 };
        let ended = Ended { attempt: first, node: "n1".into(), ending: Ending::Stopped, why: "TERM".into() };
        shared.ended(&ended).unwrap();
        let (started, beat, ended) = shared.latest(12, 3).unwrap();
        assert_eq!((started.unwrap().attempt.restarts, beat.unwrap().count, ended), (10, 10, None));
        assert_eq!(shared.latest(13, 3).unwrap().0, None);

        let submission = Submission { array: 12, indices: [3].into(), arguments: vec!["--parsable".into()] };
        shared.submitted(&submission).unwrap();
        assert_eq!(shared.submissions().unwrap()[&12], submission);
        let entry = Entry::parse("12|3|15|TIMEOUT|15|TimeLimit|n1|").unwrap();
        shared.seen(&entry).unwrap();
        assert_eq!(shared.last_seen(12, 3).unwrap(), Some(entry));
        std::fs::write(folder.path().join("seen/12_4.json"), "{").unwrap();
        assert!(shared.last_seen(12, 4).unwrap_err().to_string().contains("12_4.json"));
    }
}
