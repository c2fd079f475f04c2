//! Following the logs of a run's cells, and passing them on to wherever runs are tracked.
//!
//! Cells know nothing of it: they write their logs, wherever they run, and the process that started the run reads them. What
//! could not be passed on now is passed on later, or by the next run on the folder.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use tracking::{Artifact, LogReader, RunView, Tracker, What};

use crate::cell_log::LOG;
use crate::{Layout, Lock};

/// How often logs are looked at.
const EVERY: Duration = Duration::from_secs(2);
/// The longest pause after a failure.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);
/// How long the end waits for another process that tracks the same folder.
const FOR_OTHERS: Duration = Duration::from_secs(20);

/// What the follower's thread is told.
#[derive(Debug)]
pub(crate) enum Order {
    /// Follow this run too, unless it is followed already. A parent comes before its children.
    Follow(Box<Followed>),
    /// Pass on what is left, and end.
    Stop,
}

/// Which files belong to a run.
#[derive(Debug)]
pub(crate) enum Files {
    /// None.
    None,
    /// All below a folder.
    Below(PathBuf),
    /// Those of these names in a folder, as far as they are there.
    Named(PathBuf, &'static [&'static str]),
}

/// Where a run's log lies.
#[derive(Debug)]
pub(crate) enum Place {
    /// Always there.
    File(PathBuf),
    /// Where the cell of this id is: in its working folder on this machine, in that of an attempt on a cluster, or beside
    /// its record.
    Cell(String),
}

/// A run whose log is followed.
#[derive(Debug)]
pub(crate) struct Followed {
    key: String,
    parent: Option<String>,
    place: Place,
    files: Files,
    reader: LogReader,
    artifacts: Vec<Artifact>,
}

/// The working folders there are, by the ids of their cells.
type WorkingFolders = BTreeMap<String, Vec<PathBuf>>;

impl Followed {
    pub(crate) fn new(key: String, parent: Option<String>, place: Place, files: Files) -> Self {
        Self { key, parent, place, files, reader: LogReader::default(), artifacts: Vec::new() }
    }

    /// The log as it is now and its length; `None` if there is none yet. Of several the longest is the newest.
    fn newest(&self, layout: &Layout, working: &WorkingFolders) -> Option<(u64, PathBuf)> {
        let places = match &self.place {
            Place::File(path) => vec![path.clone()],
            Place::Cell(id) => {
                let working = working.get(id).into_iter().flatten().cloned();
                working.chain([layout.cell(id)]).map(|folder| folder.join(LOG)).collect()
            }
        };
        let length = |path: PathBuf| Some((std::fs::metadata(&path).ok()?.len(), path));
        places.into_iter().filter_map(length).max()
    }

    /// Reads what was added to the log.
    fn read(&mut self, layout: &Layout, working: &WorkingFolders) -> Result<(), tracking::Error> {
        let Some((length, path)) = self.newest(layout, working) else { return Ok(()) };
        if length <= self.reader.bytes() {
            return Ok(());
        }
        self.reader.read(&path)?;
        if self.reader.lines().last().is_some_and(|line| matches!(line.what, What::End { .. })) {
            self.artifacts = match &self.files {
                Files::None => Vec::new(),
                Files::Below(folder) => below(folder, ""),
                Files::Named(folder, names) => {
                    let there = names.iter().map(|name| (*name, folder.join(name)));
                    let there = there.filter(|(_, path)| path.is_file());
                    there.map(|(name, path)| Artifact { name: name.to_owned(), path }).collect()
                }
            };
        }
        Ok(())
    }
}

/// All files below a folder; none if it can't be listed.
fn below(folder: &Path, prefix: &str) -> Vec<Artifact> {
    let mut found = Vec::new();
    let mut items: Vec<_> = std::fs::read_dir(folder).into_iter().flatten().flatten().collect();
    items.sort_by_key(std::fs::DirEntry::file_name);
    for item in items {
        let (path, name) = (item.path(), format!("{prefix}{}", item.file_name().to_string_lossy()));
        if path.is_dir() {
            found.extend(below(&path, &format!("{name}/")));
        } else {
            found.push(Artifact { name, path });
        }
    }
    found
}

