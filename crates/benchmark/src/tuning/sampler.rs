//! Where to look next: at random, or by the tree-structured Parzen estimator (Bergstra et al. 2011), one setting at a time.

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;
use sha2::{Digest, Sha256};
use tpe::TpeOptimizer;

use super::space::{Range, Space};

/// How many trials are drawn at random before the estimator is asked.
const FIRST: usize = 10;

/// How points are chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Sampler {
    /// The tree-structured Parzen estimator: the best tenth of the trials against the rest, 24 candidates.
    Tpe,
    /// At random: the baseline that every other way must beat.
    Random,
}

impl std::str::FromStr for Sampler {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "tpe" => Ok(Self::Tpe),
            "random" => Ok(Self::Random),
            _ => Err(format!("expected `tpe` or `random`, found `{text}`")),
        }
    }
}

/// The point of trial `number`, given the points and values (lower is better) of trials before it. The same input gives
/// the same point.
pub(crate) fn suggested(
    space: &Space,
    sampler: Sampler,
    seed: u64,
    number: usize,
    told: &[(Vec<f64>, f64)],
) -> Vec<f64> {
    let dimensions = space.dimensions.iter().enumerate();
    dimensions
        .map(|(at, dimension)| {
            let mut stream = stream(seed, number, at);
            let (low, high) = dimension.range.ends();
            let by_chance = |stream: &mut ChaCha8Rng| low + (high - low) * unit(stream);
            if sampler == Sampler::Random || number < FIRST || told.len() < FIRST {
                return by_chance(&mut stream);
            }
            by_estimate(&dimension.range, at, told, &mut stream).unwrap_or_else(|| by_chance(&mut stream))
        })
        .collect()
}

/// The estimator's choice; `None` if it can't make one.
fn by_estimate(range: &Range, at: usize, told: &[(Vec<f64>, f64)], stream: &mut ChaCha8Rng) -> Option<f64> {
    let (low, high) = range.ends();
    let estimator = match range {
        Range::Number { .. } => tpe::parzen_estimator(),
        Range::Choice(_) => tpe::histogram_estimator(),
    };
    let mut optimizer = TpeOptimizer::new(estimator, tpe::range(low, high).ok()?);
    for (point, value) in told {
        // The upper end does not belong to the range.
        optimizer.tell(point[at].clamp(low, high.next_down()), *value).ok()?;
    }
    optimizer.ask(stream).ok().filter(|coordinate| coordinate.is_finite())
}

fn stream(seed: u64, number: usize, dimension: usize) -> ChaCha8Rng {
    let text = format!("tuning {seed} trial {number} dimension {dimension}");
    ChaCha8Rng::from_seed(Sha256::digest(text.as_bytes()).into())
}

/// Evenly in `[0, 1)`.
fn unit(stream: &mut ChaCha8Rng) -> f64 {
    use rand_chacha::rand_core::Rng;
    (stream.next_u64() >> 11) as f64 / (1_u64 << 53) as f64
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use serde_json::json;

    use super::{Sampler, suggested};
    use crate::tuning::space::{Dimension, Range, Space};

    fn space() -> Space {
        let number = |name: &str, low: f64, high: f64, log| Dimension {
            name: name.to_owned(),
            range: Range::Number { low, high, log, whole: false },
        };
        let choice =
            Dimension { name: "kind".into(), range: Range::Choice(vec![json!("a"), json!("b"), json!("c")]) };
        Space {
            dimensions: vec![choice, number("rate", 1e-5, 1e-1, true), number("weight", -5.0, 5.0, false)],
        }
    }

    /// Best at kind b, rate 1e-3, weight 2.
    fn objective(point: &[f64]) -> f64 {
        let kind = if point[0] as usize == 1 { 0.0 } else { 3.0 };
        kind + (point[1] - f64::ln(1e-3)).powi(2) / 4.0 + (point[2] - 2.0).powi(2) / 4.0
    }

    fn best(sampler: Sampler, seed: u64) -> f64 {
        let mut told: Vec<(Vec<f64>, f64)> = Vec::new();
        for number in 0..60 {
            let point = suggested(&space(), sampler, seed, number, &told);
            let value = objective(&point);
            told.push((point, value));
        }
        told.iter().map(|(_, value)| *value).fold(f64::INFINITY, f64::min)
    }

    #[test]
    fn the_estimator_beats_chance_in_the_mean_of_twenty_studies() {
        let mean = |sampler| (0..20).map(|seed| best(sampler, seed)).sum::<f64>() / 20.0;
        let (tpe, random) = (mean(Sampler::Tpe), mean(Sampler::Random));
        assert!(tpe < 0.5 * random, "tpe {tpe} random {random}");
    }

    #[test]
    fn a_point_depends_on_nothing_but_what_was_told() {
        let told: Vec<(Vec<f64>, f64)> =
            (0..12).map(|at| (vec![1.0, -7.0, f64::from(at) / 4.0], f64::from(at))).collect();
        let point = suggested(&space(), Sampler::Tpe, 3, 12, &told);
        assert_eq!(point, suggested(&space(), Sampler::Tpe, 3, 12, &told));
        assert_ne!(point, suggested(&space(), Sampler::Tpe, 4, 12, &told));
        // A trial that failed is told as infinitely bad.
        let mut failed = told;
        failed[3].1 = f64::INFINITY;
        assert!(suggested(&space(), Sampler::Tpe, 3, 12, &failed).iter().all(|at| at.is_finite()));
    }
}
