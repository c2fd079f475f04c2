//! How a server is asked: who asks, what certificates it may have, by which way.

use std::fmt;
use std::path::Path;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use ureq::Proxy;
use ureq::tls::{PemItem, RootCerts, TlsConfig, parse_pem};

use crate::Error;

/// How an MLflow server is asked: who asks, what certificates it may have, by which way. The default asks as nobody, accepts the
/// certificates that Mozilla's roots vouch for, and goes straight there.
///
/// ```
/// use tracking::ServerAccess;
///
/// let access = ServerAccess::default().with_password("ann", "secret");
/// // What is secret is not shown.
/// assert!(!format!("{access:?}").contains("secret"));
/// ```
#[derive(Clone, Default)]
pub struct ServerAccess {
    /// The value of the header `Authorization`.
    authorization: Option<String>,
    roots: Option<RootCerts>,
    unverified: bool,
    proxy: Option<Proxy>,
}

impl fmt::Debug for ServerAccess {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServerAccess")
            .field("authorization", &self.authorization.as_ref().map(|_| "…"))
            .field("roots", &self.roots.as_ref().map(|_| "…"))
            .field("unverified", &self.unverified)
            .field("proxy", &self.proxy.as_ref().map(|proxy| format!("{}:{}", proxy.host(), proxy.port())))
            .finish()
    }
}

impl ServerAccess {
    /// What the environment says, by the names that MLflow's own client has: `MLFLOW_TRACKING_USERNAME` and
    /// `MLFLOW_TRACKING_PASSWORD`, else `MLFLOW_TRACKING_TOKEN`; `MLFLOW_TRACKING_SERVER_CERT_PATH`, a file of root
    /// certificates; `MLFLOW_TRACKING_INSECURE_TLS=true`, which accepts any certificate; and `ALL_PROXY`, `HTTPS_PROXY` or
    /// `HTTP_PROXY`, the first there is, for all hosts but those of `NO_PROXY`.
    ///
    /// # Errors
    /// [`Error::Access`] for a variable that can't be used.
    pub fn from_environment() -> Result<Self, Error> {
        let access = Self::from_variables(&|name| std::env::var(name).ok().filter(|text| !text.is_empty()))?;
        Ok(Self { proxy: Proxy::try_from_env(), ..access })
    }

