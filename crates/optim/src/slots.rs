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
    pub(crate) parameter: Parameter,
    /// Steps made, the one under way included.
    pub(crate) step: u64,
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
        // All gradients are checked before the first parameter moves.
        let mut ready = Vec::new();
        for slot in &mut self.all {
            if let Some(gradient) = slot.parameter.gradient(gradients)? {
                ready.push((slot, gradient));
            }
        }
        let StateLayout { names, initial, .. } = self.layout;
        for (slot, gradient) in ready {
            slot.step += 1;
            let states = match &mut slot.states {
                Some(states) => states,
                none => none.insert(States::new(&slot.parameter.var, names.len(), initial)?),
            };
            each(&mut ReadySlot { parameter: &slot.parameter, step: slot.step, gradient, states })?;
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
            let tensors = states.as_ref().map(|s| s.to_tensors(&parameter.var)).transpose()?;
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
