//! What a cell's process tells its parent: one JSON object a line, on its standard output.

use anomaly_core::Event;
use serde::{Deserialize, Serialize};

/// One line.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub(crate) enum Message {
    /// A part of the work begins.
    Phase { name: String, steps: Option<usize> },
    /// A step of it, 0-based, is done.
    Step { step: usize },
    /// A point of a learning curve; no value if it is not finite.
    Metric { name: String, at: f64, value: Option<f64> },
    /// Something a person may want to know.
    Note { text: String },
    /// Something a person should know.
    Warning { text: String },
    /// The cell's folder is in place.
    Finished,
    /// It could not be finished, and why.
    Failed { error: String },
    /// It was stopped when asked to.
    Cancelled,
}

impl Message {
    /// The message for an event of a fit; `None` for kinds that are not passed on.
    pub(crate) fn of(event: &Event) -> Option<Self> {
        match event {
            Event::Phase { name, steps } => Some(Self::Phase { name: name.clone(), steps: *steps }),
            Event::Step { step } => Some(Self::Step { step: *step }),
            Event::Metric { name, at, value } => {
                Some(Self::Metric { name: name.clone(), at: *at, value: value.is_finite().then_some(*value) })
            }
            Event::Note(text) => Some(Self::Note { text: text.clone() }),
            Event::Warning(text) => Some(Self::Warning { text: text.clone() }),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use anomaly_core::Event;

    use super::Message;

    #[test]
    fn every_message_survives_its_line_also_one_about_nan() {
        let nan = Event::Metric { name: "loss".into(), at: 3.0, value: f64::NAN };
        let warning = Event::Warning("two\nlines".into());
        let messages = [Message::of(&nan).unwrap(), Message::of(&warning).unwrap(), Message::Finished];
        for message in messages {
            let line = serde_json::to_string(&message).unwrap();
            assert!(!line.contains('\n'), "{line}");
            assert_eq!(serde_json::from_str::<Message>(&line).unwrap(), message);
        }
    }
}
