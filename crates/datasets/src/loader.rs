//! Chosen items as batches of pixels, decoded by all cores, read ahead in order.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, sync_channel};
use std::thread::JoinHandle;

use anomaly_core::{ContentKey, Images};
use candle_core::{Device, Tensor};
use image_prep::{Planar, Preprocess, Rgb8};
use rayon::prelude::*;

use crate::Error;
use crate::dataset::Dataset;

/// What batches that wait to be taken may hold; one batch may always wait.
const WAITING_BYTES: usize = 128 << 20;

/// The most batches that wait.
const MOST_WAITING: usize = 4;

/// Some items of a data set, preprocessed one way.
pub(crate) struct Loader {
    pub(crate) dataset: Arc<dyn Dataset>,
    pub(crate) items: Vec<usize>,
    pub(crate) preprocess: Preprocess,
}

impl Loader {
    pub(crate) fn new(
        dataset: Arc<dyn Dataset>,
        items: Vec<usize>,
        preprocess: Preprocess,
    ) -> Result<Self, Error> {
        preprocess.validate().map_err(|source| Error::Image { id: "(any)".into(), source })?;
        let known = dataset.items().len();
        if let Some(&wild) = items.iter().find(|&&index| index >= known) {
            return Err(Error::Split {
                dataset: dataset.card().name.clone(),
                category: "(any)".into(),
                field: "item",
                expected: format!("an index below {known}"),
                found: wild.to_string(),
            });
        }
        Ok(Self { dataset, items, preprocess })
    }

    /// The id of the item at `position` of the list.
    pub(crate) fn id(&self, position: usize) -> &str {
        &self.dataset.items()[self.items[position]].id
    }

    /// The stored image at `position` of the list.
    pub(crate) fn image(&self, position: usize) -> Result<Rgb8, Error> {
        self.dataset.image(self.items[position])
    }

    pub(crate) fn key(&self, position: usize) -> Result<ContentKey, Error> {
        let image = self.image(position)?;
        Ok(ContentKey::of_pixels(image.height, image.width, &image.data))
    }

    fn planes(&self, position: usize) -> Result<Planar, Error> {
        let image = self.image(position)?;
        self.preprocess
            .apply(&image)
            .map_err(|source| Error::Image { id: self.id(position).to_owned(), source })
    }

    /// The images at `positions` of the list, in this order: `(B, 3, H, W)`.
    pub(crate) fn images(&self, positions: &[usize]) -> Result<Images, Error> {
        let decoded: Vec<Result<Planar, Error>> = positions.par_iter().map(|&at| self.planes(at)).collect();
        // Of several faults, the first in order is told, whichever thread met one first.
        let planes = decoded.into_iter().collect::<Result<Vec<_>, _>>()?;
        let (height, width) = match planes.first() {
            Some(first) => (first.height, first.width),
            None => self.preprocess.fixed_output_size().unwrap_or((1, 1)),
        };
        for (&position, plane) in positions.iter().zip(&planes) {
            if (plane.height, plane.width) != (height, width) {
                return Err(Error::MixedSizes {
                    id: self.id(position).to_owned(),
                    found: format!("{} x {}", plane.height, plane.width),
                    first: self.id(positions[0]).to_owned(),
                    expected: format!("{height} x {width}"),
                });
            }
        }
        let mut pixels = Vec::with_capacity(positions.len() * 3 * height * width);
        for plane in &planes {
            pixels.extend_from_slice(&plane.data);
        }
        let pixels = Tensor::from_vec(pixels, (positions.len(), 3, height, width), &Device::Cpu)
            .map_err(anomaly_core::Error::from)?;
        Ok(Images::new(positions.iter().map(|&at| self.id(at).to_owned()).collect(), pixels)?)
    }

    /// How many batches of this many images may wait.
    fn waiting(&self, batch: usize) -> usize {
        // Of images that keep their own sizes nobody knows before they are decoded.
        let Some((height, width)) = self.preprocess.fixed_output_size() else { return 1 };
        let bytes = (batch * 3 * height * width * size_of::<f32>()).max(1);
        (WAITING_BYTES / bytes).clamp(1, MOST_WAITING)
    }
}

