use crate::descent::{Descent, Settings};
use crate::group::{Decay, at_least_zero, below_one};
use crate::number::Number;
use crate::slots::{ReadySlot, StateLayout};
use crate::sweep::{Changed, Rule};
use crate::{GradientChange, Momentum, Result, RootEpsilon};

/// The settings of [`RmsProp`]; the default is `PyTorch`'s.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RmsPropOptions {
    /// The learning rate of a group with factor 1; 1e-2.
    pub learning_rate: f64,
    /// How slowly the mean of the gradient's square forgets, in `[0, 1)`; 0.99.
    pub rho: f64,
    /// Added to the denominator; 1e-8.
    pub epsilon: f64,
    /// Where it is added.
    pub epsilon_place: RootEpsilon,
    /// How much of the last direction is kept; 0.
    pub momentum: f64,
    /// What is kept.
    pub momentum_of: Momentum,
    /// The weight decay of groups without their own; 0.
    pub weight_decay: f64,
    /// What weight decay means.
    pub decay: Decay,
}

impl Default for RmsPropOptions {
    fn default() -> Self {
        Self {
            learning_rate: 1e-2,
            rho: 0.99,
            epsilon: 1e-8,
            epsilon_place: RootEpsilon::Outside,
            momentum: 0.0,
            momentum_of: Momentum::Direction,
            weight_decay: 0.0,
            decay: Decay::L2,
        }
    }
}

/// `RMSprop` (Hinton's lecture 6e, 2012), not centred, in `PyTorch`'s arithmetic; Keras' by options.
pub type RmsProp = Descent<RmsPropOptions>;

impl Settings for RmsPropOptions {
    fn check(&self) -> Result<()> {
        at_least_zero("learning_rate", self.learning_rate)?;
        at_least_zero("epsilon", self.epsilon)?;
        at_least_zero("momentum", self.momentum)?;
        below_one("rho", self.rho)
    }

    fn layout(&self) -> StateLayout {
        let names: &[&str] =
            if self.momentum == 0.0 { &["mean_square"] } else { &["mean_square", "direction"] };
        StateLayout { kind: "rms_prop", names, initial: 0.0 }
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
        let (size, share) = match self.momentum_of {
            Momentum::Direction => (rate, 1.0),
            Momentum::Step => (1.0, rate),
        };
        let rule = Divide {
            added,
            kept,
            rho: self.rho,
            square_share: 1.0 - self.rho,
            epsilon: self.epsilon,
            place: self.epsilon_place,
            momentum: self.momentum,
            share,
            size,
        };
        if self.momentum == 0.0 {
            slot.sweep::<1>(Divide { share: rate, ..rule }, change)?;
        } else {
            slot.sweep::<2>(rule, change)?;
        }
        Ok(())
    }
}

#[derive(Debug, Clone, Copy)]
struct Divide {
    /// Share of the parameter added to its gradient.
    added: f64,
    /// Share of the parameter that decay leaves.
    kept: f64,
    rho: f64,
    square_share: f64,
    epsilon: f64,
    place: RootEpsilon,
    momentum: f64,
    /// What the divided gradient is multiplied by.
    share: f64,
    /// What the direction is multiplied by.
    size: f64,
}

impl Divide {
    /// The decayed value, the divided gradient and the new mean of squares.
    #[inline(always)]
    fn divided<N: Number>(
        &self,
        value: &N,
        gradient: &N,
        square: &N,
    ) -> std::result::Result<(N, N, N), N::Error> {
        let gradient =
            if self.added == 0.0 { gradient.clone() } else { gradient.plus(&value.scaled(self.added)?)? };
        let square = square.scaled(self.rho)?.plus(&gradient.scaled(self.square_share)?.times(&gradient)?)?;
        let divided = gradient.scaled(self.share)?.over(&self.place.root(&square, self.epsilon)?)?;
        Ok((value.scaled(self.kept)?, divided, square))
    }
}

impl Rule<1> for Divide {
    #[inline(always)]
    fn change<N: Number>(&self, value: N, gradient: N, [square]: [N; 1]) -> Changed<N, 1> {
        let (value, divided, square) = self.divided(&value, &gradient, &square)?;
        Ok((value.minus(&divided)?, [square]))
    }
}

impl Rule<2> for Divide {
    #[inline(always)]
    fn change<N: Number>(&self, value: N, gradient: N, [square, direction]: [N; 2]) -> Changed<N, 2> {
        let (value, divided, square) = self.divided(&value, &gradient, &square)?;
        let direction = direction.scaled(self.momentum)?.plus(&divided)?;
        Ok((value.minus(&direction.scaled(self.size)?)?, [square, direction]))
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::Divide;
    use crate::RootEpsilon;
    use crate::sweep::tests::{BothWaysAgree, Check};

    pub(crate) fn every_form(check: &impl Check) {
        let l2 = Divide {
            added: 0.1,
            kept: 0.9,
            rho: 0.8,
            square_share: 0.2,
            epsilon: 1e-2,
            place: RootEpsilon::Outside,
            momentum: 0.5,
            share: 0.3,
            size: 0.7,
        };
        for place in [RootEpsilon::Outside, RootEpsilon::Inside] {
            for rule in [Divide { place, ..l2 }, Divide { place, added: 0.0, ..l2 }] {
                check.rule::<1>(rule);
                check.rule::<2>(rule);
            }
        }
    }

    #[test]
    fn host_and_other_devices_agree() {
        every_form(&BothWaysAgree);
    }
}
