//! Requests to a server: JSON in, JSON out, every refusal with the server's own words.

use std::time::Duration;

use serde_json::Value;
use ureq::http::Response;
use ureq::{Agent, RequestBuilder};

use super::access::ServerAccess;
use crate::Error;

/// How long a server may take to be reached.
const CONNECT: Duration = Duration::from_secs(5);
/// How long one request may take, a large file's among them.
const REQUEST: Duration = Duration::from_secs(120);

/// A server's address and a way to ask it.
pub(crate) struct Client {
    pub(crate) base: String,
    agent: Agent,
    authorization: Option<String>,
}

/// Without what is secret.
impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Client").field("base", &self.base).finish_non_exhaustive()
    }
}

impl Client {
    /// A client for the server at `base`, without a slash at its end.
    pub(crate) fn new(base: &str, access: &ServerAccess) -> Self {
        let config = Agent::config_builder()
            .http_status_as_error(false)
            .proxy(access.proxy())
            .tls_config(access.tls())
            .timeout_connect(Some(CONNECT))
            .timeout_global(Some(REQUEST))
            .user_agent(concat!("vitad-tracking/", env!("CARGO_PKG_VERSION")))
            .build();
        let authorization = access.authorization().map(str::to_owned);
        Self { base: base.to_owned(), agent: config.new_agent(), authorization }
    }

    /// With the header that says who asks. It does not follow a redirection, which may lead elsewhere.
    fn signed<T>(&self, request: RequestBuilder<T>) -> RequestBuilder<T> {
        match &self.authorization {
            Some(value) => request.header("Authorization", value),
            None => request,
        }
    }

    pub(crate) fn get(&self, path: &str, name: &str, value: &str) -> Result<Value, Error> {
        let url = format!("{}{path}", self.base);
        let answer = self.signed(self.agent.get(&url)).query(name, value).call();
        read(&url, answer)
    }

    pub(crate) fn post(&self, path: &str, body: &Value) -> Result<Value, Error> {
        let url = format!("{}{path}", self.base);
        let request = self.signed(self.agent.post(&url)).header("Content-Type", "application/json");
        let answer = request.send(body.to_string());
        read(&url, answer)
    }

    pub(crate) fn put(&self, path: &str, body: &[u8]) -> Result<(), Error> {
        let url = format!("{}{path}", self.base);
        let request = self.signed(self.agent.put(&url)).header("Content-Type", "application/octet-stream");
        let answer = request.send(body);
        read(&url, answer).map(|_| ())
    }
}

/// The answer as JSON; an empty one is an empty object.
fn read(url: &str, answer: Result<Response<ureq::Body>, ureq::Error>) -> Result<Value, Error> {
    let unreachable = |problem: String| Error::Unreachable { url: url.to_owned(), problem };
    let mut answer = answer.map_err(|e| unreachable(e.to_string()))?;
    let status = answer.status().as_u16();
    let text = answer.body_mut().read_to_string().map_err(|e| unreachable(e.to_string()))?;
    let value = serde_json::from_str::<Value>(if text.trim().is_empty() { "{}" } else { &text });
    if (200..300).contains(&status) {
        return value.map_err(|e| unreachable(format!("expected JSON, found something else: {e}")));
    }
    let word = |name: &str| value.as_ref().ok().and_then(|value| value[name].as_str()).map(str::to_owned);
    Err(Error::Refused {
        url: url.to_owned(),
        status,
        code: word("error_code").unwrap_or_else(|| "no code".to_owned()),
        message: word("message").unwrap_or_else(|| text.chars().take(200).collect()),
    })
}