/// Batches in their order. A thread decodes the next ones while the last one is worked on, and waits when enough wait.
pub(crate) struct ReadAhead {
    loader: Arc<Loader>,
    /// Batches that the thread has not handed over yet.
    ahead: VecDeque<Vec<usize>>,
    reader: Option<Reader>,
}

struct Reader {
    batches: Receiver<Result<Images, Error>>,
    thread: JoinHandle<()>,
}

impl ReadAhead {
    pub(crate) fn new(loader: Arc<Loader>, batches: Vec<Vec<usize>>) -> Self {
        let largest = batches.iter().map(Vec::len).max().unwrap_or(0);
        // In a thread of the pool that decodes, waiting for the reader could wait for oneself.
        let worthwhile = batches.len() > 1 && rayon::current_thread_index().is_none();
        let reader = worthwhile.then(|| Reader::start(&loader, batches.clone(), loader.waiting(largest)));
        Self { loader, ahead: batches.into(), reader: reader.flatten() }
    }
}

impl Reader {
    /// Starts reading; nothing if the system has no thread to give, which costs time only.
    fn start(loader: &Arc<Loader>, batches: Vec<Vec<usize>>, waiting: usize) -> Option<Self> {
        let (sender, receiver) = sync_channel(waiting - 1);
        let loader = Arc::clone(loader);
        let read = move || {
            for positions in batches {
                let images = loader.images(&positions);
                let failed = images.is_err();
                // The receiver is gone when the epoch was left early.
                if sender.send(images).is_err() || failed {
                    return;
                }
            }
        };
        let thread = std::thread::Builder::new().name("read-ahead".into()).spawn(read);
        match thread {
            Ok(thread) => Some(Self { batches: receiver, thread }),
            Err(error) => {
                tracing::warn!(%error, "no thread to read ahead");
                None
            }
        }
    }
}

impl Iterator for ReadAhead {
    type Item = Result<(Vec<usize>, Images), Error>;

    fn next(&mut self) -> Option<Self::Item> {
        let positions = self.ahead.pop_front()?;
        let images = match &self.reader {
            Some(reader) => reader.batches.recv().unwrap_or_else(|_| {
                Err(Error::ReadAhead("the reading thread ended before its last batch".into()))
            }),
            None => self.loader.images(&positions),
        };
        if images.is_err() {
            self.ahead.clear();
        }
        Some(images.map(|images| (positions, images)))
    }
}

