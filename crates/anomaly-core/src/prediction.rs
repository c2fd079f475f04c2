//! What a detector says of a batch of images.

use std::collections::BTreeMap;

use candle_core::Tensor;

/// Anomaly maps of a batch at the method's own resolution, higher = more anomalous, raw.
#[derive(Debug, Clone, PartialEq)]
pub struct Maps {
    /// Rows h of each map.
    pub height: usize,
    /// Columns w of each map.
    pub width: usize,
    /// `(B, h, w)`, row-major.
    pub data: Vec<f32>,
}

impl Maps {
    /// The map of image `index`, `(h, w)` row-major; `None` beyond the batch.
    pub fn get(&self, index: usize) -> Option<&[f32]> {
        let size = self.height * self.width;
        self.data.get(index * size..(index + 1) * size)
    }
}

/// Pictures that a method makes of its images (reconstructions, say), for people to look at.
#[derive(Debug, Clone)]
pub struct Picture {
    /// What they show.
    pub name: String,
    /// `(B, 3, h, w)`, f32, in `[0, 1]`.
    pub images: Tensor,
}

/// What a detector says of a batch. **Higher = more anomalous, always; raw, never normalised or clamped.**
#[derive(Debug, Clone, Default)]
pub struct Prediction {
    /// One score an image, `(B,)`.
    pub scores: Vec<f64>,
    /// One map an image, if the method makes them.
    pub maps: Option<Maps>,
    /// Named parts of the score, `(B,)` each, higher = more anomalous.
    pub terms: BTreeMap<String, Vec<f64>>,
    /// Named pictures.
    pub pictures: Vec<Picture>,
}

impl Prediction {
    /// Scores alone.
    pub fn from_scores(scores: Vec<f64>) -> Self {
        Self { scores, ..Self::default() }
    }
}
