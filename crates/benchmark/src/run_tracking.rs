//! A run as it is tracked: a matrix with its cells, or a search with its trials and their cells.

use std::path::{Path, PathBuf};
use std::sync::mpsc::{Sender, channel};
use std::thread::JoinHandle;
use std::time::{SystemTime, UNIX_EPOCH};

use anomaly_core::hex;
use sha2::{Digest, Sha256};
use tracking::{Ending, EventLog, Run, Tracker, What};

use crate::log_follower::{Files, Followed, Follower, Order, Place};
use crate::{CellSpec, Error, Layout, Outcome, Plan};

/// The files of a matrix as a whole that are kept with it.
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
    orders: Sender<Order>,
    thread: Option<JoinHandle<()>>,
    layout: Layout,
    log: PathBuf,
    id: String,
    /// Whether the output folder may be one that can't be locked.
    shared: bool,
}

impl Tracking {
    /// Begins to track the selected cells of `plan` in `layout`; does nothing if there are no trackers.
    ///
    /// # Errors
    /// Only if the log of the matrix, `tracking/<profile>.jsonl` in the output folder, can't be written. What a
    /// tracker has against it is a warning.
    pub fn start(plan: &Plan, layout: &Layout, trackers: Vec<Box<dyn Tracker>>) -> Result<Self, Error> {
        Self::of_matrix(plan, layout, trackers, false)
    }

    /// The same where cells run on a cluster. A shared file system may have no locks, so it is of the processes on this
    /// machine that one tracks.
    ///
    /// # Errors
    /// As [`Tracking::start`].
    pub fn start_shared(
        plan: &Plan,
        layout: &Layout,
        trackers: Vec<Box<dyn Tracker>>,
    ) -> Result<Self, Error> {
        Self::of_matrix(plan, layout, trackers, true)
    }

    fn of_matrix(
        plan: &Plan,
        layout: &Layout,
        trackers: Vec<Box<dyn Tracker>>,
        shared: bool,
    ) -> Result<Self, Error> {
        let start = Start {
            log: format!("{}.jsonl", plan.profile),
            experiment: plan.profile.clone(),
            files: &SUMMARY,
            shared,
        };
        let tracking = Self::begin(&start, layout, trackers, &|id| matrix(plan, id))?;
        let cells = plan.cells.iter().filter(|cell| cell.selected).map(|cell| &cell.spec);
        tracking.follow_cells(cells, None);
        Ok(tracking)
    }

    /// Begins to track what `run` makes of the id that it has in all processes that track it.
    pub(crate) fn begin(
        start: &Start,
        layout: &Layout,
        trackers: Vec<Box<dyn Tracker>>,
        run: &dyn Fn(&str) -> Run,
    ) -> Result<Self, Error> {
        if trackers.is_empty() {
            return Ok(Self::default());
        }
        let folder = folder(layout);
        std::fs::create_dir_all(&folder).map_err(|e| Error::io(&folder, "can't make the folder", e))?;
        let log = folder.join(&start.log);
        let id = known_id(&log).unwrap_or_else(|| new_id(&start.experiment));
        EventLog::open(&log, &run(&id))?;
        let files = Files::Named(layout.root().to_owned(), start.files);
        let whole = Followed::new(id.clone(), None, Place::File(log.clone()), files);
        let lock = if start.shared { own_lock(layout)? } else { layout.lock("tracking") };
        let follower = Follower::new(&start.experiment, layout, trackers, lock);
        let (orders, ordered) = channel();
        let thread = std::thread::spawn(move || follower.follow(&ordered));
        let (layout, shared) = (layout.clone(), start.shared);
        let tracking =
            Self { following: Some(Following { orders, thread: Some(thread), layout, log, id, shared }) };
        tracking.order(whole);
        Ok(tracking)
    }

