//! The reference's optimisers, in Keras' definitions.

use optim::{
    Adadelta, AdadeltaOptions, Adagrad, AdagradOptions, Adam, AdamOptions, Decay, EpsilonPlace, Momentum,
    Optimizer, ParameterGroup, Ramp, RmsProp, RmsPropOptions, RootEpsilon, Schedule, Sgd, SgdOptions,
};
use serde::{Deserialize, Serialize};

use crate::Error;

/// Which optimiser; all with Keras' default settings but for the learning rate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OptimizerKind {
    /// Its epsilon of 1e-7 is added to the root of the second moment before that is corrected.
    #[default]
    Adam,
    /// Adam after a decoupled decay of 0.004 times the learning rate, of all parameters.
    AdamW,
    /// `rho` 0.95.
    Adadelta,
    /// The sums start at 0.1; epsilon under the root.
    Adagrad,
    /// Without momentum.
    Sgd,
    /// `rho` 0.9; epsilon under the root.
    RmsProp,
}

/// An optimiser's settings, Keras' unless changed.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Settings {
    Adam(AdamOptions),
    Adadelta(AdadeltaOptions),
    Adagrad(AdagradOptions),
    Sgd(SgdOptions),
    RmsProp(RmsPropOptions),
}

const EPSILON: f64 = 1e-7;

impl OptimizerKind {
    /// Keras' settings with this learning rate and, for `AdamW`, weight decay.
    pub(crate) fn settings(self, learning_rate: f64, weight_decay: f64) -> Settings {
        let adam = AdamOptions {
            learning_rate,
            epsilon: EPSILON,
            epsilon_place: EpsilonPlace::Uncorrected,
            decay: Decay::Decoupled,
            ..AdamOptions::default()
        };
        match self {
            Self::Adam => Settings::Adam(adam),
            Self::AdamW => Settings::Adam(AdamOptions { weight_decay, ..adam }),
            Self::Adadelta => Settings::Adadelta(AdadeltaOptions {
                learning_rate,
                rho: 0.95,
                epsilon: EPSILON,
                ..AdadeltaOptions::default()
            }),
            Self::Adagrad => Settings::Adagrad(AdagradOptions {
                learning_rate,
                initial_sum: 0.1,
                epsilon: EPSILON,
                epsilon_place: RootEpsilon::Inside,
                ..AdagradOptions::default()
            }),
            Self::Sgd => Settings::Sgd(SgdOptions {
                learning_rate,
                momentum_of: Momentum::Step,
                ..SgdOptions::default()
            }),
            Self::RmsProp => Settings::RmsProp(RmsPropOptions {
                learning_rate,
                rho: 0.9,
                epsilon: EPSILON,
                epsilon_place: RootEpsilon::Inside,
                momentum_of: Momentum::Step,
                ..RmsPropOptions::default()
            }),
        }
    }
}

impl Settings {
    /// The optimiser over all parameters of `group`.
    pub(crate) fn over(self, group: ParameterGroup) -> Result<Box<dyn Optimizer>, Error> {
        let groups = vec![group];
        Ok(match self {
            Self::Adam(options) => Box::new(Adam::new(groups, options)?),
            Self::Adadelta(options) => Box::new(Adadelta::new(groups, options)?),
            Self::Adagrad(options) => Box::new(Adagrad::new(groups, options)?),
            Self::Sgd(options) => Box::new(Sgd::new(groups, options)?),
            Self::RmsProp(options) => Box::new(RmsProp::new(groups, options)?),
        })
    }
}

/// A straight line from `first` at step 0 to the learning rate at step `steps`, and there for good.
pub(crate) fn warm_up(first: f64, steps: u64) -> Schedule {
    Schedule::Warmup { length: steps, from: first, ramp: Ramp::Linear, then: Box::new(Schedule::Constant) }
}
