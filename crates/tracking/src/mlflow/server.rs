//! Runs on an MLflow server, through its REST interface (MLflow's documentation, "REST API", version 2.0 of the paths).

use std::collections::HashMap;

use serde_json::{Value, json};

use super::access::ServerAccess;
use super::http::Client;
use super::plan::{Point, Told, status};
use crate::{Artifact, Error, RunView, Tracker};

/// The tag that a run is found by.
const KEY: &str = "vitad.run";
/// The tag that says how many lines of the run's log the server has.
const CURSOR: &str = "vitad.lines";
/// What one request may carry, by the server's limits.
const POINTS: usize = 800;
const PARAMS: usize = 90;
const TAGS: usize = 90;

/// Runs on an MLflow server.
///
/// The server itself says how far each run is: a run is looked for by a tag before it is made, and another tag, sent after the
/// points it speaks of, holds how many lines of the log are there. A process that was killed in between sends the same
/// points again, with the same times, which the server keeps once.
#[derive(Debug)]
pub struct MlflowServer {
    client: Client,
    experiments: HashMap<String, String>,
    runs: HashMap<String, Known>,
    /// Whether it was said that this server takes no files.
    told_of_files: bool,
}

/// What is known of a run on the server.
#[derive(Debug, Clone, Default)]
struct Known {
    id: String,
    lines: usize,
    artifact_uri: String,
}

impl MlflowServer {
    /// The server at `url`, such as `http://127.0.0.1:5000`, asked as nobody and straight, whatever the environment says.
    /// Nothing is asked yet.
    ///
    /// # Errors
    /// As [`MlflowServer::with_access`].
    pub fn new(url: &str) -> Result<Self, Error> {
        Self::with_access(url, &ServerAccess::default())
    }

    /// The server at `url`, asked as `access` says. Nothing is asked yet.
    ///
    /// # Errors
    /// [`Error::Destination`] unless it is an `http` or `https` address, without a name and a password: it is shown in messages.
    pub fn with_access(url: &str, access: &ServerAccess) -> Result<Self, Error> {
        let rest = url.strip_prefix("http://").or_else(|| url.strip_prefix("https://")).unwrap_or_default();
        if rest.is_empty() || rest.starts_with('/') {
            let expected = "an address that begins with http:// or https://";
            return Err(Error::Destination { expected, found: url.to_owned() });
        }
        let host = rest.split('/').next().unwrap_or_default();
        if let Some((_, host)) = host.rsplit_once('@') {
            let expected = "an address without a name and a password, which MLFLOW_TRACKING_USERNAME and \
                            MLFLOW_TRACKING_PASSWORD may hold";
            return Err(Error::Destination { expected, found: format!("…@{host}") });
        }
        let client = Client::new(url.trim_end_matches('/'), access);
        Ok(Self { client, experiments: HashMap::new(), runs: HashMap::new(), told_of_files: false })
    }

    fn call(&self, path: &str, body: &Value) -> Result<Value, Error> {
        self.client.post(&format!("/api/2.0/mlflow/{path}"), body)
    }

    /// The experiment's id; it is made if there is none of this name.
    fn experiment(&mut self, name: &str) -> Result<String, Error> {
        if let Some(id) = self.experiments.get(name) {
            return Ok(id.clone());
        }
        let find = || {
            let path = "/api/2.0/mlflow/experiments/get-by-name";
            let found = self.client.get(path, "experiment_name", name)?;
            self.text(&found["experiment"]["experiment_id"], path)
        };
        let id = match find() {
            Err(e) if has_code(&e, "RESOURCE_DOES_NOT_EXIST") => {
                match self.call("experiments/create", &json!({"name": name})) {
                    Ok(made) => self.text(&made["experiment_id"], "experiments/create")?,
                    // Someone else was faster.
                    Err(e) if has_code(&e, "RESOURCE_ALREADY_EXISTS") => find()?,
                    Err(e) => return Err(e),
                }
            }
            other => other?,
        };
        self.experiments.insert(name.to_owned(), id.clone());
        Ok(id)
    }

    /// The run called `key` on the server, if it is there.
    fn find(&self, experiment: &str, key: &str) -> Result<Option<Known>, Error> {
        let filter = format!("tags.`{KEY}` = '{}'", key.replace('\'', ""));
        let found = self.call(
            "runs/search",
            &json!({"experiment_ids": [experiment], "filter": filter, "max_results": 1, "run_view_type": "ACTIVE_ONLY"}),
        )?;
        let run = &found["runs"][0];
        if run.is_null() { Ok(None) } else { self.known(run).map(Some) }
    }

    fn known(&self, run: &Value) -> Result<Known, Error> {
        let tags = run["data"]["tags"].as_array().map_or(&[][..], Vec::as_slice);
        let lines = tags.iter().find(|tag| tag["key"] == CURSOR).and_then(|tag| tag["value"].as_str());
        Ok(Known {
            id: self.text(&run["info"]["run_id"], "run")?,
            lines: lines.and_then(|lines| lines.parse().ok()).unwrap_or(0),
            artifact_uri: run["info"]["artifact_uri"].as_str().unwrap_or_default().to_owned(),
        })
    }

