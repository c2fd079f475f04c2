//! Watching what Slurm holds, from any machine that sees the shared folder.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anomaly_core::Cancellation;
use slurm_array::{Entry, Limits, Phase, Poll, Shared, Sight, Slurm, Submission, Tracker, Verdict};

use super::plan_file::PlanFile;
use crate::{Error, Layout};

/// How tasks are watched.
#[derive(Debug, Clone)]
pub struct FollowOptions {
    /// How often the queue is asked; well below the five minutes after which Slurm forgets a task.
    pub poll: Duration,
    /// What silence means.
    pub limits: Limits,
    /// Slurm's programs.
    pub slurm: Slurm,
    /// Asks to stop watching. Tasks go on.
    pub cancellation: Cancellation,
    /// Watch at most so long; without end if `None`.
    pub at_most: Option<Duration>,
}

/// How a task stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TaskState {
    /// The plan's name, which is the job's.
    pub plan: String,
    /// The task's index.
    pub index: u32,
    /// The array it was last submitted in; `None` if it never was.
    pub array: Option<u64>,
    /// What became of it; `None` if it was not submitted.
    pub verdict: Option<Verdict>,
    /// The names of its cells that have no good result.
    pub open: Vec<String>,
    /// Where its log is.
    pub log: PathBuf,
}

impl TaskState {
    /// The task as Slurm's programs take it.
    pub fn address(&self) -> String {
        self.array.map_or_else(|| "not submitted".to_owned(), |array| format!("{array}_{}", self.index))
    }
}

/// What a follower has to tell.
#[derive(Debug)]
pub enum News<'a> {
    /// How many tasks are how, by the words of their verdicts; told when it changes.
    Counts(&'a BTreeMap<String, usize>),
    /// A task that came to an end without its results, or that will not come to one.
    Task(&'a TaskState),
    /// The queue can't be asked, and why; told when it begins.
    NoAnswer(&'a str),
}

/// How watching ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Followed {
    /// How each task stands.
    pub tasks: Vec<TaskState>,
    /// Whether nothing more is to come.
    pub settled: bool,
}

/// Watches the tasks that the last [`super::submit`] into the output folder of `layout` was about, until none is to come any
/// more.
///
/// It holds nothing and changes nothing but its notes of what Slurm said: it can be ended at any time and begun again, also
/// several times at once.
///
/// # Errors
/// If the shared folder can't be read, or nothing was submitted from it.
pub fn follow(
    layout: &Layout,
    options: &FollowOptions,
    hear: &mut dyn FnMut(News<'_>),
) -> Result<Followed, Error> {
    let root = layout.root();
    let out = root.canonicalize().map_err(|e| Error::io(root, "can't find the folder", e))?;
    let mut follower = Follower {
        layout: Layout::new(&out),
        plans: PlanFile::current(&out)?,
        options,
        since: Instant::now(),
        trackers: BTreeMap::new(),
        told: BTreeMap::new(),
        answered: true,
    };
    let mut counts = BTreeMap::new();
    loop {
        let tasks = follower.look(hear)?;
        let now = count(&tasks);
        if now != counts {
            hear(News::Counts(&now));
            counts = now;
        }
        for task in &tasks {
            follower.tell(task, hear);
        }
        let settled = is_settled(&tasks);
        let late = options.at_most.is_some_and(|most| follower.since.elapsed() >= most);
        if settled || late || options.cancellation.is_cancelled() {
            return Ok(Followed { tasks, settled });
        }
        let next = Instant::now() + options.poll;
        while Instant::now() < next && !options.cancellation.is_cancelled() {
            std::thread::sleep(options.poll.min(Duration::from_millis(50)));
        }
    }
}

fn count(tasks: &[TaskState]) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for task in tasks {
        let word = task.verdict.as_ref().map_or_else(|| "unsubmitted".to_owned(), Verdict::word);
        *counts.entry(word).or_default() += 1;
    }
    counts
}

/// Whether waiting longer brings nothing: all is settled but what waits for something that is settled and stays.
fn is_settled(tasks: &[TaskState]) -> bool {
    let verdicts = || tasks.iter().filter_map(|task| task.verdict.as_ref());
    let stays = verdicts().any(|verdict| verdict.is_settled() && verdict.is_held());
    let waits = |verdict: &Verdict| matches!(verdict, Verdict::Waiting { reason } if reason == "Dependency");
    verdicts().all(|verdict| verdict.is_settled() || stays && waits(verdict))
}

struct Follower<'a> {
    layout: Layout,
    plans: Vec<PlanFile>,
    options: &'a FollowOptions,
    since: Instant,
    /// By plan, task and array.
    trackers: BTreeMap<(usize, u32, u64), Tracker>,
    /// What was told of a task.
    told: BTreeMap<(String, u32), Verdict>,
    answered: bool,
}

