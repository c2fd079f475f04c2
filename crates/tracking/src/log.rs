//! A run's log: every event as a line of JSON, kept through any number of killed processes.

use std::collections::{BTreeMap, HashSet};
use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anomaly_core::{Event, Observer};

use crate::{Ending, Error, Line, Number, Run, What};

/// The shortest time between two lines about steps.
const BETWEEN_STEPS: Duration = Duration::from_secs(1);

/// The log of one run: an observer that appends a line for each event.
///
/// A line goes to the system in one piece, so a process that is killed leaves whole lines, and what a power cut tore is
/// cut off when the log is opened again. A fit that goes on from a checkpoint says again what it said after it: points
/// of curves that the log has with the same value are not written twice.
///
/// A log that can't be written says so once, and the run goes on without it.
///
/// ```
/// use anomaly_core::{Event, Observer};
/// use tracking::{EventLog, Run, What};
///
/// let folder = std::env::temp_dir().join(format!("vitad-tracking-example-{}", std::process::id()));
/// std::fs::create_dir_all(&folder)?;
/// let path = folder.join("events.jsonl");
/// let run = Run { id: "a".into(), name: "an example".into(), ..Run::default() };
/// let point = Event::Metric { name: "loss".into(), at: 1.0, value: 0.5 };
/// EventLog::open(&path, &run)?.event(&point);
/// // Another process goes on, and says the same again.
/// EventLog::open(&path, &run)?.event(&point);
/// let lines = tracking::read_log(&path)?;
/// assert_eq!(lines.iter().filter(|line| matches!(line.what, What::Metric { .. })).count(), 1);
/// # std::fs::remove_dir_all(&folder)?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct EventLog {
    path: PathBuf,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    /// `None` after it could not be written.
    file: Option<File>,
    /// Curve, place and value of every point so far.
    points: HashSet<(String, u64, u64)>,
    last_step: Option<Instant>,
}

impl EventLog {
    /// Opens the log at `path`, whose folder must exist, and goes on with `run`: a new log begins with it, one that is there
    /// goes on with [`What::Resumed`], or with `run` where that has other tags or parameters now.
    ///
    /// # Errors
    /// [`Error::Io`]; [`Error::OtherRun`] if the log is another run's.
    pub fn open(path: &Path, run: &Run) -> Result<Self, Error> {
        let lines = whole_lines(path)?;
        let mut points = HashSet::new();
        let mut last_run = None;
        for line in lines {
            match line.what {
                What::Metric { name, at, value } => {
                    points.insert(point(name, at, value));
                }
                What::Run(run) => last_run = Some(run),
                _ => {}
            }
        }
        let file = OpenOptions::new()
            .create(true)
            .append(true)
            .open(path)
            .map_err(|e| Error::io(path, "can't open the log", e))?;
        let state = State { file: Some(file), points, last_step: None };
        let log = Self { path: path.to_owned(), state: Mutex::new(state) };
        log.write(match last_run {
            Some(last) if last.id != run.id => {
                return Err(Error::OtherRun {
                    path: path.to_owned(),
                    expected: run.id.clone(),
                    found: last.id,
                });
            }
            Some(last) if last == *run => What::Resumed,
            _ => What::Run(run.clone()),
        });
        Ok(log)
    }

    /// Where it lies.
    pub fn path(&self) -> &Path {
        &self.path
    }

    fn write(&self, what: What) {
        let line = Line { time: now(), what };
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(file) = &mut state.file else { return };
        let written = serde_json::to_string(&line)
            .map_err(std::io::Error::from)
            .and_then(|text| file.write_all(format!("{text}\n").as_bytes()));
        if let Err(e) = written {
            tracing::warn!("{}: nothing more is logged: {e}", self.path.display());
            state.file = None;
        }
    }
}

impl Observer for EventLog {
    fn event(&self, event: &Event) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let what = match event {
            Event::Phase { name, steps } => What::Phase { name: name.clone(), steps: *steps },
            Event::Step { step } => {
                if state.last_step.is_some_and(|last| last.elapsed() < BETWEEN_STEPS) {
                    return;
                }
                state.last_step = Some(Instant::now());
                What::Step { step: *step }
            }
            Event::Metric { name, at, value } => {
                let (at, value) = (Number(*at), Number(*value));
                if !state.points.insert(point(name.clone(), at, value)) {
                    return;
                }
                What::Metric { name: name.clone(), at, value }
            }
            Event::Note(text) => What::Note { text: text.clone() },
            Event::Warning(text) => What::Warning { text: text.clone() },
            // Kinds of events that came after this was written have no line yet.
            _ => return,
        };
        drop(state);
        self.write(what);
    }
}

