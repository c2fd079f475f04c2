//! The lines of a log: one JSON object each.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::Number;

/// One line: when, and what happened.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Line {
    /// Milliseconds since 1970.
    pub time: u64,
    /// What happened.
    #[serde(flatten)]
    pub what: What,
}

/// What happened. In JSON the field `event` holds the kind: `run`, `phase`, `metric`, …
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
#[non_exhaustive]
pub enum What {
    /// A run begins, or goes on with other tags. Every log begins with one.
    Run(Run),
    /// The same run goes on in another process.
    Resumed,
    /// A part of the work begins.
    Phase {
        /// What it is.
        name: String,
        /// How many steps it has, if known.
        steps: Option<usize>,
    },
    /// A step of the current phase, 0-based, is done. Not every step is told.
    Step {
        /// The step.
        step: usize,
    },
    /// A point of a learning curve.
    Metric {
        /// The curve.
        name: String,
        /// Where, usually the epoch, 1-based.
        at: Number,
        /// The value.
        value: Number,
    },
    /// Something a person may want to know.
    Note {
        /// What.
        text: String,
    },
    /// Something a person should know.
    Warning {
        /// What.
        text: String,
    },
    /// What the run came to.
    Figures {
        /// By name.
        values: BTreeMap<String, Number>,
    },
    /// The run ended, for now or for good.
    End {
        /// How.
        status: Ending,
        /// Why, if it did not end well.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        error: Option<String>,
    },
}

/// How a run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Ending {
    /// Well.
    Finished,
    /// With an error, or its process died.
    Failed,
    /// Someone stopped it.
    Cancelled,
}

/// A run: what identifies it and what it was told.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Run {
    /// What it is known by.
    pub id: String,
    /// Its name for people.
    pub name: String,
    /// What it was told, fixed for its whole life.
    pub params: BTreeMap<String, String>,
    /// What else is known about it, such as the program's version.
    pub tags: BTreeMap<String, String>,
}

/// The leaves of a JSON value by their paths, parts joined with a dot: `{"a": {"b": 1}}` gives `a.b` = `1`.
///
/// Strings are given as they are, other leaves as JSON, and so are empty objects and lists, with lists of plain values whole.
///
/// ```
/// let config = serde_json::json!({"epochs": 3, "loss": {"kind": "mse", "weights": [5, 0.5]}});
/// let flat: Vec<_> = tracking::flattened(&config).into_iter().collect();
/// assert_eq!(flat[1], ("loss.kind".to_owned(), "mse".to_owned()));
/// assert_eq!(flat[2], ("loss.weights".to_owned(), "[5,0.5]".to_owned()));
/// ```
pub fn flattened(value: &serde_json::Value) -> BTreeMap<String, String> {
    let mut leaves = BTreeMap::new();
    flatten("", value, &mut leaves);
    leaves
}

fn flatten(path: &str, value: &serde_json::Value, leaves: &mut BTreeMap<String, String>) {
    use serde_json::Value;
    let below = |part: &str| if path.is_empty() { part.to_owned() } else { format!("{path}.{part}") };
    match value {
        Value::Object(map) if !map.is_empty() => {
            map.iter().for_each(|(name, value)| flatten(&below(name), value, leaves));
        }
        Value::Array(list) if list.iter().any(|item| item.is_object() || item.is_array()) => {
            list.iter().enumerate().for_each(|(at, value)| flatten(&below(&at.to_string()), value, leaves));
        }
        Value::String(text) => {
            leaves.insert(path.to_owned(), text.clone());
        }
        leaf => {
            leaves.insert(path.to_owned(), leaf.to_string());
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::{Ending, Line, What};

    #[test]
    fn lines_are_one_flat_object_each() {
        let line =
            Line { time: 5, what: What::Metric { name: "a\nb".into(), at: 1.0.into(), value: 0.1.into() } };
        let text = serde_json::to_string(&line).unwrap();
        assert_eq!(text, r#"{"time":5,"event":"metric","name":"a\nb","at":1.0,"value":0.1}"#);
        assert_eq!(serde_json::from_str::<Line>(&text).unwrap(), line);
        let end = Line { time: 6, what: What::End { status: Ending::Finished, error: None } };
        assert_eq!(serde_json::to_string(&end).unwrap(), r#"{"time":6,"event":"end","status":"finished"}"#);
        let resumed = Line { time: 7, what: What::Resumed };
        let text = serde_json::to_string(&resumed).unwrap();
        assert_eq!(serde_json::from_str::<Line>(&text).unwrap(), resumed);
    }
}
