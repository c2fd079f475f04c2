//! A cell's log of events: `events.jsonl`, kept in the working folder while the cell runs, and beside the result after.
//!
//! The log belongs to the cell for ever: a cell that failed and is tried again goes on with the same one.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use anomaly_core::{Event, Observer, write_atomic};
use report::{Cell, Evaluation, Selection, Status};
use tracking::{Ending, EventLog, Run, flattened};

use crate::{CellSpec, Error, Layout};

/// The log's name in its folder.
pub(crate) const LOG: &str = "events.jsonl";

/// An observer that logs what `observer` is told. A log that can't be opened costs the cell nothing but the log.
pub(crate) fn logged(
    spec: &CellSpec,
    layout: &Layout,
    work: &Path,
    observer: &Arc<dyn Observer>,
) -> Arc<dyn Observer> {
    match open(spec, layout, work) {
        Ok(log) => Arc::new(Logged { log, next: observer.clone() }),
        Err(e) => {
            observer.event(&Event::Warning(format!("no events are logged: {e}")));
            observer.clone()
        }
    }
}

/// Sees that there is a log, also of a cell that never began.
pub(crate) fn ensure(spec: &CellSpec, layout: &Layout, work: &Path) -> Result<(), Error> {
    if work.join(LOG).exists() { Ok(()) } else { open(spec, layout, work).map(|_| ()) }
}

/// Copies what the cell logged so far, wherever it ran, into the working folder of somebody who only records how it ended.
pub(crate) fn carry(spec: &CellSpec, layout: &Layout, work: &Path) -> Result<(), Error> {
    let id = spec.id();
    let mut folders = layout.working_folders()?.remove(&id).unwrap_or_default();
    folders.push(layout.cell(&id));
    // A log only grows, so the longest is the newest. One that can't be read is as good as not there.
    let logs = folders.iter().filter_map(|folder| std::fs::read(folder.join(LOG)).ok());
    if let Some(newest) = logs.max_by_key(Vec::len) {
        write_atomic(&work.join(LOG), &newest)?;
    }
    ensure(spec, layout, work)
}

/// Opens the log in the working folder, with what the cell logged before.
fn open(spec: &CellSpec, layout: &Layout, work: &Path) -> Result<EventLog, Error> {
    let (path, before) = (work.join(LOG), layout.cell(&spec.id()).join(LOG));
    if let Ok(before) = std::fs::read(&before) {
        let mut here = std::fs::read(&path).unwrap_or_default();
        // What a killed process tore.
        here.truncate(here.iter().rposition(|&byte| byte == b'\n').map_or(0, |end| end + 1));
        // The end of a cell that could not tell it itself is only in the log beside its record.
        if before.len() > here.len() && before.starts_with(&here) {
            write_atomic(&path, &before)?;
        }
    }
    Ok(EventLog::open(&path, &run(spec))?)
}

/// Closes the log with what `cell` came to, if there is one, and puts it beside the result that is being put together in
/// `finished`.
///
/// The log of a cell that is well ends there only: if the result never gets to its place, the cell goes on with a log without an
/// end.
pub(crate) fn close(work: &Path, finished: &Path, cell: &Cell) -> Result<(), Error> {
    let (log, copy) = (work.join(LOG), finished.join(LOG));
    if !log.exists() {
        return Ok(());
    }
    let end = |path: &Path, status| tracking::close_log(path, &figures(cell), status, cell.error.as_deref());
    match cell.status {
        Status::Ok => {}
        Status::Failed => end(&log, Ending::Failed)?,
        Status::Cancelled => end(&log, Ending::Cancelled)?,
    }
    std::fs::copy(&log, &copy).map_err(|e| Error::io(&copy, "can't copy the log", e))?;
    if cell.status == Status::Ok {
        end(&copy, Ending::Finished)?;
    }
    Ok(())
}

/// Logs, then passes on.
struct Logged {
    log: EventLog,
    next: Arc<dyn Observer>,
}

