//! The tables as plain text for a terminal.

use comfy_table::presets::UTF8_HORIZONTAL_ONLY;
use comfy_table::{CellAlignment, ContentArrangement, LineStyle, Table};

use crate::columns::{self, columns};
use crate::tables::{Section, sections, sources};
use crate::words::one_line;
use crate::{Cell, Status};

/// The summary as plain text: a table for each dataset and protocol, then the cells without figures. Image AUROC and
/// the other figures are percentages; several seeds are given as mean ± sample standard deviation.
pub fn terminal_table(cells: &[Cell]) -> String {
    let cells: Vec<&Cell> = cells.iter().collect();
    let mut lines = Vec::new();
    for section in sections(&cells) {
        lines.push(format!(
            "{} · {} · image AUROC, %",
            one_line(&section.dataset),
            one_line(&section.protocol)
        ));
        lines.push(table(&section));
        lines.extend(sources(&section).iter().map(|source| format!("published: {}", one_line(source))));
        lines.push(String::new());
    }
    for cell in cells.iter().filter(|cell| cell.status != Status::Ok) {
        let error = cell.error.as_deref().unwrap_or("no reason recorded");
        lines.push(format!("{} {}: {}", cell.status.word(), one_line(&cell.cell), one_line(error)));
    }
    lines.join("\n") + "\n"
}

fn table(section: &Section) -> String {
    let columns = columns(section);
    let mut table = Table::new();
    table
        .load_style(UTF8_HORIZONTAL_ONLY.row_separator(LineStyle::none()))
        .set_content_arrangement(ContentArrangement::Disabled)
        .force_no_tty();
    let headings = columns.iter().map(|column| column.heading().to_owned());
    table.set_header(["method".to_owned(), "category".to_owned()].into_iter().chain(headings));
    for method in &section.methods {
        // The method's name beside its first row, then one part of its setting beside each.
        let settings = method.settings.iter().map(|setting| format!("  {}", one_line(setting)));
        let mut names = std::iter::once(one_line(&method.method)).chain(settings);
        for row in method.rows.iter().chain(&method.mean) {
            let name = names.next().unwrap_or_default();
            let texts = columns.iter().map(|column| one_line(&column.text(row)));
            table.add_row([name, one_line(&columns::label(row))].into_iter().chain(texts));
        }
        for name in names {
            table.add_row([name]);
        }
    }
    for (index, column) in columns.iter().enumerate() {
        if column.is_number()
            && let Some(column) = table.column_mut(index + 2)
        {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    table.trim_fmt()
}
