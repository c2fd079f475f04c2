//! Event files for TensorBoard: curves, texts, pictures and hyperparameters.

mod event;
mod message;
mod record;

use std::collections::BTreeMap;
use std::fs::OpenOptions;
use std::io::Write;
use std::path::{Path, PathBuf};

use anomaly_core::{remove_torn_writes, write_atomic};

use crate::hex::digest;
use crate::names::folder_name;
use crate::{Ending, Error, Line, Run, RunView, Tracker, What};

/// TensorBoard's folder: `<folder>/<experiment>/<run>/events.out.tfevents.<seconds>.vitad`.
///
/// An event file is a function of the run's log and its pictures, so whoever continues one, after whatever end of the
/// process before, finds what is missing by comparing bytes.
///
/// Points of curves are scalars at the step nearest to their place; what a run came to are scalars below `figures/`;
/// its pictures are images; its parameters are a text and the session's hyperparameters, where runs that differ in nothing but
/// the parameter `seed` are a group.
#[derive(Debug)]
pub struct TensorBoard {
    folder: PathBuf,
    /// How many lines of each run's log are in its file.
    written: BTreeMap<String, usize>,
}

impl TensorBoard {
    /// Event files below `folder`, which is made when it is needed.
    pub fn new(folder: &Path) -> Self {
        Self { folder: folder.to_owned(), written: BTreeMap::new() }
    }

    fn file(&self, run: &RunView<'_>) -> Result<PathBuf, Error> {
        let name = run.run().map_or(run.key, |run| run.name.as_str());
        // Two runs may have one name; the key tells them apart.
        let folder = format!("{}-{}", folder_name(name), digest(run.key, 8));
        let folder = self.folder.join(folder_name(run.experiment)).join(folder);
        std::fs::create_dir_all(&folder).map_err(|e| Error::io(&folder, "can't make the folder", e))?;
        Ok(folder.join(format!("events.out.tfevents.{:010}.vitad", run.start() / 1000)))
    }
}

impl Tracker for TensorBoard {
    fn name(&self) -> String {
        format!("TensorBoard in {}", self.folder.display())
    }

    fn update(&mut self, run: &RunView<'_>) -> Result<(), Error> {
        let done = self.written.get(run.key).copied();
        if done == Some(run.lines.len()) || run.lines.is_empty() {
            return Ok(());
        }
        let path = self.file(run)?;
        if let Some(done) = done {
            append(&path, &encoded(run, done)?)?;
        } else {
            if let Some(folder) = path.parent() {
                remove_torn_writes(folder)?;
            }
            let whole = encoded(run, 0)?;
            let there = std::fs::read(&path).unwrap_or_default();
            // A reader may be at any place of the file: it is only replaced if it is not of this log.
            match whole.strip_prefix(&there[..]) {
                Some(rest) => append(&path, rest)?,
                None => write_atomic(&path, &whole)?,
            }
        }
        self.written.insert(run.key.to_owned(), run.lines.len());
        Ok(())
    }
}

fn append(path: &Path, bytes: &[u8]) -> Result<(), Error> {
    OpenOptions::new()
        .create(true)
        .append(true)
        .open(path)
        .and_then(|mut file| file.write_all(bytes))
        .map_err(|e| Error::io(path, "can't write", e))
}

/// The records for the lines from `from` on.
fn encoded(run: &RunView<'_>, from: usize) -> Result<Vec<u8>, Error> {
    let mut file = Vec::new();
    for (index, line) in run.lines.iter().enumerate().skip(from) {
        for record in records(run, index, line)? {
            record::push(&mut file, &record);
        }
    }
    Ok(file)
}

/// The events for one line.
fn records(run: &RunView<'_>, index: usize, line: &Line) -> Result<Vec<Vec<u8>>, Error> {
    let time = line.time as f64 / 1000.0;
    let mut records = Vec::new();
    if index == 0 {
        records.push(event::version(time));
    }
    match &line.what {
        What::Run(told) => {
            records.push(event::text(time, index as i64, "run", &table(told)));
            if index == 0 {
                records.push(event::session_start(time, told, &group(told)));
            }
        }
        What::Metric { name, at, value } => {
            records.push(event::scalar(time, at.step(), name, value.0));
        }
        What::Phase { name, .. } => records.push(event::text(time, index as i64, "phases", name)),
        What::Note { text } => records.push(event::text(time, index as i64, "notes", text)),
        What::Warning { text } => records.push(event::text(time, index as i64, "warnings", text)),
        What::Figures { values } => {
            let figures = values.iter();
            records.extend(figures.map(|(name, v)| event::scalar(time, 0, &format!("figures/{name}"), v.0)));
        }
        What::End { status, error } => {
            records.extend(error.iter().map(|why| event::text(time, index as i64, "errors", why)));
            for artifact in run.artifacts {
                let Some(tag) = artifact.name.strip_suffix(".png") else { continue };
                let path = &artifact.path;
                let png = std::fs::read(path).map_err(|e| Error::io(path, "can't read the picture", e))?;
                records.extend(event::image(time, 0, tag, &png));
            }
            // A reader keeps the first end it finds, and a run that failed or was stopped may go on.
            if *status == Ending::Finished {
                records.push(event::session_end(time, *status));
            }
        }
        What::Resumed | What::Step { .. } => {}
    }
    Ok(records)
}

/// A run's parameters and tags as a Markdown table.
fn table(run: &Run) -> String {
    let cell = |text: &str| text.replace('|', "\\|").replace(['\n', '\r'], " ");
    let mut text = format!("{}\n\n| name | value |\n|---|---|\n", run.name);
    for (name, value) in run.params.iter().chain(&run.tags) {
        text.push_str(&["| ", &cell(name), " | ", &cell(value), " |\n"].concat());
    }
    text
}

