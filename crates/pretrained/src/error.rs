//! What can go wrong between a name and a tensor.

use std::path::PathBuf;
use std::time::Duration;

/// Why weights could not be had; every message says where, what was expected and what was found.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file or folder could not be read.
    #[error("{}: cannot be read: {source}", path.display())]
    Read {
        /// The file or folder.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// A file could not be written; often a full disk or a cache owned by somebody else.
    #[error(
        "{}: cannot be written: {source}; free some space, or set HF_HOME to a folder with room that you may write to \
         (what was downloaded so far is kept and continued)",
        path.display()
    )]
    Write {
        /// The file or folder.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// A file is damaged, cut short, or not of its format.
    #[error("{origin}: not a valid {format} file: {reason}")]
    Malformed {
        /// The file, or the name of embedded bytes.
        origin: String,
        /// The format it was read as.
        format: &'static str,
        /// What the parser found.
        reason: String,
    },
    /// The first bytes of a file are those of no known format.
    #[error("{origin}: expected safetensors, GGUF or a zipped PyTorch checkpoint, found {found}")]
    UnknownFormat {
        /// The file.
        origin: String,
        /// What it seems to be.
        found: String,
    },
    /// A folder holds no weights.
    #[error("{}: holds no weights: looked for {looked_for}", path.display())]
    NoWeights {
        /// The folder.
        path: PathBuf,
        /// The names looked for.
        looked_for: &'static str,
    },
    /// A folder holds several files that could each be the weights.
    #[error("{}: several files could be the weights ({}); name the one to read", path.display(), candidates.join(", "))]
    Ambiguous {
        /// The folder.
        path: PathBuf,
        /// The files, sorted.
        candidates: Vec<String>,
    },
    /// A tensor that was asked for is not there.
    #[error("{origin}: no tensor named {name}{}", nearest_words(nearest))]
    Missing {
        /// The file or folder.
        origin: String,
        /// The name asked for.
        name: String,
        /// Up to three names that are there and look like it, most alike first.
        nearest: Vec<String>,
    },
    /// A tensor is there with another shape.
    #[error("{origin}: tensor {name} has shape {found:?}, expected {expected:?}")]
    Shape {
        /// The file or folder.
        origin: String,
        /// The tensor.
        name: String,
        /// The shape that was asked for.
        expected: Vec<usize>,
        /// The shape in the file.
        found: Vec<usize>,
    },
    /// A tensor could not be read, converted to `f32`, or moved to the device.
    #[error("{origin}: tensor {name}: {source}")]
    Tensor {
        /// The file or folder.
        origin: String,
        /// The tensor.
        name: String,
        /// What candle says.
        source: Box<candle_core::Error>,
    },
    /// Bytes are not the ones that were promised.
    #[error("{origin}: sha256 is {found}, expected {expected}")]
    Digest {
        /// The file, or the name of embedded bytes.
        origin: String,
        /// The recorded digest.
        expected: String,
        /// The digest of what is there.
        found: String,
    },
    /// The crate was built without its feature `hub`.
    #[error(
        "{repo}: this program was built without the feature `hub` and cannot reach the Hugging Face hub; give a directory"
    )]
    HubFeatureOff {
        /// The repository asked for.
        repo: String,
    },
    /// No folder for downloads is known.
    #[error(
        "no folder for the hub cache: neither HF_HUB_CACHE, HF_HOME, XDG_CACHE_HOME nor a home directory is set"
    )]
    NoCache,
    /// A repository, revision or file name that cannot be one.
    #[error("{value:?} is not a valid hub {what}: {reason}")]
    HubName {
        /// `repository`, `revision` or `file`.
        what: &'static str,
        /// The text given.
        value: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// Offline, and the file is not in the cache.
    #[error(
        "{repo}@{revision}/{file}: not in the cache {} and offline mode is on; \
         unset HF_HUB_OFFLINE and run once with a network, or copy the repository there",
        cache.display()
    )]
    Offline {
        /// The repository.
        repo: String,
        /// The branch, tag or commit.
        revision: String,
        /// The file in it.
        file: String,
        /// The cache looked in.
        cache: PathBuf,
    },
    /// The hub refused the file.
    #[error("{repo}@{revision}/{file}: {refusal}")]
    Refused {
        /// The repository.
        repo: String,
        /// The branch, tag or commit.
        revision: String,
        /// The file in it.
        file: String,
        /// Why, and what to do.
        refusal: HubRefusal,
    },
    /// The hub could not be reached, or did not answer as a hub does.
    #[error("{url}: {reason} (tried {attempts} times){}", retry_words(*retry_after))]
    Unreachable {
        /// What was asked for.
        url: String,
        /// The last thing that went wrong.
        reason: String,
        /// How often it was tried.
        attempts: u32,
        /// How long the server asked to wait, where it did.
        retry_after: Option<Duration>,
    },
    /// The server's answer lacks something, or contradicts itself.
    #[error("{url}: {reason}; is HF_ENDPOINT set to a hub?")]
    Protocol {
        /// What was asked for.
        url: String,
        /// What is missing or wrong.
        reason: String,
    },
    /// The file that arrived is shorter or longer than announced.
    #[error("{url}: received {found} bytes, expected {expected}; try again later, or use another endpoint")]
    Length {
        /// What was asked for.
        url: String,
        /// The announced size in bytes.
        expected: u64,
        /// What arrived, in bytes.
        found: u64,
    },
    /// The file that arrived is not the announced one.
    #[error(
        "{url}: the downloaded file has sha256 {found}, expected {expected}; it was removed. \
         Something between here and the hub changes files: try again without a proxy or mirror"
    )]
    DownloadDigest {
        /// What was asked for.
        url: String,
        /// The announced digest.
        expected: String,
        /// The digest of what arrived.
        found: String,
    },
}

