//! What all optimisers share: parameters with their step counts and states, in and out of a checkpoint.

use std::collections::BTreeMap;

use candle_core::backprop::GradStore;
use candle_core::{Tensor, Var};

use crate::group::{Parameter, flatten};
use crate::sweep::{Rule, States, sweep};
use crate::{GradientChange, OptimizerState, ParameterGroup, Result};

/// One parameter with what its optimiser remembers of it.
#[derive(Debug)]
pub(crate) struct Slot {
    parameter: Parameter,
    /// Steps made.
    step: u64,
    /// None before the first step.
    states: Option<States>,
}

/// All parameters of an optimiser.
#[derive(Debug)]
pub(crate) struct Slots {
    layout: StateLayout,
    all: Vec<Slot>,
}

/// What is kept for each element of a parameter.
#[derive(Debug, Clone, Copy)]
pub(crate) struct StateLayout {
    /// The optimiser, as checkpoints call it.
    pub(crate) kind: &'static str,
    /// The states' names in checkpoints, in the order in which the rules take them.
    pub(crate) names: &'static [&'static str],
    /// What each of them is before the first step.
    pub(crate) initial: f64,
}

impl Slots {
    pub(crate) fn new(groups: Vec<ParameterGroup>, weight_decay: f64, layout: StateLayout) -> Result<Self> {
        let all = flatten(groups, weight_decay)?
            .into_iter()
            .map(|parameter| Slot { parameter, step: 0, states: None })
            .collect();
        Ok(Self { layout, all })
    }

    /// Hands every parameter that has a gradient to `each`, its step counted and its states there.
    pub(crate) fn step(
        &mut self,
        gradients: &GradStore,
        mut each: impl FnMut(&mut ReadySlot<'_>) -> candle_core::Result<()>,
    ) -> Result<()> {
        // All gradients are checked, and all states there, before the first parameter moves.
        let StateLayout { names, initial, .. } = self.layout;
        let mut ready = Vec::new();
        for Slot { parameter, step, states } in &mut self.all {
            if let Some(gradient) = parameter.gradient(gradients)? {
                let states = match states {
                    Some(states) => states,
                    none => none.insert(States::new(&parameter.var, names.len(), initial)?),
                };
                let slot = ReadySlot { parameter, step: *step + 1, gradient, states };
                ready.push((step, slot));
            }
        }
        for (step, mut slot) in ready {
            each(&mut slot)?;
            *step = slot.step;
        }
        Ok(())
    }

    pub(crate) fn parameters(&self) -> impl Iterator<Item = (&str, &Var)> {
        self.all.iter().map(|s| (s.parameter.name.as_str(), &s.parameter.var))
    }

    pub(crate) fn state(&self, learning_rate: f64) -> Result<OptimizerState> {
        let mut state = OptimizerState {
            kind: self.layout.kind.to_owned(),
            learning_rate,
            steps: BTreeMap::new(),
            tensors: BTreeMap::new(),
        };
        for Slot { parameter, step, states } in &self.all {
            state.steps.insert(parameter.name.clone(), *step);
            let moved = states.as_ref().filter(|_| *step > 0);
            let tensors = moved.map(|s| s.to_tensors(&parameter.var)).transpose()?;
            for (name, tensor) in self.layout.names.iter().zip(tensors.into_iter().flatten()) {
                state.tensors.insert(format!("{name}/{}", parameter.name), tensor);
            }
        }
        Ok(state)
    }

    pub(crate) fn load_state(&mut self, state: &OptimizerState) -> Result<()> {
        let StateLayout { kind, names, .. } = self.layout;
        let parameters: Vec<&Parameter> = self.all.iter().map(|s| &s.parameter).collect();
        state.check(kind, &parameters, names)?;
        let mut loaded = Vec::new();
        for Parameter { name, var, .. } in parameters {
            let step = state.steps.get(name).copied().unwrap_or(0);
            let tensors: Vec<Tensor> =
                names.iter().filter_map(|s| state.tensors.get(&format!("{s}/{name}")).cloned()).collect();
            // A parameter that has not moved yet has no states.
            let states = (step > 0).then(|| States::from_tensors(&tensors, var)).transpose()?;
            loaded.push((step, states));
        }
        for (slot, (step, states)) in self.all.iter_mut().zip(loaded) {
            (slot.step, slot.states) = (step, states);
        }
        Ok(())
    }
}

/// A parameter about to move.
pub(crate) struct ReadySlot<'a> {
    pub(crate) parameter: &'a Parameter,
    /// The number of this step, from 1 on.
    pub(crate) step: u64,
    gradient: Tensor,
    states: &'a mut States,
}

