//! What the report says about the whole run.

use crate::{Cell, Status};

/// The head of a report. Nothing in it is taken from a clock or the machine: whoever writes the report hands it in.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Header {
    /// The profile's name, which is the report's title.
    pub profile: String,
    /// What the profile is for.
    pub description: Option<String>,
    /// When the run ended, as it is to be shown.
    pub time: Option<String>,
    /// More to be shown, as name and value.
    pub facts: Vec<(String, String)>,
}

impl Header {
    /// The header's own facts, then what is the same for all cells that record it.
    pub(crate) fn all_facts(&self, cells: &[&Cell]) -> Vec<(String, String)> {
        let mut facts = Vec::new();
        if let Some(time) = &self.time {
            facts.push(("time".to_owned(), time.clone()));
        }
        let mut counts = vec![format!("{} in all", cells.len())];
        for status in [Status::Ok, Status::Failed, Status::Cancelled] {
            let count = cells.iter().filter(|cell| cell.status == status).count();
            if count > 0 {
                counts.push(format!("{count} {}", status.word()));
            }
        }
        facts.push(("cells".to_owned(), counts.join(", ")));
        facts.extend(self.facts.iter().cloned());
        let mut common = |name: &str, value: &dyn Fn(&Cell) -> Option<String>| {
            if let Some(value) = same(cells, value) {
                facts.push((name.to_owned(), value));
            }
        };
        // Enough of the hash to tell commits apart; each record has all of it.
        common("commit", &|cell| {
            cell.provenance.commit.as_ref().map(|commit| commit.chars().take(12).collect())
        });
        common("device", &|cell| cell.provenance.device.clone());
        common("versions", &|cell| {
            let versions: Vec<String> =
                cell.provenance.versions.iter().map(|(name, version)| format!("{name} {version}")).collect();
            (!versions.is_empty()).then(|| versions.join(", "))
        });
        facts
    }
}

/// The value that all cells which have one share; `None` if they differ or none has one.
fn same(cells: &[&Cell], value: &dyn Fn(&Cell) -> Option<String>) -> Option<String> {
    let mut values = cells.iter().filter_map(|cell| value(cell));
    let first = values.next()?;
    values.all(|other| other == first).then_some(first)
}
