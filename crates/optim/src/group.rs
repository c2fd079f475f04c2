use std::collections::{BTreeSet, HashMap};

use candle_core::backprop::GradStore;
use candle_core::{Tensor, Var};

use crate::number::Number;
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

/// What weight decay means.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Decay {
    /// `weight_decay * parameter` is added to the gradient (`PyTorch`'s Adam, SGD and the like).
    #[default]
    L2,
    /// The parameter shrinks by `learning_rate * weight_decay` before the step (`AdamW`, and all of Keras).
    Decoupled,
}

impl Decay {
    /// The share of the parameter that joins its gradient, and the share of it that is left before the step.
    pub(crate) fn split(self, weight_decay: f64, rate: f64) -> (f64, f64) {
        match self {
            Self::L2 => (weight_decay, 1.0),
            Self::Decoupled => (0.0, 1.0 - rate * weight_decay),
        }
    }
}

/// Where an epsilon beside a root is added.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum RootEpsilon {
    /// To the root (`PyTorch`).
    #[default]
    Outside,
    /// Under the root (Keras).
    Inside,
}

impl RootEpsilon {
    #[inline(always)]
    pub(crate) fn root<N: Number>(self, square: &N, epsilon: f64) -> std::result::Result<N, N::Error> {
        match self {
            Self::Outside => square.root()?.shifted(epsilon),
            Self::Inside => square.shifted(epsilon)?.root(),
        }
    }
}

/// One parameter with its group's settings resolved.
#[derive(Debug)]
pub(crate) struct Parameter {
    pub(crate) name: String,
    pub(crate) var: Var,
    pub(crate) factor: f64,
    pub(crate) weight_decay: f64,
}

pub(crate) fn flatten(groups: Vec<ParameterGroup>, weight_decay: f64) -> Result<Vec<Parameter>> {
    let (mut names, mut vars) = (BTreeSet::new(), HashMap::new());
    let mut all = Vec::new();
    for group in groups {
        let decay = group.weight_decay.unwrap_or(weight_decay);
        at_least_zero("weight_decay", decay)?;
        at_least_zero("learning_rate_factor", group.learning_rate_factor)?;
        for (name, var) in group.parameters {
            if !names.insert(name.clone()) {
                return Err(Error::Duplicate(name));
            }
            if let Some(first) = vars.insert(var.id(), name.clone()) {
                return Err(Error::Twice { first, second: name });
            }
            all.push(Parameter { name, var, factor: group.learning_rate_factor, weight_decay: decay });
        }
    }
    Ok(all)
}

pub(crate) fn at_least_zero(option: &'static str, found: f64) -> Result<()> {
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
    /// The gradient, checked against the parameter, contiguous, with numbers of its own.
    pub(crate) fn gradient(&self, gradients: &GradStore) -> Result<Option<Tensor>> {
        let Some(gradient) = gradients.get(&self.var) else { return Ok(None) };
        if gradient.dims() != self.var.dims() || gradient.dtype() != self.var.dtype() {
            return Err(Error::Gradient {
                name: self.name.clone(),
                expected: format!("{:?} {:?}", self.var.dtype(), self.var.dims()),
                found: format!("{:?} {:?}", gradient.dtype(), gradient.dims()),
            });
        }
        let (here, there) = (self.var.device().location(), gradient.device().location());
        if here != there {
            return Err(Error::Gradient {
                name: self.name.clone(),
                expected: format!("on {here:?}"),
                found: format!("on {there:?}"),
            });
        }
        let gradient = gradient.detach().contiguous()?;
        // A pass that writes the parameter can't read the same numbers as a gradient.
        let numbers = |tensor: &Tensor| &raw const *tensor.storage_and_layout().0;
        let is_parameter = std::ptr::eq(numbers(&gradient), numbers(&self.var));
        Ok(Some(if is_parameter { gradient.copy()? } else { gradient }))
    }
}
