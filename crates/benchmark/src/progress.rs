//! What is going on, for people: bars on a terminal, lines elsewhere. Always on standard error.

use std::collections::BTreeMap;
use std::io::{IsTerminal, Write};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use report::{Cell, Status};

use crate::message::Message;

/// The shortest time between two lines about one cell's training where there is no terminal.
const BETWEEN_LINES: Duration = Duration::from_secs(5);

/// Shows a run's progress.
pub(crate) struct Progress {
    bars: Option<Bars>,
    /// Lines are written whole, also by several workers.
    stderr: Mutex<std::io::Stderr>,
    total: usize,
    done: Mutex<usize>,
}

struct Bars {
    all: MultiProgress,
    cells: ProgressBar,
}

/// One cell on its way.
pub(crate) struct CellProgress<'a> {
    progress: &'a Progress,
    name: String,
    bar: Option<ProgressBar>,
    phase: String,
    steps: Option<usize>,
    step: usize,
    began: Instant,
    figures: BTreeMap<String, f64>,
    at: Option<f64>,
    last_line: Option<Instant>,
}

impl Progress {
    /// Progress of `total` cells.
    pub(crate) fn new(total: usize) -> Self {
        let bars = std::io::stderr().is_terminal().then(|| {
            let all = MultiProgress::new();
            let cells = all.add(ProgressBar::new(total as u64));
            cells.set_style(style("{bar:24} {pos}/{len} cells · {elapsed} · {msg}"));
            cells.enable_steady_tick(Duration::from_secs(1));
            Bars { all, cells }
        });
        Self { bars, stderr: Mutex::new(std::io::stderr()), total, done: Mutex::new(0) }
    }

    /// Says something, above the bars if there are any.
    pub(crate) fn line(&self, text: &str) {
        let write = || {
            // If standard error is gone there is nobody left to tell.
            let _ = writeln!(lock(&self.stderr), "{text}");
        };
        match &self.bars {
            Some(bars) => bars.all.suspend(write),
            None => write(),
        }
    }

    /// A cell begins.
    pub(crate) fn begin(&self, name: &str) -> CellProgress<'_> {
        let bar = self.bars.as_ref().map(|bars| {
            let bar = bars.all.add(ProgressBar::new_spinner());
            bar.set_style(style("{spinner} {wide_msg}"));
            bar.enable_steady_tick(Duration::from_millis(200));
            bar.set_message(name.to_owned());
            bar
        });
        if bar.is_none() {
            self.line(&format!("begin {name}"));
        }
        CellProgress {
            progress: self,
            name: name.to_owned(),
            bar,
            phase: String::new(),
            steps: None,
            step: 0,
            began: Instant::now(),
            figures: BTreeMap::new(),
            at: None,
            last_line: None,
        }
    }

    /// A cell ended, with its record.
    pub(crate) fn end(&self, name: &str, cell: &Cell) {
        let done = {
            let mut done = lock(&self.done);
            *done += 1;
            *done
        };
        if let Some(bars) = &self.bars {
            bars.cells.set_position(done as u64);
            bars.cells.set_message(time_left(bars.cells.elapsed(), done, self.total).unwrap_or_default());
        }
        self.line(&format!("[{done}/{}] {name}: {}", self.total, ending(cell)));
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Some(bars) = &self.bars {
            bars.cells.finish_and_clear();
        }
    }
}

impl CellProgress<'_> {
    /// What the cell's process said.
    pub(crate) fn message(&mut self, message: &Message) {
        match message {
            Message::Phase { name, steps } => {
                self.phase.clone_from(name);
                self.steps = *steps;
                self.step = 0;
                self.began = Instant::now();
                self.show(true);
            }
            Message::Step { step } => {
                self.step = step + 1;
                self.show(false);
            }
            Message::Metric { name, at, value } => {
                match value {
                    Some(value) => self.figures.insert(name.clone(), *value),
                    None => self.figures.insert(name.clone(), f64::NAN),
                };
                self.at = Some(*at);
                self.show(false);
            }
            Message::Note { text } => self.progress.line(&format!("{}: {text}", self.name)),
            Message::Warning { text } => self.progress.line(&format!("{}: warning: {text}", self.name)),
            Message::Finished | Message::Failed { .. } | Message::Cancelled => {}
        }
    }

    fn show(&mut self, now: bool) {
        if let Some(bar) = &self.bar {
            bar.set_message(self.text());
        } else if now || self.last_line.is_none_or(|last| last.elapsed() >= BETWEEN_LINES) {
            self.last_line = Some(Instant::now());
            self.progress.line(&self.text());
        }
    }

    fn text(&self) -> String {
        let steps = self.steps.map_or_else(String::new, |steps| format!(" {}/{steps}", self.step));
        let mut parts = vec![format!("{}: {}{steps}", self.name, self.phase)];
        parts.extend(self.at.map(|at| format!("epoch {at}")));
        parts.extend(self.figures.iter().map(|(name, value)| format!("{name} {value:.4}")));
        parts.extend(self.steps.and_then(|steps| time_left(self.began.elapsed(), self.step, steps)));
        parts.join(" · ")
    }
}

impl Drop for CellProgress<'_> {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar())
}

/// The time left if the rest goes as fast as what is done; nothing before the first step and after the last.
fn time_left(elapsed: Duration, done: usize, total: usize) -> Option<String> {
    if done == 0 || done >= total {
        return None;
    }
    let seconds = (elapsed.as_secs_f64() / done as f64 * (total - done) as f64).ceil() as u64;
    let (hours, minutes) = (seconds / 3600, seconds / 60 % 60);
    let hours = if hours > 0 { format!("{hours}:{minutes:02}") } else { minutes.to_string() };
    Some(format!("{hours}:{:02} left", seconds % 60))
}

/// How a cell ended, in words.
fn ending(cell: &Cell) -> String {
    let figure = cell.results.faithful.as_ref().and_then(|evaluation| evaluation.image_auroc);
    match (cell.status, figure) {
        (Status::Ok, Some(auroc)) => {
            let seconds = cell.seconds.map_or(0.0, |seconds| seconds.fit + seconds.score);
            format!("image AUROC {:.2} %, {seconds:.1} s", auroc * 100.0)
        }
        (Status::Ok, None) => "ok".to_owned(),
        (status, _) => {
            format!("{}: {}", status.word(), cell.error.as_deref().unwrap_or("no reason recorded"))
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::time_left;

    #[test]
    fn time_left_goes_by_what_is_done() {
        assert_eq!(time_left(Duration::from_secs(10), 1, 4).as_deref(), Some("0:30 left"));
        assert_eq!(time_left(Duration::from_secs(3600), 1, 3).as_deref(), Some("2:00:00 left"));
        assert_eq!(time_left(Duration::from_secs(10), 0, 4), None);
        assert_eq!(time_left(Duration::from_secs(10), 4, 4), None);
    }
}
