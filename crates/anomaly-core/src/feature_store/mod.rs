//! Features of a frozen backbone, computed once and kept.

mod disk;
mod mapped;
mod memory;
mod tiered;

use candle_core::{DType, Device, Tensor};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

pub use disk::DiskFeatureStore;
pub use memory::MemoryFeatureStore;
pub use tiered::TieredFeatureStore;

use crate::hex::hex;
use crate::{ContentKey, Error, MethodError, Precision};

/// All that a frozen feature depends on.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct FeatureKey {
    /// sha256 of the backbone's weights, in hex.
    pub weights: String,
    /// Which output of the backbone (blocks, norm, tokens), computed how (sizes, revision of the code, kind of device):
    /// the method's own words, the same for the same tensors.
    pub output: String,
    /// The preprocessing, as its JSON.
    pub preprocess: String,
    /// The arithmetic.
    pub precision: Precision,
    /// The image.
    pub image: ContentKey,
}

impl FeatureKey {
    /// sha256 over all of it, in hex.
    pub(crate) fn digest(&self, kept: FeaturePrecision) -> String {
        let mut hash = Sha256::new();
        for part in [
            kept.as_str().as_bytes(),
            self.weights.as_bytes(),
            self.output.as_bytes(),
            self.preprocess.as_bytes(),
            self.precision.as_str().as_bytes(),
            &self.image.0,
        ] {
            // With its length, so that no two keys run into the same bytes.
            hash.update((part.len() as u64).to_le_bytes());
            hash.update(part);
        }
        let digest: [u8; 32] = hash.finalize().into();
        hex(&digest)
    }
}

/// In how many bits features are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum FeaturePrecision {
    /// As they were computed: what comes back is bit-equal.
    #[default]
    F32,
    /// Rounded to 16-bit floats, in half the room: a relative error of up to 5e-4 in every number. A method then learns
    /// from rounded features, whether they were kept or not.
    F16,
}

impl FeaturePrecision {
    /// The name used in records and on command lines.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::F16 => "f16",
        }
    }

    /// The form in which `feature` is kept: contiguous, by itself, without a graph.
    fn kept(self, feature: &Tensor) -> Result<Tensor, Error> {
        let feature = feature.detach();
        Ok(match (self, feature.dtype()) {
            (Self::F16, DType::F32) => feature.to_dtype(DType::F16)?.force_contiguous()?,
            _ => feature.force_contiguous()?,
        })
    }

    /// What a kept feature is given back as.
    fn given(self, kept: &Tensor) -> Result<Tensor, Error> {
        Ok(match (self, kept.dtype()) {
            (Self::F16, DType::F16) => kept.to_dtype(DType::F32)?,
            _ => kept.clone(),
        })
    }
}

impl std::fmt::Display for FeaturePrecision {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

impl std::str::FromStr for FeaturePrecision {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "f32" => Ok(Self::F32),
            "f16" => Ok(Self::F16),
            other => Err(format!("expected `f32` or `f16`, found `{other}`")),
        }
    }
}

/// One kind of frozen feature: all that it depends on but the image, as in [`FeatureKey`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FeatureSource {
    /// sha256 of the backbone's weights, in hex.
    pub weights: String,
    /// Which output of the backbone, computed how.
    pub output: String,
    /// The preprocessing, as its JSON.
    pub preprocess: String,
    /// The arithmetic.
    pub precision: Precision,
}

impl FeatureSource {
    /// The key of this feature of `image`.
    pub fn key(&self, image: ContentKey) -> FeatureKey {
        let Self { weights, output, preprocess, precision } = self.clone();
        FeatureKey { weights, output, preprocess, precision, image }
    }

    /// Whether this feature of `image` is in `store`.
    ///
    /// # Errors
    /// If what is kept can't be read.
    pub fn is_kept(&self, store: &dyn FeatureStore, image: ContentKey) -> Result<bool, Error> {
        Ok(store.get(&self.key(image))?.is_some())
    }

    /// The features `(B, …)` of `images`, on `device`, from `store` as far as it has them. `compute` is given the places in
    /// `images` of those that are missing, and gives theirs, stacked; they are kept from then on, if there is room.
    ///
    /// # Errors
    /// What the store or `compute` gave.
    pub fn once(
        &self,
        store: &dyn FeatureStore,
        images: &[ContentKey],
        device: &Device,
        compute: &mut dyn FnMut(&[usize]) -> Result<Tensor, MethodError>,
    ) -> Result<Tensor, MethodError> {
        let keys: Vec<FeatureKey> = images.iter().map(|image| self.key(*image)).collect();
        let mut rows = keys.iter().map(|key| store.get(key)).collect::<Result<Vec<_>, _>>()?;
        let missing: Vec<usize> = (0..rows.len()).filter(|at| rows[*at].is_none()).collect();
        if !missing.is_empty() {
            let features = compute(&missing)?;
            for (from, at) in missing.into_iter().enumerate() {
                let feature = features.get(from).map_err(Error::from)?;
                rows[at] = Some(store.keep(&keys[at], &feature)?);
            }
        }
        let rows = rows.into_iter().flatten().map(|row| row.to_device(device));
        let rows: Vec<Tensor> = rows.collect::<Result<_, _>>().map_err(Error::from)?;
        Ok(Tensor::stack(&rows, 0).map_err(Error::from)?)
    }
}

