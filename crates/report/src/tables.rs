//! The cells arranged as people read them: one section for each dataset and protocol, one row for each method and
//! category, seeds taken together. The text, Markdown and HTML tables all show this arrangement.

use std::collections::BTreeMap;

use crate::{Cell, Selection, Status};

/// One table: a dataset under a protocol.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Section {
    pub(crate) dataset: String,
    pub(crate) protocol: String,
    /// In the order in which they first appear among the cells.
    pub(crate) categories: Vec<String>,
    pub(crate) methods: Vec<MethodRows>,
}

/// The rows of one method in one configuration.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct MethodRows {
    pub(crate) method: String,
    /// Backbone, image size, precision, and the settings in which it differs from other rows of the same method.
    pub(crate) settings: Vec<String>,
    pub(crate) rows: Vec<Row>,
    /// The mean over the categories; `None` where there is only one.
    pub(crate) mean: Option<Row>,
}

impl MethodRows {
    /// The settings in one line.
    pub(crate) fn details(&self) -> String {
        self.settings.join(" · ")
    }
}

/// One line of a table.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Row {
    pub(crate) category: String,
    /// The image AUROC of each [`Selection`], in the order of [`Selection::ALL`].
    pub(crate) image_auroc: [Option<Figure>; 3],
    /// The faithful detector's other figures, in the order of [`OTHER_METRICS`].
    pub(crate) others: [Option<Figure>; OTHER_METRICS.len()],
    /// The image AUROC of each term.
    pub(crate) terms: Vec<(String, Figure)>,
    pub(crate) published: Option<PublishedFigure>,
    pub(crate) fit_seconds: Option<Figure>,
    /// Positions of the row's cells in the input; empty for a mean over categories.
    pub(crate) cells: Vec<usize>,
    /// How many of the row's cells have no figures, of how many.
    pub(crate) missing: usize,
    pub(crate) total: usize,
}

/// The figures shown beside the image AUROC, with their headings.
pub(crate) const OTHER_METRICS: [(&str, &str); 9] = [
    ("image_ap", "AP"),
    ("f1_max", "F1-max"),
    ("pixel_auroc", "pixel AUROC"),
    ("pixel_ap", "pixel AP"),
    ("pixel_f1_max", "pixel F1-max"),
    ("au_pro", "AU-PRO"),
    ("au_pro_05", "AU-PRO 5 %"),
    ("reference_pro", "reference PRO"),
    ("au_spro_05", "AU-sPRO 5 %"),
];

/// A mean over seeds.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Figure {
    pub(crate) mean: f64,
    /// Sample standard deviation over seeds; `None` for a single seed.
    pub(crate) sd: Option<f64>,
}

/// A published figure beside ours.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct PublishedFigure {
    pub(crate) value: f64,
    pub(crate) metric: String,
    /// Empty for a mean over categories.
    pub(crate) source: String,
    pub(crate) difference: Option<f64>,
}

impl Figure {
    fn of(values: &[f64]) -> Option<Self> {
        if values.is_empty() {
            return None;
        }
        let n = values.len() as f64;
        let mean = values.iter().sum::<f64>() / n;
        let sd = (values.len() > 1)
            .then(|| (values.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / (n - 1.0)).sqrt());
        Some(Self { mean, sd })
    }
}

/// Arranges `cells`. Sections, methods and categories come in the order of their first cell.
pub(crate) fn sections(cells: &[&Cell]) -> Vec<Section> {
    let mut keys: Vec<(&str, &str)> = Vec::new();
    for cell in cells {
        let key = (cell.dataset.as_str(), cell.protocol.as_str());
        if !keys.contains(&key) {
            keys.push(key);
        }
    }
    keys.into_iter().map(|key| section(cells, key)).collect()
}

