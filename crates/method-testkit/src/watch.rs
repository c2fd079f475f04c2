//! Counting what a fit does, and stopping it at a chosen moment.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use anomaly_core::{Cancellation, ContentKey, DataError, Event, Images, Observer, TrainingData};

use crate::InMemoryData;

/// Counts a fit's signals (events told and batches read) and cancels at one of them.
#[derive(Debug, Default)]
pub(crate) struct Watch {
    signals: AtomicUsize,
    cancel_at: Option<usize>,
    pub(crate) cancellation: Cancellation,
}

impl Watch {
    /// A watch that cancels at this signal, counted from 1.
    pub(crate) fn cancelling_at(signal: Option<usize>) -> Arc<Self> {
        Arc::new(Self { cancel_at: signal, ..Self::default() })
    }

    /// How many signals there were.
    pub(crate) fn signals(&self) -> usize {
        self.signals.load(Ordering::SeqCst)
    }

    fn tick(&self) {
        let signal = self.signals.fetch_add(1, Ordering::SeqCst) + 1;
        if Some(signal) == self.cancel_at {
            self.cancellation.cancel();
        }
    }
}

impl Observer for Watch {
    fn event(&self, _: &Event) {
        self.tick();
    }
}

/// Data that tells a watch of every batch read.
pub(crate) struct WatchedData<'a> {
    pub(crate) data: &'a InMemoryData,
    pub(crate) watch: Arc<Watch>,
}

impl TrainingData for WatchedData<'_> {
    fn len(&self) -> usize {
        self.data.len()
    }

    fn key(&self, index: usize) -> Result<ContentKey, DataError> {
        self.data.key(index)
    }

    fn get(&self, indices: &[usize]) -> Result<Images, DataError> {
        self.watch.tick();
        self.data.get(indices)
    }
}
