use crate::descent::{Descent, Settings};
use crate::group::{Decay, at_least_zero};
use crate::number::Number;
use crate::slots::{ReadySlot, StateLayout};
use crate::sweep::{Changed, Rule};
use crate::{GradientChange, Result, RootEpsilon};

/// The settings of [`Adagrad`]; the default is `PyTorch`'s.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct AdagradOptions {
    /// The learning rate of a group with factor 1; 1e-2.
    pub learning_rate: f64,
    /// The rate at step `t` from 1 on is divided by `1 + (t - 1) * rate_decay`; 0.
    pub rate_decay: f64,
    /// What the sum of squares starts at; 0.
    pub initial_sum: f64,
    /// Added to the denominator; 1e-10.
    pub epsilon: f64,
    /// Where it is added.
    pub epsilon_place: RootEpsilon,
    /// The weight decay of groups without their own; 0.
    pub weight_decay: f64,
    /// What weight decay means.
    pub decay: Decay,
}

impl Default for AdagradOptions {
    fn default() -> Self {
        Self {
            learning_rate: 1e-2,
            rate_decay: 0.0,
            initial_sum: 0.0,
            epsilon: 1e-10,
            epsilon_place: RootEpsilon::Outside,
            weight_decay: 0.0,
            decay: Decay::L2,
        }
    }
}

/// Adagrad (Duchi et al. 2011), in `PyTorch`'s arithmetic; Keras' by options.
pub type Adagrad = Descent<AdagradOptions>;

impl Settings for AdagradOptions {
    fn check(&self) -> Result<()> {
        at_least_zero("learning_rate", self.learning_rate)?;
        at_least_zero("rate_decay", self.rate_decay)?;
        at_least_zero("initial_sum", self.initial_sum)?;
        at_least_zero("epsilon", self.epsilon)
    }

    fn layout(&self) -> StateLayout {
        StateLayout { kind: "adagrad", names: &["sum_of_squares"], initial: self.initial_sum }
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
        let size = rate / (1.0 + (slot.step - 1) as f64 * self.rate_decay);
        let rule = DivideBySum { added, kept, size, epsilon: self.epsilon, place: self.epsilon_place };
        slot.sweep::<1>(rule, change)?;
        Ok(())
    }
}

#[derive(Debug, Clone, Copy)]
struct DivideBySum {
    /// Share of the parameter added to its gradient.
    added: f64,
    /// Share of the parameter that decay leaves.
    kept: f64,
    size: f64,
    epsilon: f64,
    place: RootEpsilon,
}

impl Rule<1> for DivideBySum {
    #[inline(always)]
    fn change<N: Number>(&self, value: N, gradient: N, [sum]: [N; 1]) -> Changed<N, 1> {
        let gradient =
            if self.added == 0.0 { gradient } else { gradient.plus(&value.scaled(self.added)?)? };
        let sum = sum.plus(&gradient.times(&gradient)?)?;
        let step = gradient.scaled(self.size)?.over(&self.place.root(&sum, self.epsilon)?)?;
        Ok((value.scaled(self.kept)?.minus(&step)?, [sum]))
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::DivideBySum;
    use crate::RootEpsilon;
    use crate::sweep::tests::{BothWaysAgree, Check};

    pub(crate) fn every_form(check: &impl Check) {
        for place in [RootEpsilon::Outside, RootEpsilon::Inside] {
            for added in [0.1, 0.0] {
                check.rule(DivideBySum { added, kept: 0.9, size: 0.2, epsilon: 1e-3, place });
            }
        }
    }

    #[test]
    fn host_and_other_devices_agree() {
        every_form(&BothWaysAgree);
    }
}
