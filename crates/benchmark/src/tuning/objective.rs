//! What a search is after: a figure that is to be high, or a loss that is to be low.

use std::collections::BTreeMap;

use report::{Cell, Evaluation, Status};

use crate::Error;
use crate::selection::LOSS_ON_HELD_OUT;

/// The objective that is a loss: the lowest of a fit on the held-out images, as the method tells it.
pub const HELD_OUT_LOSS: &str = "held_out_loss";

/// Before the name of a term of the score: its mean over the held-out normal images, which is to be low.
pub const NORMAL_MEAN: &str = "normal_mean/";

/// A figure that no search goes by.
const NOT_SEARCHED: &str = "fpr_at_95_tpr";

/// What a search is after.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Objective<'a> {
    /// One of [`Evaluation::METRICS`] of the honest choice, the higher the better.
    Figure(&'a str),
    /// [`NORMAL_MEAN`] and the name of a term, of the honest choice.
    NormalMean(&'a str),
    /// [`HELD_OUT_LOSS`].
    Loss,
}

impl<'a> Objective<'a> {
    /// The objective called `metric`.
    pub(crate) fn of(metric: &'a str) -> Result<Self, Error> {
        match metric {
            HELD_OUT_LOSS => Ok(Self::Loss),
            NOT_SEARCHED => Err(unknown(metric)),
            _ if Evaluation::METRICS.contains(&metric) => Ok(Self::Figure(metric)),
            _ => match metric.strip_prefix(NORMAL_MEAN) {
                Some(term) if !term.is_empty() => Ok(Self::NormalMean(metric)),
                _ => Err(unknown(metric)),
            },
        }
    }

    /// What it is called.
    pub(crate) fn name(self) -> &'a str {
        match self {
            Self::Figure(name) | Self::NormalMean(name) => name,
            Self::Loss => HELD_OUT_LOSS,
        }
    }

    /// Whether it is to be low.
    pub(crate) fn is_low(self) -> bool {
        !matches!(self, Self::Figure(_))
    }

    /// A value as something to be made low; nothing is worse than having failed.
    pub(crate) fn to_minimise(self, value: Option<f64>) -> f64 {
        match value {
            None => f64::INFINITY,
            Some(value) if self.is_low() => value,
            Some(value) => -value,
        }
    }
}

/// Everything that a search could go by of a finished cell, by the names of the objectives; nothing if it failed.
pub(crate) fn figures(cell: &Cell) -> BTreeMap<String, f64> {
    let mut figures = BTreeMap::new();
    if cell.status != Status::Ok {
        return figures;
    }
    if let Some(honest) = &cell.results.honest {
        let searched = Evaluation::METRICS.into_iter().filter(|&metric| metric != NOT_SEARCHED);
        figures.extend(searched.filter_map(|metric| Some((metric.to_owned(), honest.figure(metric)?))));
        let means = honest.normal_means.iter();
        figures.extend(means.map(|(term, &mean)| (format!("{NORMAL_MEAN}{term}"), mean)));
    }
    let losses = cell.curves.get(LOSS_ON_HELD_OUT).into_iter().flatten().map(|point| point.1);
    figures.extend(losses.min_by(f64::total_cmp).map(|loss| (HELD_OUT_LOSS.to_owned(), loss)));
    figures
}

/// The means of [`figures`] over the cells of a trial: of those that each of them has.
pub(crate) fn means(cells: &[BTreeMap<String, f64>]) -> BTreeMap<String, f64> {
    let Some((first, others)) = cells.split_first() else { return BTreeMap::new() };
    let mean = |(name, &value): (&String, &f64)| {
        let rest = others.iter().map(|cell| cell.get(name).copied());
        let sum = rest.sum::<Option<f64>>()? + value;
        Some((name.clone(), sum / cells.len() as f64))
    };
    first.iter().filter_map(mean).collect()
}

fn unknown(metric: &str) -> Error {
    Error::unfit(
        "the metric",
        format!(
            "a figure that is to be high, such as `image_auroc`; `{NORMAL_MEAN}` and a term of the method's score; or `{HELD_OUT_LOSS}`"
        ),
        metric,
    )
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use report::{CurvePoint, Evaluation, Status};

    use super::{HELD_OUT_LOSS, Objective, figures, means};
    use crate::selection::LOSS_ON_HELD_OUT;
    use crate::spec::tests::spec;

    #[test]
    fn a_loss_is_the_lowest_of_its_curve_and_figures_and_means_are_of_the_honest_choice() {
        let mut cell = spec().record(Status::Ok, None);
        assert!(figures(&cell).is_empty());
        let points = [(1, 0.5), (2, 0.25), (3, 0.75)].map(|(at, value)| CurvePoint(at, value));
        cell.curves.insert(LOSS_ON_HELD_OUT.to_owned(), points.to_vec());
        let of = |auroc, pixel| Evaluation {
            image_auroc: Some(auroc),
            fpr_at_95_tpr: Some(0.5),
            normal_means: [("pixel".to_owned(), pixel)].into(),
            ..Evaluation::default()
        };
        cell.results.honest = Some(of(0.875, 3.0));
        cell.results.faithful = Some(of(1.0, 2.0));
        let found = figures(&cell);
        let expected = [("held_out_loss", 0.25), ("image_auroc", 0.875), ("normal_mean/pixel", 3.0)];
        assert_eq!(found, expected.map(|(name, value)| (name.to_owned(), value)).into());
        // Each of them is an objective of that name.
        assert!(found.keys().all(|name| Objective::of(name).unwrap().name() == name));
        cell.status = Status::Failed;
        assert!(figures(&cell).is_empty());
    }

    #[test]
    fn means_are_of_what_every_cell_has() {
        let cell =
            |pairs: &[(&str, f64)]| pairs.iter().map(|&(name, value)| (name.to_owned(), value)).collect();
        let cells = [cell(&[("a", 1.0), ("b", 2.0)]), cell(&[("a", 4.0), ("c", 2.0)])];
        assert_eq!(means(&cells), cell(&[("a", 2.5)]));
        assert!(means(&[cell(&[]), cell(&[("a", 1.0)])]).is_empty() && means(&[]).is_empty());
    }

    #[test]
    fn losses_and_means_are_to_be_low_and_figures_high() {
        let of = |name| Objective::of(name).unwrap();
        for low in [of(HELD_OUT_LOSS), of("normal_mean/pixel")] {
            assert!(low.is_low() && low.to_minimise(Some(0.25)) < low.to_minimise(Some(0.5)));
            assert_eq!(low.to_minimise(None), f64::INFINITY);
        }
        let high = of("image_auroc");
        assert!(!high.is_low() && high.to_minimise(Some(0.875)) < high.to_minimise(Some(0.5)));
        assert_eq!(high.to_minimise(None), f64::INFINITY);
        for wrong in ["fpr_at_95_tpr", "loss", "normal_mean/", "normal_mean"] {
            assert!(Objective::of(wrong).unwrap_err().to_string().contains(HELD_OUT_LOSS));
        }
    }
}
