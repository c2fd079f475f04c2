use serde::{Deserialize, Serialize};

use crate::group::at_least_zero;
use crate::{Error, Result};

/// Which way a watched value gets better.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Better {
    /// Down, as a loss.
    #[default]
    Lower,
    /// Up, as an area under a curve.
    Higher,
}

/// By how much a value must beat the best one to count.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Threshold {
    /// By this share of the best value.
    Relative(f64),
    /// By this.
    Absolute(f64),
}

/// The settings of [`Plateau`]; the default is `PyTorch`'s `ReduceLROnPlateau`.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PlateauOptions {
    /// Which way the watched value gets better; lower.
    pub better: Better,
    /// What the rate is multiplied by on a plateau, below 1; 0.1.
    pub factor: f64,
    /// How many values in a row may fail to beat the best one; 10.
    pub patience: u64,
    /// By how much a value must beat the best one; 1e-4 of it.
    pub threshold: Threshold,
    /// How many values are let pass after the rate has fallen before failures count again; 0.
    pub cooldown: u64,
    /// The lowest rate; 0.
    pub floor: f64,
    /// A rate that would fall by no more than this stays; 1e-8.
    pub least_change: f64,
}

impl Default for PlateauOptions {
    fn default() -> Self {
        Self {
            better: Better::Lower,
            factor: 0.1,
            patience: 10,
            threshold: Threshold::Relative(1e-4),
            cooldown: 0,
            floor: 0.0,
            least_change: 1e-8,
        }
    }
}

/// A learning rate that falls when a watched value no longer gets better. It depends on all values so far: serialise
/// it into the checkpoint beside the optimiser's state.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Plateau {
    options: PlateauOptions,
    /// None before the first finite value (JSON has no infinity).
    best: Option<f64>,
    failures: u64,
    cooling: u64,
}

impl Plateau {
    /// A schedule that has seen nothing yet.
    ///
    /// # Errors
    ///
    /// If an option is outside of its range.
    pub fn new(options: PlateauOptions) -> Result<Self> {
        at_least_zero("floor", options.floor)?;
        at_least_zero("least_change", options.least_change)?;
        let (Threshold::Relative(threshold) | Threshold::Absolute(threshold)) = options.threshold;
        at_least_zero("threshold", threshold)?;
        if !(0.0..1.0).contains(&options.factor) {
            return Err(Error::Option { option: "factor", expected: "in [0, 1)", found: options.factor });
        }
        Ok(Self { options, best: None, failures: 0, cooling: 0 })
    }

    /// Takes the next value of what is watched, and gives the learning rate that follows `rate`. What is
    /// not finite is a failure, whichever way is better.
    pub fn next(&mut self, value: f64, rate: f64) -> f64 {
        if self.beats_best(value) {
            self.best = Some(value);
            self.failures = 0;
        } else {
            self.failures += 1;
        }
        if self.cooling > 0 {
            self.cooling -= 1;
            self.failures = 0;
        }
        if self.failures <= self.options.patience {
            return rate;
        }
        self.cooling = self.options.cooldown;
        self.failures = 0;
        let lower = (rate * self.options.factor).max(self.options.floor);
        if rate - lower > self.options.least_change { lower } else { rate }
    }

    fn beats_best(&self, value: f64) -> bool {
        if !value.is_finite() {
            return false;
        }
        let Some(best) = self.best else { return true };
        match (self.options.better, self.options.threshold) {
            (Better::Lower, Threshold::Relative(share)) => value < best * (1.0 - share),
            (Better::Lower, Threshold::Absolute(by)) => value < best - by,
            (Better::Higher, Threshold::Relative(share)) => value > best * (1.0 + share),
            (Better::Higher, Threshold::Absolute(by)) => value > best + by,
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::{Better, Plateau, PlateauOptions, Threshold};

    #[test]
    fn the_rate_falls_after_patience_and_waits_out_the_cooldown() {
        let options = PlateauOptions {
            factor: 0.5,
            patience: 1,
            threshold: Threshold::Absolute(0.1),
            cooldown: 2,
            ..PlateauOptions::default()
        };
        let mut plateau = Plateau::new(options).unwrap();
        let mut rate = 1.0;
        let mut rates = Vec::new();
        for value in [1.0, 0.95, 0.93, 0.92, 0.92, 0.92, 0.92, 0.2, f64::NAN, 0.2] {
            rate = plateau.next(value, rate);
            rates.push(rate);
        }
        assert_eq!(rates, [1.0, 1.0, 0.5, 0.5, 0.5, 0.5, 0.25, 0.25, 0.25, 0.25]);
    }

    #[test]
    fn a_resumed_schedule_goes_on_alike() {
        let options = PlateauOptions {
            better: Better::Higher,
            patience: 2,
            cooldown: 1,
            floor: 0.01,
            ..PlateauOptions::default()
        };
        let value = |t: u32| (f64::from(t) * 0.7).sin();
        let mut plateau = Plateau::new(options).unwrap();
        let fresh = serde_json::to_string(&plateau).unwrap();
        assert_eq!(serde_json::from_str::<Plateau>(&fresh).unwrap(), plateau);
        let mut rate = 0.3;
        for t in 0..7 {
            rate = plateau.next(value(t), rate);
        }
        let text = serde_json::to_string(&plateau).unwrap();
        let mut resumed: Plateau = serde_json::from_str(&text).unwrap();
        let mut again = rate;
        for t in 7..30 {
            rate = plateau.next(value(t), rate);
            again = resumed.next(value(t), again);
            assert_eq!(rate.to_bits(), again.to_bits());
        }
        assert_eq!((rate, plateau), (0.01, resumed));
    }

    #[test]
    fn infinities_are_failures() {
        // What PyTorch gives for these.
        let options = PlateauOptions { factor: 0.5, patience: 2, ..PlateauOptions::default() };
        let mut plateau = Plateau::new(options).unwrap();
        let mut rate = 1.0;
        let mut rates = Vec::new();
        for value in [[f64::INFINITY; 5].as_slice(), &[5.0; 4]].concat() {
            rate = plateau.next(value, rate);
            rates.push(rate);
            plateau = serde_json::from_str(&serde_json::to_string(&plateau).unwrap()).unwrap();
        }
        assert_eq!(rates, [1.0, 1.0, 0.5, 0.5, 0.5, 0.5, 0.5, 0.5, 0.25]);
        for better in [Better::Lower, Better::Higher] {
            let mut plateau = Plateau::new(PlateauOptions { better, ..options }).unwrap();
            for value in [f64::INFINITY, f64::NEG_INFINITY, f64::NAN] {
                rate = plateau.next(value, 1.0);
            }
            assert!(rate < 1.0);
            assert_eq!(plateau.best, None);
        }
    }

    #[test]
    fn wrong_options_are_refused() {
        for (options, field) in [
            (PlateauOptions { factor: 1.0, ..PlateauOptions::default() }, "factor"),
            (PlateauOptions { floor: -1.0, ..PlateauOptions::default() }, "floor"),
            (PlateauOptions { threshold: Threshold::Relative(f64::NAN), ..Default::default() }, "threshold"),
        ] {
            assert!(Plateau::new(options).unwrap_err().to_string().contains(field));
        }
    }
}
