//! Lists in CSV files, and the data set of one: `path,label,mask,split`.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Component, Path, PathBuf};

use anomaly_core::Streams;

use crate::dataset::{Card, Class, Item, Part};
use crate::error::nearest;
use crate::file_set::{FileSet, Files};
use crate::listing::Listing;
use crate::problem::{Problem, ProblemKind};
use crate::{Error, Protocol};

/// A CSV file with a header.
pub(crate) struct Table {
    columns: BTreeMap<String, usize>,
    rows: Vec<(u64, csv::StringRecord)>,
}

/// A row of it.
#[derive(Clone, Copy)]
pub(crate) struct Row<'t> {
    table: &'t Table,
    line: u64,
    record: &'t csv::StringRecord,
}

impl Table {
    /// Reads a file whose header has the columns `needed` and may have `optional` ones. Others are passed over.
    pub(crate) fn read(path: &Path, needed: &[&str], optional: &[&str]) -> Result<Self, Error> {
        let bytes = std::fs::read(path).map_err(|source| Error::Read { path: path.to_owned(), source })?;
        let expected = || format!("a CSV file with the columns {}", needed.join(", "));
        Self::parse(&bytes, needed, optional).map_err(|found| Error::content(path, expected(), found))
    }

    /// Reads the bytes of a file. The error says what was found.
    pub(crate) fn parse(bytes: &[u8], needed: &[&str], optional: &[&str]) -> Result<Self, String> {
        // Spreadsheets mark UTF-8 by three bytes that are no part of the first column's name.
        let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
        let mut reader = csv::ReaderBuilder::new().trim(csv::Trim::All).from_reader(bytes);
        let header = reader.headers().map_err(|e| e.to_string())?.clone();
        let mut columns = BTreeMap::new();
        for (at, name) in header.iter().enumerate() {
            let known = needed.iter().chain(optional).any(|known| *known == name);
            if known && columns.insert(name.to_owned(), at).is_some() {
                return Err(format!("column `{name}` twice"));
            }
        }
        if let Some(missing) = needed.iter().find(|name| !columns.contains_key(**name)) {
            let near = nearest(missing, header.iter()).map(|near| format!(" (but `{near}`)"));
            return Err(format!("no column `{missing}`{}", near.unwrap_or_default()));
        }
        let mut rows = Vec::new();
        for record in reader.into_records() {
            let record = record.map_err(|e| e.to_string())?;
            rows.push((record.position().map_or(0, csv::Position::line), record));
        }
        Ok(Self { columns, rows })
    }

    /// Its rows in their order.
    pub(crate) fn rows(&self) -> impl Iterator<Item = Row<'_>> {
        self.rows.iter().map(|(line, record)| Row { table: self, line: *line, record })
    }
}

impl<'t> Row<'t> {
    /// Its line in the file, from 1.
    pub(crate) fn line(self) -> u64 {
        self.line
    }

    /// Its value in a column; nothing where the file has no such column.
    pub(crate) fn get(self, column: &str) -> &'t str {
        let at = self.table.columns.get(column);
        at.and_then(|&at| self.record.get(at)).unwrap_or_default()
    }

    /// The path in a column, below `root`; nothing for one that is empty or leaves it.
    pub(crate) fn path_below(self, column: &str, root: &Path) -> Option<PathBuf> {
        let path = Path::new(self.get(column));
        let inside = path.components().all(|part| matches!(part, Component::Normal(_) | Component::CurDir));
        (inside && !path.as_os_str().is_empty()).then(|| root.join(path))
    }
}

/// Words for a normal and for an anomalous image. Any other label is the name of a defect.
const NORMAL: [&str; 4] = ["0", "normal", "good", "ok"];
const ANOMALOUS: [&str; 2] = ["1", "anomaly"];

/// Of the normal images without a part, the share that trains, in per cent.
const TRAIN_PERCENT: usize = 80;