/// Why the hub refuses a file.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum HubRefusal {
    /// The repository is gated by a licence.
    Gated {
        /// The page where the licence is accepted.
        page: String,
        /// Whether a token was sent.
        token_sent: bool,
    },
    /// The hub does not know who asks, or does not let them.
    Unauthorised {
        /// The HTTP status: 401 or 403.
        status: u16,
        /// Whether a token was sent.
        token_sent: bool,
    },
    /// There is no such repository (or it is private and the token does not open it).
    NoRepository,
    /// The repository has no such branch, tag or commit.
    NoRevision,
    /// The revision has no such file.
    NoFile,
    /// Another status that trying again would not change.
    Status(u16),
}

impl std::fmt::Display for HubRefusal {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let set_token =
            "set HF_TOKEN to a token from https://huggingface.co/settings/tokens (or run `hf auth login`)";
        match self {
            Self::Gated { page, token_sent: false } => {
                write!(out, "gated: accept the licence at {page}, then {set_token}")
            }
            Self::Gated { page, token_sent: true } => write!(
                out,
                "gated: the token in use has no access; accept the licence at {page} with the account the token belongs to, \
                 and give a fine-grained token the right to read gated repositories"
            ),
            Self::Unauthorised { status, token_sent: false } => {
                write!(out, "status {status}: private, or no such repository; check its name, or {set_token}")
            }
            Self::Unauthorised { status, token_sent: true } => {
                write!(
                    out,
                    "status {status}: the token in use is not valid here or has no access; {set_token}"
                )
            }
            Self::NoRepository => {
                write!(out, "no such repository (or a private one: then {set_token})")
            }
            Self::NoRevision => out.write_str("the repository has no such branch, tag or commit"),
            Self::NoFile => out.write_str("the revision has no such file"),
            Self::Status(status) => write!(out, "the hub answered with status {status}"),
        }
    }
}

fn nearest_words(nearest: &[String]) -> String {
    if nearest.is_empty() { String::new() } else { format!("; nearest: {}", nearest.join(", ")) }
}

fn retry_words(retry_after: Option<Duration>) -> String {
    retry_after.map_or_else(String::new, |wait| format!("; the server asks to wait {} s", wait.as_secs()))
}
