//! MLflow's file layout: folders that its user interface opens without a server.
//!
//! ```text
//! <root>/<experiment>/meta.yaml
//! <root>/<experiment>/<run>/meta.yaml, params/<key>, metrics/<key>, tags/<key>, artifacts/…
//! ```
//! As MLflow 2.8 to 3.17 writes and reads it (`mlflow/store/tracking/file_store.py`).

use std::collections::{BTreeMap, HashMap};
use std::fmt::Write;
use std::path::{Path, PathBuf};

use anomaly_core::{remove_torn_writes, write_atomic};
use serde_json::json;
use sha2::{Digest, Sha256};

use super::plan::{Told, status};
use crate::hex::digest;
use crate::{Error, RunView, Tracker};

/// Runs in MLflow's file layout.
///
/// The id of a run is made from its key, so a run that goes on is found again; all its files are functions of its log, and
/// are written whole or not at all.
#[derive(Debug)]
pub struct MlflowFiles {
    root: PathBuf,
    /// How many lines of each run's log are there.
    written: HashMap<String, usize>,
}

impl MlflowFiles {
    /// Runs below `root`, usually a folder called `mlruns`, which is made when it is needed.
    pub fn new(root: &Path) -> Self {
        Self { root: root.to_owned(), written: HashMap::new() }
    }

    /// The experiment's folder: one with its name if there is one, else a new one.
    fn experiment(&self, name: &str, time: u64) -> Result<(String, PathBuf), Error> {
        make(&self.root)?;
        let listing = std::fs::read_dir(&self.root).map_err(|e| Error::io(&self.root, "can't list", e))?;
        for item in listing {
            let path = item.map_err(|e| Error::io(&self.root, "can't list", e))?.path();
            let meta = std::fs::read_to_string(path.join("meta.yaml")).unwrap_or_default();
            if let Some(id) = path.file_name().and_then(|id| id.to_str())
                && meta
                    .lines()
                    .filter_map(|line| line.strip_prefix("name: "))
                    .any(|found| is_text(found, name))
            {
                return Ok((id.to_owned(), path));
            }
        }
        let id = experiment_id(name);
        let folder = self.root.join(&id);
        make(&folder)?;
        remove_torn_writes(&folder)?;
        let meta = yaml(&[
            ("artifact_location", json!(uri(&folder)?)),
            ("creation_time", json!(time)),
            ("experiment_id", json!(id)),
            ("last_update_time", json!(time)),
            ("lifecycle_stage", json!("active")),
            ("name", json!(name)),
        ]);
        write_atomic(&folder.join("meta.yaml"), meta.as_bytes())?;
        Ok((id, folder))
    }
}

impl Tracker for MlflowFiles {
    fn name(&self) -> String {
        format!("MLflow's files in {}", self.root.display())
    }

    fn update(&mut self, run: &RunView<'_>) -> Result<(), Error> {
        let done = self.written.get(run.key).copied().unwrap_or(0);
        if done == run.lines.len() {
            return Ok(());
        }
        let Some(described) = run.run() else { return Ok(()) };
        let (experiment, folder) = self.experiment(run.experiment, run.start())?;
        let id = run_id(run.key);
        let folder = folder.join(&id);
        if done == 0 {
            // MLflow takes every file for a parameter, metric or tag, also what a killed process was writing.
            remove_torn_writes(&folder)?;
        }
        let told = Told::of(run.lines);
        let new = Told::of(&run.lines[done..]);
        for (name, value) in &new.params {
            put(&folder.join("params").join(name), value)?;
        }
        let own = [
            ("mlflow.runName".to_owned(), described.name.clone()),
            ("vitad.run".to_owned(), run.key.to_owned()),
        ];
        let parent = run.parent.map(|parent| ("mlflow.parentRunId".to_owned(), run_id(parent)));
        for (name, value) in new.tags.into_iter().chain(own).chain(parent) {
            put(&folder.join("tags").join(name), &value)?;
        }
        let mut metrics: BTreeMap<&str, String> = BTreeMap::new();
        for point in &told.points {
            let file = metrics.entry(&point.key).or_default();
            let value = if point.value.0.is_finite() {
                point.value.to_string()
            } else {
                word(point.value.0).to_owned()
            };
            // Writing to a string can't fail.
            let _ = writeln!(file, "{} {value} {}", point.time, point.step);
        }
        for (name, points) in metrics {
            put(&folder.join("metrics").join(name), &points)?;
        }
        let artifacts = folder.join("artifacts");
        // A run without one of these folders is none to MLflow.
        for name in ["params", "metrics", "tags", "artifacts"] {
            make(&folder.join(name))?;
        }
        if run.ending().is_some() {
            for artifact in run.artifacts {
                let bytes =
                    std::fs::read(&artifact.path).map_err(|e| Error::io(&artifact.path, "can't read", e))?;
                put_bytes(&artifacts.join(&artifact.name), &bytes)?;
            }
        }
        let (_, status) = status(run.ending().map(|(ending, _)| ending));
        let meta = yaml(&[
            ("artifact_uri", json!(uri(&artifacts)?)),
            ("end_time", json!(run.ending().map(|(_, time)| time))),
            ("entry_point_name", json!("")),
            ("experiment_id", json!(experiment)),
            ("lifecycle_stage", json!("active")),
            ("run_id", json!(id)),
            ("run_name", json!(described.name)),
            ("run_uuid", json!(id)),
            ("source_name", json!("")),
            ("source_type", json!(4)),
            ("source_version", json!("")),
            ("start_time", json!(run.start())),
            ("status", json!(status)),
            ("tags", json!([])),
            ("user_id", json!("vitad")),
        ]);
        put(&folder.join("meta.yaml"), &meta)?;
        self.written.insert(run.key.to_owned(), run.lines.len());
        Ok(())
    }
}

