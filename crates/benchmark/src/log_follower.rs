//! Following the logs of a run's cells, and passing them on to wherever runs are tracked.
//!
//! Cells know nothing of it: they write their logs, wherever they run, and the process that started the run reads them. What
//! could not be passed on now is passed on later, or by the next run on the folder.

use std::path::{Path, PathBuf};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anomaly_core::hex;
use sha2::{Digest, Sha256};
use tracking::{Artifact, Ending, EventLog, LogReader, Run, RunView, Tracker, What};

use crate::cell_log::LOG;
use crate::{Error, Layout, Lock, Outcome, Plan};

/// How often logs are looked at.
const EVERY: Duration = Duration::from_secs(2);
/// The longest pause after a failure.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);
/// How long the end waits for another process that tracks the same folder.
const FOR_OTHERS: Duration = Duration::from_secs(20);

/// The files of a run as a whole that are kept with it.
const SUMMARY: [&str; 4] = ["summary.json", "summary.csv", "summary.md", "report.html"];

/// Tracks a run: the matrix as one run, and each of its cells as one within it.
///
/// Of several processes on one folder, one tracks. When it is dropped without [`Tracking::finish`], the matrix stays
/// without an end, and the next run on the folder goes on with it.
#[derive(Debug, Default)]
pub struct Tracking {
    following: Option<Following>,
}

#[derive(Debug)]
struct Following {
    stop: Sender<()>,
    thread: Option<JoinHandle<()>>,
    layout: Layout,
    log: PathBuf,
}

impl Tracking {
    /// Begins to track the selected cells of `plan` in `layout`; does nothing if there are no trackers.
    ///
    /// # Errors
    /// Only if the log of the matrix, `tracking/<profile>.jsonl` in the output folder, can't be written. What a
    /// tracker has against it is a warning.
    pub fn start(plan: &Plan, layout: &Layout, trackers: Vec<Box<dyn Tracker>>) -> Result<Self, Error> {
        if trackers.is_empty() {
            return Ok(Self::default());
        }
        let folder = layout.root().join("tracking");
        std::fs::create_dir_all(&folder).map_err(|e| Error::io(&folder, "can't make the folder", e))?;
        let log = folder.join(format!("{}.jsonl", plan.profile));
        let id = known_id(&log).unwrap_or_else(|| new_id(&plan.profile));
        EventLog::open(&log, &matrix(plan, &id))?;
        let mut runs =
            vec![Followed::new(id.clone(), None, vec![log.clone()], Files::Of(layout.root().to_owned()))];
        for cell in plan.cells.iter().filter(|cell| cell.selected) {
            let cell_id = cell.spec.id();
            let finished = layout.cell(&cell_id);
            let places = vec![layout.work(&cell_id).join(LOG), finished.join(LOG)];
            runs.push(Followed::new(
                format!("{id}/{cell_id}"),
                Some(id.clone()),
                places,
                Files::Below(finished),
            ));
        }
        let follower = Follower {
            experiment: plan.profile.clone(),
            runs,
            trackers: trackers.into_iter().map(Told::new).collect(),
            lock_path: layout.lock("tracking"),
            lock: None,
        };
        let (stop, stopped) = channel();
        let thread = std::thread::spawn(move || follower.follow(&stopped));
        let following = Following { stop, thread: Some(thread), layout: layout.clone(), log };
        Ok(Self { following: Some(following) })
    }

    /// Notes how the run ended, and passes on all that is left. Call it after [`crate::write_summary`].
    ///
    /// # Errors
    /// [`Error::Io`] if the output folder can't be written.
    pub fn finish(mut self, outcome: &Outcome) -> Result<(), Error> {
        let Some(following) = self.following.take() else { return Ok(()) };
        let figures =
            [("cells", outcome.cells.len()), ("failed", outcome.failed), ("unfinished", outcome.unfinished)];
        let figures = figures.map(|(name, count)| (name.to_owned(), count as f64)).into();
        let status = match outcome {
            outcome if outcome.is_complete() => Ending::Finished,
            Outcome { unfinished: 1.., .. } => Ending::Cancelled,
            _ => Ending::Failed,
        };
        tracking::close_log(&following.log, &figures, status, None)?;
        let layout = following.layout.clone();
        drop(following);
        layout.tidy()
    }
}

impl Drop for Following {
    fn drop(&mut self) {
        // If the thread is gone there is nothing to stop.
        let _ = self.stop.send(());
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::warn!("tracking ended with a panic; the next run on the folder makes up for it");
        }
    }
}

/// The matrix as a run.
fn matrix(plan: &Plan, id: &str) -> Run {
    let mut run = Run { id: id.to_owned(), name: plan.profile.clone(), ..Run::default() };
    run.tags.insert("profile".to_owned(), plan.profile.clone());
    run.tags.insert("description".to_owned(), plan.description.clone());
    if let Some(cell) = plan.cells.first() {
        run.tags.insert("device".to_owned(), cell.spec.device.clone());
        run.tags.extend(cell.spec.commit.iter().map(|commit| ("commit".to_owned(), commit.clone())));
        let versions = cell.spec.versions.iter();
        run.tags.extend(versions.map(|(name, version)| (format!("version.{name}"), version.clone())));
    }
    run
}

/// The id that the log at `path` begins with.
fn known_id(path: &Path) -> Option<String> {
    match tracking::read_log(path).ok()?.into_iter().next()?.what {
        What::Run(run) => Some(run.id),
        _ => None,
    }
}

/// An id that no other run has: from the time, the process and the profile's name.
fn new_id(profile: &str) -> String {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let text = format!("{profile} {} {}", since.as_nanos(), std::process::id());
    hex(&Sha256::digest(text.as_bytes())[..16])
}

/// Which files belong to a run.
enum Files {
    /// All below a folder.
    Below(PathBuf),
    /// The summary in a folder.
    Of(PathBuf),
}

/// A run whose log is followed.
struct Followed {
    key: String,
    parent: Option<String>,
    /// Where its log may lie; of several, the longest is the newest.
    places: Vec<PathBuf>,
    files: Files,
    reader: LogReader,
    artifacts: Vec<Artifact>,
}

impl Followed {
    fn new(key: String, parent: Option<String>, places: Vec<PathBuf>, files: Files) -> Self {
        Self { key, parent, places, files, reader: LogReader::default(), artifacts: Vec::new() }
    }

    /// Reads what was added to the log.
    fn read(&mut self) -> Result<(), tracking::Error> {
        let length = |path: &PathBuf| std::fs::metadata(path).map(|meta| meta.len()).ok();
        let Some((length, path)) = self.places.iter().filter_map(|path| Some((length(path)?, path))).max()
        else {
            return Ok(());
        };
        if length <= self.reader.bytes() {
            return Ok(());
        }
        self.reader.read(path)?;
        if self.reader.lines().last().is_some_and(|line| matches!(line.what, What::End { .. })) {
            self.artifacts = match &self.files {
                Files::Below(folder) => below(folder, ""),
                Files::Of(folder) => {
                    let there = SUMMARY.into_iter().map(|name| (name, folder.join(name)));
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

struct Follower {
    experiment: String,
    runs: Vec<Followed>,
    trackers: Vec<Told>,
    lock_path: PathBuf,
    lock: Option<Lock>,
}

impl Follower {
    fn follow(mut self, stopped: &std::sync::mpsc::Receiver<()>) {
        loop {
            let goes_on = matches!(stopped.recv_timeout(EVERY), Err(RecvTimeoutError::Timeout));
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
        for run in &mut self.runs {
            if let Err(e) = run.read() {
                // A log moves when its cell is finished; on the last round none does.
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
