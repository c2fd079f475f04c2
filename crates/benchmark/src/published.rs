//! Published figures to compare with, from TOML files that name where each comes from.

use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::toml_file::{Table, TomlFile};
use crate::{Error, Identity};

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
    /// The backbone that it was published for; `None` if that need not be told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backbone: Option<String>,
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

const FIELDS: [&str; 8] =
    ["method", "dataset", "protocol", "category", "backbone", "metric", "value", "source"];

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

    /// The figure for this cell: its own category's, else the mean's. A figure of another backbone is none for it. Where
    /// its method's configuration says by which figure an epoch is chosen (`monitor`), published figures of that kind
    /// come first: papers give image and pixel figures of runs of their own.
    ///
    /// The mean over all categories stands beside each category's figure, because papers often give nothing else; its
    /// source says so.
    pub fn find(&self, cell: &Identity) -> Option<&PublishedFigure> {
        let Identity { method, dataset, protocol, category, backbone, config, .. } = cell;
        let fits = |f: &&PublishedFigure| {
            f.method == *method
                && f.dataset == *dataset
                && f.protocol == *protocol
                && (f.backbone.is_none() || f.backbone == *backbone)
                && f.category.as_ref().is_none_or(|own| own == category)
        };
        let monitor = config.get("monitor").and_then(serde_json::Value::as_str).unwrap_or("image_auroc");
        // The first of those that fit best.
        self.0.iter().filter(fits).min_by_key(|f| (f.metric != monitor, f.category.is_none()))
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
        backbone: table.get("backbone").map(|field| field.string().map(str::to_owned)).transpose()?,
        metric,
        value,
        source,
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use serde_json::json;

    use super::PublishedFigures;
    use crate::Identity;

    const MEAN: &str = "[[figure]]\nmethod = \"m\"\ndataset = \"d\"\nprotocol = \"p\"\nmetric = \"image_auroc\"\n\
                        value = 0.9\nsource = \"paper\"\n";

    fn read(text: &str) -> Result<PublishedFigures, crate::Error> {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("m.toml"), text).unwrap();
        PublishedFigures::read(folder.path())
    }

    /// A cell of method `m` on data set `d`.
    fn cell(protocol: &str, category: &str, backbone: &str, config: serde_json::Value) -> Identity {
        Identity {
            method: "m".into(),
            config,
            backbone: Some(backbone.into()),
            dataset: "d".into(),
            protocol: protocol.into(),
            category: category.into(),
            ..crate::spec::tests::spec().identity
        }
    }

    #[test]
    fn a_category_has_its_own_figure_before_the_mean() {
        let own = MEAN.replace("value = 0.9", "value = 0.8\ncategory = \"c\"");
        let figures = read(&format!("{MEAN}{own}")).unwrap();
        let find = |protocol, category| figures.find(&cell(protocol, category, "b", json!({})));
        assert_eq!(find("p", "c").unwrap().value, 0.8);
        let mean = find("p", "other").unwrap();
        assert_eq!((mean.value, mean.source.as_str()), (0.9, "paper (mean over all categories)"));
        assert!(find("q", "c").is_none());
    }

    #[test]
    fn backbones_and_kinds_of_figures_are_told_apart() {
        let of = |backbone: &str, metric: &str, value: &str| {
            let figure = MEAN.replace("image_auroc", metric).replace("0.9", value);
            format!("{figure}backbone = \"{backbone}\"\n")
        };
        let figures = read(&format!(
            "{}{}{}",
            of("small", "image_auroc", "0.5"),
            of("large", "pixel_auroc", "0.6"),
            of("large", "image_auroc", "0.7")
        ));
        let figures = figures.unwrap();
        let find = |backbone, config| figures.find(&cell("p", "c", backbone, config)).map(|f| f.value);
        assert_eq!(find("small", json!({})), Some(0.5));
        assert_eq!(find("large", json!({})), Some(0.7));
        assert_eq!(find("large", json!({"monitor": "pixel_auroc"})), Some(0.6));
        assert_eq!(find("other", json!({})), None);
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
