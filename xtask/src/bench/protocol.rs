//! What a contender is told and what it answers: one line of JSON each way.
//!
//! The contender ends when its standard input closes, so it does not outlive the program that measures it.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::memory::Memory;

/// One turn.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Request<C> {
    /// The work; made ready when it is named for the first time, and kept until another is named.
    pub(crate) case: C,
    /// How long to repeat it for: once untimed, then at least once timed. 0: only make it ready.
    pub(crate) seconds: f64,
    /// Where to write what the work computes, as little-endian f64, instead of timing it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) outcome: Option<PathBuf>,
}

/// The answer to a turn.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub(crate) enum Reply {
    /// The work cannot be done here.
    Failed {
        /// Why.
        error: String,
    },
    /// It was done.
    Done(Turn),
}

/// What one turn took.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Turn {
    /// Seconds of each timed iteration.
    pub(crate) seconds: Vec<f64>,
    /// What its process took so far.
    #[serde(flatten)]
    pub(crate) memory: Memory,
    /// What did the work: libraries and their versions, allocator, precision resolved to.
    #[serde(default)]
    pub(crate) versions: BTreeMap<String, String>,
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::{Memory, Reply, Turn};

    #[test]
    fn answers_are_told_apart() {
        let done: Reply = serde_json::from_str(
            r#"{"seconds": [0.5], "base_bytes": 3, "peak_bytes": 7, "running_bytes": null, "versions": {"torch": "2"}}"#,
        )
        .unwrap();
        let Reply::Done(Turn { seconds, memory, versions }) = done else { panic!("{done:?}") };
        assert_eq!((seconds, versions["torch"].as_str()), (vec![0.5], "2"));
        assert_eq!(memory, Memory { base: Some(3), peak: Some(7), running: None });
        let unweighed: Reply = serde_json::from_str(r#"{"seconds": []}"#).unwrap();
        assert_eq!(unweighed, Reply::Done(Turn::default()));
        let failed: Reply = serde_json::from_str(r#"{"error": "no torch"}"#).unwrap();
        assert_eq!(failed, Reply::Failed { error: "no torch".to_owned() });
    }
}