impl ReadySlot<'_> {
    /// Applies `rule` to the parameter and its states; gives the sum of what it measures.
    pub(crate) fn sweep<const STATES: usize>(
        &mut self,
        rule: impl Rule<STATES>,
        change: GradientChange,
    ) -> candle_core::Result<f64> {
        sweep(rule, change, &self.parameter.var, &self.gradient, self.states)
    }

    /// `rate` times the factor of the parameter's group.
    pub(crate) fn rate(&self, rate: f64) -> f64 {
        rate * self.parameter.factor
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use candle_core::{DType, Device, Tensor, Var};

    use crate::{Adam, AdamOptions, Error, Optimizer, ParameterGroup};

    fn adam(parameters: &[(&str, &Var)]) -> Adam {
        let named = parameters.iter().map(|(name, var)| ((*name).to_owned(), (*var).clone()));
        Adam::new(vec![ParameterGroup::new(named)], AdamOptions::default()).unwrap()
    }

    fn values(var: &Var) -> Vec<f32> {
        var.to_vec1().unwrap()
    }

    #[test]
    fn what_is_refused_moves_and_counts_nothing() {
        let (a, b) =
            (Var::new(&[1_f32, 2.], &Device::Cpu).unwrap(), Var::new(&[3_f32], &Device::Cpu).unwrap());
        let mut store = (a.sum_all().unwrap() + b.sum_all().unwrap()).unwrap().backward().unwrap();
        let mut adam = adam(&[("a", &a), ("b", &b)]);
        let right = store.get(&b).unwrap().clone();
        store.insert(&b, Tensor::ones(2, DType::F32, &Device::Cpu).unwrap());
        assert!(matches!(adam.step(&store), Err(Error::Gradient { name, .. }) if name == "b"));
        store.insert(&b, right);
        adam.set_learning_rate(f64::NAN);
        assert!(adam.step(&store).unwrap_err().to_string().contains("learning_rate"));
        assert_eq!((values(&a), values(&b)), (vec![1.0, 2.0], vec![3.0]));
        let state = adam.state().unwrap();
        assert!(state.steps.values().all(|step| *step == 0) && state.tensors.is_empty());
        adam.set_learning_rate(0.1);
        adam.step(&store).unwrap();
        assert_eq!(adam.state().unwrap().steps.into_values().collect::<Vec<_>>(), [1, 1]);
    }

    #[test]
    fn a_gradient_may_be_the_parameter_itself() {
        let (own, copied) =
            (Var::new(&[1_f32, 2.], &Device::Cpu).unwrap(), Var::new(&[1_f32, 2.], &Device::Cpu).unwrap());
        let mut store = own.sum_all().unwrap().backward().unwrap();
        store.insert(&own, own.as_tensor().clone());
        store.insert(&copied, own.as_tensor().copy().unwrap());
        adam(&[("own", &own), ("copied", &copied)]).step(&store).unwrap();
        assert_eq!(values(&own), values(&copied));
        assert!(values(&own)[0] < 1.0);
    }

    #[test]
    fn parameters_without_elements_hold_nobody_up() {
        for dtype in [DType::F32, DType::F64, DType::BF16] {
            for shape in [vec![0], vec![0, 3], vec![3, 0]] {
                let none = Var::zeros(shape.as_slice(), dtype, &Device::Cpu).unwrap();
                let some = Var::new(&[1_f32], &Device::Cpu).unwrap();
                let mut store = some.sum_all().unwrap().backward().unwrap();
                store.insert(&none, none.zeros_like().unwrap());
                let mut adam = adam(&[("none", &none), ("some", &some)]);
                adam.step_clipped(&store, 1.0).unwrap();
                assert!(values(&some)[0] < 1.0);
                let saved = adam.state_tensors().unwrap();
                adam.load_state_tensors(saved).unwrap();
            }
        }
    }
}