    fn known_or_new(&mut self, run: &RunView<'_>) -> Result<Known, Error> {
        if let Some(known) = self.runs.get(run.key) {
            return Ok(known.clone());
        }
        let experiment = self.experiment(run.experiment)?;
        if let Some(known) = self.find(&experiment, run.key)? {
            return Ok(known);
        }
        let name = run.run().map_or("", |run| run.name.as_str());
        let mut tags = vec![tag(KEY, run.key), tag("mlflow.runName", name)];
        if let Some(parent) = run.parent {
            let id = match self.runs.get(parent) {
                Some(known) => Some(known.id.clone()),
                None => self.find(&experiment, parent)?.map(|known| known.id),
            };
            tags.extend(id.map(|id| tag("mlflow.parentRunId", &id)));
        }
        let body = json!({
            "experiment_id": experiment, "run_name": name, "start_time": run.start(), "tags": tags, "user_id": "vitad",
        });
        let made = self.call("runs/create", &body)?;
        self.known(&made["run"])
    }

    /// Sends what lines say, and that the first `lines` of the log are there.
    fn send(&self, id: &str, told: &Told, lines: usize) -> Result<(), Error> {
        let params: Vec<Value> =
            told.params.iter().map(|(key, value)| json!({"key": key, "value": value})).collect();
        let tags: Vec<Value> = told.tags.iter().map(|(key, value)| tag(key, value)).collect();
        let requests =
            [told.points.len().div_ceil(POINTS), params.len().div_ceil(PARAMS), tags.len().div_ceil(TAGS), 1];
        let requests = requests.into_iter().max().unwrap_or(1);
        for at in 0..requests {
            let points: Vec<Value> = part(&told.points, at, POINTS).iter().map(metric).collect();
            let mut tags = part(&tags, at, TAGS).to_vec();
            if at + 1 == requests {
                tags.push(tag(CURSOR, &lines.to_string()));
            }
            let body = json!({
                "run_id": id, "metrics": points, "params": part(&params, at, PARAMS), "tags": tags,
            });
            self.call("runs/log-batch", &body)?;
        }
        Ok(())
    }

    fn upload(&mut self, known: &Known, artifacts: &[Artifact]) -> Result<(), Error> {
        let Some(below) = known.artifact_uri.strip_prefix("mlflow-artifacts:") else {
            if !artifacts.is_empty() && !self.told_of_files {
                self.told_of_files = true;
                tracing::warn!(
                    "{} keeps files at {}, not with itself: they are not sent",
                    self.name(),
                    known.artifact_uri
                );
            }
            return Ok(());
        };
        // With or without the server's own name in it.
        let below = match below.strip_prefix("//") {
            Some(rest) => rest.split_once('/').map_or("", |(_, path)| path),
            None => below.trim_start_matches('/'),
        };
        for artifact in artifacts {
            let bytes =
                std::fs::read(&artifact.path).map_err(|e| Error::io(&artifact.path, "can't read", e))?;
            let path =
                format!("/api/2.0/mlflow-artifacts/artifacts/{}/{}", escaped(below), escaped(&artifact.name));
            self.client.put(&path, &bytes)?;
        }
        Ok(())
    }

    fn text(&self, value: &Value, what: &str) -> Result<String, Error> {
        value.as_str().map(str::to_owned).ok_or_else(|| Error::Unreachable {
            url: self.client.base.clone(),
            problem: format!("expected an id in the answer about `{what}`, found {value}"),
        })
    }
}

impl Tracker for MlflowServer {
    fn name(&self) -> String {
        format!("MLflow at {}", self.client.base)
    }

    fn update(&mut self, run: &RunView<'_>) -> Result<(), Error> {
        if run.lines.is_empty() || self.runs.get(run.key).is_some_and(|known| known.lines >= run.lines.len())
        {
            return Ok(());
        }
        let mut known = self.known_or_new(run)?;
        if known.lines < run.lines.len() {
            let ending = run.ending();
            // The last line of a run that ended counts as sent only after all else.
            let before_end = run.lines.len() - usize::from(ending.is_some());
            let told = Told::of(&run.lines[known.lines..]);
            self.send(&known.id, &told, before_end)?;
            let (word, _) = status(ending.map(|(ending, _)| ending));
            let mut change = json!({"run_id": known.id, "status": word});
            if let Some((_, time)) = ending {
                self.upload(&known, run.artifacts)?;
                change["end_time"] = json!(time);
            }
            self.call("runs/update", &change)?;
            if ending.is_some() {
                self.send(&known.id, &Told::default(), run.lines.len())?;
            }
            known.lines = run.lines.len();
        }
        self.runs.insert(run.key.to_owned(), known);
        Ok(())
    }
}

fn has_code(error: &Error, expected: &str) -> bool {
    matches!(error, Error::Refused { code, .. } if code == expected)
}

fn tag(key: &str, value: &str) -> Value {
    json!({"key": key, "value": value})
}

fn metric(point: &Point) -> Value {
    json!({"key": point.key, "value": point.value, "timestamp": point.time, "step": point.step})
}

/// The `at`-th part of `size` items; empty beyond the end.
fn part<T>(list: &[T], at: usize, size: usize) -> &[T] {
    list.chunks(size).nth(at).unwrap_or_default()
}

/// A path for an address: everything but letters, digits, `-._~` and slashes by their bytes.
fn escaped(path: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~/".contains(&byte);
    let one = |byte: u8| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") };
    path.bytes().map(one).collect()
}
