//! Progress and curves, told to whoever listens. Library crates never print.

/// Something that happened during a fit.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum Event {
    /// A part of the work begins.
    Phase {
        /// What it is, in a few words ("train", "fit Gaussians").
        name: String,
        /// How many steps it has, if known.
        steps: Option<usize>,
    },
    /// A step of the current phase is done.
    Step {
        /// 0-based.
        step: usize,
    },
    /// A point of a learning curve.
    Metric {
        /// The curve ("loss", "validation loss").
        name: String,
        /// Where: usually the epoch, 1-based.
        at: f64,
        /// The value.
        value: f64,
    },
    /// Something a person may want to know (how much is kept where).
    Note(String),
    /// Something a person should know (a fall-back, an odd input).
    Warning(String),
}

/// Listens to a fit.
pub trait Observer: Send + Sync {
    /// Called for every event, from the fit's own thread; must return soon.
    fn event(&self, event: &Event);
}

/// Listens to nothing.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoObserver;

impl Observer for NoObserver {
    fn event(&self, _: &Event) {}
}