/// A tracker, and whether it works.
struct Told {
    tracker: Box<dyn Tracker>,
    /// Not before this, after a failure.
    next: Option<Instant>,
    pause: Duration,
}

impl Told {
    fn new(tracker: Box<dyn Tracker>) -> Self {
        Self { tracker, next: None, pause: EVERY }
    }
}

/// Reads logs and tells trackers, in a thread of its own.
pub(crate) struct Follower {
    experiment: String,
    layout: Layout,
    runs: Vec<Followed>,
    keys: BTreeSet<String>,
    trackers: Vec<Told>,
    lock_path: PathBuf,
    lock: Option<Lock>,
}

impl Follower {
    pub(crate) fn new(
        experiment: &str,
        layout: &Layout,
        trackers: Vec<Box<dyn Tracker>>,
        lock_path: PathBuf,
    ) -> Self {
        Self {
            experiment: experiment.to_owned(),
            layout: layout.clone(),
            runs: Vec::new(),
            keys: BTreeSet::new(),
            trackers: trackers.into_iter().map(Told::new).collect(),
            lock_path,
            lock: None,
        }
    }

    /// Follows until it is told to stop.
    pub(crate) fn follow(mut self, orders: &Receiver<Order>) {
        loop {
            let goes_on = self.listen(orders);
            if self.holds_lock(if goes_on { Duration::ZERO } else { FOR_OTHERS }) {
                self.round(!goes_on);
            } else if !goes_on {
                tracing::warn!(
                    "another process tracks this folder; what it leaves out, the next run makes up for"
                );
            }
            if !goes_on {
                return;
            }
        }
    }

    /// Takes orders until it is time to look again; says whether it goes on.
    fn listen(&mut self, orders: &Receiver<Order>) -> bool {
        let next = Instant::now() + EVERY;
        loop {
            match orders.recv_timeout(next.saturating_duration_since(Instant::now())) {
                Ok(Order::Follow(run)) => {
                    if self.keys.insert(run.key.clone()) {
                        self.runs.push(*run);
                    }
                }
                Ok(Order::Stop) | Err(RecvTimeoutError::Disconnected) => return false,
                Err(RecvTimeoutError::Timeout) => return true,
            }
        }
    }

    /// Whether this process is the one that tracks; it may become so.
    fn holds_lock(&mut self, patience: Duration) -> bool {
        let began = Instant::now();
        while self.lock.is_none() {
            match Lock::try_take(&self.lock_path) {
                Ok(lock) => self.lock = lock,
                Err(e) => {
                    tracing::warn!("tracking: {e}");
                    return false;
                }
            }
            if self.lock.is_none() {
                if began.elapsed() >= patience {
                    return false;
                }
                std::thread::sleep(Duration::from_millis(100));
            }
        }
        true
    }

    /// Brings every tracker up to date with every log.
    fn round(&mut self, last: bool) {
        let working = self.layout.working_folders().unwrap_or_else(|e| {
            tracing::warn!("tracking: {e}");
            WorkingFolders::new()
        });
        for run in &mut self.runs {
            if let Err(e) = run.read(&self.layout, &working) {
                // A log moves when its cell is finished or taken over; on the last round none does.
                if last {
                    tracing::warn!("tracking: {e}");
                }
            }
        }
        for told in &mut self.trackers {
            if !last && told.next.is_some_and(|next| Instant::now() < next) {
                continue;
            }
            match update(told.tracker.as_mut(), &self.experiment, &self.runs) {
                Ok(()) => {
                    told.next = None;
                    told.pause = EVERY;
                }
                Err(e) => {
                    if told.next.is_none() || last {
                        let then = if last {
                            "the next run on this folder makes up for it"
                        } else {
                            "it is tried again"
                        };
                        tracing::warn!("{}: {e}; {then}", told.tracker.name());
                    }
                    told.next = Some(Instant::now() + told.pause);
                    told.pause = (told.pause * 2).min(LONGEST_PAUSE);
                }
            }
        }
    }
}

