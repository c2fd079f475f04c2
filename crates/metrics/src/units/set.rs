//! A file may hold several sets of inputs; each is asked for figures or for refusals.

use std::collections::BTreeSet;

use conformance::{Case, HostData, HostTensor, Outputs, UnitError};

use super::config::{Config, Expectation, NumThresholds, SetExpectation};
use crate::{Error, ScoredMap};

/// One set of a file: its tensors are `in.<name>.x` and `out.<name>.x`, or without a name `in.x` and `out.x`.
pub(super) struct Set<'a> {
    case: &'a Case,
    config: &'a Config,
    name: Option<&'a str>,
}

/// The sets that a configuration names, or the nameless one.
pub(super) fn sets<'a>(case: &'a Case, config: &'a Config) -> Vec<Set<'a>> {
    let names: BTreeSet<&str> = config.sets.iter().chain(config.expect.keys()).map(String::as_str).collect();
    if names.is_empty() {
        return vec![Set { case, config, name: None }];
    }
    names.into_iter().map(|name| Set { case, config, name: Some(name) }).collect()
}

impl<'a> Set<'a> {
    fn full_name(&self, kind: &str, name: &str) -> String {
        match self.name {
            None => format!("{kind}.{name}"),
            Some(set) => format!("{kind}.{set}.{name}"),
        }
    }

    pub(super) fn input(&self, name: &str) -> Result<&'a HostTensor, UnitError> {
        Ok(self.case.input(&self.full_name("in", name))?)
    }

    fn expectation(&self) -> Option<&'a SetExpectation> {
        self.config.expect.get(self.name?)
    }

    /// The number of thresholds that the configuration gives for this set.
    pub(super) fn num_thresholds(&self) -> Result<usize, UnitError> {
        let found = match (&self.config.num_thresholds, self.name) {
            (Some(NumThresholds::All(count)), _) => Some(*count),
            (Some(NumThresholds::BySet(counts)), Some(name)) => counts.get(name).copied(),
            _ => None,
        };
        found.ok_or_else(|| format!("config field `num_thresholds` is missing (set {:?})", self.name).into())
    }

    /// The limits L of the expected tensors `<start><L>`, as they are written and as numbers.
    pub(super) fn limits(&self, start: &str) -> Result<Vec<(String, f64)>, UnitError> {
        let start = self.full_name("out", start);
        let written = self.case.expected().filter_map(|(name, _)| name.strip_prefix(&start));
        written
            .map(|limit| {
                let number =
                    limit.parse().map_err(|_| format!("`{start}{limit}`: `{limit}` is no number"))?;
                Ok((limit.to_owned(), number))
            })
            .collect()
    }

    /// Keeps a figure, or sees to it that it was refused where that is expected.
    pub(super) fn record(
        &self,
        outputs: &mut Outputs,
        metric: &str,
        figure: Result<HostTensor, Error>,
    ) -> Result<(), UnitError> {
        let full_name = self.full_name("out", metric);
        let expectation = self.expectation().and_then(|expectation| expectation.of(metric));
        let demanded = expectation == Some(Expectation::Value) || self.case.has(&full_name);
        match (figure, expectation) {
            (Ok(_), Some(Expectation::Error)) => {
                Err(format!("`{full_name}` was to be refused, but there is a number").into())
            }
            (Ok(figure), _) => {
                outputs.insert(full_name, figure);
                Ok(())
            }
            (Err(_), Some(Expectation::Error)) => Ok(()),
            (Err(error), _) if demanded => Err(format!("`{full_name}`: {error}").into()),
            // Nobody asked for it, and it has no value here.
            (Err(_), _) => Ok(()),
        }
    }
}

/// A figure of shape (1,).
pub(super) fn one(value: f64) -> HostTensor {
    HostTensor::f64([1], vec![value])
}

/// A count of shape (1,).
pub(super) fn count(value: usize) -> HostTensor {
    HostTensor::i64([1], vec![value as i64])
}

/// A score of shape (1,), in the type it has.
pub(super) fn score(value: f32) -> HostTensor {
    HostTensor::f32([1], vec![value])
}

/// A single f32.
pub(super) fn scalar(tensor: &HostTensor) -> Result<f32, UnitError> {
    match tensor.to_f32_vec()?[..] {
        [value] => Ok(value),
        _ => Err(format!("expected one value, found shape {:?}", tensor.shape).into()),
    }
}

/// Maps or masks of one size, `(n, height, width)`.
pub(super) struct Planes<T> {
    values: Vec<T>,
    pub(super) count: usize,
    pub(super) height: usize,
    pub(super) width: usize,
}

impl<T> Planes<T> {
    fn new(tensor: &HostTensor, values: Vec<T>) -> Result<Self, UnitError> {
        let [count, height, width] = tensor.shape[..] else {
            return Err(format!("expected shape (n, height, width), found {:?}", tensor.shape).into());
        };
        Ok(Self { values, count, height, width })
    }

    /// Plane `index`, row-major.
    pub(super) fn plane(&self, index: usize) -> &[T] {
        &self.values[index * self.height * self.width..][..self.height * self.width]
    }
}

pub(super) fn maps(tensor: &HostTensor) -> Result<Planes<f32>, UnitError> {
    Planes::new(tensor, tensor.to_f32_vec()?)
}

pub(super) fn masks(tensor: &HostTensor) -> Result<Planes<u8>, UnitError> {
    let values = match &tensor.data {
        HostData::Bool(values) => values.iter().map(|&m| m.into()).collect(),
        _ => tensor.as_u8()?.to_vec(),
    };
    Planes::new(tensor, values)
}

/// Each map with its mask.
pub(super) fn scored_maps<'a>(
    maps: &'a Planes<f32>,
    masks: &'a Planes<u8>,
) -> Result<Vec<ScoredMap<'a>>, Error> {
    if maps.count != masks.count {
        let (left_len, right_len) = (maps.count, masks.count);
        return Err(Error::LengthMismatch { left: "maps", left_len, right: "masks", right_len });
    }
    (0..maps.count)
        .map(|i| ScoredMap::new(maps.height, maps.width, maps.plane(i), Some(masks.plane(i))))
        .collect()
}
