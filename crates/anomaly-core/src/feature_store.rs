//! Features of a frozen backbone, computed once and kept.

use std::collections::HashMap;
use std::sync::Mutex;

use candle_core::Tensor;

use crate::{ContentKey, Error, Precision};

/// All that a frozen feature depends on.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct FeatureKey {
    /// sha256 of the backbone's weights, in hex.
    pub weights: String,
    /// Which output of the backbone (blocks, norm, tokens): the method's own words, the same for the same tensors.
    pub output: String,
    /// The preprocessing, as its JSON.
    pub preprocess: String,
    /// The arithmetic.
    pub precision: Precision,
    /// The image.
    pub image: ContentKey,
}

/// Keeps features. What it gives back is bit-equal to what was put.
pub trait FeatureStore: Send + Sync {
    /// The feature under `key`, on the device it was put from; `None` if it isn't kept.
    ///
    /// # Errors
    /// If what is kept can't be read.
    fn get(&self, key: &FeatureKey) -> Result<Option<Tensor>, Error>;

    /// Keeps `feature`, if there is room; says whether it was kept.
    ///
    /// # Errors
    /// If it can't be written.
    fn put(&self, key: FeatureKey, feature: &Tensor) -> Result<bool, Error>;
}

/// Keeps features in memory up to a budget; beyond it nothing more is kept, and what is kept stays.
#[derive(Debug)]
pub struct MemoryFeatureStore {
    budget: usize,
    kept: Mutex<Kept>,
}

#[derive(Debug, Default)]
struct Kept {
    bytes: usize,
    features: HashMap<FeatureKey, Tensor>,
}

impl MemoryFeatureStore {
    /// A store of at most `budget` bytes.
    pub fn new(budget: usize) -> Self {
        Self { budget, kept: Mutex::default() }
    }

    /// How many bytes of features are kept.
    pub fn bytes(&self) -> usize {
        self.lock().bytes
    }

    // A panic while the lock was held leaves a map that is whole: insertions are single steps.
    fn lock(&self) -> std::sync::MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

impl Default for MemoryFeatureStore {
    /// One GiB.
    fn default() -> Self {
        Self::new(1 << 30)
    }
}

impl FeatureStore for MemoryFeatureStore {
    fn get(&self, key: &FeatureKey) -> Result<Option<Tensor>, Error> {
        Ok(self.lock().features.get(key).cloned())
    }

    fn put(&self, key: FeatureKey, feature: &Tensor) -> Result<bool, Error> {
        let bytes = feature.elem_count() * feature.dtype().size_in_bytes();
        let mut kept = self.lock();
        if kept.bytes + bytes > self.budget || kept.features.contains_key(&key) {
            return Ok(kept.features.contains_key(&key));
        }
        // A copy of its own: a view would keep the whole batch it was cut from in memory.
        let copy = feature.detach().force_contiguous()?;
        kept.bytes += bytes;
        kept.features.insert(key, copy);
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use candle_core::{Device, Tensor};

    use super::{FeatureKey, FeatureStore, MemoryFeatureStore};
    use crate::{ContentKey, Precision};

    fn key(byte: u8) -> FeatureKey {
        FeatureKey {
            weights: "w".into(),
            output: "norm".into(),
            preprocess: "{}".into(),
            precision: Precision::F32,
            image: ContentKey([byte; 32]),
        }
    }

    #[test]
    fn features_come_back_bit_equal_until_the_budget_is_full() {
        let store = MemoryFeatureStore::new(100);
        let feature = Tensor::arange(0_f32, 20., &Device::Cpu).unwrap();
        assert!(store.put(key(0), &feature).unwrap());
        assert!(!store.put(key(1), &feature).unwrap());
        let back = store.get(&key(0)).unwrap().unwrap();
        assert_eq!(back.to_vec1::<f32>().unwrap(), feature.to_vec1::<f32>().unwrap());
        assert!(store.get(&key(1)).unwrap().is_none());
        assert_eq!(store.bytes(), 80);
    }
}