/// What runs share that differ in nothing but their seed.
fn group(run: &Run) -> String {
    let told: Vec<String> = run
        .params
        .iter()
        .filter(|(name, _)| *name != "seed")
        .map(|(name, value)| format!("{name}={value}"))
        .collect();
    digest(&told.join("\n"), 16)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::TensorBoard;
    use super::message::tests::{Field, fields};
    use super::record::tests::records;
    use crate::example::{PNG, lines};
    use crate::{Artifact, Ending, Line, RunView, Tracker, What};

    fn view<'a>(lines: &'a [crate::Line], artifacts: &'a [Artifact]) -> RunView<'a> {
        RunView { key: "matrix/cell", parent: Some("matrix"), experiment: "smoke", lines, artifacts }
    }

    fn only_file(folder: &std::path::Path) -> Vec<u8> {
        let mut folder = folder.to_owned();
        loop {
            let mut items = folder.read_dir().unwrap();
            let path = items.next().unwrap().unwrap().path();
            assert!(items.next().is_none(), "two in {}", folder.display());
            if path.is_file() {
                assert_eq!(path.file_name().unwrap(), "events.out.tfevents.1700000000.vitad");
                return std::fs::read(path).unwrap();
            }
            folder = path;
        }
    }

    #[test]
    fn a_file_is_the_same_bytes_however_often_its_writer_was_killed() {
        let lines = lines();
        let pictures = tempfile::tempdir().unwrap();
        let path = pictures.path().join("a.png");
        std::fs::write(&path, PNG).unwrap();
        let artifacts = [Artifact { name: "pictures/a.png".into(), path }];
        let straight = tempfile::tempdir().unwrap();
        TensorBoard::new(straight.path()).update(&view(&lines, &artifacts)).unwrap();
        let expected = only_file(straight.path());

        let growing = tempfile::tempdir().unwrap();
        let mut one = TensorBoard::new(growing.path());
        for count in 0..=lines.len() {
            // A process that goes on, and one that begins anew each time.
            one.update(&view(&lines[..count], &artifacts)).unwrap();
            TensorBoard::new(growing.path()).update(&view(&lines[..count], &artifacts)).unwrap();
        }
        assert_eq!(only_file(growing.path()), expected);

        let torn = tempfile::tempdir().unwrap();
        for cut in 0..expected.len() {
            let mut first = TensorBoard::new(torn.path());
            first.update(&view(&lines, &artifacts)).unwrap();
            let file = first.file(&view(&lines, &artifacts)).unwrap();
            std::fs::write(&file, &expected[..cut]).unwrap();
            TensorBoard::new(torn.path()).update(&view(&lines, &artifacts)).unwrap();
            assert_eq!(only_file(torn.path()), expected, "cut at {cut}");
        }
    }

    #[test]
    fn what_is_no_beginning_of_the_log_is_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let lines = lines();
        let mut first = TensorBoard::new(folder.path());
        let file = first.file(&view(&lines, &[])).unwrap();
        first.update(&view(&lines, &[])).unwrap();
        let expected = only_file(folder.path());
        std::fs::write(&file, b"something else").unwrap();
        TensorBoard::new(folder.path()).update(&view(&lines, &[])).unwrap();
        assert_eq!(only_file(folder.path()), expected);
    }

    #[test]
    fn a_run_that_failed_and_went_on_has_one_end() {
        let mut lines = lines();
        let failed = What::End { status: Ending::Failed, error: Some("why".into()) };
        lines.insert(7, Line { time: lines[7].time, what: failed });
        let folder = tempfile::tempdir().unwrap();
        TensorBoard::new(folder.path()).update(&view(&lines, &[])).unwrap();
        let file = only_file(folder.path());
        let times = |needle: &[u8]| file.windows(needle.len()).filter(|window| *window == needle).count();
        assert_eq!((times(b"session_end_info"), times(b"errors")), (1, 1));
    }

    /// Each event's step and its value's tag.
    #[test]
    fn the_events_are_in_the_order_of_the_log() {
        let folder = tempfile::tempdir().unwrap();
        TensorBoard::new(folder.path()).update(&view(&lines(), &[])).unwrap();
        let mut found = Vec::new();
        for record in records(&only_file(folder.path())) {
            let event = fields(&record);
            let get = |fields: &[(u64, Field)], number| {
                fields.iter().find(|(field, _)| *field == number).map(|(_, field)| field.clone())
            };
            let step = match get(&event, 2) {
                Some(Field::Varint(step)) => step,
                _ => 0,
            };
            let tag = match get(&event, 5) {
                Some(Field::Bytes(summary)) => {
                    let Some(Field::Bytes(value)) = get(&fields(&summary), 1) else { panic!("no value") };
                    let Some(Field::Bytes(tag)) = get(&fields(&value), 1) else { panic!("no tag") };
                    String::from_utf8(tag).unwrap()
                }
                _ => "version".to_owned(),
            };
            found.push((step, tag));
        }
        let expected = [
            (0, "version"),
            (0, "run"),
            (0, "_hparams_/session_start_info"),
            (1, "phases"),
            (1, "loss"),
            (2, "loss"),
            (5, "notes"),
            (3, "loss"),
            (0, "figures/last/image_auroc"),
            (0, "_hparams_/session_end_info"),
        ];
        assert_eq!(found, expected.map(|(step, tag)| (step, tag.to_owned())));
    }
}
