//! The events of an event file: `Event` and `Summary` of TensorBoard's `event.proto` and `summary.proto`, and the hyperparameters of
//! its `plugin_data.proto`.

use super::message::Message;
use crate::{Ending, Run};

/// What a value holds beside its number, as the dashboards tell them apart.
const TENSOR: i64 = 2;
const FLOAT: i64 = 1;
const STRING: i64 = 7;

/// One event: seconds since 1970, the step, a summary's value.
fn event(time: f64, step: i64, value: &Message) -> Vec<u8> {
    let summary = Message::default().message(1, value);
    Message::default().double(1, time).int(2, step).message(5, &summary).bytes_of()
}

/// The first event of a file.
pub(crate) fn version(time: f64) -> Vec<u8> {
    Message::default().double(1, time).text(3, "brain.Event:2").bytes_of()
}

/// A point of a curve.
pub(crate) fn scalar(time: f64, step: i64, tag: &str, value: f64) -> Vec<u8> {
    event(time, step, &Message::default().text(1, tag).chosen_float(2, value as f32))
}

/// A text, shown as Markdown.
pub(crate) fn text(time: f64, step: i64, tag: &str, text: &str) -> Vec<u8> {
    let tensor =
        Message::default().int(1, STRING).message(2, &Message::default()).chosen_bytes(8, text.as_bytes());
    event(time, step, &tagged(tag, "text", &[], &tensor))
}

/// A picture; `None` if `png` is no PNG file.
pub(crate) fn image(time: f64, step: i64, tag: &str, png: &[u8]) -> Option<Vec<u8>> {
    let header = png.strip_prefix(b"\x89PNG\r\n\x1a\n")?.get(8..18)?;
    let side = |at: usize| -> Option<i64> {
        Some(i64::from(u32::from_be_bytes(header.get(at..at + 4)?.try_into().ok()?)))
    };
    // Channels by PNG's kinds of colour: grey, RGB or palette, each with or without transparency.
    let channels = match header.get(9)? {
        0 => 1,
        4 => 2,
        6 => 4,
        _ => 3,
    };
    let image = Message::default().int(1, side(4)?).int(2, side(0)?).int(3, channels).chosen_bytes(4, png);
    Some(event(time, step, &Message::default().text(1, tag).message(4, &image)))
}

/// What a run was told, for the table of hyperparameters. Runs with one `group` are repetitions of each other.
pub(crate) fn session_start(time: f64, run: &Run, group: &str) -> Vec<u8> {
    let mut start = Message::default();
    for (name, value) in &run.params {
        let entry = Message::default().text(1, name).message(2, &hyperparameter(value));
        start = start.message(1, &entry);
    }
    let start = start.text(4, group).double(5, time);
    hyperparameters(time, "_hparams_/session_start_info", 3, &start)
}

/// How a run ended.
pub(crate) fn session_end(time: f64, ending: Ending) -> Vec<u8> {
    let status = match ending {
        Ending::Finished => 1,
        Ending::Failed | Ending::Cancelled => 2,
    };
    let end = Message::default().int(1, status).double(2, time);
    hyperparameters(time, "_hparams_/session_end_info", 4, &end)
}

fn hyperparameters(time: f64, tag: &str, field: u64, message: &Message) -> Vec<u8> {
    let content = Message::default().message(field, message).bytes_of();
    // The dashboard looks at the metadata only, but a value has to hold something.
    let nothing = Message::default()
        .int(1, FLOAT)
        .message(2, &Message::default())
        .chosen_bytes(5, &0_f32.to_le_bytes());
    event(time, 0, &tagged(tag, "hparams", &content, &nothing))
}

/// A tensor with its tag and the dashboard that it is for.
fn tagged(tag: &str, plugin: &str, content: &[u8], tensor: &Message) -> Message {
    let mut data = Message::default().text(1, plugin);
    if !content.is_empty() {
        data = data.chosen_bytes(2, content);
    }
    let metadata = Message::default().message(1, &data).int(4, TENSOR);
    Message::default().text(1, tag).message(8, tensor).message(9, &metadata)
}

/// A `google.protobuf.Value`: a number or a truth value where the text is one.
fn hyperparameter(text: &str) -> Message {
    let value = Message::default();
    match (text, text.parse::<f64>()) {
        ("true" | "false", _) => value.chosen_bool(4, text == "true"),
        (_, Ok(number)) if number.is_finite() => value.chosen_double(2, number),
        _ => value.chosen_bytes(3, text.as_bytes()),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::{image, scalar, session_end, session_start, text, version};
    use crate::example::PNG;
    use crate::tensorboard::record;
    use crate::{Ending, Run};

    /// What `RecordWriter` and the message classes of TensorBoard 2.20.0 write for the same events.
    #[test]
    fn files_are_the_bytes_that_tensorboard_writes_itself() {
        let params = [("kind", "a"), ("on", "true"), ("rate", "0.5")];
        let params = params.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
        let run = Run { params, ..Run::default() };
        let cases = [
            (
                version(1.5),
                "1800000000000000a37f4b2209000000000000f83f1a0d627261696e2e4576656e743a322a28646c",
            ),
            (
                scalar(1.5, 3, "loss", 0.5),
                "1a00000000000000129bd82d09000000000000f83f10032a0d0a0b0a046c6f7373150000003f80655ee3",
            ),
            (
                scalar(1.5, 0, "loss", 0.0),
                "1800000000000000a37f4b2209000000000000f83f2a0d0a0b0a046c6f73731500000000e936a97a",
            ),
            (
                text(2.0, 4, "notes", "kept ✓"),
                "3200000000000000241956ec09000000000000004010042a250a230a056e6f746573420e0807120042086b65707420e29c934a0a0a\
                 060a047465787420025d193e87",
            ),
            (
                image(2.0, 0, "a", PNG).unwrap(),
                "3b000000000000001a23ac5c0900000000000000402a300a2e0a01612229080210031803222189504e470d0a1a0a0000000d494844\
                 52000000030000000208020000001216f14d9ace1951",
            ),
            (
                session_start(2.0, &run, "g"),
                "80000000000000002a5b60ec0900000000000000402a750a730a1c5f68706172616d735f2f73657373696f6e5f73746172745f696e\
                 666f420a080112002a04000000004a470a430a0768706172616d7312381a360a0b0a046b696e6412031a01610a080a026f6e120220\
                 010a110a0472617465120911000000000000e03f22016729000000000000004020025c2747a9",
            ),
            (
                session_end(2.0, Ending::Finished),
                "53000000000000000d7d4e910900000000000000402a480a460a1a5f68706172616d735f2f73657373696f6e5f656e645f696e666f\
                 420a080112002a04000000004a1c0a180a0768706172616d73120d220b08011100000000000000402002515ba5db",
            ),
        ];
        for (event, expected) in cases {
            let mut file = Vec::new();
            record::push(&mut file, &event);
            let found: String = file.iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().concat();
            assert_eq!(found, expected);
        }
        assert_eq!(image(0.0, 0, "a", b"GIF89a"), None);
    }
}
