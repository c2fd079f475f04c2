//! What differs between paired cells besides their figures.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::Value;

use super::pairs::Pair;
use crate::Cell;

/// Something that is not the same in both runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Difference {
    /// What: `config.epochs`, `version.candle-core`, `revision.metrics`, `backbone`, …
    pub what: String,
    /// What the baseline has; `–` for nothing.
    pub baseline: String,
    /// What the run has.
    pub run: String,
    /// In how many pairs.
    pub pairs: usize,
    /// The method, if it is one only.
    pub method: Option<String>,
}

/// The differences of all pairs, equal ones counted together, in the order of their names.
pub(crate) fn differences(pairs: &[Pair<'_>]) -> Vec<Difference> {
    let mut counted: BTreeMap<(String, String, String), (usize, Vec<String>)> = BTreeMap::new();
    for pair in pairs {
        let (first, second) = (facts(pair.first), facts(pair.second));
        let mut names: Vec<&String> = first.keys().chain(second.keys()).collect();
        names.sort();
        names.dedup();
        for name in names {
            let value =
                |facts: &BTreeMap<String, String>| facts.get(name).cloned().unwrap_or_else(|| "–".to_owned());
            let (one, other) = (value(&first), value(&second));
            if one != other {
                let (count, methods) = counted.entry((name.clone(), one, other)).or_default();
                *count += 1;
                if !methods.contains(&pair.first.method) {
                    methods.push(pair.first.method.clone());
                }
            }
        }
    }
    let difference = |((what, baseline, run), (pairs, methods)): (_, (usize, Vec<String>))| {
        let method = if let [method] = &methods[..] { Some(method.clone()) } else { None };
        Difference { what, baseline, run, pairs, method }
    };
    counted.into_iter().map(difference).collect()
}

/// All that is known of how a cell came about.
fn facts(cell: &Cell) -> BTreeMap<String, String> {
    let mut facts = BTreeMap::new();
    flatten("config", &cell.config, &mut facts);
    let provenance = &cell.provenance;
    facts.extend(
        provenance.versions.iter().map(|(name, version)| (format!("version.{name}"), version.clone())),
    );
    facts.extend(
        provenance.revisions.iter().map(|(name, number)| (format!("revision.{name}"), number.to_string())),
    );
    let number = |number: Option<usize>| number.map(|number| number.to_string());
    let known = [
        ("backbone", cell.backbone.clone()),
        ("precision", Some(cell.precision.clone())),
        ("image_size", number(cell.image_size)),
        ("commit", provenance.commit.clone()),
        ("device", provenance.device.clone()),
        ("weights_sha256", provenance.weights_sha256.clone()),
        ("dataset_fingerprint", provenance.dataset_fingerprint.clone()),
        ("split_fingerprint", provenance.split_fingerprint.clone()),
        ("train_limit", number(provenance.train_limit)),
        ("test_limit", number(provenance.test_limit)),
        ("train_images", number(provenance.train_images)),
        ("test_images", number(provenance.test_images)),
    ];
    facts.extend(known.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?))));
    facts
}

fn flatten(path: &str, value: &Value, facts: &mut BTreeMap<String, String>) {
    match value {
        Value::Object(map) => {
            for (name, value) in map {
                flatten(&format!("{path}.{name}"), value, facts);
            }
        }
        Value::Null => {}
        Value::String(text) => {
            facts.insert(path.to_owned(), text.clone());
        }
        leaf => {
            facts.insert(path.to_owned(), leaf.to_string());
        }
    }
}
