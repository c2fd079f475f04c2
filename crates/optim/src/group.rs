use std::collections::BTreeSet;

use candle_core::Var;

use crate::{Error, Result};

/// Parameters that share their settings.
#[derive(Debug, Clone)]
pub struct ParameterGroup {
    /// The parameters and their names, which must be unique over all groups of an optimiser.
    pub parameters: Vec<(String, Var)>,
    /// What the optimiser's learning rate is multiplied by for this group; 1.
    pub learning_rate_factor: f64,
    /// The group's weight decay, in place of the optimiser's.
    pub weight_decay: Option<f64>,
}

impl ParameterGroup {
    /// A group with the optimiser's own settings.
    pub fn new(parameters: impl IntoIterator<Item = (String, Var)>) -> Self {
        Self { parameters: parameters.into_iter().collect(), learning_rate_factor: 1.0, weight_decay: None }
    }
}

/// One parameter with its group's settings resolved.
#[derive(Debug, Clone)]
pub(crate) struct Parameter {
    pub(crate) name: String,
    pub(crate) var: Var,
    pub(crate) factor: f64,
    pub(crate) weight_decay: f64,
}

pub(crate) fn flatten(groups: Vec<ParameterGroup>, weight_decay: f64) -> Result<Vec<Parameter>> {
    let mut names = BTreeSet::new();
    let mut all = Vec::new();
    for group in groups {
        let decay = group.weight_decay.unwrap_or(weight_decay);
        not_negative("weight_decay", decay)?;
        not_negative("learning_rate_factor", group.learning_rate_factor)?;
        for (name, var) in group.parameters {
            if !names.insert(name.clone()) {
                return Err(Error::Duplicate(name));
            }
            all.push(Parameter { name, var, factor: group.learning_rate_factor, weight_decay: decay });
        }
    }
    Ok(all)
}

pub(crate) fn not_negative(option: &'static str, found: f64) -> Result<()> {
    if found.is_finite() && found >= 0.0 {
        Ok(())
    } else {
        Err(Error::Option { option, expected: "finite and not negative", found })
    }
}

pub(crate) fn below_one(option: &'static str, found: f64) -> Result<()> {
    if (0.0..1.0).contains(&found) {
        Ok(())
    } else {
        Err(Error::Option { option, expected: "in [0, 1)", found })
    }
}

impl Parameter {
    /// The gradient, checked against the parameter, contiguous.
    pub(crate) fn gradient(
        &self,
        gradients: &candle_core::backprop::GradStore,
    ) -> Result<Option<candle_core::Tensor>> {
        let Some(gradient) = gradients.get(&self.var) else { return Ok(None) };
        if gradient.dims() != self.var.dims() || gradient.dtype() != self.var.dtype() {
            return Err(Error::Gradient {
                name: self.name.clone(),
                expected: format!("{:?} {:?}", self.var.dtype(), self.var.dims()),
                found: format!("{:?} {:?}", gradient.dtype(), gradient.dims()),
            });
        }
        Ok(Some(gradient.detach().contiguous()?))
    }
}
