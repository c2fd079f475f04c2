use std::collections::BTreeMap;

use candle_core::backprop::GradStore;
use candle_core::{Tensor, Var};

use crate::fused::{Real, Update, apply};
use crate::group::{Parameter, flatten, not_negative};
use crate::{Optimizer, OptimizerState, ParameterGroup, Result};

/// The settings of [`Sgd`].
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SgdOptions {
    /// The learning rate of a group with factor 1; 1e-3.
    pub learning_rate: f64,
    /// How much of the last step's direction is kept; 0.
    pub momentum: f64,
    /// How much less than the whole gradient joins the direction, from the second step on; 0.
    pub dampening: f64,
    /// Look ahead along the direction (Nesterov).
    pub nesterov: bool,
    /// `weight_decay * parameter` is added to the gradient, for groups without their own; 0.
    pub weight_decay: f64,
}

impl Default for SgdOptions {
    fn default() -> Self {
        Self { learning_rate: 1e-3, momentum: 0.0, dampening: 0.0, nesterov: false, weight_decay: 0.0 }
    }
}

/// Gradient descent with momentum, in `PyTorch`'s arithmetic.
#[derive(Debug)]
pub struct Sgd {
    options: SgdOptions,
    slots: Vec<Slot>,
}

#[derive(Debug)]
struct Slot {
    parameter: Parameter,
    step: u64,
    direction: Option<Var>,
}

const KIND: &str = "sgd";
const DIRECTION: &str = "direction";

impl Sgd {
    /// Gradient descent over all parameters of `groups`.
    ///
    /// # Errors
    ///
    /// If an option is negative or not finite, or two parameters have one name.
    pub fn new(groups: Vec<ParameterGroup>, options: SgdOptions) -> Result<Self> {
        not_negative("learning_rate", options.learning_rate)?;
        not_negative("momentum", options.momentum)?;
        not_negative("dampening", options.dampening)?;
        let slots = flatten(groups, options.weight_decay)?
            .into_iter()
            .map(|parameter| Slot { parameter, step: 0, direction: None })
            .collect();
        Ok(Self { options, slots })
    }
}

impl Slot {
    fn step(&mut self, gradient: Tensor, options: &SgdOptions) -> Result<()> {
        let var = &self.parameter.var;
        let decay = self.parameter.weight_decay;
        let gradient =
            if decay == 0.0 { gradient } else { (gradient + (var.as_detached_tensor() * decay)?)? };
        let rate = options.learning_rate * self.parameter.factor;
        self.step += 1;
        if options.momentum == 0.0 {
            apply(&Add { factor: -rate }, var, &gradient, &gradient)?;
            return Ok(());
        }
        let direction = match &mut self.direction {
            Some(direction) => {
                let update = Direction { keep: options.momentum, share: 1.0 - options.dampening };
                apply(&update, direction, &gradient, &gradient)?;
                direction
            }
            // A copy: the gradient's memory may be shared with the graph.
            none => none.insert(Var::from_tensor(&gradient.copy()?)?),
        };
        if options.nesterov {
            apply(&Add { factor: -rate }, var, &gradient, &gradient)?;
            apply(&Add { factor: -rate * options.momentum }, var, direction, &gradient)?;
        } else {
            apply(&Add { factor: -rate }, var, direction, &gradient)?;
        }
        Ok(())
    }
}

impl Optimizer for Sgd {
    fn step(&mut self, gradients: &GradStore) -> Result<()> {
        let mut ready = Vec::new();
        for slot in &mut self.slots {
            if let Some(gradient) = slot.parameter.gradient(gradients)? {
                ready.push((slot, gradient));
            }
        }
        for (slot, gradient) in ready {
            slot.step(gradient, &self.options)?;
        }
        Ok(())
    }

    fn learning_rate(&self) -> f64 {
        self.options.learning_rate
    }

    fn set_learning_rate(&mut self, learning_rate: f64) {
        self.options.learning_rate = learning_rate;
    }

    fn parameters(&self) -> Vec<(&str, &Var)> {
        self.slots.iter().map(|s| (s.parameter.name.as_str(), &s.parameter.var)).collect()
    }

    fn state(&self) -> Result<OptimizerState> {
        let mut state = OptimizerState {
            kind: KIND.to_owned(),
            learning_rate: self.options.learning_rate,
            steps: BTreeMap::new(),
            tensors: BTreeMap::new(),
        };
        for slot in &self.slots {
            let name = &slot.parameter.name;
            state.steps.insert(name.clone(), slot.step);
            if let Some(direction) = &slot.direction {
                state.tensors.insert(format!("{DIRECTION}/{name}"), direction.as_detached_tensor().copy()?);
            }
        }
        Ok(state)
    }

    fn load_state(&mut self, state: &OptimizerState) -> Result<()> {
        let parameters: Vec<Parameter> = self.slots.iter().map(|s| s.parameter.clone()).collect();
        let slots: &[&str] = if self.options.momentum == 0.0 { &[] } else { &[DIRECTION] };
        state.check(KIND, &parameters, slots)?;
        let directions = parameters.iter().map(|p| state.slot(DIRECTION, p)).collect::<Result<Vec<_>>>()?;
        for (slot, direction) in self.slots.iter_mut().zip(directions) {
            slot.step = state.steps.get(&slot.parameter.name).copied().unwrap_or(0);
            slot.direction = direction;
        }
        self.options.learning_rate = state.learning_rate;
        Ok(())
    }
}

struct Direction {
    keep: f64,
    share: f64,
}

impl Update for Direction {
    const NAME: &'static str = "sgd_direction";

    fn on_slices<T: Real>(&self, target: &mut [T], gradient: &[T], _: &[T]) {
        let (keep, share) = (T::from_f64(self.keep), T::from_f64(self.share));
        for (direction, &gradient) in target.iter_mut().zip(gradient) {
            *direction = *direction * keep + share * gradient;
        }
    }

    fn on_tensors(&self, target: &Tensor, gradient: &Tensor, _: &Tensor) -> candle_core::Result<Tensor> {
        (target * self.keep)? + (gradient * self.share)?
    }
}

struct Add {
    factor: f64,
}

impl Update for Add {
    const NAME: &'static str = "sgd_step";

    fn on_slices<T: Real>(&self, target: &mut [T], by: &[T], _: &[T]) {
        let factor = T::from_f64(self.factor);
        for (value, &by) in target.iter_mut().zip(by) {
            *value += factor * by;
        }
    }

    fn on_tensors(&self, target: &Tensor, by: &Tensor, _: &Tensor) -> candle_core::Result<Tensor> {
        target + (by * self.factor)?
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::{Add, Direction, Sgd, SgdOptions};
    use crate::fused::tests::both_ways_agree;
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

    #[test]
    fn host_and_other_devices_agree() {
        both_ways_agree(&Direction { keep: 0.9, share: 0.7 });
        both_ways_agree(&Add { factor: -0.1 });
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
