//! A cell: what its process is told, and the id that hashes all that can change its result.

use std::collections::BTreeMap;
use std::path::PathBuf;

use anomaly_core::{EvalSpec, FeaturePrecision, Precision};
use report::{Cell, Provenance, Results, Status};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::{FeatureOptions, PublishedFigure};

/// Raised whenever a change of this crate changes numbers; part of every cell's id.
pub const REVISION: u32 = 1;

/// One cell of the matrix, as its process is told.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CellSpec {
    /// All that can change the result.
    pub identity: Identity,
    /// The data set's registered name.
    pub registered: String,
    /// Where the data set lies; the usual places if `None`.
    pub root: Option<PathBuf>,
    /// Where to compute: `cpu` or `cuda:N`.
    pub device: String,
    /// The precision that was asked for: what the identity's came from.
    pub precision_setting: String,
    /// Whether the detectors are kept beside the result.
    pub save_detectors: bool,
    /// Where frozen features are kept.
    #[serde(default)]
    pub features: FeatureOptions,
    /// What was published for it.
    pub published: Option<PublishedFigure>,
    /// The commit the program was built from, where known.
    pub commit: Option<String>,
    /// Versions of the program and of what its numbers depend on.
    pub versions: BTreeMap<String, String>,
    /// The data set's licence, in words.
    pub licence: Option<String>,
    /// If problems of the data were accepted, the ids of the items that are left out for them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub left_out: Option<Vec<String>>,
}

/// All that can change a cell's result. Not in it: the folder, the machine, the device, the commit.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Identity {
    /// The method's name.
    pub method: String,
    /// Its configuration with every default filled in.
    pub config: Value,
    /// The backbone's name, if the method has one.
    pub backbone: Option<String>,
    /// sha256 of its weights, in hex; `None` if they could not be had.
    pub weights_sha256: Option<String>,
    /// The data set's name in records: its registered one unless the profile gives it another.
    pub dataset: String,
    /// Who is normal.
    pub protocol: String,
    /// The category.
    pub category: String,
    /// Hash of the data set's content; `None` if it could not be read.
    pub dataset_fingerprint: Option<String>,
    /// Hash of the split: which images train, are held out, test.
    pub split: Option<String>,
    /// At most this many training images.
    pub train_limit: Option<usize>,
    /// At most this many test images.
    pub test_limit: Option<usize>,
    /// The share of training images held out.
    pub held_out: f64,
    /// How maps and masks meet.
    pub eval: EvalSpec,
    /// The arithmetic.
    pub precision: Precision,
    /// In how many bits frozen features are kept. Left out where it is f32: ids are then those of before there was a choice.
    #[serde(default, skip_serializing_if = "is_exact")]
    pub features: FeaturePrecision,
    /// If the cell is judged by a rehearsal in place of test images. Left out of ids where it is not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rehearsal: Option<Rehearsal>,
    /// The seed.
    pub seed: u64,
    /// Revision of each crate that affects numbers.
    pub revisions: BTreeMap<String, u32>,
}

/// A cell that never sees a test image: it is judged by the images that are held out of the training images, as they are and
/// with pasted defects (`datasets::rehearsal`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rehearsal {
    /// Draws the defects.
    pub seed: u64,
    /// Whether the honest choice is made by the method's loss on the held-out images, as they are, which the record then has
    /// as a curve. Left out of ids where it is not.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub by_loss: bool,
}

impl Identity {
    /// Who is normal, as records and tables name it: a rehearsal's figures are never taken for a test's.
    fn protocol_in_words(&self) -> String {
        match self.rehearsal {
            Some(_) => format!("{}, rehearsed with pasted defects", self.protocol),
            None => self.protocol.clone(),
        }
    }

    /// The name for people and for `--only`: `method/dataset/protocol/category/seedN`. Two configurations of one method
    /// share it.
    pub fn name(&self) -> String {
        let Self { method, dataset, protocol, category, seed, .. } = self;
        format!("{method}/{dataset}/{protocol}/{category}/seed{seed}")
    }

    /// The id, also the folder's name: the name's parts, then 16 hexadecimal digits over everything.
    pub fn id(&self) -> String {
        // Serialising numbers, strings and maps with string keys can't fail; were it to, ids would still differ by name.
        let text = serde_json::to_string(self).unwrap_or_default();
        let digest: [u8; 32] = Sha256::digest(text.as_bytes()).into();
        let hash = digest[..8].iter().fold(0_u64, |hash, &byte| hash << 8 | u64::from(byte));
        let readable: String =
            self.name().chars().map(|c| if is_plain(c) { c } else { '-' }).take(96).collect();
        format!("{readable}-{hash:016x}")
    }
}

/// Features that are kept as they are change nothing.
#[allow(clippy::trivially_copy_pass_by_ref, reason = "as serde calls it")]
fn is_exact(features: &FeaturePrecision) -> bool {
    *features == FeaturePrecision::F32
}