fn section(cells: &[&Cell], (dataset, protocol): (&str, &str)) -> Section {
    let members: Vec<usize> = (0..cells.len())
        .filter(|&index| cells[index].dataset == dataset && cells[index].protocol == protocol)
        .collect();
    let mut categories: Vec<String> = Vec::new();
    for &index in &members {
        if !categories.contains(&cells[index].category) {
            categories.push(cells[index].category.clone());
        }
    }
    let groups = variants(cells, &members);
    let methods = groups
        .iter()
        .map(|group| {
            let first = cells[group[0]];
            let siblings: Vec<&Cell> = groups
                .iter()
                .map(|other| cells[other[0]])
                .filter(|cell| cell.method == first.method)
                .collect();
            let rows: Vec<Row> = categories
                .iter()
                .map(|category| {
                    let of_category: Vec<usize> =
                        group.iter().copied().filter(|&index| cells[index].category == *category).collect();
                    row(cells, category, of_category)
                })
                .filter(|row| row.total > 0)
                .collect();
            let mean = (rows.len() > 1).then(|| mean_row(cells, &rows));
            MethodRows { method: first.method.clone(), settings: settings(first, &siblings), rows, mean }
        })
        .collect();
    Section { dataset: dataset.to_owned(), protocol: protocol.to_owned(), categories, methods }
}

/// Splits a section's cells into what belongs in one table row group: the same method, backbone, image size and
/// precision, and the same configuration where one category and seed would otherwise appear twice.
fn variants(cells: &[&Cell], members: &[usize]) -> Vec<Vec<usize>> {
    let mut groups: Vec<Vec<usize>> = Vec::new();
    for &index in members {
        let cell = cells[index];
        let key = |cell: &Cell| {
            (cell.method.clone(), cell.backbone.clone(), cell.image_size, cell.precision.clone())
        };
        match groups.iter_mut().find(|group| key(cells[group[0]]) == key(cell)) {
            Some(group) => group.push(index),
            None => groups.push(vec![index]),
        }
    }
    groups
        .into_iter()
        .flat_map(|group| {
            let twice = group.iter().enumerate().any(|(position, &one)| {
                group[..position].iter().any(|&other| {
                    cells[one].category == cells[other].category && cells[one].seed == cells[other].seed
                })
            });
            if !twice {
                return vec![group];
            }
            let mut split: Vec<Vec<usize>> = Vec::new();
            for index in group {
                match split.iter_mut().find(|part| cells[part[0]].config == cells[index].config) {
                    Some(part) => part.push(index),
                    None => split.push(vec![index]),
                }
            }
            split
        })
        .collect()
}

fn settings(cell: &Cell, siblings: &[&Cell]) -> Vec<String> {
    let mut parts: Vec<String> = Vec::new();
    parts.extend(cell.backbone.clone());
    parts.extend(cell.image_size.map(|size| format!("{size} px")));
    parts.push(cell.precision.clone());
    if let Some(config) = cell.config.as_object() {
        for (name, value) in config {
            if siblings.iter().any(|sibling| sibling.config.get(name) != Some(value)) {
                parts.push(format!("{name} = {value}"));
            }
        }
    }
    parts
}

fn row(cells: &[&Cell], category: &str, indices: Vec<usize>) -> Row {
    let over_seeds = |pick: &dyn Fn(&Cell) -> Option<f64>| {
        Figure::of(&indices.iter().filter_map(|&index| pick(cells[index])).collect::<Vec<f64>>())
    };
    let mut names: Vec<&String> = indices.iter().flat_map(|&index| cells[index].terms.keys()).collect();
    names.sort();
    names.dedup();
    let terms = names
        .into_iter()
        .filter_map(|name| {
            let figure = over_seeds(&|cell| cell.terms.get(name).and_then(|term| term.image_auroc))?;
            Some((name.clone(), figure))
        })
        .collect();
    let published = indices.iter().find_map(|&index| cells[index].published.as_ref()).map(|published| {
        let ours = over_seeds(&|cell| {
            cell.results.faithful.as_ref().and_then(|evaluation| evaluation.figure(&published.metric))
        });
        PublishedFigure {
            value: published.value,
            metric: published.metric.clone(),
            source: published.source.clone(),
            difference: ours.map(|ours| ours.mean - published.value),
        }
    });
    Row {
        category: category.to_owned(),
        image_auroc: Selection::ALL.map(|selection| {
            over_seeds(&|cell| cell.results.get(selection).and_then(|evaluation| evaluation.image_auroc))
        }),
        others: OTHER_METRICS.map(|(metric, _)| {
            over_seeds(&|cell| {
                cell.results.faithful.as_ref().and_then(|evaluation| evaluation.figure(metric))
            })
        }),
        terms,
        published,
        fit_seconds: over_seeds(&|cell| cell.seconds.map(|seconds| seconds.fit)),
        missing: indices.iter().filter(|&&index| cells[index].status != Status::Ok).count(),
        total: indices.len(),
        cells: indices,
    }
}

