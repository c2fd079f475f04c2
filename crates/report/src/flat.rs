//! `summary.csv`: one line for each cell, every figure with all its digits.

use crate::{Cell, Error, Evaluation, Selection, json};

/// The summary as CSV: a header, then one line for each cell in the order given. Figures are fractions in the
/// shortest form that reads back to the same number; an unknown value is an empty field.
///
/// # Errors
/// [`Error::Record`] if a figure is not finite, [`Error::Csv`] if the writer fails.
pub fn csv(cells: &[Cell]) -> Result<String, Error> {
    json::check(cells, "summary.csv")?;
    let failed = |source| Error::Csv { what: "summary.csv".to_owned(), source };
    let mut terms: Vec<&String> = cells.iter().flat_map(|cell| cell.terms.keys()).collect();
    terms.sort();
    terms.dedup();
    let mut writer = csv::Writer::from_writer(Vec::new());
    writer.write_record(header(&terms)).map_err(failed)?;
    for cell in cells {
        writer.write_record(line(cell, &terms)).map_err(failed)?;
    }
    let bytes = writer
        .into_inner()
        .map_err(|error| failed(csv::Error::from(std::io::Error::other(error.to_string()))))?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// The figures of a selection's columns.
fn figures() -> impl Iterator<Item = &'static str> {
    Evaluation::METRICS.into_iter().chain(["f1_threshold"])
}

fn header(terms: &[&String]) -> Vec<String> {
    let mut names: Vec<String> = [
        "cell",
        "method",
        "dataset",
        "category",
        "protocol",
        "seed",
        "backbone",
        "precision",
        "image_size",
        "status",
        "error",
    ]
    .map(str::to_owned)
    .to_vec();
    for selection in Selection::ALL.map(Selection::word) {
        names.push(format!("{selection}_selection"));
        names.push(format!("{selection}_step"));
        names.extend(figures().map(|figure| format!("{selection}_{figure}")));
    }
    names.extend(terms.iter().map(|term| format!("term_{term}_image_auroc")));
    names.extend(
        [
            "published_value",
            "published_metric",
            "published_source",
            "published_difference",
            "fit_seconds",
            "score_seconds",
            "peak_memory_bytes",
        ]
        .map(str::to_owned),
    );
    names
}

fn line(cell: &Cell, terms: &[&String]) -> Vec<String> {
    let mut fields = vec![
        cell.cell.clone(),
        cell.method.clone(),
        cell.dataset.clone(),
        cell.category.clone(),
        cell.protocol.clone(),
        cell.seed.to_string(),
        cell.backbone.clone().unwrap_or_default(),
        cell.precision.clone(),
        cell.image_size.map(|size| size.to_string()).unwrap_or_default(),
        cell.status.word().to_owned(),
        cell.error.clone().unwrap_or_default(),
    ];
    for selection in Selection::ALL {
        let evaluation = cell.results.get(selection);
        fields.push(evaluation.map(|evaluation| evaluation.selection.clone()).unwrap_or_default());
        let step = evaluation.and_then(|evaluation| evaluation.step);
        fields.push(step.map(|step| step.to_string()).unwrap_or_default());
        fields.extend(figures().map(|figure| number(evaluation.and_then(|it| it.figure(figure)))));
    }
    fields.extend(terms.iter().map(|term| number(cell.terms.get(*term).and_then(|term| term.image_auroc))));
    let published = cell.published.as_ref();
    fields.push(number(published.map(|published| published.value)));
    fields.push(published.map(|published| published.metric.clone()).unwrap_or_default());
    fields.push(published.map(|published| published.source.clone()).unwrap_or_default());
    fields.push(number(published.and_then(|published| published.difference)));
    fields.push(number(cell.seconds.map(|seconds| seconds.fit)));
    fields.push(number(cell.seconds.map(|seconds| seconds.score)));
    fields.push(cell.peak_memory_bytes.map(|bytes| bytes.to_string()).unwrap_or_default());
    fields
}

/// The shortest text that reads back to the same number.
fn number(value: Option<f64>) -> String {
    value.map(|value| format!("{value:?}")).unwrap_or_default()
}
