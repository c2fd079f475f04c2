//! A network's tensors by name: what is trained, and the running statistics of batch norm.

use std::collections::BTreeMap;

use candle_core::{Tensor, Var};

use crate::{Error, Result};

/// Tensors by name.
#[derive(Debug, Clone, Default)]
pub struct NamedTensors(BTreeMap<String, Tensor>);

impl NamedTensors {
    /// The tensor called `name`.
    ///
    /// # Errors
    /// [`Error::MissingTensor`] if there is none.
    pub fn get(&self, name: &str) -> Result<Tensor> {
        self.find(name).cloned().ok_or_else(|| Error::MissingTensor(name.to_owned()))
    }

    /// The tensor called `name`, if there is one.
    pub fn find(&self, name: &str) -> Option<&Tensor> {
        self.0.get(name)
    }

    /// All of them, in the order of their names.
    pub fn iter(&self) -> impl Iterator<Item = (&String, &Tensor)> {
        self.0.iter()
    }
}

impl FromIterator<(String, Tensor)> for NamedTensors {
    fn from_iter<I: IntoIterator<Item = (String, Tensor)>>(tensors: I) -> Self {
        Self(tensors.into_iter().collect())
    }
}

impl IntoIterator for NamedTensors {
    type Item = (String, Tensor);
    type IntoIter = std::collections::btree_map::IntoIter<String, Tensor>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter()
    }
}

/// The tensors of a network in training. Those called `….running_mean` and `….running_var` are statistics that batch norm
/// keeps; all others are trained.
#[derive(Debug)]
pub struct NetworkWeights {
    trained: BTreeMap<String, Var>,
    running: BTreeMap<String, Var>,
}

impl NetworkWeights {
    /// Copies of `tensors`.
    ///
    /// # Errors
    /// If a tensor can't be copied.
    pub fn new(tensors: &NamedTensors) -> Result<Self> {
        let mut weights = Self { trained: BTreeMap::new(), running: BTreeMap::new() };
        for (name, tensor) in tensors.iter() {
            let var = Var::from_tensor(&tensor.detach().force_contiguous()?)?;
            let kind = if is_running(name) { &mut weights.running } else { &mut weights.trained };
            kind.insert(name.clone(), var);
        }
        Ok(weights)
    }

    /// What is trained, by name.
    pub fn trained(&self) -> impl Iterator<Item = (&String, &Var)> {
        self.trained.iter()
    }

    /// The variable of running statistics called `name`.
    ///
    /// # Errors
    /// [`Error::MissingTensor`] if there is none.
    pub fn running(&self, name: &str) -> Result<&Var> {
        self.running.get(name).ok_or_else(|| Error::MissingTensor(name.to_owned()))
    }

    /// All tensors, those that are trained with a graph to their variables. They follow the training.
    pub fn tracked(&self) -> NamedTensors {
        let trained = self.trained.iter().map(|(name, var)| (name.clone(), var.as_tensor().clone()));
        let running = self.running.iter().map(|(name, var)| (name.clone(), var.as_detached_tensor()));
        trained.chain(running).collect()
    }

    /// Copies of all tensors, without a graph.
    ///
    /// # Errors
    /// If a tensor can't be copied.
    pub fn frozen(&self) -> Result<NamedTensors> {
        let all = self.trained.iter().chain(&self.running);
        all.map(|(name, var)| Ok((name.clone(), var.as_detached_tensor().force_contiguous()?))).collect()
    }

    /// Sets all tensors to those of [`NetworkWeights::frozen`]; others are passed over.
    ///
    /// # Errors
    /// [`Error::MissingTensor`], or if one has another shape or type.
    pub fn load(&self, tensors: &NamedTensors) -> Result<()> {
        for (name, var) in self.trained.iter().chain(&self.running) {
            var.set(&tensors.get(name)?)?;
        }
        Ok(())
    }
}

fn is_running(name: &str) -> bool {
    name.ends_with(".running_mean") || name.ends_with(".running_var")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use candle_core::{DType, Device};

    #[test]
    fn copies_do_not_follow_and_statistics_have_no_graph() {
        let one = Tensor::ones(2, DType::F32, &Device::Cpu).unwrap();
        let names = ["norm.weight", "norm.running_mean", "norm.running_var"];
        let weights =
            NetworkWeights::new(&names.iter().map(|name| ((*name).to_owned(), one.clone())).collect())
                .unwrap();
        assert_eq!(weights.trained().map(|(name, _)| name.as_str()).collect::<Vec<_>>(), ["norm.weight"]);
        let before = weights.frozen().unwrap();
        let mean = weights.running("norm.running_mean").unwrap();
        mean.set(&Tensor::zeros(2, DType::F32, &Device::Cpu).unwrap()).unwrap();
        let value = |tensors: &NamedTensors| tensors.get(names[1]).unwrap().to_vec1::<f32>().unwrap();
        assert_eq!((value(&before), value(&weights.tracked())), (vec![1.0; 2], vec![0.0; 2]));
        let tracked = weights.tracked();
        let loss = names.iter().map(|name| tracked.get(name).unwrap().sum_all().unwrap());
        let loss = loss.reduce(|a, b| (a + b).unwrap()).unwrap();
        let gradients = loss.backward().unwrap();
        assert!(
            gradients.get(weights.trained().next().unwrap().1).is_some() && gradients.get(mean).is_none()
        );
        weights.load(&before).unwrap();
        assert_eq!(value(&weights.tracked()), [1.0; 2]);
        let error = weights.load(&NamedTensors::default()).unwrap_err();
        assert_eq!(error.to_string(), "the network's tensor `norm.weight` is missing");
    }
}
