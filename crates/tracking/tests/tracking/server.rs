//! As much of an MLflow server as the tracker asks for, kept in memory.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use serde_json::{Value, json};

/// One request. A body that is no JSON is a text, none is null.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Exchange {
    pub(crate) method: String,
    pub(crate) path: String,
    pub(crate) body: Value,
    /// The header of this name.
    pub(crate) authorization: Option<String>,
}

#[derive(Debug, Default)]
struct State {
    exchanges: Vec<Exchange>,
    /// Experiments by name; the id is the place, from 1.
    experiments: Vec<String>,
    runs: Vec<KeptRun>,
    /// Which request fails, and whether it is carried out all the same.
    failing: Option<(usize, bool)>,
    stopped: bool,
}

#[derive(Debug, Default)]
struct KeptRun {
    tags: BTreeMap<String, Value>,
    params: BTreeMap<String, Value>,
    /// As in the server's database, equal points are one.
    metrics: Vec<Value>,
    status: Value,
    end_time: Value,
}

pub(crate) struct Server {
    pub(crate) url: String,
    state: Arc<Mutex<State>>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    pub(crate) fn start() -> Self {
        Self::speaking(None)
    }

    /// With the certificate in `tls`.
    pub(crate) fn with_tls() -> Self {
        let pem = |name: &str| Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/tracking/tls").join(name);
        let certificate = CertificateDer::from_pem_file(pem("server.pem")).unwrap();
        let key = PrivateKeyDer::from_pem_file(pem("server-key.pem")).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config =
            ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
        let config = config.with_no_client_auth().with_single_cert(vec![certificate], key).unwrap();
        Self::speaking(Some(Arc::new(config)))
    }

    fn speaking(tls: Option<Arc<ServerConfig>>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let scheme = if tls.is_some() { "https" } else { "http" };
        let url = format!("{scheme}://{}", listener.local_addr().unwrap());
        let state = Arc::new(Mutex::new(State::default()));
        let shared = Arc::clone(&state);
        let thread = std::thread::spawn(move || {
            for stream in listener.incoming() {
                if shared.lock().unwrap().stopped {
                    return;
                }
                let stream = stream.unwrap();
                match &tls {
                    None => serve(&stream, &shared).unwrap(),
                    // Who does not trust the certificate goes away.
                    Some(tls) => {
                        let session = ServerConnection::new(tls.clone()).unwrap();
                        let _ = serve(StreamOwned::new(session, stream), &shared);
                    }
                }
            }
        });
        Self { url, state, thread: Some(thread) }
    }

    pub(crate) fn exchanges(&self) -> Vec<Exchange> {
        self.state.lock().unwrap().exchanges.clone()
    }

    /// Lets one request fail, counted from 0; `carried_out` says whether only its answer is bad.
    pub(crate) fn fail(&self, request: usize, carried_out: bool) {
        self.state.lock().unwrap().failing = Some((request, carried_out));
    }

    pub(crate) fn runs(&self) -> usize {
        self.state.lock().unwrap().runs.len()
    }

    /// All that is kept of a run.
    pub(crate) fn run(&self, index: usize) -> Value {
        let KeptRun { tags, params, metrics, status, end_time } = &self.state.lock().unwrap().runs[index];
        json!({"tags": tags, "params": params, "metrics": metrics, "status": status, "end_time": end_time})
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.state.lock().unwrap().stopped = true;
        // Wakes the listener; whether anybody still listens does not matter.
        let _ = TcpStream::connect(self.url.rsplit('/').next().unwrap());
        if let Some(thread) = self.thread.take() {
            thread.join().unwrap();
        }
    }
}