    fn from_variables(variable: &dyn Fn(&'static str) -> Option<String>) -> Result<Self, Error> {
        const USER: &str = "MLFLOW_TRACKING_USERNAME";
        const PASSWORD: &str = "MLFLOW_TRACKING_PASSWORD";
        const INSECURE: &str = "MLFLOW_TRACKING_INSECURE_TLS";
        let wrong = |variable, problem: &str| Error::Access { what: variable, problem: problem.to_owned() };
        let mut access = Self::default();
        match (variable(USER), variable(PASSWORD)) {
            (Some(user), Some(password)) => access = access.with_password(&user, &password),
            (Some(_), None) => {
                return Err(wrong(PASSWORD, "expected a password for MLFLOW_TRACKING_USERNAME, found none"));
            }
            (None, Some(_)) => {
                return Err(wrong(USER, "expected a name for MLFLOW_TRACKING_PASSWORD, found none"));
            }
            (None, None) => {
                if let Some(token) = variable("MLFLOW_TRACKING_TOKEN") {
                    access = access.with_token(&token)?;
                }
            }
        }
        if let Some(path) = variable("MLFLOW_TRACKING_SERVER_CERT_PATH") {
            access = access.with_roots(path.as_ref())?;
        }
        access.unverified = match variable(INSECURE).map(|text| text.to_lowercase()).as_deref() {
            None | Some("false" | "0") => false,
            Some("true" | "1") => true,
            Some(_) => return Err(wrong(INSECURE, "expected `true` or `false`, found something else")),
        };
        if access.unverified && access.roots.is_some() {
            return Err(wrong(INSECURE, "expected it or MLFLOW_TRACKING_SERVER_CERT_PATH, found both"));
        }
        Ok(access)
    }

    /// Asks with a name and a password (HTTP's `Basic` scheme).
    #[must_use]
    pub fn with_password(self, user: &str, password: &str) -> Self {
        let pair = BASE64_STANDARD.encode(format!("{user}:{password}"));
        Self { authorization: Some(format!("Basic {pair}")), ..self }
    }

    /// Asks with a token (HTTP's `Bearer` scheme).
    ///
    /// # Errors
    /// [`Error::Access`] for a token that no header can hold.
    pub fn with_token(self, token: &str) -> Result<Self, Error> {
        if !token.bytes().all(|byte| byte.is_ascii_graphic()) {
            let problem =
                "expected letters, digits and signs without spaces, found something else".to_owned();
            return Err(Error::Access { what: "the token", problem });
        }
        Ok(Self { authorization: Some(format!("Bearer {token}")), ..self })
    }

    /// Accepts only certificates that one of those in the file at `path` (PEM) vouches for.
    ///
    /// # Errors
    /// [`Error::Io`]; [`Error::Access`] if the file holds none, or what can't be read.
    pub fn with_roots(self, path: &Path) -> Result<Self, Error> {
        let bytes = std::fs::read(path).map_err(|e| Error::io(path, "can't read the certificates", e))?;
        let wrong = |problem: String| Error::Access {
            what: "the root certificates",
            problem: format!("{}: {problem}", path.display()),
        };
        let mut roots = Vec::new();
        for item in parse_pem(&bytes) {
            if let PemItem::Certificate(certificate) = item.map_err(|e| wrong(e.to_string()))? {
                roots.push(certificate);
            }
        }
        if roots.is_empty() {
            return Err(wrong("expected at least one in PEM, found none".to_owned()));
        }
        Ok(Self { roots: Some(roots.into()), ..self })
    }

    /// Asks by way of the proxy at `address`, such as `http://proxy:3128`.
    ///
    /// # Errors
    /// [`Error::Access`] for an address that is none.
    pub fn with_proxy(self, address: &str) -> Result<Self, Error> {
        // Not the address itself: it may hold a password.
        let proxy =
            Proxy::new(address).map_err(|e| Error::Access { what: "the proxy", problem: e.to_string() })?;
        Ok(Self { proxy: Some(proxy), ..self })
    }

    /// The value of the header `Authorization`, if there is one.
    pub(crate) fn authorization(&self) -> Option<&str> {
        self.authorization.as_deref()
    }

    pub(crate) fn proxy(&self) -> Option<Proxy> {
        self.proxy.clone()
    }

    pub(crate) fn tls(&self) -> TlsConfig {
        let mut tls = TlsConfig::builder().disable_verification(self.unverified);
        if let Some(roots) = &self.roots {
            tls = tls.root_certs(roots.clone());
        }
        tls.build()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::ServerAccess;
    use crate::Error;

    fn of(variables: &[(&str, &str)]) -> Result<ServerAccess, Error> {
        let variable =
            |name| variables.iter().find(|(n, _)| *n == name).map(|(_, value)| (*value).to_owned());
        ServerAccess::from_variables(&variable)
    }

    #[test]
    fn the_environment_says_who_asks_and_a_password_counts_more_than_a_token() {
        assert_eq!(of(&[]).unwrap().authorization(), None);
        let token = ("MLFLOW_TRACKING_TOKEN", "abc");
        assert_eq!(of(&[token]).unwrap().authorization(), Some("Bearer abc"));
        let (user, password) =
            (("MLFLOW_TRACKING_USERNAME", "Aladdin"), ("MLFLOW_TRACKING_PASSWORD", "open sesame"));
        // The example of RFC 7617, section 2.
        let expected = Some("Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==");
        assert_eq!(of(&[token, user, password]).unwrap().authorization(), expected);
        let shown = format!("{:?}", of(&[user, password]).unwrap());
        assert!(!shown.contains("QWxh") && !shown.contains("sesame"), "{shown}");
    }

    #[test]
    fn what_cannot_be_used_is_named_and_not_repeated() {
        let (user, insecure) = ("MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_INSECURE_TLS");
        for (variables, expected) in [
            (&[(user, "ann")][..], "MLFLOW_TRACKING_PASSWORD"),
            (&[("MLFLOW_TRACKING_PASSWORD", "hidden")], user),
            (&[("MLFLOW_TRACKING_TOKEN", "hidden\nX: y")], "the token"),
            (&[(insecure, "maybe")], insecure),
            (&[("MLFLOW_TRACKING_SERVER_CERT_PATH", "not/there.pem")], "not/there.pem"),
        ] {
            let error = of(variables).unwrap_err().to_string();
            assert!(error.contains(expected) && !error.contains("hidden"), "{error}");
        }
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("roots.pem");
        std::fs::write(&path, "nothing").unwrap();
        let error = ServerAccess::default().with_roots(&path).unwrap_err().to_string();
        assert!(error.contains("roots.pem") && error.contains("found none"), "{error}");
        assert!(ServerAccess::default().with_proxy("ftp://x").is_err());
    }
}