/// A file of MLflow's for a number that is not finite, as Python reads it.
fn word(value: f64) -> &'static str {
    if value.is_nan() {
        "nan"
    } else if value > 0.0 {
        "inf"
    } else {
        "-inf"
    }
}

/// Whether a value in YAML, plain or quoted, is `text`.
fn is_text(value: &str, text: &str) -> bool {
    let value = value.trim();
    value == text
        || serde_json::from_str::<String>(value).is_ok_and(|found| found == text)
        || value
            .strip_prefix('\'')
            .and_then(|v| v.strip_suffix('\''))
            .is_some_and(|v| v.replace("''", "'") == text)
}

/// A flat YAML file: JSON's values are YAML's.
fn yaml(fields: &[(&str, serde_json::Value)]) -> String {
    fields
        .iter()
        .flat_map(|(name, value)| [(*name).to_owned(), ": ".to_owned(), value.to_string(), "\n".to_owned()])
        .collect()
}

/// A run's id: 32 hexadecimal digits.
fn run_id(key: &str) -> String {
    digest(key, 32)
}

/// An experiment's id: 18 decimal digits.
fn experiment_id(name: &str) -> String {
    let digest = Sha256::digest(name.as_bytes());
    let number = digest[..8].iter().fold(0_u64, |number, &byte| number << 8 | u64::from(byte));
    format!("{}", 100_000_000_000_000_000 + number % 900_000_000_000_000_000)
}

