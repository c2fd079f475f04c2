//! How the Hugging Face hub is reached: plain options, and (with the feature `hub`) the downloads themselves.

#[cfg(feature = "hub")]
mod cache;
#[cfg(feature = "hub")]
mod download;
#[cfg(feature = "hub")]
mod fetch;
#[cfg(feature = "hub")]
mod http;

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// How the hub is reached. Nothing here is read from the environment except by
/// [`from_environment`](Self::from_environment).
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Hub {
    /// The hub or a mirror, without a slash at the end: `https://huggingface.co`.
    pub endpoint: String,
    /// The cache shared with Python's `huggingface_hub`, usually `~/.cache/huggingface/hub`.
    pub cache: Option<PathBuf>,
    /// The access token, for gated and private repositories.
    pub token: Option<Token>,
    /// Never open a connection; read the cache only.
    pub offline: bool,
    /// How often a request that failed for a passing reason (a reset, 429, 5xx) is repeated without any progress
    /// before giving up; 5 unless set.
    pub retries: u32,
    /// The longest single wait between two attempts, 60 s unless set; a server that asks for more gets an error
    /// that says so.
    pub longest_wait: Duration,
    /// How long a connection may take to open, or to deliver its next bytes; 30 s unless set.
    pub timeout: Duration,
    /// `http://user:password@host:port` of a proxy.
    pub proxy: Option<String>,
    /// Hosts that are reached without the proxy.
    pub no_proxy: Vec<String>,
    /// How to wait between attempts.
    pub wait: Wait,
    /// Who is told how far a download is.
    pub progress: Option<Arc<dyn Progress>>,
}

impl Hub {
    /// The public hub with `cache` as the folder for downloads, without a token.
    pub fn new(cache: impl Into<PathBuf>) -> Self {
        Self { cache: Some(cache.into()), offline: false, ..Self::offline() }
    }

    /// No network and no cache: for local and embedded weights.
    pub fn offline() -> Self {
        Self {
            endpoint: "https://huggingface.co".into(),
            cache: None,
            token: None,
            offline: true,
            retries: 5,
            longest_wait: Duration::from_secs(60),
            timeout: Duration::from_secs(30),
            proxy: None,
            no_proxy: Vec::new(),
            wait: Wait::default(),
            progress: None,
        }
    }
}

#[cfg(not(feature = "hub"))]
impl Hub {
    #[allow(clippy::unused_self, reason = "the signature of the form with network code")]
    pub(crate) fn weight_files(
        &self,
        repo: &str,
        _revision: Option<&str>,
        _files: &[String],
    ) -> Result<crate::directory::WeightFiles, crate::Error> {
        Err(crate::Error::HubFeatureOff { repo: repo.to_owned() })
    }
}

/// An access token; its `Debug` form does not show it.
#[derive(Clone, PartialEq, Eq)]
pub struct Token(String);

impl Token {
    /// Wraps the text of a token, without the white space around it; `None` if nothing is left.
    pub fn new(text: &str) -> Option<Self> {
        let text = text.trim();
        (!text.is_empty()).then(|| Self(text.to_owned()))
    }

    #[cfg_attr(not(feature = "hub"), allow(dead_code, reason = "only a request needs it"))]
    pub(crate) fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("Token(hidden)")
    }
}

/// Told how far a download is; the crate itself prints nothing.
pub trait Progress: Send + Sync + fmt::Debug {
    /// A download of `total` bytes begins, of which `present` are there from an earlier attempt.
    fn started(&self, file: &str, total: u64, present: u64);
    /// `bytes` more have been written.
    fn advanced(&self, bytes: u64);
    /// The server does not continue where the last attempt ended: it starts at 0 again.
    fn restarted(&self) {}
    /// The file is complete, checked and in place.
    fn finished(&self, file: &str);
}

/// How to wait: the thread sleeps, unless a test says otherwise.
#[derive(Clone)]
pub struct Wait(Arc<dyn Fn(Duration) + Send + Sync>);

impl Wait {
    /// Waits by calling `wait`.
    pub fn new(wait: impl Fn(Duration) + Send + Sync + 'static) -> Self {
        Self(Arc::new(wait))
    }

    #[cfg_attr(not(feature = "hub"), allow(dead_code, reason = "only a download waits"))]
    pub(crate) fn wait(&self, duration: Duration) {
        (self.0)(duration);
    }
}

impl Default for Wait {
    fn default() -> Self {
        Self::new(std::thread::sleep)
    }
}

impl fmt::Debug for Wait {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("Wait")
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_token_is_trimmed_and_never_shown() {
        let token = Token::new(" hf_secret\n").unwrap();
        assert_eq!(token.reveal(), "hf_secret");
        let mut hub = Hub::new("cache");
        hub.token = Some(token);
        assert!(!format!("{hub:?}").contains("secret"));
        assert_eq!(Token::new(" \n"), None);
    }
}
