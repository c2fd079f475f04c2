//! How far a figure of few images can be trusted.

mod bootstrap;
mod delong;
mod normal;

pub use bootstrap::Bootstrap;
pub use delong::{DeLong, delong};

use crate::Error;

/// A figure with a confidence interval.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Interval {
    /// The figure.
    pub value: f64,
    /// The lower end.
    pub low: f64,
    /// The upper end.
    pub high: f64,
    /// The confidence level, in (0, 1).
    pub level: f64,
}

fn check_level(level: f64) -> Result<(), Error> {
    if level > 0.0 && level < 1.0 {
        Ok(())
    } else {
        Err(Error::Option { name: "level", expected: "more than 0 and less than 1", found: level })
    }
}
