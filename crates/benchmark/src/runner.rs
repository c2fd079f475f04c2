//! Running a plan: each missing cell in a process of its own, several at a time.

use std::collections::VecDeque;
use std::ffi::OsString;
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anomaly_core::Cancellation;
use report::{Cell, CellFiles, Status};

use crate::child::Task;
use crate::memory_needs::{Need, Needs, available, bytes_in_words};
use crate::process::{Ending, run};
use crate::progress::Progress;
use crate::{DeviceChoice, Error, Layout, Lock, Plan, PlannedCell, cell_log};

/// How a plan is run.
#[derive(Debug, Clone)]
pub struct RunOptions {
    /// How many cells run at a time, at least 1; they share the machine's cores in equal parts.
    pub workers: usize,
    /// The numbers of the GPUs that cells compute on, one cell at a time each; if none, cells compute where their plan says.
    pub gpus: Vec<usize>,
    /// How many bytes of memory cells may take together; what is available if `None`. A cell that would not fit waits for
    /// others to end; one that can't fit at all fails, with the figure.
    pub memory: Option<u64>,
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
    // No more workers than cells, so that the cores of those that would idle are put to use; no two on one GPU.
    let most = if options.gpus.is_empty() { usize::MAX } else { options.gpus.len() };
    let workers = options.workers.min(most).min(todo.len()).max(1);
    let run = Run {
        layout,
        out: root.canonicalize().map_err(|e| Error::io(root, "can't find the folder", e))?,
        options,
        cores: std::thread::available_parallelism().map_or(1, usize::from),
        workers,
        needs: Needs::read(plan, layout)?,
        memory: options.memory.or_else(available),
        progress: Progress::new(todo.len()),
        state: Mutex::new(State { todo, computed: 0, taken: 0, error: None }),
    };
    std::thread::scope(|scope| {
        let run = &run;
        for worker in 0..workers {
            scope.spawn(move || run.work(worker));
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

/// What the records in `layout` say about `plan`, of which nothing is run.
///
/// # Errors
/// [`Error::Report`] if a record can't be read.
pub fn recorded(plan: &Plan, layout: &Layout) -> Result<Outcome, Error> {
    outcome(plan, layout, 0)
}

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
    cores: usize,
    workers: usize,
    needs: Needs,
    /// How much memory cells may take together; `None` where it is not known.
    memory: Option<u64>,
    progress: Progress,
    state: Mutex<State<'a>>,
}

/// Memory that a cell at work is expected to need.
struct Room<'r, 'a> {
    run: &'r Run<'a>,
    bytes: u64,
}

impl Drop for Room<'_, '_> {
    fn drop(&mut self) {
        self.run.state().taken -= self.bytes;
    }
}

struct State<'a> {
    todo: VecDeque<&'a PlannedCell>,
    computed: usize,
    /// The memory that the cells at work are expected to need.
    taken: u64,
    /// What ended the run early.
    error: Option<Error>,
}

impl<'a> Run<'a> {
    /// One worker: takes cells until there are none.
    fn work(&self, worker: usize) {
        while let Some(cell) = self.next() {
            if let Err(error) = self.take_up(cell, worker) {
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

    fn take_up(&self, cell: &'a PlannedCell, worker: usize) -> Result<(), Error> {
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
        let need = self.needs.of(&cell.spec);
        let ending = match (&cell.problem, self.too_large(need)) {
            (Some(problem), _) => Ending::Failed(problem.clone()),
            // Its checkpoint is none the worse for it.
            (None, Some(problem)) => Ending::Crashed(problem),
            (None, None) => {
                let Some(_room) = self.take_room(need.bytes) else {
                    // Others are at work, and will end.
                    self.state().todo.push_back(cell);
                    std::thread::sleep(Duration::from_millis(200));
                    return Ok(());
                };
                self.compute(cell, &name, worker)?
            }
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

    /// Why a cell can't fit into memory, if it can't.
    fn too_large(&self, need: Need) -> Option<String> {
        let memory = self.memory.filter(|&memory| need.bytes > memory)?;
        let basis =
            if need.measured { "as much as a finished cell of its kind took" } else { "by its sizes" };
        Some(format!(
            "it needs about {} of memory ({basis}), and {} are there for cells; `--memory` sets another limit",
            bytes_in_words(need.bytes),
            bytes_in_words(memory)
        ))
    }

    /// Room for a cell that needs so many bytes, until it is dropped; `None` if it must wait.
    fn take_room(&self, bytes: u64) -> Option<Room<'_, 'a>> {
        let mut state = self.state();
        let fits = self.memory.is_none_or(|memory| state.taken + bytes <= memory);
        // Alone it fits, else it was refused.
        (fits || state.taken == 0).then(|| {
            state.taken += bytes;
            drop(state);
            Room { run: self, bytes }
        })
    }

    fn compute(&self, cell: &PlannedCell, name: &str, worker: usize) -> Result<Ending, Error> {
        let mut shown = self.progress.begin(name);
        let mut spec = cell.spec.clone();
        if let Some(&gpu) = self.options.gpus.get(worker) {
            spec.device = DeviceChoice::Cuda(gpu).to_string();
        }
        run(
            &self.options.child,
            &Task { cell: spec, out: self.out.clone(), attempt: None }.to_line()?,
            threads_of(worker, self.workers, self.cores),
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

/// How many threads the worker at `index` of `workers` may use: the cores in equal shares, what is left over to the first.
fn threads_of(index: usize, workers: usize, cores: usize) -> usize {
    let workers = workers.max(1);
    (cores / workers + usize::from(index < cores % workers)).max(1)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::collections::BTreeSet;
    use std::path::Path;

    use anomaly_core::Cancellation;
    use report::Status;

    use super::{RunOptions, run_plan, threads_of};
    use crate::memory_needs::LEAST;
    use crate::spec::tests::spec;
    use crate::{Layout, Plan, PlannedCell};

    #[test]
    fn cores_are_shared_out_and_nobody_goes_without() {
        let shares = |workers, cores| (0..workers).map(|w| threads_of(w, workers, cores)).collect::<Vec<_>>();
        assert_eq!(shares(3, 16), [6, 5, 5]);
        assert_eq!(shares(2, 2), [1, 1]);
        assert_eq!(shares(4, 2), [1, 1, 1, 1]);
        assert_eq!(shares(1, 16), [16]);
    }

    /// A cell's process that stands in the way of any other that works on the same device at the same time: it writes
    /// the device to `used`, and to `clashes` if it was taken. It waits until so many devices are in use as it is told,
    /// at most a minute, and has no result.
    const IN_THE_WAY: &str = r#"
        IFS= read -r line
        device=${line##*'"device":"'}
        device=${device%%'"'*}
        mkdir "$0/$device" || echo "$device" >> "$0/clashes"
        : > "$0/seen-$device"
        for _ in $(seq 600); do
            sleep 0.1
            set -- "$1" "$0"/seen-*
            [ $# -gt "$1" ] && break
        done
        rmdir "$0/$device"
        echo "$device" >> "$0/used"
        exit 1"#;

    /// Runs eight cells whose processes are [`IN_THE_WAY`]: the devices they were told, and those taken twice at a time.
    fn run_eight(gpus: Vec<usize>, memory: u64) -> (Vec<String>, Vec<String>) {
        let folder = tempfile::tempdir().unwrap();
        let devices = gpus.len().max(1).to_string();
        let cells = (0..8).map(|seed| {
            let mut spec = spec();
            spec.identity.seed = seed;
            PlannedCell { spec, problem: None, images: None, selected: true }
        });
        let plan = Plan { profile: "test".to_owned(), description: String::new(), cells: cells.collect() };
        let options = RunOptions {
            workers: 4,
            gpus,
            memory: Some(memory),
            child: vec!["sh".into(), "-c".into(), IN_THE_WAY.into(), folder.path().into(), devices.into()],
            cancellation: Cancellation::default(),
        };
        let out = tempfile::tempdir().unwrap();
        let outcome = run_plan(&plan, &Layout::new(out.path()), &options).unwrap();
        assert_eq!((outcome.failed, outcome.unfinished), (8, 0));
        assert!(outcome.cells.iter().all(|cell| cell.status == Status::Failed));
        let lines = |path: &Path| -> Vec<String> {
            let text = std::fs::read_to_string(path).unwrap_or_default();
            text.lines().map(str::to_owned).collect()
        };
        (lines(&folder.path().join("used")), lines(&folder.path().join("clashes")))
    }

    #[test]
    #[cfg(unix)]
    fn each_gpu_has_one_cell_at_a_time_and_none_idles() {
        let (used, clashes) = run_eight(vec![1, 3], 100 * LEAST);
        assert_eq!(used.len(), 8);
        let devices: BTreeSet<&str> = used.iter().map(String::as_str).collect();
        assert_eq!(devices, BTreeSet::from(["cuda:1", "cuda:3"]));
        assert_eq!(clashes, [""; 0]);
    }

    #[test]
    #[cfg(unix)]
    fn cells_that_would_not_fit_beside_each_other_wait() {
        let (used, clashes) = run_eight(Vec::new(), 2 * LEAST - 1);
        assert_eq!((used, clashes), (vec!["cpu".to_owned(); 8], Vec::new()));
    }
}