impl Drop for ReadAhead {
    fn drop(&mut self) {
        if let Some(Reader { batches, thread }) = self.reader.take() {
            // Without a receiver the thread ends after the batch it is at. That it panicked was told by `next`.
            drop(batches);
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::sync::atomic::{AtomicUsize, Ordering};

    use image_prep::Filter;

    use super::*;
    use crate::{Card, Class, InMemory, Item, MemoryImage, Part};

    /// Counts what is decoded; one image may be broken, or make the decoder panic.
    struct Watched {
        inner: InMemory,
        decoded: AtomicUsize,
        broken: Option<usize>,
        panics: Option<usize>,
    }

    impl Dataset for Watched {
        fn card(&self) -> &Card {
            self.inner.card()
        }
        fn classes(&self) -> &[Class] {
            self.inner.classes()
        }
        fn items(&self) -> &[Item] {
            self.inner.items()
        }
        fn image(&self, index: usize) -> Result<Rgb8, Error> {
            self.decoded.fetch_add(1, Ordering::SeqCst);
            assert_ne!(self.panics, Some(index), "a planted panic");
            if self.broken == Some(index) {
                return Err(Error::content("some/broken.png", "an image", "noise"));
            }
            self.inner.image(index)
        }
    }

    fn watched(count: usize) -> Watched {
        let image = |number: usize| MemoryImage {
            part: Part::Train,
            class: "a".into(),
            defect: None,
            image: Rgb8::filled(2 + number % 3, 4, [number as u8, 0, 0]),
            masks: vec![],
        };
        let inner = InMemory::new("toy", (0..count).map(image).collect());
        Watched { inner, decoded: AtomicUsize::new(0), broken: None, panics: None }
    }

    fn loader(dataset: Arc<Watched>, preprocess: Preprocess) -> Arc<Loader> {
        let items = (0..dataset.items().len()).collect();
        Arc::new(Loader::new(dataset, items, preprocess).unwrap())
    }

    fn plain(size: usize) -> Preprocess {
        Preprocess::square(size, Filter::Nearest, [0.0; 3], [1.0; 3])
    }

    fn batches(count: usize, batch: usize) -> Vec<Vec<usize>> {
        (0..count).rev().collect::<Vec<_>>().chunks(batch).map(<[usize]>::to_vec).collect()
    }

    #[test]
    fn batches_come_in_order_and_whole() {
        let loader = loader(Arc::new(watched(50)), plain(2));
        let mut seen = Vec::new();
        for batch in ReadAhead::new(loader, batches(50, 8)) {
            let (positions, images) = batch.unwrap();
            assert_eq!(images.pixels().dims(), [positions.len(), 3, 2, 2]);
            let red = images.pixels().flatten_from(1).unwrap().to_vec2::<f32>().unwrap();
            for ((position, id), red) in positions.iter().zip(images.ids()).zip(red) {
                assert_eq!(*id, format!("train/{position:05}"));
                assert_eq!(red[0], *position as f32 / 255.0);
            }
            seen.extend(positions);
        }
        assert_eq!(seen, (0..50).rev().collect::<Vec<_>>());
    }

    #[test]
    fn what_waits_is_bounded_and_leaving_early_ends_the_thread() {
        let dataset = Arc::new(watched(100));
        // One batch of 2 images fills most of what may wait: 3 * 2048 * 2048 floats are 48 MiB.
        let loader = loader(Arc::clone(&dataset), plain(2048));
        assert_eq!((loader.waiting(2), loader.waiting(1), loader.waiting(100)), (1, 2, 1));
        let mut ahead = ReadAhead::new(loader, batches(100, 2));
        ahead.next().unwrap().unwrap();
        drop(ahead);
        // The batch that was taken, one that waited to be taken, and one the thread was at.
        assert!(dataset.decoded.load(Ordering::SeqCst) <= 6, "{:?}", dataset.decoded);
    }

    #[test]
    fn a_fault_is_told_in_its_place_and_ends_the_epoch() {
        let dataset = Watched { broken: Some(5), ..watched(12) };
        let mut ahead =
            ReadAhead::new(loader(Arc::new(dataset), plain(2)), (0..12).map(|i| vec![i]).collect());
        for _ in 0..5 {
            ahead.next().unwrap().unwrap();
        }
        let message = ahead.next().unwrap().unwrap_err().to_string();
        assert!(message.contains("some/broken.png"), "{message}");
        assert!(ahead.next().is_none());
    }

    #[test]
    fn a_panic_of_the_reader_is_an_error_and_no_short_epoch() {
        let dataset = Watched { panics: Some(3), ..watched(6) };
        let ahead = ReadAhead::new(loader(Arc::new(dataset), plain(2)), (0..6).map(|i| vec![i]).collect());
        let results: Vec<_> = ahead.collect();
        assert_eq!(results.len(), 4);
        assert!(results[3].as_ref().unwrap_err().to_string().contains("reading ahead"));
    }

    #[test]
    fn sizes_that_differ_within_a_batch_are_told() {
        let mut keep = plain(2);
        keep.resize = image_prep::Resize::keep();
        let loader = loader(Arc::new(watched(4)), keep);
        assert_eq!(loader.images(&[0, 3]).unwrap().pixels().dims(), [2, 3, 2, 4]);
        let message = loader.images(&[0, 1]).unwrap_err().to_string();
        assert!(message.contains("train/00001") && message.contains("3 x 4"), "{message}");
        assert!(loader.images(&[]).unwrap().is_empty());
    }

    #[test]
    fn the_pool_may_read_too() {
        let loader = loader(Arc::new(watched(20)), plain(2));
        let pool = rayon::ThreadPoolBuilder::new().num_threads(1).build().unwrap();
        let count = pool
            .install(|| ReadAhead::new(loader, batches(20, 3)).map(|b| b.unwrap().0.len()).sum::<usize>());
        assert_eq!(count, 20);
    }
}
