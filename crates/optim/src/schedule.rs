use serde::{Deserialize, Serialize};

/// A learning rate over time: closed forms of a base rate and a counter from 0 on, of steps or of epochs as the
/// caller counts.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
#[non_exhaustive]
pub enum Schedule {
    /// The base rate.
    Constant,
    /// Half a cosine from the base rate at 0 down to `floor` at `length`, and there for good. (Loshchilov and Hutter
    /// 2016, arXiv 1608.03983.)
    Cosine {
        /// Where the floor is reached.
        length: u64,
        /// The lowest rate, absolute.
        floor: f64,
    },
    /// Times `factor` after every `every`.
    Step {
        /// How long a rate lasts.
        every: u64,
        /// What it is multiplied by then.
        factor: f64,
    },
    /// Times `factor` from each milestone on.
    MultiStep {
        /// When the rate changes, in any order.
        milestones: Vec<u64>,
        /// What it is multiplied by then.
        factor: f64,
    },
    /// A straight line from `from` at 0 to what `then` gives at `length`; afterwards `then`, whose counter runs
    /// from the start.
    Warmup {
        /// When the warm-up is over; 0 for none.
        length: u64,
        /// The first rate, absolute.
        from: f64,
        /// What follows.
        then: Box<Schedule>,
    },
    /// The base rate until `constant`, then a straight line that would reach zero at `constant + decay`:
    /// `base * (1 - max(0, t + 1 + offset - constant) / (decay + 1))` (the `lambda` policy of the public `CycleGAN`
    /// code and its descendants), never below zero.
    LinearDecay {
        /// Added to the counter: the epoch at which a run was taken up.
        offset: u64,
        /// How long the rate stays.
        constant: u64,
        /// How long it falls.
        decay: u64,
    },
}

impl Schedule {
    /// The rate at `t` for the rate `base`.
    pub fn at(&self, base: f64, t: u64) -> f64 {
        match self {
            Self::Constant => base,
            Self::Cosine { length, floor } => {
                if t >= *length {
                    return *floor;
                }
                let angle = std::f64::consts::PI * t as f64 / *length as f64;
                floor + (base - floor) * (1.0 + angle.cos()) / 2.0
            }
            Self::Step { every, factor } => base * factor.powf((t / (*every).max(1)) as f64),
            Self::MultiStep { milestones, factor } => {
                base * factor.powf(milestones.iter().filter(|m| **m <= t).count() as f64)
            }
            Self::Warmup { length, from, then } => {
                if t >= *length {
                    return then.at(base, t);
                }
                from + t as f64 / *length as f64 * (then.at(base, *length) - from)
            }
            Self::LinearDecay { offset, constant, decay } => {
                let over = (t + 1 + offset).saturating_sub(*constant) as f64;
                base * (1.0 - over / (*decay + 1) as f64).max(0.0)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Schedule;

    fn near(found: f64, wanted: f64) {
        assert!((found - wanted).abs() < 1e-12, "{found} {wanted}");
    }

    #[test]
    fn constant_stays() {
        near(Schedule::Constant.at(0.3, 1_000_000), 0.3);
    }

    #[test]
    fn cosine_runs_from_base_to_floor() {
        let cosine = Schedule::Cosine { length: 4, floor: 0.2 };
        near(cosine.at(1.0, 0), 1.0);
        near(cosine.at(1.0, 1), 0.2 + 0.8 * (1.0 + 0.5_f64.sqrt()) / 2.0);
        near(cosine.at(1.0, 2), 0.6);
        near(cosine.at(1.0, 4), 0.2);
        near(cosine.at(1.0, 9), 0.2);
        near(Schedule::Cosine { length: 0, floor: 0.2 }.at(1.0, 0), 0.2);
    }

    #[test]
    fn steps_multiply() {
        let step = Schedule::Step { every: 3, factor: 0.1 };
        near(step.at(1.0, 2), 1.0);
        near(step.at(1.0, 3), 0.1);
        near(step.at(1.0, 8), 0.01);
        let multi = Schedule::MultiStep { milestones: vec![5, 2], factor: 0.5 };
        near(multi.at(1.0, 1), 1.0);
        near(multi.at(1.0, 2), 0.5);
        near(multi.at(1.0, 5), 0.25);
    }

    #[test]
    fn warm_up_meets_what_follows() {
        let warm = Schedule::Warmup { length: 1000, from: 1e-5, then: Box::new(Schedule::Constant) };
        near(warm.at(1e-3, 0), 1e-5);
        near(warm.at(1e-3, 500), 1e-5 + 0.5 * (1e-3 - 1e-5));
        near(warm.at(1e-3, 1000), 1e-3);
        let then = Box::new(Schedule::Step { every: 10, factor: 0.5 });
        let warm = Schedule::Warmup { length: 10, from: 0.0, then };
        near(warm.at(1.0, 5), 0.25);
        near(warm.at(1.0, 10), 0.5);
        near(Schedule::Warmup { length: 0, from: 0.7, then: Box::new(Schedule::Constant) }.at(1.0, 0), 1.0);
    }

    #[test]
    fn linear_decay_reaches_zero_and_stays() {
        let decay = Schedule::LinearDecay { offset: 0, constant: 2, decay: 3 };
        near(decay.at(1.0, 0), 1.0);
        near(decay.at(1.0, 1), 1.0);
        near(decay.at(1.0, 2), 0.75);
        near(decay.at(1.0, 5), 0.0);
        near(decay.at(1.0, 50), 0.0);
        near(Schedule::LinearDecay { offset: 2, constant: 2, decay: 3 }.at(1.0, 0), 0.75);
    }
}
