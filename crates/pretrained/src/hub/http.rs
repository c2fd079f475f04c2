//! Single requests to a hub: redirects by hand, so that the token never leaves the hub's own host, and every answer
//! sorted into "good", "try again" and "never".

use crate::{Error, Hub, HubRefusal};
use std::time::Duration;
use ureq::http::{HeaderMap, Uri};
use ureq::{Agent, Body, Proxy};

/// Why a request gave nothing.
#[derive(Debug)]
pub(crate) enum Trouble {
    /// Trying again may help.
    Passing { reason: String, retry_after: Option<Duration> },
    /// The answer ended before its announced end, without an error.
    Short { found: u64 },
    /// The server has nothing at the place asked for.
    OutOfRange,
    /// Trying again would change nothing.
    Final(Final),
}

/// Why asking again is of no use.
#[derive(Debug)]
pub(crate) enum Final {
    /// The hub says no; `commit` is the revision's, where it says that too.
    Refused { refusal: HubRefusal, commit: Option<String> },
    /// Anything else.
    Failed(Error),
}

impl Trouble {
    pub(crate) fn passing(reason: impl Into<String>) -> Self {
        Self::Passing { reason: reason.into(), retry_after: None }
    }
}

impl From<Error> for Final {
    fn from(error: Error) -> Self {
        Self::Failed(error)
    }
}

impl From<Error> for Trouble {
    fn from(error: Error) -> Self {
        Self::Final(Final::Failed(error))
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ask {
    /// The headers; a redirect to another host is the answer itself, because it carries the file's description.
    Description,
    /// The bytes from this place on.
    BytesFrom(u64),
}

/// An answer with a good status: 2xx, or for [`Ask::Description`] a redirect elsewhere.
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Body,
}

pub(crate) struct Client<'a> {
    hub: &'a Hub,
    agent: Agent,
}

const MOST_REDIRECTS: usize = 10;
pub(crate) const COMMIT_HEADER: &str = "x-repo-commit";

impl<'a> Client<'a> {
    pub(crate) fn new(hub: &'a Hub) -> Result<Self, Error> {
        let config = Agent::config_builder()
            .http_status_as_error(false)
            // Zero makes ureq hand redirects over instead of following them.
            .max_redirects(0)
            .proxy(proxy(hub)?)
            .timeout_connect(Some(hub.timeout))
            .timeout_recv_response(Some(hub.timeout))
            .timeout_per_read(Some(hub.timeout))
            .user_agent(concat!("vitad-pretrained/", env!("CARGO_PKG_VERSION")))
            // A compressed answer would have another length than the announced one.
            .accept_encoding("identity")
            .build();
        Ok(Self { hub, agent: config.new_agent() })
    }

    pub(crate) fn hub(&self) -> &'a Hub {
        self.hub
    }

    /// The address of a repository's file.
    pub(crate) fn address(&self, repo: &str, revision: &str, file: &str) -> String {
        format!("{}/{repo}/resolve/{}/{}", self.hub.endpoint, escape(revision, ""), escape(file, "/"))
    }

    pub(crate) fn send(&self, url: &str, ask: Ask) -> Result<Answer, Trouble> {
        let mut url = url.to_owned();
        for _ in 0..=MOST_REDIRECTS {
            let at_hub = same_origin(&url, &self.hub.endpoint);
            let mut request = match ask {
                Ask::Description => self.agent.head(&url),
                Ask::BytesFrom(_) => self.agent.get(&url),
            };
            if let Some(token) = self.hub.token.as_ref().filter(|_| at_hub) {
                request = request.header("Authorization", format!("Bearer {}", token.reveal()));
            }
            if let Ask::BytesFrom(start @ 1..) = ask {
                request = request.header("Range", format!("bytes={start}-"));
            }
            let response = request.call().map_err(|error| sort_failure(&url, &error))?;
            let (parts, body) = response.into_parts();
            let status = parts.status.as_u16();
            if matches!(status, 301 | 302 | 303 | 307 | 308) {
                let target = header(&parts.headers, "location").and_then(|place| resolve(&url, place));
                let target = target.ok_or_else(|| protocol(&url, "a redirect without a valid Location"))?;
                if ask == Ask::Description && !same_origin(&target, &url) {
                    return Ok(Answer { status, headers: parts.headers, body });
                }
                url = target;
                continue;
            }
            if matches!(status, 200 | 206) {
                return Ok(Answer { status, headers: parts.headers, body });
            }
            return Err(self.sort_status(status, &parts.headers, at_hub));
        }
        Err(protocol(&url, format!("more than {MOST_REDIRECTS} redirects")).into())
    }

    fn sort_status(&self, status: u16, headers: &HeaderMap, at_hub: bool) -> Trouble {
        let token_sent = self.hub.token.is_some();
        let code = header(headers, "x-error-code").unwrap_or_default();
        let refusal = match (status, code) {
            (416, _) => return Trouble::OutOfRange,
            (408 | 429 | 500 | 502 | 503 | 504, _) => {
                // The header may also hold a date; the usual back-off serves then.
                let retry_after = header(headers, "retry-after").and_then(|text| text.trim().parse().ok());
                let reason = format!("status {status}");
                return Trouble::Passing { reason, retry_after: retry_after.map(Duration::from_secs) };
            }
            // The signed address of a storage host has run out: the hub gives a new one.
            (401 | 403, _) if !at_hub => {
                return Trouble::passing(format!("status {status} from the storage host"));
            }
            (401 | 403, "GatedRepo") => {
                // The caller knows the repository and completes the page.
                HubRefusal::Gated { page: self.hub.endpoint.clone(), token_sent }
            }
            (401 | 403, _) => HubRefusal::Unauthorised { status, token_sent },
            (404, "RepoNotFound") => HubRefusal::NoRepository,
            (404, "RevisionNotFound") => HubRefusal::NoRevision,
            (404, _) => HubRefusal::NoFile,
            _ => HubRefusal::Status(status),
        };
        Trouble::Final(Final::Refused { refusal, commit: header(headers, COMMIT_HEADER).map(str::to_owned) })
    }
}

