//! Several runs' records as one, refused where they don't belong together.

use std::collections::BTreeMap;

use crate::{Cell, CellFiles, Error, RunFolder, Status};

/// What may be merged although it does not agree.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Allowed {
    /// Cells of one id with different figures: the first run's are taken.
    pub conflicting_figures: bool,
    /// Figures of different number revisions of one crate.
    pub mixed_revisions: bool,
    /// Figures on different data under one data set's name.
    pub mixed_data: bool,
}

/// The records of `runs` as one list: cells in the order of the runs, each id once. Of a cell that ended well in one run and
/// not in another, the good record is taken.
///
/// # Errors
/// [`Error::Incompatible`] with everything that does not agree and is not `allowed`.
pub fn merge(runs: &[RunFolder], allowed: Allowed) -> Result<Vec<CellFiles>, Error> {
    let mut problems = Vec::new();
    let mut merged: Vec<(&str, &CellFiles)> = Vec::new();
    for run in runs {
        for files in &run.cells {
            match merged.iter_mut().find(|(_, known)| known.cell.cell == files.cell.cell) {
                None => merged.push((&run.name, files)),
                Some(slot) => {
                    let (of, known) = *slot;
                    if files.cell.status == Status::Ok && known.cell.status != Status::Ok {
                        *slot = (&run.name, files);
                    } else if files.cell.status == Status::Ok
                        && !agree(&known.cell, &files.cell)
                        && !allowed.conflicting_figures
                    {
                        problems.push(format!(
                            "cell {} has other figures in {of} than in {}",
                            known.cell.cell, run.name
                        ));
                    }
                }
            }
        }
    }
    let well = || {
        merged
            .iter()
            .filter(|(_, files)| files.cell.status == Status::Ok)
            .map(|(of, files)| (*of, &files.cell))
    };
    if !allowed.mixed_revisions {
        let revisions = well().flat_map(|(of, cell)| {
            cell.provenance
                .revisions
                .iter()
                .map(move |(name, number)| (format!("the number revision of {name}"), number.to_string(), of))
        });
        problems.extend(mixed(revisions));
    }
    if !allowed.mixed_data {
        let data = well().filter_map(|(of, cell)| {
            let Cell { dataset, protocol, category, provenance, .. } = cell;
            // Seeds may split the same data in other ways, so it is the data that must agree.
            let print = provenance.dataset_fingerprint.clone()?;
            Some((format!("the data of {dataset}, {protocol}, {category}"), print, of))
        });
        problems.extend(mixed(data));
    }
    if problems.is_empty() {
        Ok(merged.into_iter().map(|(_, files)| files.clone()).collect())
    } else {
        Err(Error::Incompatible { problems })
    }
}

/// Whether two records of one cell have the same figures.
fn agree(a: &Cell, b: &Cell) -> bool {
    a.results == b.results && a.terms == b.terms
}

/// What has several values, in words.
fn mixed<'a>(facts: impl Iterator<Item = (String, String, &'a str)>) -> Vec<String> {
    let mut values: BTreeMap<String, BTreeMap<String, &str>> = BTreeMap::new();
    for (what, value, of) in facts {
        values.entry(what).or_default().entry(value).or_insert(of);
    }
    let several = values.into_iter().filter(|(_, values)| values.len() > 1);
    several
        .map(|(what, values)| {
            let each: Vec<String> = values
                .iter()
                .map(|(value, of)| format!("{} in {of}", value.chars().take(12).collect::<String>()))
                .collect();
            format!("{what} is {}", each.join(", "))
        })
        .collect()
}
