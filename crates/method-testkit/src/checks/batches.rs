//! An image's score does not depend on its batch.

use anomaly_core::{Prediction, TrainingData};

use crate::Suite;
use crate::failure::{Problem, problem};

/// The largest difference allowed, relative to a part's scale. The same product over another number of rows may be
/// added in another order; a score that looks at its neighbours is off by far more.
const TOLERANCE: f64 = 1e-5;
/// How many images: enough for batches of several sizes, few enough to score one by one.
const IMAGES: usize = 12;

pub(crate) fn check(suite: &Suite<'_>) -> Result<(), Problem> {
    let reference = suite.reference()?;
    let whole: Vec<usize> = (0..IMAGES).collect();
    let expected = parts(&reference.detector.score(&reference.tests.get(&whole)?)?);
    let backwards: Vec<usize> = whole.iter().rev().copied().collect();
    let alone: Vec<&[usize]> = whole.chunks(1).collect();
    let uneven: Vec<&[usize]> = whole.chunks(5).collect();
    for (how, batches) in
        [("alone", alone), ("in batches of five", uneven), ("in reverse order", vec![&backwards])]
    {
        for batch in batches {
            let found = parts(&reference.detector.score(&reference.tests.get(batch)?)?);
            if found.len() != expected.len() {
                return problem(format!(
                    "{} parts in a batch of {IMAGES}, {} {how}",
                    expected.len(),
                    found.len()
                ));
            }
            for (part, found) in expected.iter().zip(&found) {
                part.compare(found, batch, how)?;
            }
        }
    }
    Ok(())
}

/// One number, or one map, an image.
struct Part {
    name: String,
    /// One entry an image.
    values: Vec<Vec<f64>>,
}

fn parts(prediction: &Prediction) -> Vec<Part> {
    let single =
        |name: String, values: &[f64]| Part { name, values: values.iter().map(|v| vec![*v]).collect() };
    let mut parts = vec![single("score".into(), &prediction.scores)];
    parts.extend(prediction.terms.iter().map(|(name, values)| single(format!("term `{name}`"), values)));
    if let Some(maps) = &prediction.maps {
        let of = |index| maps.get(index).map(|map| map.iter().map(|v| f64::from(*v)).collect());
        parts.push(Part { name: "map".into(), values: (0..).map_while(of).collect() });
    }
    parts
}

impl Part {
    fn compare(&self, found: &Self, batch: &[usize], how: &str) -> Result<(), Problem> {
        // A score near zero may be the difference of large numbers: what counts is the part's scale.
        let all = self.values.iter().flatten();
        let scale = all.clone().map(|v| v.abs()).sum::<f64>() / (all.count().max(1) as f64);
        for (place, &image) in batch.iter().enumerate() {
            let (Some(expected), Some(found)) = (self.values.get(image), found.values.get(place)) else {
                return problem(format!("{}: image {image} has none {how}", self.name));
            };
            for (expected, found) in expected.iter().zip(found) {
                let allowed = TOLERANCE * scale.max(expected.abs());
                let difference = (expected - found).abs();
                if difference.is_nan() || difference > allowed {
                    let name = &self.name;
                    return problem(format!(
                        "{name} of image {image} is {expected} in a batch of {IMAGES} but {found} {how}; allowed: {allowed:.1e}"
                    ));
                }
            }
        }
        Ok(())
    }
}
