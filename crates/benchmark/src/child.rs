//! A cell's own process: the lock, the messages, the end with its parent.

use std::io::{BufRead, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use anomaly_core::{Cancellation, Event, Observer};
use serde::{Deserialize, Serialize};

use crate::message::Message;
use crate::process::CANCEL;
use crate::{CellSpec, Error, Layout, Lock, execute};

/// The shortest time between two messages about steps.
const BETWEEN_STEPS: Duration = Duration::from_millis(200);
/// How often a lock that another process holds is tried.
const BETWEEN_TRIES: Duration = Duration::from_millis(100);

/// What a cell's process reads from standard input, as one line of JSON.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Task {
    /// The cell.
    pub(crate) cell: CellSpec,
    /// The output folder.
    pub(crate) out: PathBuf,
    /// The attempt of a cluster's task that the cell is computed in; `None` on this machine.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) attempt: Option<String>,
}

impl Task {
    /// The task as one line.
    pub(crate) fn to_line(&self) -> Result<String, Error> {
        serde_json::to_string(self)
            .map_err(|source| Error::Message { what: "a cell for its process", source })
    }
}

/// Runs the cell that standard input names, and tells the parent on standard output how it goes. This is all that the
/// program given as [`crate::RunOptions::child`] has to do.
///
/// The process ends when standard input closes: its parent is gone then.
pub fn run_child() -> ExitCode {
    let mut line = String::new();
    let task = std::io::stdin()
        .lock()
        .read_line(&mut line)
        .map_err(|e| format!("can't read standard input: {e}"))
        .and_then(|_| {
            serde_json::from_str::<Task>(&line).map_err(|e| format!("expected a cell on standard input: {e}"))
        });
    let cancellation = Cancellation::default();
    watch_parent(cancellation.clone());
    let task = match task {
        Ok(task) => task,
        Err(error) => return end(&Message::Failed { error }),
    };
    match run(&task, &cancellation) {
        Ok(()) => end(&Message::Finished),
        Err(error) if error.is_cancelled() => end(&Message::Cancelled),
        Err(error) => end(&Message::Failed { error: error.to_string() }),
    }
}

fn end(message: &Message) -> ExitCode {
    let well = *message == Message::Finished;
    send(message);
    if well { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Waits for the cell's lock, where there are locks, then computes the cell unless another process has.
fn run(task: &Task, cancellation: &Cancellation) -> Result<(), Error> {
    let id = task.cell.id();
    let (layout, _lock) = if let Some(attempt) = &task.attempt {
        (Layout::of_attempt(&task.out, attempt), None)
    } else {
        let layout = Layout::new(&task.out);
        let lock = wait_for(&layout.lock(&id), cancellation)?;
        (layout, Some(lock))
    };
    if layout.is_done(&id)? {
        return Ok(());
    }
    layout.take_over(&id)?;
    let observer: Arc<dyn Observer> = Arc::new(Reporter::default());
    execute::execute(&task.cell, &layout, cancellation, &observer)?;
    layout.close_work(&id)
}

fn wait_for(path: &Path, cancellation: &Cancellation) -> Result<Lock, Error> {
    loop {
        cancellation.check()?;
        match Lock::try_take(path)? {
            Some(lock) => return Ok(lock),
            None => std::thread::sleep(BETWEEN_TRIES),
        }
    }
}

/// Listens to standard input: asked to stop, the cell is cancelled; when it closes, the parent is gone and this process
/// ends on the spot. Whatever it was writing then is below `work`, and is taken up or removed by the next.
fn watch_parent(cancellation: Cancellation) {
    std::thread::spawn(move || {
        for line in std::io::stdin().lock().lines() {
            match line {
                Ok(line) if line == CANCEL => cancellation.cancel(),
                Ok(_) => {}
                Err(_) => break,
            }
        }
        std::process::exit(1);
    });
}

/// Tells the parent. If it is gone this process ends anyway, see [`watch_parent`].
fn send(message: &Message) {
    if let Ok(line) = serde_json::to_string(message) {
        let mut stdout = std::io::stdout().lock();
        let _ = writeln!(stdout, "{line}").and_then(|()| stdout.flush());
    }
}

/// Passes the events of a fit on, steps not more often than a person can see.
#[derive(Debug, Default)]
pub(crate) struct Reporter {
    last_step: Mutex<Option<Instant>>,
}

impl Observer for Reporter {
    fn event(&self, event: &Event) {
        if matches!(event, Event::Step { .. }) {
            let mut last = self.last_step.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            if last.is_some_and(|last| last.elapsed() < BETWEEN_STEPS) {
                return;
            }
            *last = Some(Instant::now());
        }
        if let Some(message) = Message::of(event) {
            send(&message);
        }
    }
}
