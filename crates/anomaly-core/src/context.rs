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

    /// Says before anything is computed how much the features of `images` training images take, of `numbers` f32 numbers each,
    /// and warns if there is no room for them. Whether an image's features are kept already is asked only then: it takes a
    /// look at every image.
    ///
    /// # Errors
    /// [`MethodError::Cancelled`]; what the store or `is_kept` gave.
    pub fn state_features(
        &self,
        images: usize,
        numbers: usize,
        is_kept: &mut dyn FnMut(usize) -> Result<bool, MethodError>,
    ) -> Result<(), MethodError> {
        let an_image = self.features.bytes_of(numbers as u64);
        let (all, room) = (an_image * images as u64, self.features.room()?);
        self.tell(&Event::Note(format!(
            "features of {images} images, computed once: {} of {} free",
            megabytes(all),
            megabytes(room)
        )));
        if all <= room {
            return Ok(());
        }
        let mut missing = 0;
        for index in 0..images {
            self.cancellation.check()?;
            missing += u64::from(!is_kept(index)?);
        }
        if missing * an_image > room {
            let (needed, room) = (megabytes(missing * an_image), megabytes(room));
            self.tell(&Event::Warning(format!(
                "features of {missing} images need {needed}, but the feature store has room for {room}: what does not fit is \
                 computed anew every time"
            )));
        }
        Ok(())
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

fn megabytes(bytes: u64) -> String {
    format!("{:.1} MB", bytes as f64 / 1e6)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::sync::Mutex;

    use super::*;

    #[derive(Default)]
    struct Heard(Mutex<Vec<Event>>);

    impl Observer for Heard {
        fn event(&self, event: &Event) {
            self.0.lock().unwrap().push(event.clone());
        }
    }

    /// What is said about ten images of 1000 numbers, 40 kB in all, with room for so many bytes, if the first `kept` are there.
    fn said(room: usize, kept: usize) -> (Vec<Event>, usize) {
        let heard = Arc::new(Heard::default());
        let mut context = FitContext::new(Device::Cpu, 0);
        context.features = Arc::new(MemoryFeatureStore::new(room));
        context.observer = heard.clone();
        let mut asked = 0;
        let mut is_kept = |index: usize| {
            asked += 1;
            Ok(index < kept)
        };
        context.state_features(10, 1000, &mut is_kept).unwrap();
        let events = heard.0.lock().unwrap().clone();
        (events, asked)
    }

    #[test]
    fn the_size_of_features_is_stated_and_too_little_room_is_warned_of() {
        let (events, asked) = said(40_000, 0);
        assert!(matches!(&events[..], [Event::Note(text)] if text.contains("10 images")), "{events:?}");
        assert_eq!(asked, 0);
        let (events, asked) = said(39_999, 2);
        assert!(matches!(&events[..], [Event::Note(_)]), "{events:?}");
        assert_eq!(asked, 10);
        let (events, _) = said(31_999, 2);
        assert!(
            matches!(&events[..], [_, Event::Warning(text)] if text.contains("8 images need")),
            "{events:?}"
        );
    }
}