    /// Follows the cells as runs within the one called `parent`, or within the whole; those that are followed already stay
    /// where they are.
    pub(crate) fn follow_cells<'a>(
        &self,
        cells: impl IntoIterator<Item = &'a CellSpec>,
        parent: Option<&str>,
    ) {
        let Some(following) = &self.following else { return };
        let parent = self.key(parent);
        for cell in cells {
            let id = cell.id();
            let files = Files::Below(following.layout.cell(&id));
            let key = format!("{}/{id}", following.id);
            self.order(Followed::new(key, parent.clone(), Place::Cell(id), files));
        }
    }

    /// Follows the log at `path` as the run `name` within the whole.
    pub(crate) fn follow_log(&self, name: &str, path: &Path) {
        let Some(following) = &self.following else { return };
        let key = format!("{}/{name}", following.id);
        let place = Place::File(path.to_owned());
        self.order(Followed::new(key, Some(following.id.clone()), place, Files::None));
    }

    /// What a run within the whole is known by; the whole itself if `name` is `None`.
    fn key(&self, name: Option<&str>) -> Option<String> {
        let id = &self.following.as_ref()?.id;
        Some(name.map_or_else(|| id.clone(), |name| format!("{id}/{name}")))
    }

    /// Whether anything is tracked.
    pub(crate) fn is_on(&self) -> bool {
        self.following.is_some()
    }

    fn order(&self, run: Followed) {
        if let Some(following) = &self.following {
            // A thread that is gone has said so; the next run makes up for it.
            let _ = following.orders.send(Order::Follow(Box::new(run)));
        }
    }

    /// Notes how the run ended, and passes on all that is left. Call it after [`crate::write_summary`].
    ///
    /// # Errors
    /// [`Error::Io`] if the output folder can't be written.
    pub fn finish(self, outcome: &Outcome) -> Result<(), Error> {
        let figures =
            [("cells", outcome.cells.len()), ("failed", outcome.failed), ("unfinished", outcome.unfinished)];
        let figures = figures.map(|(name, count)| (name.to_owned(), count as f64)).into();
        let status = match outcome {
            outcome if outcome.is_complete() => Ending::Finished,
            Outcome { unfinished: 1.., .. } => Ending::Cancelled,
            _ => Ending::Failed,
        };
        self.end(&figures, status)
    }

    /// Notes what the run came to and how it ended, and passes on all that is left.
    pub(crate) fn end(
        mut self,
        figures: &std::collections::BTreeMap<String, f64>,
        status: Ending,
    ) -> Result<(), Error> {
        let Some(following) = self.following.take() else { return Ok(()) };
        tracking::close_log(&following.log, figures, status, None)?;
        let (layout, shared) = (following.layout.clone(), following.shared);
        drop(following);
        if shared { layout.tidy_attempts() } else { layout.tidy() }
    }
}

/// What tracking begins with.
pub(crate) struct Start {
    /// The name of the log of the whole.
    pub(crate) log: String,
    /// Runs of one experiment are shown together.
    pub(crate) experiment: String,
    /// The files in the output folder that are kept with it.
    pub(crate) files: &'static [&'static str],
    /// Whether the output folder may be one that can't be locked.
    pub(crate) shared: bool,
}

/// Where the logs of runs lie that are no cells.
pub(crate) fn folder(layout: &Layout) -> PathBuf {
    layout.root().join("tracking")
}

impl Drop for Following {
    fn drop(&mut self) {
        // If the thread is gone there is nothing to stop.
        let _ = self.orders.send(Order::Stop);
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

/// A lock of this machine's own for the output folder of `layout`.
fn own_lock(layout: &Layout) -> Result<PathBuf, Error> {
    let root = layout.root();
    let root = root.canonicalize().map_err(|e| Error::io(root, "can't find the folder", e))?;
    let name = hex(&Sha256::digest(root.as_os_str().as_encoded_bytes()));
    Ok(std::env::temp_dir().join(format!("vitad-tracking-{}.lock", &name[..16])))
}

/// The id that the log at `path` begins with.
fn known_id(path: &Path) -> Option<String> {
    match tracking::read_log(path).ok()?.into_iter().next()?.what {
        What::Run(run) => Some(run.id),
        _ => None,
    }
}

/// An id that no other run has: from the time, the process and a name.
fn new_id(name: &str) -> String {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let text = format!("{name} {} {}", since.as_nanos(), std::process::id());
    hex(&Sha256::digest(text.as_bytes())[..16])
}