/// Answers one request; a connection that asks for nothing is fine.
fn serve(stream: impl Read + Write, state: &Mutex<State>) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream);
    let mut first = String::new();
    reader.read_line(&mut first)?;
    let mut words = first.split_whitespace().map(str::to_owned);
    let (Some(method), Some(path)) = (words.next(), words.next()) else { return Ok(()) };
    let (mut length, mut authorization) = (0, None);
    loop {
        let mut line = String::new();
        reader.read_line(&mut line)?;
        let Some((name, value)) = line.trim_end().split_once(": ") else { break };
        assert!(!name.eq_ignore_ascii_case("transfer-encoding"), "{line}");
        if name.eq_ignore_ascii_case("content-length") {
            length = value.parse().unwrap();
        }
        if name.eq_ignore_ascii_case("authorization") {
            authorization = Some(value.to_owned());
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body)?;
    let body = match String::from_utf8(body).unwrap() {
        text if text.is_empty() => Value::Null,
        text => serde_json::from_str(&text).unwrap_or(Value::String(text)),
    };
    let (status, answer) = {
        let mut state = state.lock().unwrap();
        let number = state.exchanges.len();
        state.exchanges.push(Exchange { method, path: path.clone(), body: body.clone(), authorization });
        match state.failing {
            Some((failing, carried_out)) if failing == number => {
                if carried_out {
                    state.answer(&path, &body);
                }
                (503, json!({"error_code": "TEMPORARILY_UNAVAILABLE", "message": "later"}))
            }
            _ => state.answer(&path, &body),
        }
    };
    let text = answer.to_string();
    let stream = reader.get_mut();
    write!(
        stream,
        "HTTP/1.1 {status} Test\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{text}",
        text.len()
    )?;
    stream.flush()
}

impl State {
    fn answer(&mut self, path: &str, body: &Value) -> (u16, Value) {
        let refused = |code: &str| json!({"error_code": code, "message": "no"});
        if path.starts_with("/api/2.0/mlflow-artifacts/artifacts/") {
            return (200, json!({}));
        }
        let call = path.trim_start_matches("/api/2.0/mlflow/").split('?').next().unwrap();
        match call {
            "experiments/get-by-name" => {
                let name = path.split_once('=').unwrap().1.replace("%20", " ");
                match self.experiments.iter().position(|known| *known == name) {
                    Some(at) => (200, json!({"experiment": {"experiment_id": (at + 1).to_string()}})),
                    None => (404, refused("RESOURCE_DOES_NOT_EXIST")),
                }
            }
            "experiments/create" => {
                let name = body["name"].as_str().unwrap().to_owned();
                if self.experiments.contains(&name) {
                    return (400, refused("RESOURCE_ALREADY_EXISTS"));
                }
                self.experiments.push(name);
                (200, json!({"experiment_id": self.experiments.len().to_string()}))
            }
            "runs/search" => {
                let filter = body["filter"].as_str().unwrap();
                let key = filter.strip_prefix("tags.`vitad.run` = '").unwrap().trim_end_matches('\'');
                let found = self.runs.iter().position(|run| run.tags["vitad.run"] == key);
                (200, found.map_or(json!({}), |at| json!({"runs": [self.shown(at)]})))
            }
            "runs/create" => {
                self.runs.push(KeptRun { status: json!("RUNNING"), ..KeptRun::default() });
                let at = self.runs.len() - 1;
                self.keep(at, body);
                (200, json!({"run": self.shown(at)}))
            }
            "runs/log-batch" | "runs/update" => {
                let at: usize =
                    body["run_id"].as_str().unwrap().strip_prefix("run").unwrap().parse().unwrap();
                self.keep(at, body);
                (200, json!({}))
            }
            other => panic!("asked for {other}"),
        }
    }

    fn keep(&mut self, at: usize, body: &Value) {
        let run = &mut self.runs[at];
        let list = |name: &str| body[name].as_array().cloned().unwrap_or_default();
        for item in list("tags") {
            run.tags.insert(item["key"].as_str().unwrap().to_owned(), item["value"].clone());
        }
        for item in list("params") {
            let old = run.params.insert(item["key"].as_str().unwrap().to_owned(), item["value"].clone());
            assert!(old.is_none_or(|old| old == item["value"]), "a parameter changed: {item}");
        }
        for point in list("metrics") {
            if !run.metrics.contains(&point) {
                run.metrics.push(point);
            }
        }
        for (field, kept) in [("status", &mut run.status), ("end_time", &mut run.end_time)] {
            if let Some(value) = body.get(field) {
                *kept = value.clone();
            }
        }
    }

    fn shown(&self, at: usize) -> Value {
        let tags: Vec<Value> =
            self.runs[at].tags.iter().map(|(key, value)| json!({"key": key, "value": value})).collect();
        json!({
            "info": {"run_id": format!("run{at}"), "artifact_uri": format!("mlflow-artifacts:/1/run{at}/artifacts")},
            "data": {"tags": tags},
        })
    }
}
