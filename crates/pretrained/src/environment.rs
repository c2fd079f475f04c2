//! The environment variables of Python's `huggingface_hub`, read here and nowhere else in the workspace.
//!
//! | variable | meaning |
//! |---|---|
//! | `HF_HUB_CACHE`, else `HUGGINGFACE_HUB_CACHE` | the cache folder |
//! | `HF_HOME` | its parent folder: the cache is `$HF_HOME/hub`, the token file `$HF_HOME/token` |
//! | `XDG_CACHE_HOME` | `HF_HOME` is `$XDG_CACHE_HOME/huggingface` if unset; else `~/.cache/huggingface` |
//! | `HF_TOKEN`, else `HUGGING_FACE_HUB_TOKEN` | the access token |
//! | `HF_TOKEN_PATH` | the file with the token, where no variable holds it |
//! | `HF_ENDPOINT` | the hub or a mirror |
//! | `HF_HUB_OFFLINE` | `1`, `on`, `yes` or `true`: open no connection |
//! | `HTTPS_PROXY`, `ALL_PROXY`, `HTTP_PROXY`, `NO_PROXY` | the proxy, in upper or lower case |

use crate::Hub;
use crate::hub::Token;
use std::path::{Path, PathBuf};

impl Hub {
    /// What the environment says. Read once, at the start of a program; everything below takes the [`Hub`].
    pub fn from_environment() -> Self {
        let variable = |name: &str| std::env::var(name).ok();
        from_variables(&variable, std::env::home_dir().as_deref())
    }
}

fn from_variables(variable: &dyn Fn(&str) -> Option<String>, home: Option<&Path>) -> Hub {
    // An empty variable counts as unset, as in Python's client.
    let value =
        |name: &str| variable(name).map(|text| text.trim().to_owned()).filter(|text| !text.is_empty());
    let first = |names: &[&str]| names.iter().find_map(|name| value(name));
    let folder = |name: &str| value(name).map(|text| expand(&text, home));
    let hf_home = folder("HF_HOME")
        .or_else(|| folder("XDG_CACHE_HOME").map(|cache| cache.join("huggingface")))
        .or_else(|| home.map(|home| home.join(".cache").join("huggingface")));
    let cache = folder("HF_HUB_CACHE")
        .or_else(|| folder("HUGGINGFACE_HUB_CACHE"))
        .or_else(|| hf_home.as_ref().map(|home| home.join("hub")));
    let token_file = folder("HF_TOKEN_PATH").or_else(|| hf_home.as_ref().map(|home| home.join("token")));
    let token = first(&["HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"])
        .as_deref()
        .and_then(Token::new)
        .or_else(|| token_file.as_deref().and_then(read_token));
    let no_proxy = first(&["NO_PROXY", "no_proxy"]).unwrap_or_default();

    let mut hub = Hub::offline();
    if let Some(endpoint) = value("HF_ENDPOINT") {
        endpoint.trim_end_matches('/').clone_into(&mut hub.endpoint);
    }
    hub.offline = value("HF_HUB_OFFLINE")
        .is_some_and(|text| ["1", "on", "yes", "true"].contains(&text.to_ascii_lowercase().as_str()));
    hub.cache = cache;
    hub.token = token;
    hub.proxy = first(&["HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy", "HTTP_PROXY", "http_proxy"]);
    hub.no_proxy =
        no_proxy.split(',').map(str::trim).filter(|host| !host.is_empty()).map(str::to_owned).collect();
    hub
}

/// `~` at the start of a folder is the home directory, as in Python's client.
fn expand(text: &str, home: Option<&Path>) -> PathBuf {
    match (text.strip_prefix("~/"), home) {
        (Some(rest), Some(home)) => home.join(rest),
        _ if text == "~" => home.map_or_else(|| text.into(), Path::to_owned),
        _ => text.into(),
    }
}

fn read_token(file: &Path) -> Option<Token> {
    match std::fs::read_to_string(file) {
        Ok(text) => Token::new(&text),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
        Err(error) => {
            tracing::warn!(file = %file.display(), %error, "the token file cannot be read; going on without a token");
            None
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn hub(variables: &[(&str, &str)], home: Option<&Path>) -> Hub {
        let variable = |name: &str| {
            variables.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned())
        };
        from_variables(&variable, home)
    }

    #[test]
    fn without_variables_the_cache_is_below_the_home_directory() {
        let found = hub(&[], Some(Path::new("/home/ada")));
        assert_eq!(found.cache.unwrap(), Path::new("/home/ada/.cache/huggingface/hub"));
        assert_eq!(found.endpoint, "https://huggingface.co");
        assert!(!found.offline && found.token.is_none() && found.proxy.is_none());
        assert_eq!(hub(&[], None).cache, None);
    }

    #[test]
    fn the_more_exact_variable_wins() {
        let home = Some(Path::new("/home/ada"));
        let cache = |variables: &[(&str, &str)]| hub(variables, home).cache.unwrap();
        assert_eq!(cache(&[("XDG_CACHE_HOME", "/x")]), Path::new("/x/huggingface/hub"));
        assert_eq!(cache(&[("XDG_CACHE_HOME", "/x"), ("HF_HOME", "~/h")]), Path::new("/home/ada/h/hub"));
        assert_eq!(cache(&[("HF_HOME", "/h"), ("HUGGINGFACE_HUB_CACHE", "/old")]), Path::new("/old"));
        let both = [("HF_HUB_CACHE", "/new"), ("HUGGINGFACE_HUB_CACHE", "/old")];
        assert_eq!(cache(&both), Path::new("/new"));
        assert_eq!(cache(&[("HF_HOME", "  ")]), Path::new("/home/ada/.cache/huggingface/hub"));
    }

    #[test]
    fn a_token_comes_from_the_variable_or_else_from_the_file() {
        let folder = tempfile::tempdir().unwrap();
        let home = folder.path().to_str().unwrap();
        std::fs::write(folder.path().join("token"), "hf_file\n").unwrap();
        std::fs::write(folder.path().join("other"), "hf_other\n").unwrap();
        let other = folder.path().join("other");
        let token = |variables: &[(&str, &str)]| hub(variables, None).token;
        assert_eq!(token(&[("HF_HOME", home)]), Token::new("hf_file"));
        assert_eq!(
            token(&[("HF_HOME", home), ("HF_TOKEN_PATH", other.to_str().unwrap())]),
            Token::new("hf_other")
        );
        assert_eq!(token(&[("HF_HOME", home), ("HF_TOKEN", "hf_variable")]), Token::new("hf_variable"));
        assert_eq!(token(&[("HF_HOME", "/nowhere/at/all")]), None);
    }

    #[test]
    fn offline_takes_the_words_python_takes() {
        for (text, offline) in
            [("1", true), ("True", true), ("ON", true), ("yes", true), ("0", false), ("", false)]
        {
            assert_eq!(hub(&[("HF_HUB_OFFLINE", text)], None).offline, offline, "{text}");
        }
    }

    #[test]
    fn a_mirror_and_a_proxy_are_taken_over() {
        let variables =
            [("HF_ENDPOINT", "https://mirror.example/"), ("https_proxy", "http://p:1"), ("NO_PROXY", "a, b")];
        let found = hub(&variables, None);
        assert_eq!(found.endpoint, "https://mirror.example");
        assert_eq!(found.proxy.as_deref(), Some("http://p:1"));
        assert_eq!(found.no_proxy, ["a", "b"]);
    }
}
