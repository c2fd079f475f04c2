//! Which cell of one run belongs to which of the other.

use super::{Labels, Unpaired, is_well};
use crate::{Cell, CellFiles};

/// Two cells that are compared.
#[derive(Debug)]
pub(crate) struct Pair<'a> {
    pub(crate) first: &'a Cell,
    pub(crate) second: &'a Cell,
}

impl<'a> Pair<'a> {
    pub(crate) fn category(&self) -> &'a str {
        &self.first.category
    }
}

/// All pairs, and what has no partner.
#[derive(Debug)]
pub(crate) struct Pairs<'a> {
    pub(crate) found: Vec<Pair<'a>>,
    pub(crate) only_first: Vec<Unpaired>,
    pub(crate) only_second: Vec<Unpaired>,
}

/// The pairs of one method in one setting on one data set under one protocol.
pub(crate) struct OfMethod<'p, 'a> {
    first: &'a Cell,
    setting: String,
    pub(crate) pairs: Vec<&'p Pair<'a>>,
}

/// Ways to tell apart cells that have the same name, from the surest on.
type SameAs = fn(&Cell, &Cell) -> bool;
const WAYS: [SameAs; 4] = [
    |a, b| a.cell == b.cell,
    |a, b| a.config == b.config && setting(a) == setting(b),
    |a, b| setting(a) == setting(b),
    |_, _| true,
];

impl<'a> Pairs<'a> {
    pub(crate) fn of(first: &'a [CellFiles], second: &'a [CellFiles]) -> Self {
        let mut paired = Self { found: Vec::new(), only_first: Vec::new(), only_second: Vec::new() };
        let mut left = paired.well(first, true);
        let mut right = paired.well(second, false);
        for way in WAYS {
            let mut rest = Vec::new();
            for cell in left {
                let matching = |other: &&Cell| name(other) == name(cell) && way(cell, other);
                let candidates: Vec<usize> = (0..right.len()).filter(|&at| matching(&right[at])).collect();
                match candidates[..] {
                    [at] => paired.found.push(Pair { first: cell, second: right.remove(at) }),
                    _ => rest.push(cell),
                }
            }
            left = rest;
        }
        // Pairs in the order of the first run.
        let place = |cell: &Cell| first.iter().position(|files| files.cell.cell == cell.cell);
        paired.found.sort_by_key(|pair| place(pair.first));
        for (cells, others, list) in
            [(&left, &right, &mut paired.only_first), (&right, &left, &mut paired.only_second)]
        {
            list.extend(cells.iter().map(|cell| {
                let ambiguous = others.iter().any(|other| name(other) == name(cell));
                let reason = if ambiguous {
                    "several settings, none of them the same"
                } else {
                    "not in the other run"
                };
                Unpaired { cell: cell.cell.clone(), reason: reason.to_owned() }
            }));
        }
        paired
    }

    /// The cells with figures; the others are noted.
    fn well(&mut self, cells: &'a [CellFiles], first: bool) -> Vec<&'a Cell> {
        let list = if first { &mut self.only_first } else { &mut self.only_second };
        let mut well = Vec::new();
        for CellFiles { cell, .. } in cells {
            if is_well(cell) {
                well.push(cell);
            } else {
                list.push(Unpaired { cell: cell.cell.clone(), reason: cell.status.word().to_owned() });
            }
        }
        well
    }

    /// The pairs by method, setting, data set and protocol, in the order of their first cell.
    pub(crate) fn by_method(&self) -> Vec<OfMethod<'_, 'a>> {
        let mut groups: Vec<OfMethod<'_, 'a>> = Vec::new();
        for pair in &self.found {
            let cell = pair.first;
            let same = |group: &&mut OfMethod<'_, '_>| {
                let first = group.first;
                first.method == cell.method
                    && first.dataset == cell.dataset
                    && first.protocol == cell.protocol
                    && setting(first) == setting(cell)
            };
            match groups.iter_mut().find(same) {
                Some(group) => group.pairs.push(pair),
                None => groups.push(OfMethod { first: cell, setting: setting(cell), pairs: vec![pair] }),
            }
        }
        groups
    }
}

impl<'a> OfMethod<'_, 'a> {
    /// In the order of their first cell.
    pub(crate) fn categories(&self) -> Vec<&'a str> {
        let mut categories = Vec::new();
        for pair in &self.pairs {
            if !categories.contains(&pair.category()) {
                categories.push(pair.category());
            }
        }
        categories
    }

    pub(super) fn labelled(&self, category: &str, metric: &str) -> Labels {
        let Cell { method, dataset, protocol, .. } = self.first;
        Labels {
            method: method.clone(),
            setting: self.setting.clone(),
            dataset: dataset.clone(),
            protocol: protocol.clone(),
            category: category.to_owned(),
            metric: metric.to_owned(),
        }
    }
}

/// What partners must agree in.
fn name(cell: &Cell) -> (&str, &str, &str, &str, u64) {
    (&cell.method, &cell.dataset, &cell.protocol, &cell.category, cell.seed)
}

/// Backbone and image size, as far as they are known.
fn setting(cell: &Cell) -> String {
    let size = cell.image_size.map(|size| format!("{size} px"));
    cell.backbone.iter().cloned().chain(size).collect::<Vec<_>>().join(", ")
}
