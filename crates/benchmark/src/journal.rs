//! What a fit said and how long it took, kept through a killed process.
//!
//! The journal is written just before each checkpoint, so that a fit that goes on finds all that was said up to it. What
//! it says again after that falls on the same points.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anomaly_core::{
    Checkpoint, CheckpointStore, DirectoryCheckpoints, Event, Flow, Harness, MethodError, Offer, write_atomic,
};
use candle_core::Device;
use report::CurvePoint;
use serde::{Deserialize, Serialize};

use crate::Error;

/// The journal of one cell.
#[derive(Debug)]
pub(crate) struct Journal {
    path: PathBuf,
    entries: Mutex<Entries>,
    /// When this process began to fit, and how long it did other things since.
    clock: Mutex<Clock>,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Entries {
    /// Name of the curve, step, value.
    curves: BTreeMap<String, BTreeMap<u64, f64>>,
    /// Seconds of fitting in processes before this one.
    fit_seconds: f64,
}

#[derive(Debug)]
struct Clock {
    started: Instant,
    elsewhere: Duration,
}

impl Journal {
    /// The journal in the working folder `work`: what is there already, or an empty one. Its clock starts now.
    pub(crate) fn open(work: &Path) -> Result<Self, Error> {
        let path = work.join("journal.json");
        let entries = if path.exists() {
            let text = std::fs::read_to_string(&path).map_err(|e| Error::io(&path, "can't read", e))?;
            serde_json::from_str(&text).map_err(|source| Error::Message { what: "journal.json", source })?
        } else {
            Entries::default()
        };
        let clock = Mutex::new(Clock { started: Instant::now(), elsewhere: Duration::ZERO });
        Ok(Self { path, entries: Mutex::new(entries), clock })
    }

    /// Notes points of learning curves; other events, and values that are not finite, are none.
    pub(crate) fn note(&self, event: &Event) {
        if let Event::Metric { name, at, value } = event
            && value.is_finite()
        {
            lock(&self.entries).curves.entry(name.clone()).or_default().insert(at.round() as u64, *value);
        }
    }

    /// The learning curves.
    pub(crate) fn curves(&self) -> BTreeMap<String, Vec<CurvePoint>> {
        let points =
            |curve: &BTreeMap<u64, f64>| curve.iter().map(|(&at, &value)| CurvePoint(at, value)).collect();
        lock(&self.entries).curves.iter().map(|(name, curve)| (name.clone(), points(curve))).collect()
    }

    /// How long fitting took, over all processes, without the evaluation of offers.
    pub(crate) fn fit_seconds(&self) -> f64 {
        let clock = lock(&self.clock);
        let here = clock.started.elapsed().saturating_sub(clock.elsewhere);
        lock(&self.entries).fit_seconds + here.as_secs_f64()
    }

    fn save(&self) -> Result<(), anomaly_core::Error> {
        let fit_seconds = self.fit_seconds();
        let entries = Entries { fit_seconds, ..lock(&self.entries).clone() };
        // Maps of strings, whole numbers and finite values can always be written.
        let text = serde_json::to_string(&entries).unwrap_or_default();
        write_atomic(&self.path, text.as_bytes())
    }

    fn spent_elsewhere(&self, span: Duration) {
        lock(&self.clock).elsewhere += span;
    }
}

/// A panic while one of these was held leaves values that are whole: each change is a single step.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Checkpoints in a folder, each preceded by the journal.
pub(crate) struct JournalledCheckpoints<'a> {
    pub(crate) journal: &'a Journal,
    pub(crate) checkpoints: DirectoryCheckpoints,
}

impl CheckpointStore for JournalledCheckpoints<'_> {
    fn save(&mut self, checkpoint: &Checkpoint) -> Result<(), anomaly_core::Error> {
        self.journal.save()?;
        self.checkpoints.save(checkpoint)
    }

    fn latest(&self, device: &Device) -> Result<Option<Checkpoint>, anomaly_core::Error> {
        self.checkpoints.latest(device)
    }
}

/// A harness whose time does not count as fitting.
pub(crate) struct TimedHarness<'a, H> {
    pub(crate) journal: &'a Journal,
    pub(crate) harness: &'a mut H,
}

impl<H: Harness> Harness for TimedHarness<'_, H> {
    fn offer(
        &mut self,
        epoch: usize,
        train_loss: Option<f64>,
        offer: &mut dyn Offer,
    ) -> Result<Flow, MethodError> {
        let started = Instant::now();
        let flow = self.harness.offer(epoch, train_loss, offer);
        self.journal.spent_elsewhere(started.elapsed());
        flow
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use anomaly_core::{Checkpoint, CheckpointStore, DirectoryCheckpoints, Event};
    use report::CurvePoint;

    use super::{Journal, JournalledCheckpoints};

    fn loss(at: f64, value: f64) -> Event {
        Event::Metric { name: "loss".into(), at, value }
    }

    #[test]
    fn what_was_said_before_a_checkpoint_is_there_after_a_kill_and_repeats_fall_together() {
        let work = tempfile::tempdir().unwrap();
        let first = Journal::open(work.path()).unwrap();
        first.note(&loss(1.0, 0.1));
        first.note(&loss(2.0, f64::NAN));
        first.note(&loss(3.0, 1.0 / 3.0));
        let checkpoints = DirectoryCheckpoints::new(work.path());
        JournalledCheckpoints { journal: &first, checkpoints }.save(&Checkpoint::default()).unwrap();
        first.note(&loss(4.0, 9.0));
        let so_far = first.fit_seconds();

        let second = Journal::open(work.path()).unwrap();
        second.note(&loss(3.0, 1.0 / 3.0));
        assert_eq!(second.curves()["loss"], [CurvePoint(1, 0.1), CurvePoint(3, 1.0 / 3.0)]);
        assert!(second.fit_seconds() > 0.0 && so_far > 0.0);
    }
}
