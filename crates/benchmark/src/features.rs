//! Where frozen features are kept while cells run.

use std::path::PathBuf;
use std::sync::Arc;

use anomaly_core::{
    DiskFeatureStore, FeaturePrecision, FeatureStore, MemoryFeatureStore, TieredFeatureStore,
};
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
    /// The store. If the folder can't be used there is a warning, and features are kept in memory only.
    pub(crate) fn open(&self) -> Arc<dyn FeatureStore> {
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
            FeatureOptions { memory: 700, folder, precision: FeaturePrecision::F16 }.open()
        };
        assert_eq!(of(file).room().unwrap(), 700);
        let store = of(place.path().join("features"));
        assert_eq!((store.room().unwrap(), store.precision()), (5000, FeaturePrecision::F16));
        assert_eq!(FeatureOptions::default().open().room().unwrap(), 1 << 30);
    }
}