/// The data set that a CSV file lists, one image a row: `path`, `label`, and maybe `mask`, `split`, `category`. Paths are
/// relative to the file. Without a split, anomalous images are for testing and 80 % of each category's normal ones
/// (rounded down) for training, drawn once and for all by their sorted paths.
pub(crate) fn open(path: &Path) -> Result<FileSet, Error> {
    let table = Table::read(path, &["path", "label"], &["mask", "split", "category"])?;
    let card = Card {
        name: "csv".into(),
        title: "A list in a CSV file".into(),
        licence: "the list's own".into(),
        source: "a local file".into(),
        protocol: Protocol::ClassSeparated,
    };
    let root = path.parent().unwrap_or_else(|| Path::new("."));
    let stem = path.file_stem().map_or_else(|| "list".into(), |stem| stem.to_string_lossy().into_owned());
    let mut listing = Listing::default();
    let mut rows: Vec<(&str, Row<'_>)> = Vec::new();
    let mut seen = BTreeSet::new();
    for row in table.rows() {
        if !seen.insert(row.get("path")) {
            listing.problems.push(wrong(path, row, "path", "each path once"));
            continue;
        }
        rows.push((row.get("path"), row));
    }
    rows.sort_by(|(a, _), (b, _)| a.as_bytes().cmp(b.as_bytes()));
    let category = |row: Row<'_>| match row.get("category") {
        "" => stem.clone(),
        name => name.to_owned(),
    };
    let names: BTreeSet<String> = rows.iter().map(|(_, row)| category(*row)).collect();
    listing.classes = names.iter().map(Class::named).collect();
    // Normal images without a part, of each category.
    let mut open: Vec<Vec<usize>> = vec![Vec::new(); names.len()];
    for (id, row) in rows {
        let own = category(row);
        let class = listing.classes.iter().position(|class| class.key == own).unwrap_or_default();
        let defect = match row.get("label") {
            "" => {
                listing.problems.push(wrong(path, row, "label", "0, 1, or a word"));
                continue;
            }
            label if NORMAL.contains(&label) => None,
            label if ANOMALOUS.contains(&label) => Some("anomaly".to_owned()),
            label => Some(label.to_owned()),
        };
        let part = match (row.get("split"), &defect) {
            ("train", _) => Part::Train,
            ("val" | "validation", _) => Part::Validation,
            ("test", _) | ("", Some(_)) => Part::Test,
            ("", None) => {
                open[class].push(listing.entries.len());
                Part::Test
            }
            _ => {
                listing.problems.push(wrong(path, row, "split", "`train`, `val`, `test` or nothing"));
                continue;
            }
        };
        if part != Part::Test && defect.is_some() {
            listing.problems.push(wrong(path, row, "label", "a normal image to train or validate on"));
            continue;
        }
        let Some(image) = row.path_below("path", root) else {
            listing.problems.push(wrong(path, row, "path", "a path below the file's folder"));
            continue;
        };
        let mask = row.path_below("mask", root);
        if mask.is_none() && !row.get("mask").is_empty() {
            listing.problems.push(wrong(path, row, "mask", "a path below the file's folder"));
            continue;
        }
        listing.has_masks |= mask.is_some();
        let files = Files { image, crop: None, masks: mask.into_iter().collect() };
        listing.add(Item { id: id.to_owned(), part, class, defect }, files);
    }
    for (class, own) in listing.classes.iter().zip(&open) {
        let mut stream = Streams::new(0).stream(&format!("csv-split/{}", class.key));
        for &at in stream.permutation(own.len()).iter().take(own.len() * TRAIN_PERCENT / 100) {
            listing.entries[own[at]].0.part = Part::Train;
        }
    }
    if listing.entries.is_empty() && listing.problems.is_empty() {
        return Err(Error::content(path, "a row for each image", "no row"));
    }
    Ok(FileSet::new(card, listing))
}

fn wrong(path: &Path, row: Row<'_>, column: &str, expected: &str) -> Problem {
    let found = row.get(column);
    let message = format!("line {}: `{column}`: expected {expected}, found `{found}`", row.line());
    Problem::new(ProblemKind::Layout, path, message)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use proptest::prelude::*;

    use super::*;
    use crate::Dataset;

    fn set(text: &str) -> FileSet {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("parts.csv");
        std::fs::write(&path, text).unwrap();
        open(&path).unwrap()
    }

    /// What is wrong with the list itself: there are no images.
    fn faults(text: &str) -> Vec<String> {
        let set = set(text);
        let own = set.problems().iter().filter(|problem| problem.kind == ProblemKind::Layout);
        own.map(|problem| problem.message.clone()).collect()
    }

    #[test]
    fn labels_splits_and_categories_are_read() {
        let text = "path,label,mask,split,category\nb.png,0,,train,nut\na.png,good,,train,nut\nc.png,cut,m.png,test,nut\n\
                    d.png,1,n.png,,bolt\ne.png,ok,,val,bolt\nf.png,normal,,test,bolt\n";
        let set = set(text);
        let items: Vec<_> =
            set.items().iter().map(|i| (i.id.as_str(), i.part, i.class, i.defect.as_deref())).collect();
        assert_eq!(
            items,
            [
                ("a.png", Part::Train, 1, None),
                ("b.png", Part::Train, 1, None),
                ("e.png", Part::Validation, 0, None),
                ("c.png", Part::Test, 1, Some("cut")),
                ("d.png", Part::Test, 0, Some("anomaly")),
                ("f.png", Part::Test, 0, None),
            ]
        );
        assert!(set.has_masks());
    }

    #[test]
    fn without_a_split_four_fifths_of_the_normal_images_train() {
        let rows = (0..10).map(|n| format!("{n}.png,0\nx{n}.png,1")).collect::<Vec<_>>().join("\n");
        let text = format!("\u{feff}path, label\n{rows}");
        let set = set(&text);
        let count = |part| set.items().iter().filter(|item| item.part == part).count();
        assert_eq!((count(Part::Train), count(Part::Test)), (8, 12));
        assert_eq!(set.classes(), [Class::named("parts")]);
        assert!(!set.has_masks());
    }

    #[test]
    fn every_wrong_row_is_told_by_its_line() {
        let text = "path,label,mask,split\n../a.png,0,,train\nb.png,,,test\nc.png,0,,trian\nd.png,1,,train\ne.png,0,,\n\
                    e.png,0,,\nf.png,1,/m.png,test\n";
        let found = faults(text);
        assert_eq!(found.len(), 6, "{found:?}");
        for line in [2, 3, 4, 5, 7, 8] {
            assert!(
                found.iter().any(|message| message.starts_with(&format!("line {line}:"))),
                "{line}: {found:?}"
            );
        }
        let header = Table::parse(b"pth,label\n", &["path", "label"], &[]).err().unwrap();
        assert_eq!(header, "no column `path` (but `pth`)");
        assert!(Table::parse(b"path,path\n", &["path"], &[]).is_err());
        assert!(Table::parse(b"path,label\na\n", &["path"], &[]).err().unwrap().contains("line: 2"));
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = Table::parse(&bytes, &["path", "label"], &["mask"]);
            let headed = [&b"path,label\n"[..], &bytes].concat();
            if let Ok(table) = Table::parse(&headed, &["path", "label"], &["mask"]) {
                for row in table.rows() {
                    let path = row.path_below("path", Path::new("root"));
                    prop_assert!(path.is_none_or(|path| path.starts_with("root")));
                }
            }
        }
    }
}
