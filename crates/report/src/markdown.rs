//! `summary.md`: the tables in GitHub's Markdown.

use crate::columns::{self, columns};
use crate::tables::{Section, sections, sources};
use crate::words::one_line;
use crate::{Cell, Header, Status};

/// The summary as Markdown. Text from the records is escaped: it can neither end a table cell nor become HTML.
pub fn markdown(header: &Header, cells: &[Cell]) -> String {
    let cells: Vec<&Cell> = cells.iter().collect();
    let mut text = format!("# {}\n\n", escape(&header.profile));
    if let Some(description) = &header.description {
        text.push_str(&format!("{}\n\n", escape(description)));
    }
    for (name, value) in header.all_facts(&cells) {
        text.push_str(&format!("- {}: {}\n", escape(&name), escape(&value)));
    }
    text.push_str(
        "\nFigures are percentages; `faithful`, `honest` and `last` are image AUROCs of the detectors chosen as the \
         reference does, without looking at test images, and at the end of training. Several seeds: mean ± sample \
         standard deviation.\n",
    );
    for section in sections(&cells) {
        text.push_str(&format!("\n## {} · {}\n\n", escape(&section.dataset), escape(&section.protocol)));
        text.push_str(&table(&section));
        let sources = sources(&section);
        if !sources.is_empty() {
            text.push_str("\nPublished figures:\n\n");
            for source in &sources {
                text.push_str(&format!("- {}\n", escape(source)));
            }
        }
    }
    let unfinished: Vec<&&Cell> = cells.iter().filter(|cell| cell.status != Status::Ok).collect();
    if !unfinished.is_empty() {
        text.push_str("\n## Cells without figures\n\n");
        for cell in unfinished {
            let error = cell.error.as_deref().unwrap_or("no reason recorded");
            text.push_str(&format!("- {} {}: {}\n", escape(&cell.cell), cell.status.word(), escape(error)));
        }
    }
    text
}

fn table(section: &Section) -> String {
    let columns = columns(section);
    let mut text = String::from("| method | category |");
    for column in &columns {
        text.push_str(&format!(" {} |", column.heading()));
    }
    text.push_str("\n| --- | --- |");
    for column in &columns {
        text.push_str(if column.is_number() { " ---: |" } else { " --- |" });
    }
    text.push('\n');
    for method in &section.methods {
        for row in method.rows.iter().chain(&method.mean) {
            let name = format!("{} ({})", method.method, method.details);
            text.push_str(&format!("| {} | {} |", escape(&name), escape(&columns::label(row))));
            for column in &columns {
                text.push_str(&format!(" {} |", escape(&column.text(row))));
            }
            text.push('\n');
        }
    }
    text
}

/// Makes `text` stand for itself in Markdown, on one line.
fn escape(text: &str) -> String {
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
