//! Reading named tensors with their shapes checked, from files or from tensors in memory.

use std::collections::{BTreeSet, HashMap};

use candle_core::{Device, Tensor};
use pretrained::Weights;
use vit_ops::Precision;

use crate::Error;

/// A set of named tensors to build a network from.
pub(crate) struct Checkpoint<'a> {
    source: Source<'a>,
    /// What messages call it.
    label: String,
    /// What stands in front of every name; names are given without it.
    prefix: String,
    /// Full names read so far: what is left over in a block has no place in the network.
    read: BTreeSet<String>,
    /// Of the linear layers made from it.
    pub(crate) precision: Precision,
}

enum Source<'a> {
    Weights(&'a Weights, &'a Device),
    /// As they are: a tensor with a graph keeps it.
    Tensors(&'a HashMap<String, Tensor>),
}

/// An expected length of one axis: known, or whatever the file says.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Axis {
    Is(usize),
    Any(&'static str),
}

impl std::fmt::Display for Axis {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Is(length) => write!(f, "{length}"),
            Self::Any(name) => f.write_str(name),
        }
    }
}

impl<'a> Checkpoint<'a> {
    pub(crate) fn of_weights(weights: &'a Weights, device: &'a Device, prefix: &str) -> Self {
        Self::new(Source::Weights(weights, device), weights.origin().to_owned(), prefix)
    }

    pub(crate) fn of_tensors(tensors: &'a HashMap<String, Tensor>, prefix: &str) -> Self {
        Self::new(Source::Tensors(tensors), "the given tensors".to_owned(), prefix)
    }

    fn new(source: Source<'a>, label: String, prefix: &str) -> Self {
        let precision = Precision::F32;
        Self { source, label, prefix: prefix.to_owned(), read: BTreeSet::new(), precision }
    }

    pub(crate) fn label(&self) -> &str {
        &self.label
    }

    /// Looks below another prefix from now on; gives the one before.
    pub(crate) fn set_prefix(&mut self, prefix: &str) -> String {
        std::mem::replace(&mut self.prefix, prefix.to_owned())
    }

    /// All full names, sorted.
    pub(crate) fn full_names(&self) -> BTreeSet<&str> {
        match &self.source {
            Source::Weights(weights, _) => weights.names().collect(),
            Source::Tensors(tensors) => tensors.keys().map(String::as_str).collect(),
        }
    }

    /// Names below the prefix, without it.
    pub(crate) fn names(&self) -> BTreeSet<&str> {
        self.full_names().into_iter().filter_map(|name| name.strip_prefix(self.prefix.as_str())).collect()
    }

    pub(crate) fn contains(&self, name: &str) -> bool {
        self.shape(name).is_some()
    }

    fn full(&self, name: &str) -> String {
        format!("{}{name}", self.prefix)
    }

    pub(crate) fn shape(&self, name: &str) -> Option<&[usize]> {
        let full = self.full(name);
        match &self.source {
            Source::Weights(weights, _) => weights.shape(&full),
            Source::Tensors(tensors) => tensors.get(&full).map(Tensor::dims),
        }
    }

    /// The tensor `name`, which has to have this shape.
    pub(crate) fn get(&mut self, name: &str, shape: &[Axis]) -> Result<Tensor, Error> {
        let full = self.full(name);
        let expected = || {
            let axes: Vec<String> = shape.iter().map(ToString::to_string).collect();
            format!("[{}]", axes.join(", "))
        };
        let Some(found) = self.shape(name) else {
            return Err(Error::MissingTensor {
                tensor: full,
                checkpoint: self.label.clone(),
                expected: expected(),
            });
        };
        let fits = found.len() == shape.len()
            && shape.iter().zip(found).all(|(axis, length)| match axis {
                Axis::Is(wanted) => wanted == length,
                Axis::Any(_) => true,
            });
        if !fits {
            return Err(Error::Shape {
                tensor: full,
                checkpoint: self.label.clone(),
                expected: expected(),
                found: found.to_vec(),
            });
        }
        let tensor = match &self.source {
            Source::Weights(weights, device) => weights.get(&full, device)?,
            Source::Tensors(tensors) => tensors.get(&full).cloned().ok_or_else(|| Error::MissingTensor {
                tensor: full.clone(),
                checkpoint: self.label.clone(),
                expected: expected(),
            })?,
        };
        self.read.insert(full);
        Ok(tensor)
    }

    /// As [`Checkpoint::get`], or nothing where there is no such tensor.
    pub(crate) fn get_if_there(&mut self, name: &str, shape: &[Axis]) -> Result<Option<Tensor>, Error> {
        if self.contains(name) { self.get(name, shape).map(Some) } else { Ok(None) }
    }

    /// Names below `start` that nobody read, without the prefix.
    pub(crate) fn unread(&self, start: &str) -> Vec<String> {
        let full = self.full(start);
        self.full_names()
            .into_iter()
            .filter(|name| name.starts_with(&full) && !self.read.contains(*name))
            .filter_map(|name| name.strip_prefix(self.prefix.as_str()))
            .map(str::to_owned)
            .collect()
    }
}