/// A folder as an address.
fn uri(folder: &Path) -> Result<String, Error> {
    let folder = std::path::absolute(folder).map_err(|e| Error::io(folder, "can't find the folder", e))?;
    let text = folder.to_string_lossy().replace('\\', "/");
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~/:".contains(&byte);
    let escaped: String = text
        .bytes()
        .map(|byte| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") })
        .collect();
    Ok(format!("file://{}{escaped}", if escaped.starts_with('/') { "" } else { "/" }))
}

fn make(folder: &Path) -> Result<(), Error> {
    std::fs::create_dir_all(folder).map_err(|e| Error::io(folder, "can't make the folder", e))
}

fn put(path: &Path, text: &str) -> Result<(), Error> {
    put_bytes(path, text.as_bytes())
}

/// Writes a file unless it holds the same already.
fn put_bytes(path: &Path, bytes: &[u8]) -> Result<(), Error> {
    if std::fs::read(path).is_ok_and(|there| there == bytes) {
        return Ok(());
    }
    if let Some(folder) = path.parent() {
        make(folder)?;
    }
    Ok(write_atomic(path, bytes)?)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::collections::BTreeMap;
    use std::path::Path;

    use super::{MlflowFiles, is_text, run_id};
    use crate::example::lines;
    use crate::{Artifact, RunView, Tracker};

    fn files(folder: &Path) -> BTreeMap<String, String> {
        let mut found = BTreeMap::new();
        let mut open = vec![folder.to_owned()];
        while let Some(next) = open.pop() {
            for item in next.read_dir().unwrap() {
                let path = item.unwrap().path();
                if path.is_dir() {
                    open.push(path);
                } else {
                    let name = path.strip_prefix(folder).unwrap().to_str().unwrap().to_owned();
                    found.insert(name, String::from_utf8(std::fs::read(&path).unwrap()).unwrap());
                }
            }
        }
        found
    }

    #[test]
    fn a_run_lies_as_mlflow_expects_it_and_once() {
        let folder = tempfile::tempdir().unwrap();
        let report = folder.path().join("report");
        std::fs::write(&report, "figures").unwrap();
        let artifacts = [Artifact { name: "tables/report.html".into(), path: report }];
        let lines = lines();
        let root = folder.path().join("mlruns");
        for count in [1, 4, 5, lines.len(), lines.len()] {
            let run = RunView {
                key: "m/c",
                parent: Some("m"),
                experiment: "smoke",
                lines: &lines[..count],
                artifacts: &artifacts,
            };
            MlflowFiles::new(&root).update(&run).unwrap();
            // As if the process were killed while it wrote the next tag.
            let experiment = root.read_dir().unwrap().next().unwrap().unwrap().path();
            std::fs::write(experiment.join(run_id("m/c")).join("tags/.aZ09xY.tmp"), "torn").unwrap();
        }
        let run = RunView {
            key: "m/c",
            parent: Some("m"),
            experiment: "smoke",
            lines: &lines,
            artifacts: &artifacts,
        };
        MlflowFiles::new(&root).update(&run).unwrap();
        let found = files(&root);
        assert!(found.keys().all(|name| !name.contains(".aZ09xY")), "{:?}", found.keys());
        let id = run_id("m/c");
        let (experiment, _) = found.keys().next().unwrap().split_once('/').unwrap();
        assert_eq!((experiment.len(), id.len()), (18, 32));
        let file = |name: &str| found[&format!("{experiment}/{id}/{name}")].as_str();
        let loss = "1700000001000 0.5 1\n1700000002000 nan 2\n1700000003500 0.125 3\n";
        assert_eq!(file("metrics/loss"), loss);
        assert_eq!(file("metrics/figures/last/image_auroc"), "1700000004000 0.75 0\n");
        assert_eq!(file("params/config.epochs"), "3");
        assert_eq!(file("tags/mlflow.parentRunId"), run_id("m"));
        assert_eq!(file("artifacts/tables/report.html"), "figures");
        let meta = file("meta.yaml");
        for line in [
            "status: 3",
            "end_time: 1700000004500",
            "start_time: 1700000000000",
            "lifecycle_stage: \"active\"",
        ] {
            assert!(meta.lines().any(|found| found == line), "{line} in {meta}");
        }
        assert_eq!(found.keys().filter(|name| name.ends_with("meta.yaml")).count(), 2);
    }

    #[test]
    fn a_run_that_only_began_has_all_its_folders() {
        let folder = tempfile::tempdir().unwrap();
        let lines = [crate::Line { time: 1, what: crate::What::Run(crate::Run::default()) }];
        let run = RunView { key: "m", parent: None, experiment: "smoke", lines: &lines, artifacts: &[] };
        MlflowFiles::new(folder.path()).update(&run).unwrap();
        let experiment = folder.path().read_dir().unwrap().next().unwrap().unwrap().path();
        for name in ["params", "metrics", "tags", "artifacts"] {
            assert!(experiment.join(run_id("m")).join(name).is_dir(), "{name}");
        }
    }

    #[test]
    fn an_experiment_of_the_name_is_used_whoever_made_it() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("7")).unwrap();
        std::fs::write(folder.path().join("7/meta.yaml"), "experiment_id: '7'\nname: smoke\n").unwrap();
        let lines = lines();
        let run = RunView { key: "m", parent: None, experiment: "smoke", lines: &lines, artifacts: &[] };
        MlflowFiles::new(folder.path()).update(&run).unwrap();
        assert!(folder.path().join("7").join(run_id("m")).join("meta.yaml").exists());
    }

    #[test]
    fn texts_of_yaml_are_read_in_each_form() {
        assert!(
            is_text("smoke", "smoke") && is_text("\"a \\\"b\\\"\"", "a \"b\"") && is_text("'it''s'", "it's")
        );
        assert!(!is_text("smoke2", "smoke"));
    }
}
