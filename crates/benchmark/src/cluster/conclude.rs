//! What is left to say when nothing more is to come.

use report::{Cell, Header, Status};
use slurm_array::Verdict;

use super::follow::{Followed, TaskState, is_newer};
use super::plan_file::PlanFile;
use crate::summary::write_summary_unlocked;
use crate::{Error, Layout, Outcome};

/// Records how cells ended that have no result, and writes the report.
///
/// # Errors
/// If files can't be read or written.
pub fn conclude(layout: &Layout, followed: &Followed, who: &str) -> Result<Outcome, Error> {
    let plans = note_all(layout, followed, who)?;
    let mut outcome = Outcome { cells: Vec::new(), computed: 0, failed: 0, unfinished: 0 };
    let mut seen = std::collections::BTreeSet::new();
    let in_tasks: std::collections::BTreeSet<String> = plans
        .iter()
        .flat_map(|plan| plan.indices().flat_map(|index| plan.task(index).map(crate::CellSpec::id)))
        .collect();
    for spec in plans.iter().flat_map(|plan| &plan.cells) {
        let id = spec.id();
        if !seen.insert(id.clone()) {
            continue;
        }
        let mut record = layout.record(&id)?;
        if let Some(record) = &mut record {
            record.published = spec.published.as_ref().map(|figure| figure.beside(&record.results));
        }
        match (record.as_ref().map(|record| record.status), in_tasks.contains(&id)) {
            (Some(Status::Ok), true) => outcome.computed += 1,
            (Some(Status::Failed), _) => outcome.failed += 1,
            (Some(Status::Cancelled), _) | (None, true) => outcome.unfinished += 1,
            _ => {}
        }
        outcome.cells.extend(record);
    }
    let header = plans.last().map_or_else(
        || Header { profile: String::new(), description: None, time: None, facts: Vec::new() },
        |plan| Header {
            profile: plan.profile.clone(),
            description: Some(plan.description.clone()),
            time: None,
            facts: Vec::new(),
        },
    );
    write_summary_unlocked(layout, &header, &outcome.cells, who)?;
    Ok(outcome)
}

/// Records how cells ended that have no result, and no more: the report is somebody else's.
///
/// # Errors
/// If files can't be read or written.
pub fn note_ends(layout: &Layout, followed: &Followed, who: &str) -> Result<(), Error> {
    note_all(layout, followed, who)?;
    layout.tidy_attempts()
}

fn note_all(layout: &Layout, followed: &Followed, who: &str) -> Result<Vec<PlanFile>, Error> {
    let plans = PlanFile::current(layout.root())?;
    for state in &followed.tasks {
        if let Some(plan) = plans.iter().find(|plan| plan.name == state.plan) {
            note(plan, state, layout, who)?;
        }
    }
    Ok(plans)
}

/// Records the end of a task for those of its cells that have no result and could not say so themselves.
fn note(plan: &PlanFile, state: &TaskState, layout: &Layout, who: &str) -> Result<(), Error> {
    let (Some(verdict), Some(array)) = (&state.verdict, state.array) else { return Ok(()) };
    if !verdict.is_settled() || *verdict == Verdict::Done {
        return Ok(());
    }
    let status = match verdict {
        Verdict::Ended { state, .. } if state == "CANCELLED" || state == "PREEMPTED" => Status::Cancelled,
        _ => Status::Failed,
    };
    let attempt = plan.shared().latest(array, state.index)?.0.map(|started| started.attempt);
    let began = attempt
        .map(|attempt| plan.shared().root().join(format!("tasks/{}/{attempt}.started.json", state.index)));
    for cell in plan.task(state.index) {
        let id = cell.id();
        let written = layout.cell(&id).join("result.json");
        let told = began.as_ref().is_some_and(|began| is_newer(&written, began));
        if layout.is_done(&id)? || told && layout.record(&id)?.is_some_and(|record| said_itself(&record)) {
            continue;
        }
        let why = format!("Slurm job {}: {verdict}", state.address());
        layout.note(cell, status, &why, who)?;
    }
    Ok(())
}

/// Whether a record is a cell's own word, not that of somebody who watched it.
fn said_itself(record: &Cell) -> bool {
    !record.error.as_deref().is_some_and(|error| error.starts_with("Slurm job "))
}
