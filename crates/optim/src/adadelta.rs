use crate::descent::{Descent, Settings};
use crate::group::{Decay, at_least_zero, below_one};
use crate::number::Number;
use crate::slots::{ReadySlot, StateLayout};
use crate::sweep::{Changed, Rule};
use crate::{GradientChange, Result};

/// The settings of [`Adadelta`]; the default is `PyTorch`'s.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct AdadeltaOptions {
    /// The learning rate of a group with factor 1; 1.
    pub learning_rate: f64,
    /// How slowly the means of squares forget, in `[0, 1)`; 0.9 (Keras has 0.95).
    pub rho: f64,
    /// Added under both roots; 1e-6 (Keras has 1e-7).
    pub epsilon: f64,
    /// The weight decay of groups without their own; 0.
    pub weight_decay: f64,
    /// What weight decay means.
    pub decay: Decay,
}

impl Default for AdadeltaOptions {
    fn default() -> Self {
        Self { learning_rate: 1.0, rho: 0.9, epsilon: 1e-6, weight_decay: 0.0, decay: Decay::L2 }
    }
}

/// Adadelta (Zeiler 2012, arXiv 1212.5701), in `PyTorch`'s arithmetic, which is Keras' too.
pub type Adadelta = Descent<AdadeltaOptions>;

impl Settings for AdadeltaOptions {
    fn check(&self) -> Result<()> {
        at_least_zero("learning_rate", self.learning_rate)?;
        at_least_zero("epsilon", self.epsilon)?;
        below_one("rho", self.rho)
    }

    fn layout(&self) -> StateLayout {
        StateLayout { kind: "adadelta", names: &["mean_square", "mean_square_step"], initial: 0.0 }
    }

    fn learning_rate(&self) -> f64 {
        self.learning_rate
    }

    fn set_learning_rate(&mut self, learning_rate: f64) {
        self.learning_rate = learning_rate;
    }

    fn weight_decay(&self) -> f64 {
        self.weight_decay
    }

    fn step(&self, slot: &mut ReadySlot<'_>, change: GradientChange) -> candle_core::Result<()> {
        let rate = slot.rate(self.learning_rate);
        let (added, kept) = self.decay.split(slot.parameter.weight_decay, rate);
        let rule =
            Delta { added, kept, rho: self.rho, share: 1.0 - self.rho, epsilon: self.epsilon, size: rate };
        slot.sweep::<2>(rule, change)?;
        Ok(())
    }
}

#[derive(Debug, Clone, Copy)]
struct Delta {
    /// Share of the parameter added to its gradient.
    added: f64,
    /// Share of the parameter that decay leaves.
    kept: f64,
    rho: f64,
    share: f64,
    epsilon: f64,
    size: f64,
}

impl Rule<2> for Delta {
    #[inline(always)]
    fn change<N: Number>(&self, value: N, gradient: N, [square, steps]: [N; 2]) -> Changed<N, 2> {
        let gradient =
            if self.added == 0.0 { gradient } else { gradient.plus(&value.scaled(self.added)?)? };
        let square = square.scaled(self.rho)?.plus(&gradient.scaled(self.share)?.times(&gradient)?)?;
        let root = square.shifted(self.epsilon)?.root()?;
        let delta = steps.shifted(self.epsilon)?.root()?.over(&root)?.times(&gradient)?;
        let steps = steps.scaled(self.rho)?.plus(&delta.scaled(self.share)?.times(&delta)?)?;
        Ok((value.scaled(self.kept)?.minus(&delta.scaled(self.size)?)?, [square, steps]))
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::Delta;
    use crate::sweep::tests::{BothWaysAgree, Check};

    pub(crate) fn every_form(check: &impl Check) {
        for added in [0.1, 0.0] {
            check.rule(Delta { added, kept: 0.9, rho: 0.8, share: 0.2, epsilon: 1e-2, size: 0.5 });
        }
    }

    #[test]
    fn host_and_other_devices_agree() {
        every_form(&BothWaysAgree);
    }
}