/// Characters that are safe in a folder's name everywhere.
fn is_plain(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '_' || c == '.'
}

impl CellSpec {
    /// The cell's id.
    pub fn id(&self) -> String {
        self.identity.id()
    }

    /// The record of a cell without figures.
    pub(crate) fn record(&self, status: Status, error: Option<String>) -> Cell {
        let identity = &self.identity;
        Cell {
            cell: self.id(),
            method: identity.method.clone(),
            dataset: identity.dataset.clone(),
            category: identity.category.clone(),
            protocol: identity.protocol_in_words(),
            seed: identity.seed,
            backbone: identity.backbone.clone(),
            precision: identity.precision.to_string(),
            image_size: identity.config.get("image_size").and_then(Value::as_u64).map(|size| size as usize),
            status,
            error,
            results: Results::default(),
            terms: BTreeMap::new(),
            seconds: None,
            peak_memory_bytes: None,
            published: None,
            curves: BTreeMap::new(),
            pictures: Vec::new(),
            map_scale: None,
            config: identity.config.clone(),
            provenance: Provenance {
                commit: self.commit.clone(),
                versions: self.versions.clone(),
                revisions: identity.revisions.clone(),
                weights_sha256: identity.weights_sha256.clone(),
                dataset_fingerprint: identity.dataset_fingerprint.clone(),
                split_fingerprint: identity.split.clone(),
                left_out: self.left_out.clone().unwrap_or_default(),
                licence: self.licence.clone(),
                device: Some(self.device.clone()),
                precision_setting: Some(self.precision_setting.clone()),
                train_limit: identity.train_limit,
                test_limit: identity.test_limit,
                ..Provenance::default()
            },
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    #![allow(clippy::unwrap_used)]
    use std::collections::BTreeSet;

    use serde_json::{Value, json};

    use super::{CellSpec, Identity};

    pub(crate) fn identity() -> Value {
        json!({
            "method": "toy", "config": {"epochs": 2, "rate": 0.1}, "backbone": "tiny", "weights_sha256": "ab",
            "dataset": "fashion-mnist", "protocol": "unimodal", "category": "T-shirt/top",
            "dataset_fingerprint": "cd", "split": "ef", "train_limit": 10, "test_limit": null, "held_out": 0.1,
            "eval": {"resolution": "original", "mask": "nonzero-nearest"}, "precision": "f32", "seed": 7,
            "revisions": {"toy": 1},
        })
    }

    pub(crate) fn spec() -> CellSpec {
        serde_json::from_value(json!({
            "identity": identity(), "registered": "fashion-mnist", "root": null, "device": "cpu", "precision_setting": "f32",
            "save_detectors": false, "published": null,
            "commit": null, "versions": {}, "licence": null,
        }))
        .unwrap()
    }

    #[test]
    fn whatever_can_change_the_result_changes_the_id() {
        let id = |value: Value| serde_json::from_value::<Identity>(value).unwrap().id();
        let other = json!({
            "method": "other", "config": {"epochs": 3, "rate": 0.1}, "backbone": "large", "weights_sha256": "00",
            "dataset": "mnist", "protocol": "multimodal", "category": "1", "dataset_fingerprint": "00",
            "split": "00", "train_limit": 11, "test_limit": 5, "held_out": 0.2,
            "eval": {"resolution": "network", "mask": "nonzero-nearest"}, "precision": "bf16", "seed": 8,
            "revisions": {"toy": 2}, "features": "f16", "rehearsal": {"seed": 1},
        });
        let mut ids = BTreeSet::from([id(identity())]);
        for (field, value) in other.as_object().unwrap() {
            let mut changed = identity();
            changed[field] = value.clone();
            assert!(ids.insert(id(changed)), "{field}");
        }
        assert_eq!(ids.len(), other.as_object().unwrap().len() + 1);
        let mut by_loss = identity();
        by_loss["rehearsal"] = json!({"seed": 1, "by_loss": true});
        assert!(ids.insert(id(by_loss.clone())));
        // Ids from before there was a choice stay what they were.
        let (mut without, mut not) = (by_loss.clone(), by_loss);
        without["rehearsal"] = json!({"seed": 1});
        not["rehearsal"]["by_loss"] = json!(false);
        assert_eq!(id(without), id(not));
        let mut exact = identity();
        exact["features"] = json!("f32");
        assert_eq!(id(exact), id(identity()));
    }

    #[test]
    fn an_id_is_readable_a_safe_folder_name_and_always_the_same() {
        let spec = spec();
        let id = spec.id();
        assert!(id.starts_with("toy-fashion-mnist-unimodal-T-shirt-top-seed7-"), "{id}");
        assert_eq!(id.rsplit('-').next().unwrap().len(), 16);
        assert_eq!(spec.identity.name(), "toy/fashion-mnist/unimodal/T-shirt/top/seed7");
        let there_and_back: CellSpec = serde_json::from_str(&serde_json::to_string(&spec).unwrap()).unwrap();
        assert_eq!(there_and_back.id(), id);
    }
}
