use crate::descent::{Descent, Settings};
use crate::group::{Decay, at_least_zero};
use crate::number::Number;
use crate::slots::{ReadySlot, StateLayout};
use crate::sweep::{Changed, Rule};
use crate::{Error, GradientChange, Result};

/// What momentum keeps from step to step.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Momentum {
    /// A direction, which is multiplied by the learning rate of each step (`PyTorch`).
    #[default]
    Direction,
    /// The step itself, the learning rate of its time in it (Keras).
    Step,
}

/// The settings of [`Sgd`]; the default is `PyTorch`'s.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SgdOptions {
    /// The learning rate of a group with factor 1; 1e-3.
    pub learning_rate: f64,
    /// How much of the last direction is kept; 0.
    pub momentum: f64,
    /// What is kept.
    pub momentum_of: Momentum,
    /// How much less than the whole gradient joins the direction, from the second step on; 0.
    pub dampening: f64,
    /// Look ahead along the direction (Nesterov); with momentum and without dampening only.
    pub nesterov: bool,
    /// The weight decay of groups without their own; 0.
    pub weight_decay: f64,
    /// What weight decay means.
    pub decay: Decay,
}

impl Default for SgdOptions {
    fn default() -> Self {
        Self {
            learning_rate: 1e-3,
            momentum: 0.0,
            momentum_of: Momentum::Direction,
            dampening: 0.0,
            nesterov: false,
            weight_decay: 0.0,
            decay: Decay::L2,
        }
    }
}

/// Gradient descent with momentum, in `PyTorch`'s arithmetic; Keras' by an option.
pub type Sgd = Descent<SgdOptions>;

impl Settings for SgdOptions {
    fn check(&self) -> Result<()> {
        at_least_zero("learning_rate", self.learning_rate)?;
        at_least_zero("momentum", self.momentum)?;
        at_least_zero("dampening", self.dampening)?;
        if self.nesterov && self.momentum == 0.0 {
            return Err(Error::Option {
                option: "momentum",
                expected: "above 0 for Nesterov",
                found: self.momentum,
            });
        }
        if self.nesterov && self.dampening != 0.0 {
            return Err(Error::Option {
                option: "dampening",
                expected: "0 for Nesterov",
                found: self.dampening,
            });
        }
        Ok(())
    }

    fn layout(&self) -> StateLayout {
        let names: &[&str] = if self.momentum == 0.0 { &[] } else { &["direction"] };
        StateLayout { kind: "sgd", names, initial: 0.0 }
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
        // The first direction is the whole gradient, dampened or not.
        let dampening = if slot.step == 1 { 0.0 } else { self.dampening };
        let rule = Descend {
            added,
            kept,
            size,
            momentum: self.momentum,
            share: share * (1.0 - dampening),
            ahead: self.nesterov.then_some(share),
        };
        if self.momentum == 0.0 {
            slot.sweep::<0>(Descend { size: rate, ..rule }, change)?;
        } else {
            slot.sweep::<1>(rule, change)?;
        }
        Ok(())
    }
}

#[derive(Debug, Clone, Copy)]
struct Descend {
    /// Share of the parameter added to its gradient.
    added: f64,
    /// Share of the parameter that decay leaves.
    kept: f64,
    size: f64,
    momentum: f64,
    /// Share of the gradient that joins the direction.
    share: f64,
    /// With Nesterov, the share of the gradient beside the direction that is still to come.
    ahead: Option<f64>,
}

impl Descend {
    #[inline(always)]
    fn decayed<N: Number>(&self, value: &N, gradient: &N) -> std::result::Result<(N, N), N::Error> {
        let gradient =
            if self.added == 0.0 { gradient.clone() } else { gradient.plus(&value.scaled(self.added)?)? };
        Ok((value.scaled(self.kept)?, gradient))
    }
}

impl Rule<0> for Descend {
    #[inline(always)]
    fn change<N: Number>(&self, value: N, gradient: N, _: [N; 0]) -> Changed<N, 0> {
        let (value, gradient) = self.decayed(&value, &gradient)?;
        Ok((value.minus(&gradient.scaled(self.size)?)?, []))
    }
}

impl Rule<1> for Descend {
    #[inline(always)]
    fn change<N: Number>(&self, value: N, gradient: N, [direction]: [N; 1]) -> Changed<N, 1> {
        let (value, gradient) = self.decayed(&value, &gradient)?;
        let direction = direction.scaled(self.momentum)?.plus(&gradient.scaled(self.share)?)?;
        let along = match self.ahead {
            Some(share) => gradient.scaled(share)?.plus(&direction.scaled(self.momentum)?)?,
            None => direction.clone(),
        };
        Ok((value.minus(&along.scaled(self.size)?)?, [direction]))
    }
}