/// Keeps features. What it gives back has the bits of what was put, rounded as [`FeatureStore::precision`] says.
pub trait FeatureStore: Send + Sync {
    /// The feature under `key`; `None` if it isn't kept. It lies on the device it was put from if it was kept in memory, on
    /// the host otherwise.
    ///
    /// # Errors
    /// If what is kept can't be read. What is there and damaged counts as not kept.
    fn get(&self, key: &FeatureKey) -> Result<Option<Tensor>, Error>;

    /// Keeps `feature`, if there is room; says whether it is kept.
    ///
    /// # Errors
    /// If it can't be written.
    fn put(&self, key: FeatureKey, feature: &Tensor) -> Result<bool, Error>;

    /// How many more bytes there is room for.
    ///
    /// # Errors
    /// If that can't be found out.
    fn room(&self) -> Result<u64, Error>;

    /// In how many bits features are kept.
    fn precision(&self) -> FeaturePrecision {
        FeaturePrecision::F32
    }

    /// Whether what it gives back is bit-equal to what was put.
    fn is_exact(&self) -> bool {
        self.precision() == FeaturePrecision::F32
    }

    /// How many bytes a feature of `numbers` f32 numbers takes.
    fn bytes_of(&self, numbers: u64) -> u64 {
        match self.precision() {
            FeaturePrecision::F32 => 4 * numbers,
            FeaturePrecision::F16 => 2 * numbers,
        }
    }

    /// Keeps `feature`, if there is room, and returns it as [`FeatureStore::get`] would: so that a result does not depend
    /// on whether there was room.
    ///
    /// # Errors
    /// As [`FeatureStore::put`].
    fn keep(&self, key: &FeatureKey, feature: &Tensor) -> Result<Tensor, Error> {
        self.put(key.clone(), feature)?;
        let precision = self.precision();
        precision.given(&precision.kept(feature)?)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    #![allow(clippy::unwrap_used)]
    use candle_core::{Device, Tensor};

    use super::{FeatureKey, FeaturePrecision, FeatureStore};
    use crate::{ContentKey, Precision};

    pub(crate) fn key(byte: u8) -> FeatureKey {
        FeatureKey {
            weights: "w".into(),
            output: "norm".into(),
            preprocess: "{}".into(),
            precision: Precision::F32,
            image: ContentKey([byte; 32]),
        }
    }

    /// Twenty numbers that f16 can't hold.
    pub(crate) fn feature() -> Tensor {
        let values: Vec<f32> = (0..20_u8).map(|i| f32::from(i) / 7.0 - 1.0).collect();
        Tensor::from_vec(values, (4, 5), &Device::Cpu).unwrap()
    }

    pub(crate) fn bits(tensor: &Tensor) -> Vec<u32> {
        tensor.flatten_all().unwrap().to_vec1::<f32>().unwrap().into_iter().map(f32::to_bits).collect()
    }

    /// What every store does, whatever it keeps features in.
    pub(crate) fn gives_back_what_it_says(store: &dyn FeatureStore) {
        assert!(store.get(&key(1)).unwrap().is_none());
        let kept = store.keep(&key(1), &feature()).unwrap();
        let back = store.get(&key(1)).unwrap().unwrap();
        assert_eq!(back.dims(), [4, 5]);
        assert_eq!(bits(&back), bits(&kept));
        assert_eq!(bits(&back) == bits(&feature()), store.is_exact());
        let error = (back - feature()).unwrap().abs().unwrap().max_all().unwrap().to_scalar::<f32>().unwrap();
        assert!(error < 1e-3);
        // Nothing of it is left out where only a part of a larger tensor was put.
        let row = feature().get(2).unwrap();
        store.put(key(2), &row).unwrap();
        let given = store.keep(&key(2), &row).unwrap();
        assert_eq!(bits(&store.get(&key(2)).unwrap().unwrap()), bits(&given));
        assert!(store.get(&key(3)).unwrap().is_none());
    }

    #[test]
    fn every_part_of_a_key_counts() {
        let base = key(0);
        let mut digests = std::collections::BTreeSet::from([
            base.digest(FeaturePrecision::F32),
            base.digest(FeaturePrecision::F16),
            key(1).digest(FeaturePrecision::F32),
        ]);
        let others = [
            FeatureKey { weights: "wn".into(), output: "orm".into(), ..base.clone() },
            FeatureKey { weights: "v".into(), ..base.clone() },
            FeatureKey { output: "block 1".into(), ..base.clone() },
            FeatureKey { preprocess: "{1}".into(), ..base.clone() },
            FeatureKey { precision: Precision::Bf16, ..base },
        ];
        digests.extend(others.iter().map(|key| key.digest(FeaturePrecision::F32)));
        assert_eq!(digests.len(), 8);
    }

    #[test]
    fn precisions_are_read_and_written() {
        for precision in [FeaturePrecision::F32, FeaturePrecision::F16] {
            assert_eq!(precision.to_string().parse(), Ok(precision));
        }
        assert!("f64".parse::<FeaturePrecision>().unwrap_err().contains("`f64`"));
    }
}
