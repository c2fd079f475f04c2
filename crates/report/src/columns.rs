//! Which columns a section's table has, and what stands in them.

use crate::Selection;
use crate::tables::{Figure, OTHER_METRICS, Row, Section};
use crate::words;

/// A column after the method and the category.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Column {
    /// The image AUROC of a selection.
    ImageAuroc(Selection),
    /// The published figure.
    Published,
    /// The faithful figure minus the published one.
    Difference,
    /// One of [`OTHER_METRICS`].
    Other(usize),
    /// The image AUROC of each term.
    Terms,
    /// How long fitting took.
    Fit,
}

/// The columns of `section`: always the three selections; the rest where at least one row has something to show.
pub(crate) fn columns(section: &Section) -> Vec<Column> {
    let any =
        |holds: &dyn Fn(&Row) -> bool| section.methods.iter().flat_map(|method| &method.rows).any(holds);
    let mut columns: Vec<Column> = Selection::ALL.into_iter().map(Column::ImageAuroc).collect();
    if any(&|row| row.published.is_some()) {
        columns.extend([Column::Published, Column::Difference]);
    }
    columns
        .extend((0..OTHER_METRICS.len()).filter(|&i| any(&|row| row.others[i].is_some())).map(Column::Other));
    if any(&|row| !row.terms.is_empty()) {
        columns.push(Column::Terms);
    }
    if any(&|row| row.fit_seconds.is_some()) {
        columns.push(Column::Fit);
    }
    columns
}

impl Column {
    pub(crate) fn heading(self) -> &'static str {
        match self {
            Self::ImageAuroc(selection) => selection.word(),
            Self::Published => "published",
            Self::Difference => "difference",
            Self::Other(index) => OTHER_METRICS[index].1,
            Self::Terms => "AUROC of terms",
            Self::Fit => "fit",
        }
    }

    /// Whether it holds figures, which line up on the right.
    pub(crate) fn is_number(self) -> bool {
        self != Self::Terms
    }

    pub(crate) fn figure(self, row: &Row) -> Option<Figure> {
        match self {
            Self::ImageAuroc(selection) => row.image_auroc[selection as usize],
            Self::Other(index) => row.others[index],
            Self::Fit => row.fit_seconds,
            Self::Published | Self::Difference | Self::Terms => None,
        }
    }

    /// What stands in the column; a dash where nothing is known.
    pub(crate) fn text(self, row: &Row) -> String {
        match self {
            Self::ImageAuroc(_) | Self::Other(_) => words::percent(self.figure(row)),
            Self::Published => {
                row.published.as_ref().map_or_else(|| words::DASH.to_owned(), words::published)
            }
            Self::Difference => {
                words::points(row.published.as_ref().and_then(|published| published.difference))
            }
            Self::Terms => words::terms(row),
            Self::Fit => words::seconds(row.fit_seconds.map(|figure| figure.mean)),
        }
    }
}

/// A row's category with what is missing from it, as `bottle` or `bottle (1 of 3 failed)`.
pub(crate) fn label(row: &Row) -> String {
    if row.missing == 0 {
        row.category.clone()
    } else {
        format!("{} ({} of {} without figures)", row.category, row.missing, row.total)
    }
}
