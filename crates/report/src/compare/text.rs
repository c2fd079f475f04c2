//! A comparison as a table for the terminal, as JSON and as CSV.

use comfy_table::presets::UTF8_HORIZONTAL_ONLY;
use comfy_table::{CellAlignment, ContentArrangement, LineStyle, Table};

use super::{ComparedRow, Comparison};
use crate::words::{self, one_line};
use crate::{Error, json};

impl Comparison {
    /// The differences of one metric in percentage points, what else differs, and what has no partner.
    pub fn terminal_table(&self, metric: &str) -> String {
        let level =
            self.rows.iter().chain(&self.means).find_map(|row| row.interval).map(|interval| interval.level);
        let mut lines = vec![format!(
            "{} against {} · {}, {}, %",
            one_line(&self.run),
            one_line(&self.baseline),
            words::metric(metric),
            self.selection
        )];
        let rows: Vec<&ComparedRow> =
            self.rows.iter().chain(&self.means).filter(|row| row.metric == metric).collect();
        if rows.is_empty() {
            lines.push("no pair of cells has this figure in both".to_owned());
        } else {
            lines.push(table(&rows));
            if let Some(level) = level {
                lines.push(format!("intervals: {} % bootstrap, over what is named", level * 100.0));
            }
        }
        lines.push(String::new());
        for difference in &self.differences {
            let method =
                difference.method.as_ref().map_or_else(String::new, |method| format!(" of {method}"));
            lines.push(format!(
                "differs in {} pairs{}: {} {} → {}",
                difference.pairs,
                one_line(&method),
                one_line(&difference.what),
                short(&difference.baseline),
                short(&difference.run)
            ));
        }
        for (cells, name) in [(&self.only_in_baseline, &self.baseline), (&self.only_in_run, &self.run)] {
            lines.extend(cells.iter().map(|unpaired| {
                format!(
                    "not compared, of {}: {} ({})",
                    one_line(name),
                    one_line(&unpaired.cell),
                    unpaired.reason
                )
            }));
        }
        lines.join("\n").trim_end().to_owned() + "\n"
    }
}

/// Comparisons as JSON, with every digit.
///
/// # Errors
/// [`Error::Record`] if a figure is not finite.
pub(super) fn to_json(comparisons: &[Comparison]) -> Result<String, Error> {
    json::text(comparisons, "the comparison")
}

/// One line for each row of each comparison, with every digit.
pub(super) fn to_csv(comparisons: &[Comparison]) -> Result<String, Error> {
    let failed = |source| Error::Csv { what: "the comparison".to_owned(), source };
    let mut writer = csv::Writer::from_writer(Vec::new());
    let header = [
        "baseline",
        "run",
        "selection",
        "method",
        "setting",
        "dataset",
        "protocol",
        "category",
        "metric",
        "pairs",
        "baseline_mean",
        "run_mean",
        "difference",
        "low",
        "high",
        "level",
        "over",
    ];
    writer.write_record(header).map_err(failed)?;
    for comparison in comparisons {
        for row in comparison.rows.iter().chain(&comparison.means) {
            let number = |value: f64| format!("{value:?}");
            let end = |value: fn(&super::ComparedInterval) -> f64| {
                row.interval.as_ref().map(|interval| number(value(interval))).unwrap_or_default()
            };
            let fields = [
                comparison.baseline.clone(),
                comparison.run.clone(),
                comparison.selection.to_owned(),
                row.method.clone(),
                row.setting.clone(),
                row.dataset.clone(),
                row.protocol.clone(),
                row.category.clone(),
                row.metric.clone(),
                row.pairs.len().to_string(),
                number(row.baseline),
                number(row.run),
                number(row.difference),
                end(|interval| interval.low),
                end(|interval| interval.high),
                end(|interval| interval.level),
                row.interval.map(|interval| interval.over).unwrap_or_default().to_owned(),
            ];
            writer.write_record(fields).map_err(failed)?;
        }
    }
    let bytes = writer
        .into_inner()
        .map_err(|error| failed(csv::Error::from(std::io::Error::other(error.to_string()))))?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

fn table(rows: &[&ComparedRow]) -> String {
    let mut table = Table::new();
    table
        .load_style(UTF8_HORIZONTAL_ONLY.row_separator(LineStyle::none()))
        .set_content_arrangement(ContentArrangement::Disabled)
        .force_no_tty();
    let headings =
        ["method", "data set", "category", "pairs", "baseline", "run", "difference", "interval", "over"];
    table.set_header(headings);
    for row in rows {
        let method = if row.setting.is_empty() {
            row.method.clone()
        } else {
            format!("{} ({})", row.method, row.setting)
        };
        let interval = row.interval.map_or_else(
            || words::DASH.to_owned(),
            |interval| {
                format!("{} to {}", words::points(Some(interval.low)), words::points(Some(interval.high)))
            },
        );
        table.add_row([
            one_line(&method),
            one_line(&format!("{} · {}", row.dataset, row.protocol)),
            one_line(&row.category),
            row.pairs.len().to_string(),
            words::fraction(Some(row.baseline)),
            words::fraction(Some(row.run)),
            words::points(Some(row.difference)),
            interval,
            row.interval.map_or(words::DASH, |interval| interval.over).to_owned(),
        ]);
    }
    for column in 3..8 {
        if let Some(column) = table.column_mut(column) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    table.trim_fmt()
}

/// A value for people: hashes are cut.
fn short(text: &str) -> String {
    let text = one_line(text);
    let is_hash = text.len() > 16 && text.trim_end_matches('+').chars().all(|c| c.is_ascii_hexdigit());
    if is_hash { text.chars().take(12).collect() } else { text }
}
