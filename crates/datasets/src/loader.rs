//! Chosen items as batches of pixels, decoded by all cores, read ahead in order.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use anomaly_core::{ContentKey, Images};
use candle_core::{Device, Tensor};
use image_prep::{Planar, Preprocess, Rgb8};
use rayon::prelude::*;

use crate::Error;
use crate::dataset::Dataset;

/// How images are loaded: what they cost, never what they are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoadOptions {
    /// Threads that decode and preprocess; as many as there are cores (those of rayon's pool) if `None`.
    pub threads: Option<usize>,
    /// What preprocessed batches that wait to be taken may hold, in bytes; one batch may always wait. 128 MiB unless set.
    pub waiting_bytes: usize,
    /// What preprocessed images that are kept for later epochs may hold, in bytes; none are unless set. When it is full
    /// the images in it stay: of epochs that each go through everything, no other choice finds more of them again.
    pub cache_bytes: usize,
}

impl Default for LoadOptions {
    fn default() -> Self {
        Self { threads: None, waiting_bytes: 128 << 20, cache_bytes: 0 }
    }
}

/// The most batches that wait.
const MOST_WAITING: usize = 4;

/// Some items of a data set, preprocessed one way.
pub(crate) struct Loader {
    pub(crate) dataset: Arc<dyn Dataset>,
    pub(crate) items: Vec<usize>,
    pub(crate) preprocess: Preprocess,
    options: LoadOptions,
    /// Threads of its own, if a number of them was asked for.
    pool: Option<rayon::ThreadPool>,
    cache: Mutex<Cache>,
    /// Content keys by position, once an image was decoded.
    keys: Mutex<HashMap<usize, ContentKey>>,
}

/// Preprocessed images by position, and what they hold.
#[derive(Default)]
struct Cache {
    images: HashMap<usize, Arc<Planar>>,
    bytes: usize,
}

impl Loader {
    pub(crate) fn new(
        dataset: Arc<dyn Dataset>,
        items: Vec<usize>,
        preprocess: Preprocess,
        options: LoadOptions,
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
        let threads = |count: usize| {
            let refused = |found: String| Error::Option {
                field: "threads",
                expected: "at least 1, and no more than the system starts".into(),
                found,
            };
            if count == 0 {
                return Err(refused("0".into()));
            }
            let pool =
                rayon::ThreadPoolBuilder::new().num_threads(count).thread_name(|n| format!("decode-{n}"));
            pool.build().map_err(|error| refused(format!("{count} ({error})")))
        };
        let pool = options.threads.map(threads).transpose()?;
        Ok(Self {
            dataset,
            items,
            preprocess,
            options,
            pool,
            cache: Mutex::default(),
            keys: Mutex::default(),
        })
    }

    /// The same items, loaded in another way.
    pub(crate) fn with_options(&self, options: LoadOptions) -> Result<Self, Error> {
        Self::new(self.dataset.clone(), self.items.clone(), self.preprocess.clone(), options)
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
        if let Some(key) = self.keys().get(&position) {
            return Ok(*key);
        }
        Ok(self.key_of(position, &self.image(position)?))
    }

    /// The key of the image at `position`, noted.
    fn key_of(&self, position: usize, image: &Rgb8) -> ContentKey {
        let known = self.keys().get(&position).copied();
        known.unwrap_or_else(|| {
            let key = ContentKey::of_pixels(image.height, image.width, &image.data);
            self.keys().insert(position, key);
            key
        })
    }

    // A poisoned lock is no obstacle: a key is only ever added whole.
    fn keys(&self) -> MutexGuard<'_, HashMap<usize, ContentKey>> {
        self.keys.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn planes(&self, position: usize) -> Result<Arc<Planar>, Error> {
        // A poisoned lock is no obstacle: an image is only ever added whole.
        let cache = || self.cache.lock().unwrap_or_else(PoisonError::into_inner);
        if self.options.cache_bytes > 0
            && let Some(known) = cache().images.get(&position)
        {
            return Ok(Arc::clone(known));
        }
        let image = self.image(position)?;
        self.key_of(position, &image);
        let planes = self
            .preprocess
            .apply(&image)
            .map_err(|source| Error::Image { id: self.id(position).to_owned(), source })?;
        let planes = Arc::new(planes);
        let bytes = size_of_val(planes.data.as_slice());
        let mut cache = cache();
        if cache.bytes + bytes <= self.options.cache_bytes
            && cache.images.insert(position, Arc::clone(&planes)).is_none()
        {
            cache.bytes += bytes;
        }
        Ok(planes)
    }

