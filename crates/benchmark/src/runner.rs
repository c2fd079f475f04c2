//! Running a plan: each missing cell in a process of its own, several at a time.

use std::collections::VecDeque;
use std::ffi::OsString;
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anomaly_core::Cancellation;
use report::{Cell, CellFiles, Status};

use crate::child::Task;
use crate::process::{Ending, run};
use crate::progress::Progress;
use crate::{Error, Layout, Lock, Plan, PlannedCell, cell_log};

/// How a plan is run.
#[derive(Debug, Clone)]
pub struct RunOptions {
    /// How many cells run at a time, at least 1; they share the machine's cores.
    pub workers: usize,
    /// The program and arguments of a cell's process, which must call [`crate::run_child`].
    pub child: Vec<OsString>,
    /// Asks the run to end: cells keep their checkpoints and are recorded as cancelled.
    pub cancellation: Cancellation,
}

/// How a run ended.
#[derive(Debug, Clone, PartialEq)]
pub struct Outcome {
    /// The record of every cell of the profile that has one, in the plan's order, those of other runs among them.
    pub cells: Vec<Cell>,
    /// How many cells this run computed to their end.
    pub computed: usize,
    /// How many cells that were to be run have failed.
    pub failed: usize,
    /// How many cells that were to be run are cancelled or were not begun.
    pub unfinished: usize,
}

impl Outcome {
    /// Whether every cell that was to be run is finished and well.
    pub fn is_complete(&self) -> bool {
        self.failed == 0 && self.unfinished == 0
    }
}

/// Runs the selected cells of `plan` that have no good result in `layout` yet; failed ones are tried again.
///
/// A cell that another process is working on is waited for, after all others.
///
/// # Errors
/// Only for what concerns the run as a whole: the output folder can't be written, a process can't be started. What
/// goes wrong in a cell is in its record.
pub fn run_plan(plan: &Plan, layout: &Layout, options: &RunOptions) -> Result<Outcome, Error> {
    let root = layout.root();
    std::fs::create_dir_all(root).map_err(|e| Error::io(root, "can't make the folder", e))?;
    layout.tidy()?;
    let mut todo = VecDeque::new();
    for cell in plan.cells.iter().filter(|cell| cell.selected) {
        if !layout.is_done(&cell.spec.id())? {
            todo.push_back(cell);
        }
    }
    let run = Run {
        layout,
        out: root.canonicalize().map_err(|e| Error::io(root, "can't find the folder", e))?,
        options,
        threads: (std::thread::available_parallelism().map_or(1, usize::from) / options.workers.max(1))
            .max(1),
        progress: Progress::new(todo.len()),
        state: Mutex::new(State { todo, computed: 0, error: None }),
    };
    std::thread::scope(|scope| {
        for _ in 0..options.workers.max(1) {
            scope.spawn(|| run.work());
        }
    });
    let Run { state, progress, .. } = run;
    drop(progress);
    let state = state.into_inner().unwrap_or_else(PoisonError::into_inner);
    if let Some(error) = state.error {
        return Err(error);
    }
    layout.tidy()?;
    outcome(plan, layout, state.computed)
}

/// What the records in `layout` say about `plan`.
fn outcome(plan: &Plan, layout: &Layout, computed: usize) -> Result<Outcome, Error> {
    let mut outcome = Outcome { cells: Vec::new(), computed, failed: 0, unfinished: 0 };
    for cell in &plan.cells {
        let mut record = layout.record(&cell.spec.id())?;
        if let Some(record) = &mut record {
            // Published figures are no part of the id: what is known of them now counts.
            record.published = cell.spec.published.as_ref().map(|figure| figure.beside(&record.results));
        }
        if cell.selected {
            match record.as_ref().map(|record| record.status) {
                Some(Status::Ok) => {}
                Some(Status::Failed) => outcome.failed += 1,
                Some(Status::Cancelled) | None => outcome.unfinished += 1,
            }
        }
        outcome.cells.extend(record);
    }
    Ok(outcome)
}

struct Run<'a> {
    layout: &'a Layout,
    /// The output folder's absolute path.
    out: PathBuf,
    options: &'a RunOptions,
    threads: usize,
    progress: Progress,
    state: Mutex<State<'a>>,
}

struct State<'a> {
    todo: VecDeque<&'a PlannedCell>,
    computed: usize,
    /// What ended the run early.
    error: Option<Error>,
}

impl<'a> Run<'a> {
    /// One worker: takes cells until there are none.
    fn work(&self) {
        while let Some(cell) = self.next() {
            if let Err(error) = self.take_up(cell) {
                self.state().error.get_or_insert(error);
            }
        }
    }

    fn state(&self) -> MutexGuard<'_, State<'a>> {
        // A worker that panicked left the queue whole: each change is a single step.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn next(&self) -> Option<&'a PlannedCell> {
        let mut state = self.state();
        if self.options.cancellation.is_cancelled() || state.error.is_some() {
            return None;
        }
        state.todo.pop_front()
    }

    fn take_up(&self, cell: &'a PlannedCell) -> Result<(), Error> {
        let id = cell.spec.id();
        let name = cell.spec.identity.name();
        if let Some(record) = self.layout.record(&id)?.filter(|record| record.status == Status::Ok) {
            // Another run finished it meanwhile.
            self.progress.end(&name, &record);
            return Ok(());
        }
        if !Lock::is_free(&self.layout.lock(&id))? {
            self.state().todo.push_back(cell);
            std::thread::sleep(Duration::from_millis(200));
            return Ok(());
        }
        let ending = match &cell.problem {
            Some(problem) => Ending::Failed(problem.clone()),
            None => self.compute(cell, &name)?,
        };
        let why = match &ending {
            Ending::Finished => None,
            Ending::Cancelled => Some((Status::Cancelled, "stopped before it was finished")),
            Ending::Failed(why) | Ending::Crashed(why) => Some((Status::Failed, why.as_str())),
        };
        match why {
            None => self.state().computed += 1,
            // After an error of the cell's own its checkpoint may be the cause, so it begins anew next time.
            Some((status, why)) => self.note(cell, status, why, !matches!(ending, Ending::Failed(_)))?,
        }
        if let Some(record) = self.layout.record(&id)? {
            self.progress.end(&name, &record);
        }
        Ok(())
    }

    fn compute(&self, cell: &PlannedCell, name: &str) -> Result<Ending, Error> {
        let mut shown = self.progress.begin(name);
        run(
            &self.options.child,
            &Task { cell: cell.spec.clone(), out: self.out.clone() }.to_line()?,
            self.threads,
            &self.options.cancellation,
            &mut |message| shown.message(message),
            &mut |line| self.progress.line(&format!("{name}: {line}")),
        )
    }

    /// Records a cell that has no result. Its working folder is kept if the cell may go on from its checkpoint.
    fn note(&self, cell: &PlannedCell, status: Status, why: &str, keep_work: bool) -> Result<(), Error> {
        let id = cell.spec.id();
        // If another run took the cell up meanwhile, or finished it, its word counts.
        let Some(_lock) = Lock::try_take(&self.layout.lock(&id))? else { return Ok(()) };
        if self.layout.is_done(&id)? {
            return Ok(());
        }
        let work = self.layout.open_work(&id)?;
        if let Err(e) = cell_log::ensure(&cell.spec, self.layout, &work) {
            tracing::warn!("{id}: {e}");
        }
        self.layout.finish(&id, &CellFiles::bare(cell.spec.record(status, Some(why.to_owned()))))?;
        if keep_work { Ok(()) } else { self.layout.close_work(&id) }
    }
}
