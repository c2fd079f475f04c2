use serde::{Deserialize, Serialize};

/// A learning rate over time: closed forms of a base rate and a counter from 0 on, of steps or of epochs as the
/// caller counts.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
#[non_exhaustive]
pub enum Schedule {
    /// The base rate.
    Constant,
    /// Half a cosine from the base rate at 0 down to `floor` at `length` (Loshchilov and Hutter 2016,
    /// arXiv 1608.03983), and there for good; `PyTorch`'s `CosineAnnealingLR` would climb up again.
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
    /// Times `factor` after each.
    Exponential {
        /// What the rate is multiplied by.
        factor: f64,
    },
    /// A straight line from `from` times the base rate at 0 to `to` times the base rate at `length`, and there for
    /// good.
    Linear {
        /// Where the second rate is reached.
        length: u64,
        /// The first rate, relative to the base rate.
        from: f64,
        /// The last rate, relative to the base rate.
        to: f64,
    },
    /// Up from `from` at 0 to what `then` gives at `length`; afterwards `then`, whose counter runs from the start.
    Warmup {
        /// When the warm-up is over; 0 for none.
        length: u64,
        /// The first rate, absolute.
        from: f64,
        /// The way up.
        #[serde(default)]
        ramp: Ramp,
        /// What follows.
        then: Box<Schedule>,
    },
    /// `first` before `length`; from then on `then`, whose counter starts from 0 there.
    Sequence {
        /// How long the first schedule goes on.
        length: u64,
        /// What goes on before.
        first: Box<Schedule>,
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

/// The way from a first rate up to a second.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Ramp {
    /// A straight line.
    #[default]
    Linear,
    /// Half a cosine, level at both ends.
    Cosine,
}

impl Ramp {
    /// The share of the way gone at the share `t` of the time.
    fn at(self, t: f64) -> f64 {
        match self {
            Self::Linear => t,
            Self::Cosine => (1.0 - (std::f64::consts::PI * t).cos()) / 2.0,
        }
    }
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
            Self::Exponential { factor } => base * factor.powf(t as f64),
            Self::Linear { length, from, to } => {
                let share = t.min(*length) as f64 / (*length).max(1) as f64;
                let share = if *length == 0 { 1.0 } else { share };
                base * (from + (to - from) * share)
            }
            Self::Warmup { length, from, ramp, then } => {
                if t >= *length {
                    return then.at(base, t);
                }
                from + ramp.at(t as f64 / *length as f64) * (then.at(base, *length) - from)
            }
            Self::Sequence { length, first, then } => {
                if t < *length {
                    first.at(base, t)
                } else {
                    then.at(base, t - length)
                }
            }
            Self::LinearDecay { offset, constant, decay } => {
                let over = t.saturating_add(1).saturating_add(*offset).saturating_sub(*constant) as f64;
                base * (1.0 - over / (*decay as f64 + 1.0)).max(0.0)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::{Ramp, Schedule};

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
    fn linear_decay_may_never_end() {
        near(Schedule::LinearDecay { offset: 0, constant: 0, decay: u64::MAX }.at(1.0, 0), 1.0);
        near(Schedule::LinearDecay { offset: u64::MAX, constant: 0, decay: 1 }.at(1.0, 5), 0.0);
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
        let warm = Schedule::Warmup {
            length: 1000,
            from: 1e-5,
            ramp: Ramp::Linear,
            then: Box::new(Schedule::Constant),
        };
        near(warm.at(1e-3, 0), 1e-5);
        near(warm.at(1e-3, 500), 1e-5 + 0.5 * (1e-3 - 1e-5));
        near(warm.at(1e-3, 1000), 1e-3);
        let then = Box::new(Schedule::Step { every: 10, factor: 0.5 });
        let warm = Schedule::Warmup { length: 10, from: 0.0, ramp: Ramp::Linear, then: then.clone() };
        near(warm.at(1.0, 5), 0.25);
        near(warm.at(1.0, 10), 0.5);
        let warm = Schedule::Warmup { length: 10, from: 0.0, ramp: Ramp::Cosine, then };
        near(warm.at(1.0, 0), 0.0);
        near(warm.at(1.0, 5), 0.25);
        near(warm.at(1.0, 2), 0.25 * (1.0 - (0.2 * std::f64::consts::PI).cos()));
        near(warm.at(1.0, 10), 0.5);
        let none =
            Schedule::Warmup { length: 0, from: 0.7, ramp: Ramp::Linear, then: Box::new(Schedule::Constant) };
        near(none.at(1.0, 0), 1.0);
    }

    #[test]
    fn a_sequence_starts_the_second_anew() {
        let sequence = Schedule::Sequence {
            length: 4,
            first: Box::new(Schedule::Linear { length: 4, from: 0.5, to: 1.0 }),
            then: Box::new(Schedule::Exponential { factor: 0.5 }),
        };
        for (t, wanted) in [(0, 1.0), (2, 1.5), (4, 2.0), (5, 1.0), (7, 0.25)] {
            near(sequence.at(2.0, t), wanted);
        }
        let line = Schedule::Linear { length: 4, from: 0.5, to: 1.0 };
        near(line.at(1.0, 9), 1.0);
        near(Schedule::Linear { length: 0, from: 0.5, to: 0.8 }.at(1.0, 0), 0.8);
    }

    #[test]
    fn a_schedule_is_written_and_read() {
        let text = r#"{"warmup":{"length":3,"from":0.0,"then":{"cosine":{"length":9,"floor":0.1}}}}"#;
        let read: Schedule = serde_json::from_str(text).unwrap();
        let again: Schedule = serde_json::from_str(&serde_json::to_string(&read).unwrap()).unwrap();
        assert_eq!(read, again);
        assert!(serde_json::from_str::<Schedule>(r#"{"step":{"every":1,"factor":1,"x":1}}"#).is_err());
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