    /// The images at `positions` of the list, in this order: `(B, 3, H, W)`.
    pub(crate) fn images(&self, positions: &[usize]) -> Result<Images, Error> {
        self.images_unless(positions, &AtomicBool::new(false))
    }

    /// [`Self::images`], given up between two images once `stop` is set.
    fn images_unless(&self, positions: &[usize], stop: &AtomicBool) -> Result<Images, Error> {
        let decode = || -> Vec<Result<Arc<Planar>, Error>> {
            let one = |&at: &usize| {
                if stop.load(Ordering::Relaxed) {
                    return Err(Error::ReadAhead("stopped".into()));
                }
                self.planes(at)
            };
            positions.par_iter().map(one).collect()
        };
        let decoded = match &self.pool {
            Some(pool) => pool.install(decode),
            None => decode(),
        };
        let (mut planes, mut faults) = (Vec::with_capacity(positions.len()), Vec::new());
        for (one, &position) in decoded.into_iter().zip(positions) {
            match one {
                Ok(one) => planes.push(one),
                Err(fault) => faults.push((position, fault)),
            }
        }
        // In their order, whichever thread met one first.
        let mut faults = faults.into_iter();
        if let Some((_, first)) = faults.next() {
            let others: Vec<String> = faults.map(|(position, _)| self.id(position).to_owned()).collect();
            return Err(if others.is_empty() {
                first
            } else {
                Error::Several { first: Box::new(first), others: others.join("`, `") }
            });
        }
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
        let ids = positions.iter().map(|&at| self.id(at).to_owned()).collect();
        let keys = positions.iter().map(|&at| self.key(at)).collect::<Result<_, _>>()?;
        Ok(Images::new(ids, pixels)?.with_keys(keys)?)
    }

    /// How many batches of this many images may wait.
    fn waiting(&self, batch: usize) -> usize {
        // Of images that keep their own sizes nobody knows before they are decoded.
        let Some((height, width)) = self.preprocess.fixed_output_size() else { return 1 };
        let bytes = (batch * 3 * height * width * size_of::<f32>()).max(1);
        (self.options.waiting_bytes / bytes).clamp(1, MOST_WAITING)
    }
}

/// Batches in their order; one that fails is told in its place and costs no other. A thread decodes the next ones while the last one is worked on, and waits when enough wait.
pub(crate) struct ReadAhead {
    loader: Arc<Loader>,
    /// Batches that the thread has not handed over yet.
    ahead: VecDeque<Vec<usize>>,
    reader: Option<Reader>,
}

struct Reader {
    batches: Receiver<Result<Images, Error>>,
    stop: Arc<AtomicBool>,
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
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let read = move || {
            for positions in batches {
                // The receiver is gone when the epoch was left early.
                if sender.send(loader.images_unless(&positions, &stopped)).is_err() {
                    return;
                }
            }
        };
        let thread = std::thread::Builder::new().name("read-ahead".into()).spawn(read);
        match thread {
            Ok(thread) => Some(Self { batches: receiver, stop, thread }),
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
                // Whatever else was to come is lost with the thread.
                self.ahead.clear();
                Err(Error::ReadAhead("the reading thread ended before its last batch".into()))
            }),
            None => self.loader.images(&positions),
        };
        Some(images.map(|images| (positions, images)))
    }
}