impl Observer for Logged {
    fn event(&self, event: &Event) {
        self.log.event(event);
        self.next.event(event);
    }
}

/// The cell as a run: all that its id hashes as parameters, the rest as tags.
fn run(spec: &CellSpec) -> Run {
    let identity = &spec.identity;
    // An identity is strings, numbers and maps, which can always be written.
    let mut params = flattened(&serde_json::to_value(identity).unwrap_or_default());
    params.retain(|name, value| value != "null" && !name.starts_with("revisions."));
    let mut tags = BTreeMap::from([
        ("device".to_owned(), spec.device.clone()),
        ("precision_setting".to_owned(), spec.precision_setting.clone()),
    ]);
    tags.extend(spec.commit.iter().map(|commit| ("commit".to_owned(), commit.clone())));
    tags.extend(spec.licence.iter().map(|licence| ("licence".to_owned(), licence.clone())));
    tags.extend(spec.versions.iter().map(|(name, version)| (format!("version.{name}"), version.clone())));
    let revisions = identity.revisions.iter();
    tags.extend(revisions.map(|(name, revision)| (format!("revision.{name}"), revision.to_string())));
    Run { id: spec.id(), name: identity.name(), params, tags }
}

/// What the cell came to, by names: `last/image_auroc`, `honest/normal_mean/teacher`, `terms/teacher/image_auroc`, `seconds/fit`.
fn figures(cell: &Cell) -> BTreeMap<String, f64> {
    let mut figures = BTreeMap::new();
    for selection in Selection::ALL {
        let Some(evaluation) = cell.results.get(selection) else { continue };
        for metric in Evaluation::METRICS.into_iter().chain(["f1_threshold"]) {
            figures.extend(
                evaluation.figure(metric).map(|value| (format!("{}/{metric}", selection.word()), value)),
            );
        }
        let means = evaluation.normal_means.iter();
        figures.extend(means.map(|(term, &mean)| (format!("{}/normal_mean/{term}", selection.word()), mean)));
    }
    for (name, term) in &cell.terms {
        figures.extend(term.image_auroc.map(|value| (format!("terms/{name}/image_auroc"), value)));
    }
    if let Some(seconds) = cell.seconds {
        figures.insert("seconds/fit".to_owned(), seconds.fit);
        figures.insert("seconds/score".to_owned(), seconds.score);
    }
    figures.extend(cell.peak_memory_bytes.map(|bytes| ("peak_memory_bytes".to_owned(), bytes as f64)));
    figures
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::sync::Arc;

    use anomaly_core::{Event, NoObserver, Observer};
    use report::{CellFiles, Evaluation, Status};
    use tracking::{What, read_log};

    use super::{LOG, logged};
    use crate::Layout;
    use crate::spec::tests::spec;

    fn kinds(path: &std::path::Path) -> Vec<&'static str> {
        let kind = |what: &What| match what {
            What::Run(_) => "run",
            What::Resumed => "resumed",
            What::Metric { .. } => "metric",
            What::Figures { .. } => "figures",
            What::End { .. } => "end",
            _ => "other",
        };
        read_log(path).unwrap().iter().map(|line| kind(&line.what)).collect()
    }

    #[test]
    fn one_log_goes_through_a_kill_a_failure_and_the_result() {
        let folder = tempfile::tempdir().unwrap();
        let layout = Layout::new(folder.path());
        let (spec, nobody): (_, Arc<dyn Observer>) = (spec(), Arc::new(NoObserver));
        let id = spec.id();
        let point = |at: f64| Event::Metric { name: "loss".into(), at, value: 0.5 };
        let work = layout.open_work(&id).unwrap();
        logged(&spec, &layout, &work, &nobody).event(&point(1.0));
        // Killed, then failed.
        let work = layout.open_work(&id).unwrap();
        logged(&spec, &layout, &work, &nobody).event(&point(1.0));
        layout.finish(&id, &CellFiles::bare(spec.record(Status::Failed, Some("why".into())))).unwrap();
        layout.close_work(&id).unwrap();
        let log = layout.cell(&id).join(LOG);
        let failed = std::fs::read(&log).unwrap();
        assert_eq!(kinds(&log), ["run", "metric", "resumed", "end"]);

        let work = layout.open_work(&id).unwrap();
        let observer = logged(&spec, &layout, &work, &nobody);
        observer.event(&point(1.0));
        observer.event(&point(2.0));
        let mut record = spec.record(Status::Ok, None);
        record.results.last = Some(Evaluation { image_auroc: Some(0.75), ..Evaluation::default() });
        layout.finish(&id, &CellFiles::bare(record)).unwrap();
        assert!(std::fs::read(&log).unwrap().starts_with(&failed));
        assert_eq!(kinds(&log)[4..], ["resumed", "metric", "figures", "end"]);
        let lines = read_log(&log).unwrap();
        let What::Run(run) = &lines[0].what else { panic!("{:?}", lines[0]) };
        assert_eq!((run.params["config.epochs"].as_str(), run.params["seed"].as_str()), ("2", "7"));
        let What::Figures { values } = &lines[6].what else { panic!("{:?}", lines[6]) };
        assert_eq!(values["last/image_auroc"].0, 0.75);
    }

    #[test]
    fn an_end_that_others_tell_is_in_the_log_and_the_next_attempt_goes_on_after_it() {
        let folder = tempfile::tempdir().unwrap();
        let (spec, nobody): (_, Arc<dyn Observer>) = (spec(), Arc::new(NoObserver));
        let id = spec.id();
        let point = |at: f64| Event::Metric { name: "loss".into(), at, value: 0.5 };
        let first = Layout::of_attempt(folder.path(), "12_3.0");
        let work = first.open_work(&id).unwrap();
        logged(&spec, &first, &work, &nobody).event(&point(1.0));
        let follower = Layout::new(folder.path());
        follower.note(&spec, Status::Failed, "killed", "follower").unwrap();
        let log = follower.cell(&id).join(LOG);
        assert_eq!(kinds(&log), ["run", "metric", "end"]);
        assert_eq!(follower.working_folders().unwrap(), [(id.clone(), vec![work])].into());

        let second = Layout::of_attempt(folder.path(), "13_3.0");
        second.take_over(&id).unwrap();
        let work = second.open_work(&id).unwrap();
        logged(&spec, &second, &work, &nobody).event(&point(2.0));
        second.finish(&id, &CellFiles::bare(spec.record(Status::Ok, None))).unwrap();
        assert_eq!(kinds(&log), ["run", "metric", "end", "resumed", "metric", "end"]);

        // A cell that never began has a log all the same.
        let mut other = spec.clone();
        other.identity.seed += 1;
        follower.note(&other, Status::Cancelled, "never began", "follower").unwrap();
        assert_eq!(kinds(&follower.cell(&other.id()).join(LOG)), ["run", "end"]);
    }

    #[test]
    fn a_log_that_cannot_be_written_is_a_warning() {
        struct Heard(std::sync::Mutex<Vec<Event>>);
        impl Observer for Heard {
            fn event(&self, event: &Event) {
                self.0.lock().unwrap().push(event.clone());
            }
        }
        let folder = tempfile::tempdir().unwrap();
        let heard = Arc::new(Heard(std::sync::Mutex::default()));
        let observer: Arc<dyn Observer> = heard.clone();
        let nowhere = folder.path().join("not-there");
        let log = logged(&spec(), &Layout::new(folder.path()), &nowhere, &observer);
        log.event(&Event::Step { step: 1 });
        let heard = heard.0.lock().unwrap();
        assert!(matches!(&heard[..], [Event::Warning(_), Event::Step { step: 1 }]), "{heard:?}");
    }
}