#[cfg(test)]
pub(crate) mod tests {
    #![allow(clippy::unwrap_used)]
    use super::{Descend, Sgd, SgdOptions};
    use crate::sweep::tests::{BothWaysAgree, Check};
    use crate::{Optimizer, OptimizerState, ParameterGroup};
    use candle_core::{Device, Var};

    fn gradient(step: usize) -> f64 {
        (step as f64 * 1.7).cos()
    }

    fn step(sgd: &mut Sgd, var: &Var, step: usize) {
        let store = (var.as_tensor() * gradient(step)).unwrap().sum_all().unwrap().backward().unwrap();
        sgd.step(&store).unwrap();
    }

    fn over(var: &Var, options: SgdOptions) -> Sgd {
        Sgd::new(vec![ParameterGroup::new([("p".to_owned(), var.clone())])], options).unwrap()
    }

    #[test]
    fn steps_are_those_of_the_recurrence() {
        let plain = SgdOptions { learning_rate: 0.1, ..SgdOptions::default() };
        let all = [
            plain,
            SgdOptions { momentum: 0.9, ..plain },
            SgdOptions { momentum: 0.8, dampening: 0.3, weight_decay: 0.05, ..plain },
            SgdOptions { momentum: 0.9, nesterov: true, ..plain },
        ];
        for options in all {
            let var = Var::new(&[2_f64], &Device::Cpu).unwrap();
            let mut sgd = over(&var, options);
            let (mut p, mut direction) = (2.0, 0.0);
            for t in 0..15 {
                step(&mut sgd, &var, t);
                let g = gradient(t) + options.weight_decay * p;
                let share = if t == 0 { 1.0 } else { 1.0 - options.dampening };
                direction = options.momentum * direction + share * g;
                p -= 0.1 * if options.nesterov { g + options.momentum * direction } else { direction };
            }
            let found = var.to_vec1::<f64>().unwrap()[0];
            assert!((found - p).abs() < 1e-12, "{options:?}: {found} {p}");
        }
    }

    pub(crate) fn every_form(check: &impl Check) {
        let l2 = Descend { added: 0.1, kept: 0.9, size: 0.3, momentum: 0.8, share: 0.7, ahead: None };
        for rule in [l2, Descend { added: 0.0, ..l2 }] {
            check.rule::<0>(rule);
            check.rule::<1>(rule);
            check.rule::<1>(Descend { ahead: Some(1.0), ..rule });
        }
    }

    #[test]
    fn host_and_other_devices_agree() {
        every_form(&BothWaysAgree);
    }

    #[test]
    fn nesterov_needs_momentum_and_no_dampening() {
        let var = Var::new(&[1_f32], &Device::Cpu).unwrap();
        let nesterov = SgdOptions { nesterov: true, ..SgdOptions::default() };
        for (options, field) in [
            (nesterov, "momentum"),
            (SgdOptions { momentum: 0.9, dampening: 0.1, ..nesterov }, "dampening"),
            (SgdOptions { learning_rate: -1.0, ..SgdOptions::default() }, "learning_rate"),
        ] {
            let group = ParameterGroup::new([("p".to_owned(), var.clone())]);
            assert!(Sgd::new(vec![group], options).unwrap_err().to_string().contains(field));
        }
    }

    #[test]
    fn a_restored_state_goes_on_bit_for_bit() {
        let options = SgdOptions { momentum: 0.9, ..SgdOptions::default() };
        let var = Var::new(&[2_f32, 3.], &Device::Cpu).unwrap();
        let mut sgd = over(&var, options);
        (0..3).for_each(|t| step(&mut sgd, &var, t));
        let saved = sgd.state().unwrap().to_tensors().unwrap();
        let again = Var::from_tensor(&var.as_detached_tensor().copy().unwrap()).unwrap();
        (3..6).for_each(|t| step(&mut sgd, &var, t));
        let mut resumed = over(&again, options);
        resumed.load_state(&OptimizerState::from_tensors(saved).unwrap()).unwrap();
        (3..6).for_each(|t| step(&mut resumed, &again, t));
        let bits = |v: &Var| v.to_vec1::<f32>().unwrap().iter().map(|x| x.to_bits()).collect::<Vec<_>>();
        assert_eq!(bits(&var), bits(&again));
    }
}