/// The mean over categories. Its deviation is the one of the seeds' means, known only where every category has the
/// same seeds. A figure that some category lacks has no mean: it would be the mean of something else.
fn mean_row(cells: &[&Cell], rows: &[Row]) -> Row {
    let mean =
        |pick: &dyn Fn(&Row) -> Option<Figure>, figure: &dyn Fn(&Cell) -> Option<f64>| -> Option<Figure> {
            let means: Vec<f64> = rows.iter().filter_map(|row| pick(row).map(|figure| figure.mean)).collect();
            if means.len() < rows.len() {
                return None;
            }
            let mean = Figure::of(&means)?.mean;
            let mut by_seed: BTreeMap<u64, Vec<f64>> = BTreeMap::new();
            for &index in rows.iter().flat_map(|row| &row.cells) {
                if let Some(value) = figure(cells[index]) {
                    by_seed.entry(cells[index].seed).or_default().push(value);
                }
            }
            let complete = by_seed.values().all(|values| values.len() == rows.len());
            let seeds: Vec<f64> =
                by_seed.values().map(|values| values.iter().sum::<f64>() / values.len() as f64).collect();
            Some(Figure { mean, sd: Figure::of(&seeds).filter(|_| complete).and_then(|figure| figure.sd) })
        };
    let mut names: Vec<&String> =
        rows.iter().flat_map(|row| row.terms.iter().map(|(name, _)| name)).collect();
    names.sort();
    names.dedup();
    let terms = names
        .into_iter()
        .filter_map(|name| {
            let figure = mean(
                &|row| row.terms.iter().find(|(other, _)| other == name).map(|(_, figure)| *figure),
                &|cell| cell.terms.get(name).and_then(|term| term.image_auroc),
            )?;
            Some((name.clone(), figure))
        })
        .collect();
    let mut others = [None; OTHER_METRICS.len()];
    for (position, (metric, _)) in OTHER_METRICS.iter().enumerate() {
        others[position] = mean(&|row| row.others[position], &|cell| {
            cell.results.faithful.as_ref().and_then(|evaluation| evaluation.figure(metric))
        });
    }
    let mut image_auroc = [None; 3];
    for (position, selection) in Selection::ALL.into_iter().enumerate() {
        image_auroc[position] = mean(&|row| row.image_auroc[position], &|cell| {
            cell.results.get(selection).and_then(|evaluation| evaluation.image_auroc)
        });
    }
    Row {
        category: "mean".to_owned(),
        image_auroc,
        others,
        terms,
        published: published_mean(rows),
        fit_seconds: mean(&|row| row.fit_seconds, &|cell| cell.seconds.map(|seconds| seconds.fit)),
        cells: Vec::new(),
        missing: rows.iter().map(|row| row.missing).sum(),
        total: rows.iter().map(|row| row.total).sum(),
    }
}

fn published_mean(rows: &[Row]) -> Option<PublishedFigure> {
    let all: Vec<&PublishedFigure> = rows.iter().filter_map(|row| row.published.as_ref()).collect();
    let first = all.first()?;
    if all.len() < rows.len() || all.iter().any(|published| published.metric != first.metric) {
        return None;
    }
    let n = all.len() as f64;
    let differences: Vec<f64> = all.iter().filter_map(|published| published.difference).collect();
    Some(PublishedFigure {
        value: all.iter().map(|published| published.value).sum::<f64>() / n,
        metric: first.metric.clone(),
        source: String::new(),
        difference: (differences.len() == all.len()).then(|| differences.iter().sum::<f64>() / n),
    })
}

