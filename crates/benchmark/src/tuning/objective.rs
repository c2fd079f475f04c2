//! What a search is after: a figure that is to be high, or a loss that is to be low.

use report::{Cell, Evaluation, Status};

use crate::Error;
use crate::selection::LOSS_ON_HELD_OUT;

/// The objective that is a loss: the lowest of a fit on the held-out images, as the method tells it.
pub const HELD_OUT_LOSS: &str = "held_out_loss";

/// What a search is after.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Objective<'a> {
    /// One of [`Evaluation::METRICS`] of the honest choice, the higher the better.
    Figure(&'a str),
    /// [`HELD_OUT_LOSS`].
    Loss,
}

impl<'a> Objective<'a> {
    /// The objective called `metric`.
    pub(crate) fn of(metric: &'a str) -> Result<Self, Error> {
        match metric {
            HELD_OUT_LOSS => Ok(Self::Loss),
            "fpr_at_95_tpr" => Err(unknown(metric)),
            _ if Evaluation::METRICS.contains(&metric) => Ok(Self::Figure(metric)),
            _ => Err(unknown(metric)),
        }
    }

    /// What a finished cell came to; `None` if it failed or tells no such figure.
    pub(crate) fn of_cell(self, cell: &Cell) -> Option<f64> {
        if cell.status != Status::Ok {
            return None;
        }
        match self {
            Self::Figure(metric) => cell.results.honest.as_ref()?.figure(metric),
            Self::Loss => {
                let curve = cell.curves.get(LOSS_ON_HELD_OUT)?;
                curve.iter().map(|point| point.1).min_by(f64::total_cmp)
            }
        }
    }

    /// A value as something to be made low; nothing is worse than having failed.
    pub(crate) fn to_minimise(self, value: Option<f64>) -> f64 {
        match self {
            Self::Figure(_) => value.map_or(f64::INFINITY, |value| -value),
            Self::Loss => value.unwrap_or(f64::INFINITY),
        }
    }
}

fn unknown(metric: &str) -> Error {
    Error::unfit(
        "the metric",
        format!("a figure that is to be high, such as `image_auroc`, or `{HELD_OUT_LOSS}`"),
        metric,
    )
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use report::{CurvePoint, Evaluation, Status};

    use super::{HELD_OUT_LOSS, Objective};
    use crate::selection::LOSS_ON_HELD_OUT;
    use crate::spec::tests::spec;

    #[test]
    fn a_loss_is_the_lowest_of_its_curve_and_a_figure_the_honest_one() {
        let (loss, figure) = (Objective::of(HELD_OUT_LOSS).unwrap(), Objective::of("image_auroc").unwrap());
        let mut cell = spec().record(Status::Ok, None);
        assert_eq!((loss.of_cell(&cell), figure.of_cell(&cell)), (None, None));
        let points = [(1, 0.5), (2, 0.25), (3, 0.75)].map(|(at, value)| CurvePoint(at, value));
        cell.curves.insert(LOSS_ON_HELD_OUT.to_owned(), points.to_vec());
        cell.results.honest = Some(Evaluation { image_auroc: Some(0.875), ..Evaluation::default() });
        cell.results.faithful = Some(Evaluation { image_auroc: Some(1.0), ..Evaluation::default() });
        assert_eq!((loss.of_cell(&cell), figure.of_cell(&cell)), (Some(0.25), Some(0.875)));
        assert!(loss.to_minimise(Some(0.25)) < loss.to_minimise(Some(0.5)));
        assert!(figure.to_minimise(Some(0.875)) < figure.to_minimise(Some(0.5)));
        assert_eq!(loss.to_minimise(None), figure.to_minimise(None));
        cell.status = Status::Failed;
        assert_eq!((loss.of_cell(&cell), figure.of_cell(&cell)), (None, None));
        for wrong in ["fpr_at_95_tpr", "loss"] {
            assert!(Objective::of(wrong).unwrap_err().to_string().contains(HELD_OUT_LOSS));
        }
    }
}
