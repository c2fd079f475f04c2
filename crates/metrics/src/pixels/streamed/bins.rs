//! Counts by the leading bits of a key.

use crate::score::sealed::Sealed;

/// Bins are made for all keys with the same upper 16 bits at once.
pub(super) const PREFIXES: usize = 1 << 16;
/// Keys are shortened by at most this many bits: one bin for a prefix.
pub(super) const MOST_SHIFT: u32 = 16;

pub(super) fn prefix_of(key: u32) -> usize {
    (key >> 16) as usize
}

/// What is counted of anomalous pixels.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Found {
    pub(super) pixels: u64,
    /// In shares of a region, summed over regions.
    pub(super) overlap: u64,
}

/// What a bin holds.
pub(super) trait Count: Copy + Default + PartialEq {
    fn plus(self, other: Self) -> Self;
}

impl Count for u64 {
    fn plus(self, other: Self) -> Self {
        self + other
    }
}

impl Count for Found {
    fn plus(self, other: Self) -> Self {
        Self { pixels: self.pixels + other.pixels, overlap: self.overlap + other.overlap }
    }
}

/// The bins of one kind of pixels. All that have the same prefix are made when the first of them is needed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Bins<T> {
    pages: Vec<Option<Box<[T]>>>,
    shift: u32,
}

impl<T: Count> Bins<T> {
    pub(super) fn new() -> Self {
        Self { pages: vec![None; PREFIXES], shift: 0 }
    }

    /// By how many bits keys are shortened.
    pub(super) fn shift(&self) -> u32 {
        self.shift
    }

    pub(super) fn bins_per_prefix(&self) -> usize {
        1 << (MOST_SHIFT - self.shift)
    }

    /// The lowest key of a bin.
    pub(super) fn lowest(&self, prefix: usize, bin: usize) -> u32 {
        (prefix as u32) << 16 | (bin as u32) << self.shift
    }

    pub(super) fn get(&self, prefix: usize, bin: usize) -> T {
        self.pages[prefix].as_ref().map_or(T::default(), |page| page[bin])
    }

    /// The bins of a prefix.
    pub(super) fn page_mut(&mut self, prefix: usize) -> &mut [T] {
        let bins = self.bins_per_prefix();
        self.pages[prefix].get_or_insert_with(|| vec![T::default(); bins].into_boxed_slice())
    }

    /// The bin of a key.
    pub(super) fn at(&mut self, key: u32) -> &mut T {
        let bin = (key & 0xffff) >> self.shift;
        &mut self.page_mut(prefix_of(key))[bin as usize]
    }

    /// Shortens keys to `shift` bits less, if they are longer.
    pub(super) fn widen(&mut self, shift: u32) {
        if shift <= self.shift {
            return;
        }
        let merged = 1 << (shift - self.shift);
        for page in self.pages.iter_mut().flatten() {
            let wide = page.chunks(merged).map(|bins| bins.iter().fold(T::default(), |a, &b| a.plus(b)));
            *page = wide.collect();
        }
        self.shift = shift;
    }

    /// Adds the counts of bins that are at most as wide.
    pub(super) fn merge(&mut self, other: &Self) {
        let merged = 1 << (self.shift - other.shift);
        for (prefix, from) in other.pages.iter().enumerate() {
            let Some(from) = from else { continue };
            for (bin, bins) in self.page_mut(prefix).iter_mut().zip(from.chunks(merged)) {
                *bin = bins.iter().fold(*bin, |a, &b| a.plus(b));
            }
        }
    }
}

impl Bins<u64> {
    /// Counts scores whose bins are there or can be made.
    pub(super) fn count(&mut self, scores: &[f32]) {
        for score in scores {
            *self.at(score.key()) += 1;
        }
    }
}