fn update(tracker: &mut dyn Tracker, experiment: &str, runs: &[Followed]) -> Result<(), tracking::Error> {
    for run in runs.iter().filter(|run| !run.reader.lines().is_empty()) {
        tracker.update(&RunView {
            key: &run.key,
            parent: run.parent.as_deref(),
            experiment,
            lines: run.reader.lines(),
            artifacts: &run.artifacts,
        })?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::sync::mpsc::channel;
    use std::sync::{Arc, Mutex};

    use anomaly_core::{Event, Observer};
    use tracking::{EventLog, Run, RunView, Tracker};

    use super::{Files, Followed, Follower, Order, Place};
    use crate::Layout;
    use crate::cell_log::LOG;

    /// A run's key, its parent's, and how many lines it has.
    type Seen = (String, Option<String>, usize);

    /// Keeps what it was told last of each run.
    #[derive(Clone, Default)]
    struct Told(Arc<Mutex<Vec<Seen>>>);

    impl Tracker for Told {
        fn name(&self) -> String {
            "a test".into()
        }
        fn update(&mut self, run: &RunView<'_>) -> Result<(), tracking::Error> {
            let mut told = self.0.lock().unwrap();
            told.retain(|(key, ..)| key != run.key);
            told.push((run.key.to_owned(), run.parent.map(str::to_owned), run.lines.len()));
            Ok(())
        }
    }

    #[test]
    fn a_cell_is_followed_from_attempt_to_attempt_to_its_record() {
        let folder = tempfile::tempdir().unwrap();
        let layout = Layout::new(folder.path());
        let told = Told::default();
        let look = || {
            let follower = Follower::new("e", &layout, vec![Box::new(told.clone())], folder.path().join("l"));
            let (orders, ordered) = channel();
            // Told twice, it is followed once.
            for parent in ["whole", "other"] {
                let run = Followed::new(
                    "whole/c".into(),
                    Some(parent.into()),
                    Place::Cell("c".into()),
                    Files::Below(layout.cell("c")),
                );
                orders.send(Order::Follow(Box::new(run))).unwrap();
            }
            orders.send(Order::Stop).unwrap();
            follower.follow(&ordered);
            told.0.lock().unwrap().clone()
        };
        assert!(look().is_empty());
        let expected = |lines| vec![("whole/c".to_owned(), Some("whole".to_owned()), lines)];
        let run = Run { id: "c".into(), name: "c".into(), ..Run::default() };
        let point = |at: f64| Event::Metric { name: "loss".into(), at, value: 0.5 };

        let first = Layout::of_attempt(folder.path(), "12_3.0");
        let work = first.open_work("c").unwrap();
        EventLog::open(&work.join(LOG), &run).unwrap().event(&point(1.0));
        assert_eq!(look(), expected(2));
        // Who only records how it ended is not at work on it.
        let note = Layout::of_attempt(folder.path(), "note.x").open_work("c").unwrap();
        std::fs::write(note.join(LOG), vec![b'\n'; 9999]).unwrap();
        assert_eq!(look(), expected(2));

        let second = Layout::of_attempt(folder.path(), "12_3.1");
        second.take_over("c").unwrap();
        EventLog::open(&second.work("c").join(LOG), &run).unwrap().event(&point(2.0));
        assert_eq!(look(), expected(4));
        std::fs::create_dir_all(layout.cell("c")).unwrap();
        std::fs::rename(second.work("c").join(LOG), layout.cell("c").join(LOG)).unwrap();
        EventLog::open(&layout.cell("c").join(LOG), &run).unwrap().event(&point(3.0));
        assert_eq!(look(), expected(6));
    }
}
