//! Published figures to compare with, from TOML files that name where each comes from.

use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::Error;
use crate::toml_file::{Table, TomlFile};

/// A published figure of a method on a data set.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PublishedFigure {
    /// The method's registered name.
    pub method: String,
    /// The data set's registered name.
    pub dataset: String,
    /// The protocol's name.
    pub protocol: String,
    /// The category; `None` for a mean over all of them.
    pub category: Option<String>,
    /// Which figure, as `report::Evaluation` calls it.
    pub metric: String,
    /// The figure, a fraction in `[0, 1]`.
    pub value: f64,
    /// Where it was published, or who recalls it.
    pub source: String,
}

impl PublishedFigure {
    /// The figure as a record has it, compared with `results`.
    pub(crate) fn beside(&self, results: &report::Results) -> report::Published {
        report::Published::compared(self.value, &self.metric, &self.source, results)
    }
}

/// All published figures that are known.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct PublishedFigures(Vec<PublishedFigure>);

const FIELDS: [&str; 7] = ["method", "dataset", "protocol", "category", "metric", "value", "source"];

impl PublishedFigures {
    /// Reads every TOML file of `folder`, in the order of their names. Each holds `[[figure]]` tables.
    ///
    /// # Errors
    /// [`Error::Io`] if the folder or a file can't be read; [`Error::Profile`] with the line of anything that is not as
    /// it must be, a metric that does not exist and a value outside `[0, 1]` among it.
    pub fn read(folder: &Path) -> Result<Self, Error> {
        let listing =
            std::fs::read_dir(folder).map_err(|e| Error::io(folder, "can't list published figures", e))?;
        let mut paths = Vec::new();
        for item in listing {
            paths.push(item.map_err(|e| Error::io(folder, "can't list published figures", e))?.path());
        }
        paths.retain(|path| path.extension().is_some_and(|ending| ending == "toml"));
        paths.sort();
        let mut figures = Vec::new();
        for path in paths {
            let file = TomlFile::read(&path)?;
            let parsed = file.parse()?;
            let root = file.root(&parsed);
            root.only(&["figure"])?;
            for element in root.need("figure")?.elements()? {
                figures.push(figure(&element.table("figure.")?)?);
            }
        }
        Ok(Self(figures))
    }

    /// The figure for this cell: its own category's, else the mean's.
    ///
    /// The mean over all categories stands beside each category's figure, because papers often give nothing else; its
    /// source says so.
    pub fn find(
        &self,
        method: &str,
        dataset: &str,
        protocol: &str,
        category: &str,
    ) -> Option<&PublishedFigure> {
        let mut fitting =
            self.0.iter().filter(|f| f.method == method && f.dataset == dataset && f.protocol == protocol);
        let own = fitting.clone().find(|f| f.category.as_deref() == Some(category));
        own.or_else(|| fitting.find(|f| f.category.is_none()))
    }
}

fn figure(table: &Table<'_>) -> Result<PublishedFigure, Error> {
    table.only(&FIELDS)?;
    let text = |name| table.need(name)?.string().map(str::to_owned);
    let category = table.get("category").map(|field| field.string().map(str::to_owned)).transpose()?;
    let field = table.need("metric")?;
    let metric = field.string()?.to_owned();
    if !report::Evaluation::METRICS.contains(&metric.as_str()) {
        let known = report::Evaluation::METRICS.join(", ");
        return Err(field.error(format_args!("expected one of {known}, found `{metric}`")));
    }
    let field = table.need("value")?;
    let value = field.number()?;
    if !(0.0..=1.0).contains(&value) {
        return Err(field.error(format_args!("expected a fraction between 0 and 1, found {value}")));
    }
    let source = text("source")?;
    let source = if category.is_none() { format!("{source} (mean over all categories)") } else { source };
    Ok(PublishedFigure {
        method: text("method")?,
        dataset: text("dataset")?,
        protocol: text("protocol")?,
        category,
        metric,
        value,
        source,
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::PublishedFigures;

    const MEAN: &str = "[[figure]]\nmethod = \"m\"\ndataset = \"d\"\nprotocol = \"p\"\nmetric = \"image_auroc\"\n\
                        value = 0.9\nsource = \"paper\"\n";

    fn read(text: &str) -> Result<PublishedFigures, crate::Error> {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("m.toml"), text).unwrap();
        PublishedFigures::read(folder.path())
    }

    #[test]
    fn a_category_has_its_own_figure_before_the_mean() {
        let own = MEAN.replace("value = 0.9", "value = 0.8\ncategory = \"c\"");
        let figures = read(&format!("{MEAN}{own}")).unwrap();
        assert_eq!(figures.find("m", "d", "p", "c").unwrap().value, 0.8);
        let mean = figures.find("m", "d", "p", "other").unwrap();
        assert_eq!((mean.value, mean.source.as_str()), (0.9, "paper (mean over all categories)"));
        assert!(figures.find("m", "d", "q", "c").is_none());
    }

    #[test]
    fn percentages_and_unknown_metrics_are_refused_with_their_line() {
        let message = read(&MEAN.replace("0.9", "98.3")).unwrap_err().to_string();
        assert!(message.contains("m.toml:6: field `figure.value`: expected a fraction"), "{message}");
        let message = read(&MEAN.replace("image_auroc", "accuracy")).unwrap_err().to_string();
        assert!(
            message.contains("m.toml:5: field `figure.metric`") && message.contains("image_ap"),
            "{message}"
        );
    }
}
