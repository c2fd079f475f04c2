//! Why there is no number.

use std::path::PathBuf;

/// Input for which a metric is not defined. No metric returns a number for it.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// There is nothing to measure.
    #[error("expected at least one element of `{what}`, found none")]
    Empty {
        /// The argument.
        what: &'static str,
    },
    /// Two arguments that go together differ in length.
    #[error("expected as many `{right}` as `{left}`, found {right_len} for {left_len}")]
    LengthMismatch {
        /// The first argument.
        left: &'static str,
        /// Its length.
        left_len: usize,
        /// The second argument.
        right: &'static str,
        /// Its length.
        right_len: usize,
    },
    /// A label is neither 0 nor 1.
    #[error("label {index}: expected 0 or 1, found {found}")]
    Label {
        /// Position of the label.
        index: usize,
        /// Its value.
        found: i64,
    },
    /// A score is NaN or infinite.
    #[error("score {index}: expected a finite number, found {value}")]
    NotFinite {
        /// Position of the score.
        index: usize,
        /// Its value.
        value: f64,
    },
    /// A pixel of a map is NaN or infinite.
    #[error("image {image}, pixel {pixel}: expected a finite score, found {value}")]
    NotFinitePixel {
        /// Position of the image.
        image: usize,
        /// Row-major position of the pixel.
        pixel: usize,
        /// Its value.
        value: f64,
    },
    /// A map or a mask has not as many pixels as its image.
    #[error("{what}: expected {height} x {width} = {} pixels, found {found}", height * width)]
    Shape {
        /// Which of the two.
        what: &'static str,
        /// Rows of the image.
        height: usize,
        /// Columns of the image.
        width: usize,
        /// How many pixels were given.
        found: usize,
    },
    /// The metric needs positives and there are none.
    #[error("{metric} needs at least one positive (anomalous) element, found none")]
    NoPositives {
        /// The metric.
        metric: &'static str,
    },
    /// The metric needs negatives and there are none.
    #[error("{metric} needs at least one negative (normal) element, found none")]
    NoNegatives {
        /// The metric.
        metric: &'static str,
    },
    /// A ratio over nothing.
    #[error("{metric} is undefined: it divides by {divisor}, which is 0")]
    Undefined {
        /// The metric.
        metric: &'static str,
        /// What it divides by.
        divisor: &'static str,
    },
    /// No mask has an anomalous pixel, or no channel was given.
    #[error("{metric} needs at least one anomalous region, found none")]
    NoRegion {
        /// The metric.
        metric: &'static str,
    },
    /// Every pixel of every image is anomalous.
    #[error("{metric} needs at least one pixel outside the anomalous regions, found none")]
    NoBackground {
        /// The metric.
        metric: &'static str,
    },
    /// An option lies outside its range.
    #[error("`{name}`: expected {expected}, found {found}")]
    Option {
        /// The option.
        name: &'static str,
        /// Its range in words.
        expected: &'static str,
        /// The value given.
        found: f64,
    },
    /// The saturation area of a channel is 0.
    #[error("channel {channel}: its saturation area is 0 ({area} pixels, threshold {threshold})")]
    Saturation {
        /// Position of the channel over all images.
        channel: usize,
        /// Pixels of the channel.
        area: u64,
        /// The threshold given.
        threshold: f64,
    },
    /// All pixels of all normal images have the same score, so there are no thresholds between them.
    #[error("every pixel of the normal images has the score {value}; thresholds need a range")]
    ConstantNormals {
        /// That score.
        value: f64,
    },
    /// A bound of the shared false positive rate is not reached by any threshold.
    #[error("bound {bound} of the false positive rate: the curve goes from {lowest} to {highest}")]
    Unreached {
        /// The bound.
        bound: f64,
        /// The lowest rate of the curve.
        lowest: f64,
        /// The highest rate of the curve.
        highest: f64,
    },
    /// Too few thresholds lie between the bounds.
    #[error(
        "{found} thresholds lie between the bounds of the false positive rate, expected at least {expected}"
    )]
    TooFewPoints {
        /// How many there are.
        found: usize,
        /// How many there must be.
        expected: usize,
    },
    /// A second pass over the images did not see what the first saw.
    #[error("{metric}: the second pass saw other images than the first: {expected}, then {found}")]
    OtherImages {
        /// The metric.
        metric: &'static str,
        /// What the first pass saw.
        expected: String,
        /// What the second pass saw.
        found: String,
    },
    /// Bytes that hold no state.
    #[error("state, byte {at}: expected {expected}")]
    State {
        /// Where the contradiction shows.
        at: usize,
        /// What was expected there.
        expected: &'static str,
    },
    /// A file could not be written or read.
    #[error("{}: can't {action}: {problem}", path.display())]
    Storage {
        /// The file or its folder.
        path: PathBuf,
        /// What was tried.
        action: &'static str,
        /// What the system says.
        problem: String,
    },
    /// So few elements allow no such statement.
    #[error("{statement}: expected at least {needed} {what}, found {found}")]
    TooFew {
        /// What was to be said.
        statement: &'static str,
        /// Of what there are too few.
        what: &'static str,
        /// How many it takes.
        needed: usize,
        /// How many there are.
        found: usize,
    },
}
