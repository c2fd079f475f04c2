//! `summary.md`: the tables in GitHub's Markdown.

use crate::columns::{self, columns};
use crate::tables::{Section, sections, sources};
use crate::words::one_line;
use crate::{Cell, Header, Status};

/// The summary as Markdown. Text from the records is escaped: it can neither end a table cell nor become HTML.
pub fn markdown(header: &Header, cells: &[Cell]) -> String {
    let cells: Vec<&Cell> = cells.iter().collect();
    let mut lines = vec![format!("# {}", escape(&header.profile)), String::new()];
    if let Some(description) = &header.description {
        lines.extend([escape(description), String::new()]);
    }
    let facts = header.all_facts(&cells);
    lines.extend(facts.iter().map(|(name, value)| format!("- {}: {}", escape(name), escape(value))));
    lines.push(String::new());
    lines.push(
        "Figures are percentages; `faithful`, `honest` and `last` are image AUROCs of the detectors chosen as the \
         reference does, without looking at test images, and at the end of training. Several seeds: mean ± sample \
         standard deviation."
            .to_owned(),
    );
    for section in sections(&cells) {
        let title = format!("## {} · {}", escape(&section.dataset), escape(&section.protocol));
        lines.extend([String::new(), title, String::new()]);
        lines.extend(table(&section));
        let sources = sources(&section);
        if !sources.is_empty() {
            lines.extend([String::new(), "Published figures:".to_owned(), String::new()]);
            lines.extend(sources.iter().map(|source| format!("- {}", escape(source))));
        }
    }
    let unfinished: Vec<&&Cell> = cells.iter().filter(|cell| cell.status != Status::Ok).collect();
    if !unfinished.is_empty() {
        lines.extend([String::new(), "## Cells without figures".to_owned(), String::new()]);
        lines.extend(unfinished.iter().map(|cell| {
            let error = cell.error.as_deref().unwrap_or("no reason recorded");
            format!("- {} {}: {}", escape(&cell.cell), cell.status.word(), escape(error))
        }));
    }
    lines.join("\n") + "\n"
}

fn table(section: &Section) -> Vec<String> {
    let columns = columns(section);
    let line = |fields: Vec<String>| format!("| {} |", fields.join(" | "));
    let headings = columns.iter().map(|column| column.heading().to_owned());
    let rules = columns.iter().map(|column| if column.is_number() { "---:" } else { "---" }.to_owned());
    let mut lines = vec![
        line(["method".to_owned(), "category".to_owned()].into_iter().chain(headings).collect()),
        line(["---".to_owned(), "---".to_owned()].into_iter().chain(rules).collect()),
    ];
    for method in &section.methods {
        for row in method.rows.iter().chain(&method.mean) {
            let name = format!("{} ({})", method.method, method.details());
            let texts = columns.iter().map(|column| escape(&column.text(row)));
            lines
                .push(line([escape(&name), escape(&columns::label(row))].into_iter().chain(texts).collect()));
        }
    }
    lines
}

/// Makes `text` stand for itself in Markdown, on one line.
pub(crate) fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    let line = one_line(text);
    let mut before = ' ';
    let mut rest = line.trim().chars().peekable();
    while let Some(c) = rest.next() {
        match c {
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '&' => escaped.push_str("&amp;"),
            '\\' | '|' | '`' | '*' | '[' | ']' | '~' | '#' | '!' | '$' => {
                escaped.push('\\');
                escaped.push(c);
            }
            // Inside a word an underscore is only itself.
            '_' if before.is_alphanumeric() && rest.peek().is_some_and(|after| after.is_alphanumeric()) => {
                escaped.push(c);
            }
            '_' => escaped.push_str("\\_"),
            c => escaped.push(c),
        }
        before = c;
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::escape;

    #[test]
    fn text_stands_for_itself() {
        assert_eq!(escape("a|b\nc"), "a\\|b c");
        assert_eq!(escape("<img src=x>"), "&lt;img src=x&gt;");
        assert_eq!(escape("image_auroc _x_"), "image_auroc \\_x\\_");
        assert_eq!(escape("a\\|b"), "a\\\\\\|b");
    }
}
