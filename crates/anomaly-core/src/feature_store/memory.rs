//! Features in memory.

use std::collections::HashMap;
use std::sync::Mutex;

use candle_core::Tensor;

use super::{FeatureKey, FeaturePrecision, FeatureStore};
use crate::Error;

/// Keeps features in memory up to a budget; beyond it nothing more is kept, and what is kept stays.
#[derive(Debug)]
pub struct MemoryFeatureStore {
    budget: usize,
    precision: FeaturePrecision,
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
        Self::with_precision(budget, FeaturePrecision::F32)
    }

    /// A store of at most `budget` bytes that keeps features so.
    pub fn with_precision(budget: usize, precision: FeaturePrecision) -> Self {
        Self { budget, precision, kept: Mutex::default() }
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
        let kept = self.lock().features.get(key).cloned();
        kept.map(|kept| self.precision.given(&kept)).transpose()
    }

    fn put(&self, key: FeatureKey, feature: &Tensor) -> Result<bool, Error> {
        // Looked at before the copy is made, so that a full store costs nothing.
        let an_element = match (self.precision, feature.dtype()) {
            (FeaturePrecision::F16, candle_core::DType::F32) => 2,
            (_, dtype) => dtype.size_in_bytes(),
        };
        let bytes = feature.elem_count() * an_element;
        {
            let kept = self.lock();
            let known = kept.features.contains_key(&key);
            if known || kept.bytes + bytes > self.budget {
                return Ok(known);
            }
        }
        // A copy of its own: a view would keep the whole batch it was cut from in memory.
        let copy = self.precision.kept(feature)?;
        let mut kept = self.lock();
        if kept.bytes + bytes > self.budget {
            return Ok(kept.features.contains_key(&key));
        }
        if kept.features.insert(key, copy).is_none() {
            kept.bytes += bytes;
        }
        Ok(true)
    }

    fn room(&self) -> Result<u64, Error> {
        Ok((self.budget - self.lock().bytes) as u64)
    }

    fn precision(&self) -> FeaturePrecision {
        self.precision
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::MemoryFeatureStore;
    use crate::feature_store::tests::{bits, feature, gives_back_what_it_says, key};
    use crate::feature_store::{FeaturePrecision, FeatureStore};

    #[test]
    fn features_come_back_bit_equal_until_the_budget_is_full() {
        let store = MemoryFeatureStore::new(100);
        assert!(store.put(key(0), &feature()).unwrap());
        assert_eq!(store.room().unwrap(), 20);
        assert!(!store.put(key(1), &feature()).unwrap());
        assert!(store.put(key(0), &feature()).unwrap());
        let back = store.get(&key(0)).unwrap().unwrap();
        assert_eq!(bits(&back), bits(&feature()));
        assert!(store.get(&key(1)).unwrap().is_none());
        assert_eq!(store.bytes(), 80);
    }

    #[test]
    fn both_precisions_give_back_what_they_say() {
        gives_back_what_it_says(&MemoryFeatureStore::default());
        let half = MemoryFeatureStore::with_precision(60, FeaturePrecision::F16);
        gives_back_what_it_says(&half);
        assert_eq!(half.bytes(), 50);
    }
}
