//! Units of the methods' own folders that are metrics and nothing else.

mod advit;
mod anotrans;
mod generalad;
mod vtadl;

pub(super) use advit::run as run_advit;
pub(super) use anotrans::run as run_anotrans;
pub(super) use generalad::run as run_generalad;
pub(super) use vtadl::run as run_vtadl;

use conformance::{Case, HostTensor, UnitError};

use super::set::{Planes, maps, masks, scored_maps};
use crate::{Connectivity, Ranking, ScoredMap, labels_from_integers};

/// The maps and masks of a case.
struct Images {
    maps: Planes<f32>,
    masks: Planes<u8>,
}

impl Images {
    fn read(case: &Case, maps_name: &str, masks_name: &str) -> Result<Self, UnitError> {
        Ok(Self { maps: maps(case.input(maps_name)?)?, masks: masks(case.input(masks_name)?)? })
    }

    fn scored(&self) -> Result<Vec<ScoredMap<'_>>, UnitError> {
        Ok(scored_maps(&self.maps, &self.masks)?)
    }
}

fn ranking(scores: &HostTensor, labels: &HostTensor) -> Result<Ranking<f32>, UnitError> {
    let labels = labels_from_integers(&labels.to_i64_vec()?)?;
    Ok(Ranking::new(&scores.to_f32_vec()?, &labels)?)
}

fn connectivity(neighbours: usize) -> Result<Connectivity, UnitError> {
    match neighbours {
        4 => Ok(Connectivity::Four),
        8 => Ok(Connectivity::Eight),
        other => Err(format!("config field `connectivity`: expected 4 or 8, found {other}").into()),
    }
}

/// A threshold must be there: no case expects one above every score.
fn some(threshold: Option<f32>) -> Result<f32, UnitError> {
    threshold.ok_or_else(|| "no score has a false positive rate within the limit".into())
}
