//! What a fit has at hand besides the data.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use candle_core::Device;
use random_streams::{Stream, Streams};

use crate::{
    CheckpointStore, Event, FeatureStore, Flow, Harness, KeepNothing, MemoryCheckpoints, MemoryFeatureStore,
    MethodError, NoObserver, Observer, Offer, Precision,
};

/// A flag that asks a fit to stop. Clones share it; setting it is safe in a signal handler.
#[derive(Debug, Clone, Default)]
pub struct Cancellation(Arc<AtomicBool>);

impl Cancellation {
    /// Asks the fit to stop.
    pub fn cancel(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    /// Whether it was asked.
    pub fn is_cancelled(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    /// `Err(Cancelled)` if it was asked: for the head of a training loop, so that `?` stops it.
    ///
    /// # Errors
    /// [`MethodError::Cancelled`].
    pub fn check(&self) -> Result<(), MethodError> {
        if self.is_cancelled() { Err(MethodError::Cancelled) } else { Ok(()) }
    }
}

/// What a fit has at hand besides the data: where to compute, what to draw from, whom to tell, where to keep.
pub struct FitContext<'a> {
    /// Where to compute.
    pub device: Device,
    /// In which arithmetic.
    pub precision: Precision,
    /// Named random streams of the run's seed.
    pub streams: Streams,
    /// Whom to tell.
    pub observer: Arc<dyn Observer>,
    /// Whether to stop.
    pub cancellation: Cancellation,
    /// Where checkpoints are kept, and where one to go on from may be.
    pub checkpoints: Box<dyn CheckpointStore + 'a>,
    /// Frozen features, computed once.
    pub features: Arc<dyn FeatureStore>,
    harness: Box<dyn Harness + 'a>,
}

impl<'a> FitContext<'a> {
    /// A context on `device` with the streams of `seed`; nobody listens, checkpoints and features stay in memory, and
    /// offers are not kept. Replace what should be otherwise.
    pub fn new(device: Device, seed: u64) -> Self {
        Self {
            device,
            precision: Precision::default(),
            streams: Streams::new(seed),
            observer: Arc::new(NoObserver),
            cancellation: Cancellation::default(),
            checkpoints: Box::new(MemoryCheckpoints::default()),
            features: Arc::new(MemoryFeatureStore::default()),
            harness: Box::new(KeepNothing),
        }
    }

    /// The same context with a harness that looks at offers.
    #[must_use]
    pub fn with_harness(mut self, harness: impl Harness + 'a) -> Self {
        self.harness = Box::new(harness);
        self
    }

    /// The random stream called `name`, at its start.
    pub fn stream(&self, name: &str) -> Stream {
        self.streams.stream(name)
    }

    /// Tells the observer.
    pub fn tell(&self, event: &Event) {
        self.observer.event(event);
    }

    /// Offers what stands after `epoch` (1-based), with the epoch's mean training loss where there is one.
    ///
    /// # Errors
    /// [`MethodError::Cancelled`] if asked to stop; otherwise what the offer or the harness gave.
    pub fn offer(
        &mut self,
        epoch: usize,
        train_loss: Option<f64>,
        offer: &mut dyn Offer,
    ) -> Result<Flow, MethodError> {
        self.cancellation.check()?;
        self.harness.offer(epoch, train_loss, offer)
    }
}
