//! Where frozen features are kept while cells run.

use std::path::PathBuf;
use std::sync::{Arc, OnceLock};

use anomaly_core::{
    DiskFeatureStore, FeatureKey, FeaturePrecision, FeatureStore, MemoryFeatureStore, TieredFeatureStore,
};
use candle_core::Tensor;
use serde::{Deserialize, Serialize};

/// Where features of frozen backbones are kept, and how much of them.
///
/// Only [`FeatureOptions::precision`] can change a number, and only if it is not f32.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FeatureOptions {
    /// At most so many bytes in the memory of each running cell.
    pub memory: u64,
    /// A folder that all cells share, and later runs too; none if `None`.
    pub folder: Option<FeatureFolder>,
    /// In how many bits features are kept.
    pub precision: FeaturePrecision,
}

/// A folder of features.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FeatureFolder {
    /// The folder.
    pub path: PathBuf,
    /// At most so many bytes in it.
    pub budget: u64,
}

impl Default for FeatureOptions {
    /// One GiB of memory, no folder, f32.
    fn default() -> Self {
        Self { memory: 1 << 30, folder: None, precision: FeaturePrecision::F32 }
    }
}

impl FeatureOptions {
    /// The store, opened when it is first used: most methods keep no features, and leave no folder behind.
    pub(crate) fn store(&self) -> Arc<dyn FeatureStore> {
        Arc::new(OnFirstUse { options: self.clone(), store: OnceLock::new() })
    }

    /// The store. If the folder can't be used there is a warning, and features are kept in memory only.
    fn open(&self) -> Arc<dyn FeatureStore> {
        let memory = usize::try_from(self.memory).unwrap_or(usize::MAX);
        if let Some(folder) = &self.folder {
            match DiskFeatureStore::open(&folder.path, folder.budget, self.precision) {
                Ok(disk) => return Arc::new(TieredFeatureStore::new(memory, disk)),
                Err(e) => tracing::warn!("features are kept in memory only: {e}"),
            }
        }
        Arc::new(MemoryFeatureStore::with_precision(memory, self.precision))
    }
}

/// A store that is opened when it is first used.
struct OnFirstUse {
    options: FeatureOptions,
    store: OnceLock<Arc<dyn FeatureStore>>,
}

impl OnFirstUse {
    fn store(&self) -> &dyn FeatureStore {
        &**self.store.get_or_init(|| self.options.open())
    }
}

impl FeatureStore for OnFirstUse {
    fn get(&self, key: &FeatureKey) -> Result<Option<Tensor>, anomaly_core::Error> {
        self.store().get(key)
    }

    fn put(&self, key: FeatureKey, feature: &Tensor) -> Result<bool, anomaly_core::Error> {
        self.store().put(key, feature)
    }

    fn room(&self) -> Result<u64, anomaly_core::Error> {
        self.store().room()
    }

    fn precision(&self) -> FeaturePrecision {
        self.options.precision
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use anomaly_core::FeaturePrecision;

    use super::{FeatureFolder, FeatureOptions};

    #[test]
    fn a_folder_that_cannot_be_used_leaves_the_memory() {
        let place = tempfile::tempdir().unwrap();
        let file = place.path().join("file");
        std::fs::write(&file, "no folder").unwrap();
        let of = |path| {
            let folder = Some(FeatureFolder { path, budget: 5000 });
            FeatureOptions { memory: 700, folder, precision: FeaturePrecision::F16 }.store()
        };
        assert_eq!(of(file).room().unwrap(), 700);
        let store = of(place.path().join("features"));
        assert!(!place.path().join("features").exists());
        assert_eq!((store.room().unwrap(), store.precision()), (5000, FeaturePrecision::F16));
        assert_eq!(FeatureOptions::default().store().room().unwrap(), 1 << 30);
    }
}
