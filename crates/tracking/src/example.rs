//! A log for tests.

use crate::{Ending, Line, Run, What};

/// A PNG file's beginning: 3 x 2, RGB.
pub(crate) const PNG: &[u8] =
    b"\x89PNG\r\n\x1a\n\x00\x00\x00\x0dIHDR\x00\x00\x00\x03\x00\x00\x00\x02\x08\x02\x00\x00\x00\x12\x16\xf1\x4d";

/// A run that was killed once, and ended well.
pub(crate) fn lines() -> Vec<Line> {
    let run = Run {
        id: "cell".into(),
        name: "toy/data/unimodal/0/seed0".into(),
        params: [("config.epochs", "3"), ("config.kind", "a"), ("config.on", "true"), ("seed", "0")]
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .into(),
        tags: [("commit".to_owned(), "abc".to_owned())].into(),
    };
    let loss = |at: f64, value: f64| What::Metric { name: "loss".into(), at: at.into(), value: value.into() };
    let told = [
        What::Run(run),
        What::Phase { name: "train".into(), steps: Some(3) },
        loss(1.0, 0.5),
        What::Step { step: 0 },
        loss(2.0, f64::NAN),
        What::Note { text: "two\nlines".into() },
        What::Resumed,
        loss(3.0, 0.125),
        What::Figures { values: [("last/image_auroc".to_owned(), 0.75.into())].into() },
        What::End { status: Ending::Finished, error: None },
    ];
    told.into_iter()
        .enumerate()
        .map(|(at, what)| Line { time: 1_700_000_000_000 + 500 * at as u64, what })
        .collect()
}