/// A header's text, where it is there once and readable.
pub(crate) fn header<'h>(headers: &'h HeaderMap, name: &str) -> Option<&'h str> {
    headers.get(name).and_then(|value| value.to_str().ok())
}

pub(crate) fn protocol(url: &str, reason: impl Into<String>) -> Error {
    Error::Protocol { url: url.to_owned(), reason: reason.into() }
}

fn sort_failure(url: &str, error: &ureq::Error) -> Trouble {
    match error {
        ureq::Error::BadUri(_) | ureq::Error::Http(_) | ureq::Error::InvalidProxyUrl => {
            protocol(url, error.to_string()).into()
        }
        _ => Trouble::passing(error.to_string()),
    }
}

fn proxy(hub: &Hub) -> Result<Option<Proxy>, Error> {
    let Some(address) = &hub.proxy else { return Ok(None) };
    let wrong = |error: ureq::Error| Error::Protocol {
        // Not the address itself: it may hold a password.
        url: "the proxy's address".into(),
        reason: error.to_string(),
    };
    let plain = Proxy::new(address).map_err(wrong)?;
    let mut builder = Proxy::builder(plain.protocol()).host(plain.host()).port(plain.port());
    if let Some(user) = plain.username() {
        builder = builder.username(user);
    }
    if let Some(password) = plain.password() {
        builder = builder.password(password);
    }
    for host in &hub.no_proxy {
        builder = builder.no_proxy(host);
    }
    builder.build().map(Some).map_err(wrong)
}

/// Whether two addresses have scheme, host and port in common.
fn same_origin(left: &str, right: &str) -> bool {
    let origin = |text: &str| {
        let uri: Uri = text.parse().ok()?;
        let scheme = uri.scheme_str()?.to_ascii_lowercase();
        let port = uri.port_u16().or(match scheme.as_str() {
            "https" => Some(443),
            "http" => Some(80),
            _ => None,
        });
        Some((scheme, uri.host()?.to_ascii_lowercase(), port))
    };
    matches!((origin(left), origin(right)), (Some(left), Some(right)) if left == right)
}

/// The address a `Location` means. One that leaves https for http is none: it could be anybody's.
fn resolve(base: &str, place: &str) -> Option<String> {
    let (scheme, rest) = base.split_once("://")?;
    let target = if place.contains("://") {
        place.to_owned()
    } else if let Some(host_and_path) = place.strip_prefix("//") {
        format!("{scheme}://{host_and_path}")
    } else if place.starts_with('/') {
        format!("{scheme}://{}{place}", rest.split('/').next()?)
    } else {
        format!("{}/{place}", base.split('?').next()?.rsplit_once('/')?.0)
    };
    target.parse::<Uri>().ok()?;
    let downgrade =
        scheme.eq_ignore_ascii_case("https") && !target.to_ascii_lowercase().starts_with("https://");
    (!downgrade).then_some(target)
}

/// Percent-encodes what may not stand in a path, and the slash too unless it is in `kept`.
fn escape(text: &str, kept: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for byte in text.bytes() {
        let character = char::from(byte);
        if character.is_ascii_alphanumeric() || "-._~".contains(character) || kept.contains(character) {
            escaped.push(character);
        } else {
            escaped.push('%');
            escaped.push_str(&crate::digest::hex(&[byte]).to_ascii_uppercase());
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_origin_is_scheme_host_and_port() {
        assert!(same_origin("https://hub.example/a", "https://HUB.example:443/b?c"));
        assert!(!same_origin("https://hub.example/a", "http://hub.example/a"));
        assert!(!same_origin("http://127.0.0.1:1/a", "http://127.0.0.1:2/a"));
        assert!(!same_origin("https://hub.example.evil/a", "https://hub.example/a"));
    }

    #[test]
    fn a_location_is_resolved_against_the_request() {
        let base = "https://hub.example/o/n/resolve/main/f";
        assert_eq!(resolve(base, "/x?y").as_deref(), Some("https://hub.example/x?y"));
        assert_eq!(resolve(base, "g").as_deref(), Some("https://hub.example/o/n/resolve/main/g"));
        assert_eq!(resolve(base, "//cdn.example/x").as_deref(), Some("https://cdn.example/x"));
        assert_eq!(resolve(base, "https://cdn.example/x").as_deref(), Some("https://cdn.example/x"));
        assert_eq!(resolve(base, "http://cdn.example/x"), None);
    }

    #[test]
    fn a_branch_with_a_slash_is_one_part_of_the_address() {
        assert_eq!(escape("refs/pr/1", ""), "refs%2Fpr%2F1");
        assert_eq!(escape("a folder/b#.bin", "/"), "a%20folder/b%23.bin");
    }
}