/// Closes the log at `path`, from whatever process: notes what the run came to, if to anything, and how it ended, and sees that
/// this reaches the disk. The log goes on after it if the run does.
///
/// # Errors
/// [`Error::Io`].
pub fn close_log(
    path: &Path,
    figures: &BTreeMap<String, f64>,
    status: Ending,
    error: Option<&str>,
) -> Result<(), Error> {
    whole_lines(path)?;
    let mut text = String::new();
    let values: BTreeMap<String, Number> =
        figures.iter().map(|(name, &value)| (name.clone(), Number(value))).collect();
    let figures = (!values.is_empty()).then_some(What::Figures { values });
    for what in figures.into_iter().chain([What::End { status, error: error.map(str::to_owned) }]) {
        let line = serde_json::to_string(&Line { time: now(), what }).map_err(|source| Error::Line {
            path: path.to_owned(),
            line: 0,
            source,
        })?;
        text.push_str(&line);
        text.push('\n');
    }
    OpenOptions::new()
        .append(true)
        .open(path)
        .and_then(|mut file| {
            file.write_all(text.as_bytes())?;
            file.sync_all()
        })
        .map_err(|e| Error::io(path, "can't close the log", e))
}

fn point(name: String, at: Number, value: Number) -> (String, u64, u64) {
    (name, at.0.to_bits(), value.0.to_bits())
}

/// Milliseconds since 1970.
fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64)
}

/// The lines of a log that is to be gone on with, which is cut after the last good one.
fn whole_lines(path: &Path) -> Result<Vec<Line>, Error> {
    let bytes = match std::fs::read(path) {
        Ok(bytes) => bytes,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(e) => return Err(Error::io(path, "can't read the log", e)),
    };
    let (mut lines, mut good) = (Vec::new(), 0);
    for text in bytes.split_inclusive(|&byte| byte == b'\n') {
        let Some(Ok(line)) = text.strip_suffix(b"\n").map(serde_json::from_slice) else { break };
        lines.push(line);
        good += text.len();
    }
    if good < bytes.len() {
        tracing::warn!("{}: {} torn bytes at its end are cut off", path.display(), bytes.len() - good);
        let cut = OpenOptions::new().write(true).open(path).and_then(|file| file.set_len(good as u64));
        cut.map_err(|e| Error::io(path, "can't cut the log", e))?;
    }
    Ok(lines)
}

/// The whole lines of the log at `path`. A line that is still being written, or was torn, is left out.
///
/// # Errors
/// [`Error::Io`]; [`Error::Line`] for a line that is no event.
pub fn read_log(path: &Path) -> Result<Vec<Line>, Error> {
    let mut reader = LogReader::default();
    reader.read(path)?;
    Ok(reader.lines)
}

/// Follows a log as it grows, also when it moves to another place.
#[derive(Debug, Default)]
pub struct LogReader {
    offset: u64,
    lines: Vec<Line>,
    /// The bytes of the last line, with its end.
    last: Vec<u8>,
}

impl LogReader {
    /// Reads what was added; `path` may be another than before, with the same beginning. One that does not go on after the
    /// last line is read anew: two processes that each took themselves for the last wrote on two copies.
    ///
    /// # Errors
    /// As [`read_log`].
    pub fn read(&mut self, path: &Path) -> Result<(), Error> {
        let from = self.offset - self.last.len() as u64;
        let mut new = Vec::new();
        File::open(path)
            .and_then(|mut file| {
                file.seek(SeekFrom::Start(from))?;
                file.read_to_end(&mut new)
            })
            .map_err(|e| Error::io(path, "can't read the log", e))?;
        let Some(added) = new.strip_prefix(&self.last[..]) else {
            *self = Self::default();
            return self.read(path);
        };
        for whole in added.split_inclusive(|&byte| byte == b'\n') {
            let Some(text) = whole.strip_suffix(b"\n") else { break };
            let line = self.lines.len() + 1;
            let parsed = serde_json::from_slice(text).map_err(|source| Error::Line {
                path: path.to_owned(),
                line,
                source,
            })?;
            self.lines.push(parsed);
            self.offset += whole.len() as u64;
            whole.clone_into(&mut self.last);
        }
        Ok(())
    }