impl Drop for ReadAhead {
    fn drop(&mut self) {
        if let Some(Reader { batches, stop, thread }) = self.reader.take() {
            // The thread ends after the images it is at. That it panicked was told by `next`.
            stop.store(true, Ordering::Relaxed);
            drop(batches);
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::sync::atomic::AtomicUsize;

    use image_prep::Filter;

    use super::*;
    use crate::{Card, Class, InMemory, Item, MemoryImage, Part};

    /// Counts what is decoded; one image may be broken, or make the decoder panic.
    struct Watched {
        inner: InMemory,
        decoded: AtomicUsize,
        broken: Vec<usize>,
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
            if self.broken.contains(&index) {
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
        Watched { inner, decoded: AtomicUsize::new(0), broken: vec![], panics: None }
    }

    fn loader(dataset: Arc<Watched>, preprocess: Preprocess) -> Arc<Loader> {
        loader_with(dataset, preprocess, LoadOptions::default())
    }

    fn loader_with(dataset: Arc<Watched>, preprocess: Preprocess, options: LoadOptions) -> Arc<Loader> {
        let items = (0..dataset.items().len()).collect();
        Arc::new(Loader::new(dataset, items, preprocess, options).unwrap())
    }

    fn plain(size: usize) -> Preprocess {
        Preprocess::square(size, Filter::Nearest, [0.0; 3], [1.0; 3])
    }

    fn batches(count: usize, batch: usize) -> Vec<Vec<usize>> {
        (0..count).rev().collect::<Vec<_>>().chunks(batch).map(<[usize]>::to_vec).collect()
    }

    /// Reads everything backwards, and checks that each image is the one that was asked for.
    fn read_backwards(loader: Arc<Loader>, count: usize) {
        let mut seen = Vec::new();
        for batch in ReadAhead::new(loader, batches(count, 8)) {
            let (positions, images) = batch.unwrap();
            assert_eq!(images.pixels().dims(), [positions.len(), 3, 2, 2]);
            let red = images.pixels().flatten_from(1).unwrap().to_vec2::<f32>().unwrap();
            for ((position, id), red) in positions.iter().zip(images.ids()).zip(red) {
                assert_eq!(*id, format!("train/{position:05}"));
                assert_eq!(red[0], *position as f32 / 255.0);
            }
            seen.extend(positions);
        }
        assert_eq!(seen, (0..count).rev().collect::<Vec<_>>());
    }

    #[test]
    fn batches_come_in_order_and_whole_with_any_number_of_threads() {
        for threads in [None, Some(1), Some(3), Some(16)] {
            let options = LoadOptions { threads, ..LoadOptions::default() };
            read_backwards(loader_with(Arc::new(watched(200)), plain(2), options), 200);
        }
        let none = LoadOptions { threads: Some(0), ..LoadOptions::default() };
        let refused = Loader::new(Arc::new(watched(1)), vec![0], plain(2), none).err().unwrap();
        assert!(refused.to_string().contains("`threads`: expected at least 1"), "{refused}");
    }

    #[test]
    fn a_cache_decodes_once_what_fits_and_nothing_else_changes() {
        let one = 3 * 2 * 2 * size_of::<f32>();
        for (cache_bytes, decoded) in [(0, 120), (10 * one, 100), (10 * one + 5, 100), (1 << 20, 40)] {
            let dataset = Arc::new(watched(40));
            let options = LoadOptions { cache_bytes, threads: Some(4), ..LoadOptions::default() };
            let loader = loader_with(Arc::clone(&dataset), plain(2), options);
            for _ in 0..3 {
                read_backwards(Arc::clone(&loader), 40);
            }
            assert_eq!(dataset.decoded.load(Ordering::SeqCst), decoded, "{cache_bytes}");
            assert!(loader.cache.lock().unwrap().bytes <= cache_bytes);
        }
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
    fn a_fault_is_told_in_its_place_and_loses_no_other_batch() {
        let dataset = Watched { broken: vec![5], ..watched(12) };
        let ahead = ReadAhead::new(loader(Arc::new(dataset), plain(2)), (0..12).map(|i| vec![i]).collect());
        let results: Vec<_> = ahead.collect();
        assert_eq!(results.len(), 12);
        for (at, result) in results.into_iter().enumerate() {
            match result {
                Ok((positions, _)) => assert_eq!(positions, [at]),
                Err(fault) => {
                    assert!(at == 5 && fault.to_string().contains("some/broken.png"), "{at}: {fault}");
                }
            }
        }
    }

    #[test]
    fn of_several_faults_in_a_batch_the_first_is_told_and_the_others_named() {
        let dataset = Watched { broken: vec![2, 4, 7], ..watched(8) };
        let loader = loader(Arc::new(dataset), plain(2));
        let message = loader.images(&[7, 0, 4, 2]).unwrap_err().to_string();
        assert!(message.contains("some/broken.png: expected an image"), "{message}");
        assert!(message.contains("also `train/00004`, `train/00002`"), "{message}");
    }

    #[test]
    fn leaving_early_stops_between_two_images() {
        let dataset = Arc::new(watched(400));
        let options = LoadOptions { threads: Some(2), ..LoadOptions::default() };
        let loader = loader_with(Arc::clone(&dataset), plain(64), options);
        let mut ahead = ReadAhead::new(Arc::clone(&loader), vec![vec![0], (1..400).collect()]);
        ahead.next().unwrap().unwrap();
        ahead.reader.as_ref().unwrap().stop.store(true, Ordering::Relaxed);
        assert!(ahead.next().unwrap().is_err() || dataset.decoded.load(Ordering::SeqCst) == 400);
        drop(ahead);
        // Neither the thread nor what it held is left.
        assert_eq!(Arc::strong_count(&loader), 1);
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
