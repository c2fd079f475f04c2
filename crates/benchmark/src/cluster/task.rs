//! A task, on its node.

use std::ffi::OsString;
use std::path::Path;
use std::time::{Duration, Instant};

use anomaly_core::Cancellation;
use report::Status;
use slurm_array::{Attempt, Ended, Ending, Pulse, Started, scratch, threads};

use super::plan_file::PlanFile;
use super::program::sha256;
use crate::child::Task;
use crate::layout::remove_folder;
use crate::process;
use crate::{CellSpec, Error, Layout};

/// How long after a cell's process ended a request to stop may still come: Slurm tells both at the same time.
const STOP_GRACE: Duration = Duration::from_millis(500);

/// Computes the cells of the task `index` of the plan at `path`, each in a process of its own (`program cell`, which must
/// call [`crate::run_child`]); cells with a good result are left alone. Gives the exit code for this process.
///
/// `hear` gets what a log should say. `cancellation` asks it to stop: cells then keep their checkpoints, and the next
/// attempt goes on from them.
///
/// # Errors
/// If this process is no task of an array, or the shared folder can't be used; the message names the node.
pub fn run_task(
    path: &Path,
    plan_sha256: &str,
    index: u32,
    cancellation: &Cancellation,
    hear: &mut dyn FnMut(&str),
) -> Result<u8, Error> {
    let node = Attempt::node();
    let attempt = Attempt { index, ..Attempt::from_environment()? };
    let (plan, hash) = PlanFile::read(path).map_err(|e| Error::Cluster(format!("on {node}: {e}")))?;
    let shared = plan.shared();
    shared.started(&Started { attempt, node: node.clone(), process: std::process::id() })?;
    let pulse = Pulse::start(shared.clone(), attempt, Duration::from_secs_f64(plan.beat_seconds));
    hear(&format!("{} {attempt} on {node}, {} threads", plan.name, threads()));
    let (ending, why) = match refusal(&plan, &hash, plan_sha256, index)? {
        Some(why) => (Ending::Refused, why),
        None => Cells { plan: &plan, attempt, pulse: &pulse, cancellation }.run(hear)?,
    };
    if !why.is_empty() {
        hear(&why);
    }
    drop(pulse);
    shared.ended(&Ended { attempt, node, ending, why })?;
    Ok(ending.code())
}

/// Why this is not what was submitted.
fn refusal(plan: &PlanFile, hash: &str, expected: &str, index: u32) -> Result<Option<String>, Error> {
    if hash != expected {
        return Ok(Some(format!("expected a plan with sha256 {expected}, found {hash}")));
    }
    let own = std::env::current_exe().map_err(|e| Error::io(&plan.program, "can't find this program", e))?;
    let found = sha256(&own)?;
    if found != plan.program_sha256 {
        let text = format!(
            "expected a program with sha256 {}, found {found}: {}",
            plan.program_sha256,
            own.display()
        );
        return Ok(Some(text));
    }
    if !plan.indices().contains(&index) {
        return Ok(Some(format!("expected a task of {}, found {index}", plan.tasks.len())));
    }
    Ok(None)
}

struct Cells<'a> {
    plan: &'a PlanFile,
    attempt: Attempt,
    pulse: &'a Pulse,
    cancellation: &'a Cancellation,
}

impl Cells<'_> {
    fn run(&self, hear: &mut dyn FnMut(&str)) -> Result<(Ending, String), Error> {
        let layout = Layout::new(&self.plan.out);
        let scratch = scratch(&self.attempt);
        let mut failed = Vec::new();
        let mut stopped = false;
        for cell in self.plan.task(self.attempt.index) {
            stopped |= self.cancellation.is_cancelled();
            if stopped {
                break;
            }
            let (id, name) = (cell.id(), cell.identity.name());
            if layout.is_done(&id)? {
                hear(&format!("{name}: done already"));
                continue;
            }
            self.pulse.say(&name);
            match self.compute(cell, &scratch, hear)? {
                process::Ending::Finished => hear(&format!("{name}: done")),
                process::Ending::Cancelled => stopped = true,
                process::Ending::Crashed(_) if self.is_told_to_stop() => stopped = true,
                process::Ending::Failed(why) | process::Ending::Crashed(why) => {
                    hear(&format!("{name}: {why}"));
                    layout.note(cell, Status::Failed, &why, &self.attempt.to_string())?;
                    failed.push(format!("{name}: {why}"));
                }
            }
        }
        // It is on this node alone: nobody else removes it.
        remove_folder(&scratch)?;
        Ok(if stopped {
            (Ending::Stopped, "told to stop; its cells go on from their last checkpoints".to_owned())
        } else if failed.is_empty() {
            (Ending::Done, String::new())
        } else {
            (Ending::Failed, failed.join("\n"))
        })
    }

    /// Slurm tells the task and its cell's process to end at the same time, and the cell may be quicker.
    fn is_told_to_stop(&self) -> bool {
        let since = Instant::now();
        while !self.cancellation.is_cancelled() && since.elapsed() < STOP_GRACE {
            std::thread::sleep(Duration::from_millis(10));
        }
        self.cancellation.is_cancelled()
    }

    fn compute(
        &self,
        cell: &CellSpec,
        scratch: &Path,
        hear: &mut dyn FnMut(&str),
    ) -> Result<process::Ending, Error> {
        let mut cell = cell.clone();
        if let Some(folder) = &mut cell.features.folder {
            // A folder of features is locked, which a shared file system may not be able to.
            folder.path = scratch.join("features");
        }
        let name = cell.identity.name();
        let task = Task { cell, out: self.plan.out.clone(), attempt: Some(self.attempt.to_string()) };
        let command: [OsString; 2] = [self.plan.program.clone().into(), "cell".into()];
        process::run(&command, &task.to_line()?, threads(), self.cancellation, &mut |_| (), &mut |line| {
            hear(&format!("{name}: {line}"));
        })
    }
}