    /// How many bytes were read.
    pub fn bytes(&self) -> u64 {
        self.offset
    }

    /// All lines so far.
    pub fn lines(&self) -> &[Line] {
        &self.lines
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::collections::BTreeMap;
    use std::io::Write;

    use anomaly_core::{Event, Observer};

    use super::{EventLog, LogReader, close_log, read_log};
    use crate::{Ending, Error, Run, What};

    fn run(id: &str) -> Run {
        Run { id: id.into(), name: "n".into(), ..Run::default() }
    }

    fn metric(at: f64, value: f64) -> Event {
        Event::Metric { name: "loss".into(), at, value }
    }

    #[test]
    fn a_killed_run_goes_on_after_the_last_whole_line_and_repeats_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("events.jsonl");
        let first = EventLog::open(&path, &run("a")).unwrap();
        for event in [metric(1.0, 0.5), metric(2.0, f64::NAN), Event::Note("kept".into())] {
            first.event(&event);
        }
        drop(first);
        let before = std::fs::read(&path).unwrap();
        std::fs::OpenOptions::new().append(true).open(&path).unwrap().write_all(b"{\"time\":1,\"ev").unwrap();
        assert_eq!(read_log(&path).unwrap().len(), 4);

        let second = EventLog::open(&path, &run("a")).unwrap();
        for event in [metric(1.0, 0.5), metric(2.0, f64::NAN), metric(2.0, 0.25), metric(3.0, 0.5)] {
            second.event(&event);
        }
        close_log(&path, &BTreeMap::new(), Ending::Finished, None).unwrap();
        assert!(std::fs::read(&path).unwrap().starts_with(&before));
        let told: Vec<What> = read_log(&path).unwrap().into_iter().map(|line| line.what).skip(4).collect();
        // Another value at the same place is no repeat: nothing is hidden.
        assert_eq!(
            told,
            [
                What::Resumed,
                What::Metric { name: "loss".into(), at: 2.0.into(), value: 0.25.into() },
                What::Metric { name: "loss".into(), at: 3.0.into(), value: 0.5.into() },
                What::End { status: Ending::Finished, error: None },
            ]
        );
    }

    #[test]
    fn a_log_belongs_to_one_run_whose_tags_may_change() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("events.jsonl");
        EventLog::open(&path, &run("a")).unwrap();
        let error = EventLog::open(&path, &run("b")).unwrap_err();
        assert!(matches!(&error, Error::OtherRun { expected, found, .. } if expected == "b" && found == "a"));
        let newer = Run { tags: [("commit".to_owned(), "2".to_owned())].into(), ..run("a") };
        EventLog::open(&path, &newer).unwrap();
        assert_eq!(read_log(&path).unwrap()[1].what, What::Run(newer));
    }

    #[test]
    fn a_reader_follows_a_growing_log_to_another_place() {
        let folder = tempfile::tempdir().unwrap();
        let (path, moved) = (folder.path().join("a.jsonl"), folder.path().join("b.jsonl"));
        let log = EventLog::open(&path, &run("a")).unwrap();
        let mut reader = LogReader::default();
        reader.read(&path).unwrap();
        assert_eq!(reader.lines().len(), 1);
        log.event(&metric(1.0, 0.5));
        std::fs::rename(&path, &moved).unwrap();
        close_log(&moved, &[("last/au_pro".to_owned(), 0.5)].into(), Ending::Cancelled, Some("stopped"))
            .unwrap();
        reader.read(&moved).unwrap();
        assert_eq!(reader.lines().len(), 4);
        assert_eq!(reader.bytes(), std::fs::metadata(&moved).unwrap().len());
        // A copy that went another way.
        let other = folder.path().join("c.jsonl");
        let first = std::fs::read(&moved).unwrap();
        let end = first.iter().position(|&byte| byte == b'\n').unwrap() + 1;
        std::fs::write(&other, &first[..end]).unwrap();
        let log = EventLog::open(&other, &run("a")).unwrap();
        for at in 0..8 {
            log.event(&metric(f64::from(at), 0.25));
        }
        reader.read(&other).unwrap();
        assert_eq!(reader.lines(), read_log(&other).unwrap());
    }
}
