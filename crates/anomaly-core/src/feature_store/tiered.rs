//! Features in memory, and in a folder behind it.

use candle_core::Tensor;

use super::{DiskFeatureStore, FeatureKey, FeaturePrecision, FeatureStore, MemoryFeatureStore};
use crate::Error;

/// Keeps every feature in a folder, where other processes and later runs find it, and as many as fit in memory too.
#[derive(Debug)]
pub struct TieredFeatureStore {
    memory: MemoryFeatureStore,
    disk: DiskFeatureStore,
}

impl TieredFeatureStore {
    /// At most `memory` bytes of what is kept in `disk`, in the same precision, lie in memory as well.
    pub fn new(memory: usize, disk: DiskFeatureStore) -> Self {
        Self { memory: MemoryFeatureStore::with_precision(memory, disk.precision()), disk }
    }
}

impl FeatureStore for TieredFeatureStore {
    fn get(&self, key: &FeatureKey) -> Result<Option<Tensor>, Error> {
        if let Some(found) = self.memory.get(key)? {
            return Ok(Some(found));
        }
        let found = self.disk.get(key)?;
        if let Some(found) = &found {
            // Rounding what is rounded already changes nothing.
            self.memory.put(key.clone(), found)?;
        }
        Ok(found)
    }

    fn put(&self, key: FeatureKey, feature: &Tensor) -> Result<bool, Error> {
        let in_memory = self.memory.put(key.clone(), feature)?;
        Ok(self.disk.put(key, feature)? || in_memory)
    }

    /// The room on the disk, or in memory if that is more.
    fn room(&self) -> Result<u64, Error> {
        Ok(self.disk.room()?.max(self.memory.room()?))
    }

    fn precision(&self) -> FeaturePrecision {
        self.disk.precision()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::TieredFeatureStore;
    use crate::feature_store::tests::{bits, feature, gives_back_what_it_says, key};
    use crate::feature_store::{DiskFeatureStore, FeaturePrecision, FeatureStore};

    #[test]
    fn what_is_not_in_memory_is_on_the_disk() {
        for precision in [FeaturePrecision::F32, FeaturePrecision::F16] {
            let folder = tempfile::tempdir().unwrap();
            let store = |memory| {
                let disk = DiskFeatureStore::open(folder.path(), 1 << 20, precision).unwrap();
                TieredFeatureStore::new(memory, disk)
            };
            gives_back_what_it_says(&store(100));
            let without_memory = store(0);
            let found = without_memory.get(&key(1)).unwrap().unwrap();
            assert_eq!(bits(&found), bits(&store(100).get(&key(1)).unwrap().unwrap()));
        }
    }

    #[test]
    fn a_full_disk_leaves_the_memory() {
        let folder = tempfile::tempdir().unwrap();
        let disk = DiskFeatureStore::open(folder.path(), 10, FeaturePrecision::F32).unwrap();
        let store = TieredFeatureStore::new(100, disk);
        assert_eq!(store.room().unwrap(), 100);
        assert!(store.put(key(1), &feature()).unwrap());
        assert!(!store.put(key(2), &feature()).unwrap());
        assert!(store.get(&key(1)).unwrap().is_some() && store.get(&key(2)).unwrap().is_none());
    }
}
