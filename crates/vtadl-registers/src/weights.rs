//! The network's tensors by name: what is trained, and the moving statistics of batch norm.

use std::collections::BTreeMap;

use candle_core::{Tensor, Var};

use crate::Error;

/// Tensors by name.
#[derive(Debug, Clone, Default)]
pub(crate) struct Named(BTreeMap<String, Tensor>);

impl Named {
    pub(crate) fn get(&self, name: &str) -> Result<Tensor, Error> {
        self.find(name).cloned().ok_or_else(|| Error::MissingTensor(name.to_owned()))
    }

    pub(crate) fn find(&self, name: &str) -> Option<&Tensor> {
        self.0.get(name)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (&String, &Tensor)> {
        self.0.iter()
    }
}

impl FromIterator<(String, Tensor)> for Named {
    fn from_iter<I: IntoIterator<Item = (String, Tensor)>>(tensors: I) -> Self {
        Self(tensors.into_iter().collect())
    }
}

/// Tensors that change in training.
#[derive(Debug)]
pub(crate) struct Weights {
    trained: BTreeMap<String, Var>,
    running: BTreeMap<String, Var>,
}

impl Weights {
    /// Copies of `tensors`.
    pub(crate) fn new(tensors: &Named) -> Result<Self, Error> {
        let mut weights = Self { trained: BTreeMap::new(), running: BTreeMap::new() };
        for (name, tensor) in tensors.iter() {
            let var = Var::from_tensor(&tensor.detach().force_contiguous()?)?;
            let kind = if is_running(name) { &mut weights.running } else { &mut weights.trained };
            kind.insert(name.clone(), var);
        }
        Ok(weights)
    }

    /// What is trained, by name.
    pub(crate) fn trained(&self) -> impl Iterator<Item = (&String, &Var)> {
        self.trained.iter()
    }

    /// The variable of moving statistics called `name`.
    pub(crate) fn running(&self, name: &str) -> Result<&Var, Error> {
        self.running.get(name).ok_or_else(|| Error::MissingTensor(name.to_owned()))
    }

    /// All tensors, those that are trained with a graph to their variables. They follow the training.
    pub(crate) fn tracked(&self) -> Named {
        let trained = self.trained.iter().map(|(name, var)| (name.clone(), var.as_tensor().clone()));
        let running = self.running.iter().map(|(name, var)| (name.clone(), var.as_detached_tensor()));
        trained.chain(running).collect()
    }

    /// Copies of all tensors, without a graph.
    pub(crate) fn frozen(&self) -> Result<Named, Error> {
        self.trained
            .iter()
            .chain(&self.running)
            .map(|(name, var)| Ok((name.clone(), var.as_detached_tensor().force_contiguous()?)))
            .collect::<Result<BTreeMap<_, _>, Error>>()
            .map(Named)
    }

    /// Sets all tensors to those of [`Weights::frozen`].
    pub(crate) fn load(&self, tensors: &Named) -> Result<(), Error> {
        for (name, var) in self.trained.iter().chain(&self.running) {
            var.set(&tensors.get(name)?)?;
        }
        Ok(())
    }
}

fn is_running(name: &str) -> bool {
    name.ends_with(".running_mean") || name.ends_with(".running_var")
}
