//! The learning rate from epoch to epoch.

use optim::{Better, Plateau, PlateauOptions, Schedule, Threshold};
use serde::{Deserialize, Serialize};

use crate::config::RatePolicy;
use crate::{Config, Error};

/// The learning rate's way so far; part of a checkpoint.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Rate {
    now: f64,
    plateau: Option<Plateau>,
}

impl Rate {
    pub(crate) fn new(config: &Config) -> Result<Self, Error> {
        let plateau = match config.policy {
            RatePolicy::Plateau { patience } => Some(Plateau::new(PlateauOptions {
                better: Better::Lower,
                factor: 0.2,
                patience,
                threshold: Threshold::Relative(0.01),
                ..PlateauOptions::default()
            })?),
            _ => None,
        };
        let mut rate = Self { now: config.learning_rate, plateau };
        rate.now = rate.scheduled(config, 0);
        Ok(rate)
    }

    /// The rate of the current epoch.
    pub(crate) fn now(&self) -> f64 {
        self.now
    }

    /// Goes on to epoch `epoch`, counted from 0, after one with this mean reconstruction loss.
    pub(crate) fn next(&mut self, config: &Config, epoch: usize, loss: f64) {
        self.now = match &mut self.plateau {
            Some(plateau) => plateau.next(loss, self.now),
            None => self.scheduled(config, epoch),
        };
    }

    fn scheduled(&self, config: &Config, epoch: usize) -> f64 {
        let schedule = match config.policy {
            RatePolicy::Constant => Schedule::Constant,
            RatePolicy::Lambda { constant, decay } => Schedule::LinearDecay { offset: 0, constant, decay },
            RatePolicy::Step { every } => Schedule::Step { every, factor: 0.1 },
            RatePolicy::Plateau { .. } => return self.now,
        };
        schedule.at(config.learning_rate, epoch as u64)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::Rate;
    use crate::Config;
    use crate::config::RatePolicy;

    fn rates(policy: RatePolicy, losses: &[f64]) -> Vec<f64> {
        let config = Config { policy, learning_rate: 1.0, ..Config::default() };
        let mut rate = Rate::new(&config).unwrap();
        let mut all = vec![rate.now()];
        for (epoch, &loss) in losses.iter().enumerate() {
            rate.next(&config, epoch + 1, loss);
            all.push(rate.now());
        }
        all
    }

    fn near(found: &[f64], wanted: &[f64]) {
        assert!(found.iter().zip(wanted).all(|(a, b)| (a - b).abs() < 1e-12), "{found:?} {wanted:?}");
    }

    #[test]
    fn each_policy_really_steps() {
        near(&rates(RatePolicy::Constant, &[1.0; 3]), &[1.0; 4]);
        near(&rates(RatePolicy::Step { every: 2 }, &[1.0; 4]), &[1.0, 1.0, 0.1, 0.1, 0.01]);
        let lambda = RatePolicy::Lambda { constant: 2, decay: 3 };
        near(&rates(lambda, &[1.0; 5]), &[1.0, 1.0, 0.75, 0.5, 0.25, 0.0]);
        let plateau = RatePolicy::Plateau { patience: 1 };
        near(&rates(plateau, &[1.0, 0.5, 0.499, 0.498, 0.2]), &[1.0, 1.0, 1.0, 1.0, 0.2, 0.2]);
    }
}