/// The distinct sources of a section's published figures, in order; their notes are numbered from 1.
pub(crate) fn sources(section: &Section) -> Vec<String> {
    let mut sources: Vec<String> = Vec::new();
    for row in section.methods.iter().flat_map(|method| &method.rows) {
        if let Some(published) = &row.published
            && !sources.contains(&published.source)
        {
            sources.push(published.source.clone());
        }
    }
    sources
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::{Evaluation, Provenance, Published, Results};

    fn cell(method: &str, category: &str, seed: u64, auroc: Option<f64>) -> Cell {
        let evaluation = Evaluation { image_auroc: auroc, ..Evaluation::default() };
        Cell {
            cell: format!("{method}-{category}-{seed}"),
            method: method.to_owned(),
            dataset: "parts".to_owned(),
            category: category.to_owned(),
            protocol: "unimodal".to_owned(),
            seed,
            backbone: None,
            precision: "f32".to_owned(),
            image_size: None,
            status: if auroc.is_some() { Status::Ok } else { Status::Failed },
            error: None,
            results: Results { faithful: auroc.map(|_| evaluation), ..Results::default() },
            terms: BTreeMap::new(),
            seconds: None,
            peak_memory_bytes: None,
            published: None,
            curves: BTreeMap::new(),
            pictures: Vec::new(),
            map_scale: None,
            config: serde_json::Value::Null,
            provenance: Provenance::default(),
        }
    }

    fn arranged(cells: &[Cell]) -> Vec<Section> {
        sections(&cells.iter().collect::<Vec<_>>())
    }

    #[test]
    fn seeds_are_averaged_within_and_across_categories() {
        let cells = [
            cell("a", "x", 0, Some(0.80)),
            cell("a", "x", 1, Some(0.90)),
            cell("a", "y", 0, Some(0.60)),
            cell("a", "y", 1, Some(0.80)),
        ];
        let sections = arranged(&cells);
        let method = &sections[0].methods[0];
        let x = method.rows[0].image_auroc[0].unwrap();
        assert!((x.mean - 0.85).abs() < 1e-12 && (x.sd.unwrap() - 0.05 * 2f64.sqrt()).abs() < 1e-12);
        // The seeds' means over categories are 0.70 and 0.85.
        let mean = method.mean.as_ref().unwrap().image_auroc[0].unwrap();
        assert!((mean.mean - 0.775).abs() < 1e-12);
        assert!((mean.sd.unwrap() - 0.075 * 2f64.sqrt()).abs() < 1e-12);
        assert_eq!(method.rows[0].image_auroc[1], None);
    }

    #[test]
    fn a_missing_category_leaves_no_mean_and_is_counted() {
        let cells = [cell("a", "x", 0, Some(0.8)), cell("a", "y", 0, None)];
        let sections = arranged(&cells);
        let method = &sections[0].methods[0];
        let mean = method.mean.as_ref().unwrap();
        assert_eq!(mean.image_auroc[0], None);
        assert_eq!((mean.missing, mean.total), (1, 2));
    }

    #[test]
    fn configurations_are_told_apart_only_where_they_meet() {
        let with = |category: &str, epochs: u32, auroc| {
            let mut cell = cell("a", category, 0, Some(auroc));
            cell.config = serde_json::json!({ "epochs": epochs, "k": 3 });
            cell
        };
        let apart = arranged(&[with("x", 1, 0.7), with("x", 5, 0.9), with("y", 1, 0.6), with("y", 5, 0.8)]);
        let settings: Vec<String> = apart[0].methods.iter().map(MethodRows::details).collect();
        assert_eq!(settings, ["f32 · epochs = 1", "f32 · epochs = 5"]);
        let together = arranged(&[with("x", 1, 0.7), with("y", 5, 0.9)]);
        assert_eq!(together[0].methods.len(), 1);
    }

    #[test]
    fn published_figures_are_averaged_only_when_complete() {
        let with = |category: &str, ours: f64, published: f64| {
            let mut cell = cell("a", category, 0, Some(ours));
            cell.published = Some(Published::compared(published, "image_auroc", "table 1", &cell.results));
            cell
        };
        let both = arranged(&[with("x", 0.9, 0.8), with("y", 0.7, 0.9)]);
        let mean = both[0].methods[0].mean.as_ref().unwrap().published.clone().unwrap();
        assert!((mean.value - 0.85).abs() < 1e-12 && (mean.difference.unwrap() + 0.05).abs() < 1e-12);
        let one = arranged(&[with("x", 0.9, 0.8), cell("a", "y", 0, Some(0.7))]);
        assert_eq!(one[0].methods[0].mean.as_ref().unwrap().published, None);
        assert_eq!(sources(&one[0]), ["table 1"]);
    }
}