impl Follower<'_> {
    fn look(&mut self, hear: &mut dyn FnMut(News<'_>)) -> Result<Vec<TaskState>, Error> {
        let mut tasks = Vec::new();
        for at in 0..self.plans.len() {
            let queue = self.ask(at, hear);
            let plan = &self.plans[at];
            let shared = plan.shared();
            let submissions = shared.submissions()?;
            for index in plan.indices() {
                let array = latest_array(index, &submissions, queue.as_deref());
                let mut open = Vec::new();
                for cell in self.plans[at].task(index) {
                    if !self.layout.is_done(&cell.id())? {
                        open.push(cell.identity.name());
                    }
                }
                let verdict = match array {
                    Some(array) => Some(self.verdict(at, index, array, open.is_empty(), queue.as_deref())?),
                    None if open.is_empty() => Some(Verdict::Done),
                    // Whether it was submitted is not known while the queue can't be asked.
                    None => queue.is_none().then_some(Verdict::Settling),
                };
                let log = array.map_or_else(String::new, |array| format!("{array}_{index}.log"));
                tasks.push(TaskState {
                    plan: self.plans[at].name.clone(),
                    index,
                    array,
                    verdict,
                    open,
                    log: shared.root().join("logs").join(log),
                });
            }
        }
        Ok(tasks)
    }

    /// The queue of a plan's jobs; `None` if it can't be asked.
    fn ask(&mut self, plan: usize, hear: &mut dyn FnMut(News<'_>)) -> Option<Vec<Entry>> {
        match self.options.slurm.queue(&self.plans[plan].name) {
            Ok(queue) => {
                self.answered = true;
                Some(queue)
            }
            Err(e) => {
                if std::mem::take(&mut self.answered) {
                    hear(News::NoAnswer(&e.to_string()));
                }
                None
            }
        }
    }

    fn verdict(
        &mut self,
        plan: usize,
        index: u32,
        array: u64,
        done: bool,
        queue: Option<&[Entry]>,
    ) -> Result<Verdict, Error> {
        let shared = self.plans[plan].shared();
        let key = (plan, index, array);
        if !self.trackers.contains_key(&key) {
            let end = shared.last_seen(array, index)?;
            self.trackers.insert(key, Tracker::with_end(self.options.limits, end));
        }
        let (started, beat, ended) = shared.latest(array, index)?;
        let poll = match queue {
            None => Poll::Unknown,
            Some(queue) => poll_of(queue, array, index, started.is_some()),
        };
        let sight = Sight { done, ended, beat, poll };
        let Some(tracker) = self.trackers.get_mut(&key) else { return Ok(Verdict::Lost) };
        let known = tracker.end().cloned();
        let verdict = tracker.observe(self.since.elapsed(), &sight);
        keep(&shared, known.as_ref(), tracker.end(), index)?;
        Ok(verdict)
    }

    /// Tells once of each end without results.
    fn tell(&mut self, task: &TaskState, hear: &mut dyn FnMut(News<'_>)) {
        let Some(verdict) = &task.verdict else { return };
        let key = (task.plan.clone(), task.index);
        let is_news = verdict.is_settled() && *verdict != Verdict::Done;
        // A ghost's silence grows; that is no news.
        let same = self.told.get(&key).is_some_and(|told| told.word() == verdict.word());
        if is_news && !same {
            hear(News::Task(task));
        }
        self.told.insert(key, verdict.clone());
    }
}

/// The last array with the task `index`: of those that were recorded, and those that the queue has, since whoever
/// submitted may have died before it could record it.
fn latest_array(index: u32, submissions: &BTreeMap<u64, Submission>, queue: Option<&[Entry]>) -> Option<u64> {
    let recorded = submissions.values().rev().find(|one| one.indices.contains(&index)).map(|one| one.array);
    let queued =
        queue.into_iter().flatten().filter(|entry| entry.task == Some(index)).map(|entry| entry.array);
    recorded.into_iter().chain(queued).max()
}

/// What the queue says of a task; an array whose tasks were cancelled before they began is one entry without index.
fn poll_of(queue: &[Entry], array: u64, index: u32, started: bool) -> Poll {
    let of_array = || queue.iter().filter(|entry| entry.array == array);
    let own = of_array().find(|entry| entry.task == Some(index));
    let whole = || of_array().find(|entry| entry.task.is_none() && entry.phase() == Phase::Ended && !started);
    own.or_else(whole).map_or(Poll::Absent, |entry| Poll::Listed(entry.clone()))
}

/// Keeps what Slurm said of a task's end, if that is new: it forgets it.
fn keep(shared: &Shared, known: Option<&Entry>, end: Option<&Entry>, index: u32) -> Result<(), Error> {
    if let Some(end) = end
        && known != Some(end)
    {
        shared.seen(&Entry { task: Some(index), ..end.clone() })?;
    }
    Ok(())
}

/// Whether the file at `path` was written after the one at `than`, by the shared file system's clock.
pub(crate) fn is_newer(path: &Path, than: &Path) -> bool {
    let changed = |path: &Path| std::fs::metadata(path).and_then(|data| data.modified()).ok();
    changed(path).zip(changed(than)).is_some_and(|(path, than)| path >= than)
}
