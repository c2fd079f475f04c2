//! `scores.csv`: what a detector said about every test image.

use std::path::Path;

use crate::{Error, atomic};

/// The scores of one cell's test images, with the named parts they consist of.
///
/// As CSV: a header `id,label,score` followed by the terms' names, one line for each image, label `1` for anomalous
/// and `0` for normal, numbers in the shortest form that reads back to the same `f32`.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ScoreTable {
    /// The names of the terms, in the order of [`ScoreRow::terms`].
    pub terms: Vec<String>,
    /// One row for each test image, in the dataset's order.
    pub rows: Vec<ScoreRow>,
}

/// The score of one test image.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ScoreRow {
    /// The image's id.
    pub id: String,
    /// Whether the image is anomalous.
    pub label: bool,
    /// The raw score; higher is more anomalous.
    pub score: f32,
    /// The parts of the score, as many as [`ScoreTable::terms`].
    pub terms: Vec<f32>,
}

const FIXED: [&str; 3] = ["id", "label", "score"];

impl ScoreTable {
    /// The table as CSV. The same table always gives the same bytes.
    ///
    /// # Errors
    /// [`Error::Scores`] for a score that is not finite, a row with another number of terms than the header, or a
    /// term's name that is used twice.
    pub fn to_csv(&self) -> Result<String, Error> {
        self.csv("scores")
    }

    /// Takes the CSV text of a table apart. `what` names the text in errors.
    ///
    /// # Errors
    /// [`Error::Scores`] with the line that does not have the form above, [`Error::Csv`] where it is not CSV.
    pub fn parse(csv: &str, what: &str) -> Result<Self, Error> {
        let failed = |source| Error::Csv { what: what.to_owned(), source };
        let wrong = |line, problem| Error::Scores { what: what.to_owned(), line, problem };
        let mut reader = csv::ReaderBuilder::new().has_headers(true).from_reader(csv.as_bytes());
        let header = reader.headers().map_err(failed)?.clone();
        let names: Vec<&str> = header.iter().collect();
        if !names.starts_with(&FIXED) {
            let found = names.join(",");
            return Err(wrong(
                1,
                format!("expected a header starting with `id,label,score`, found `{found}`"),
            ));
        }
        let terms: Vec<String> = names[FIXED.len()..].iter().map(|&name| name.to_owned()).collect();
        let mut rows = Vec::new();
        for record in reader.records() {
            let record = record.map_err(failed)?;
            let line = record.position().map_or(0, csv::Position::line);
            let mut fields = record.iter();
            let id = fields.next().unwrap_or_default().to_owned();
            let label = match fields.next().unwrap_or_default() {
                "0" => false,
                "1" => true,
                other => return Err(wrong(line, format!("field `label`: expected 0 or 1, found `{other}`"))),
            };
            let mut numbers = Vec::with_capacity(names.len());
            for (name, text) in names[2..].iter().zip(fields) {
                let number = text.parse::<f32>().ok().filter(|number| number.is_finite());
                numbers.push(number.ok_or_else(|| {
                    wrong(line, format!("field `{name}`: expected a finite number, found `{text}`"))
                })?);
            }
            // The reader refuses lines of another length than the header's, so there is always a score.
            let score = numbers.remove(0);
            rows.push(ScoreRow { id, label, score, terms: numbers });
        }
        let table = Self { terms, rows };
        table.check(what)?;
        Ok(table)
    }

    /// Writes the table to `path`, atomically.
    ///
    /// # Errors
    /// As [`ScoreTable::to_csv`], and [`Error::Io`].
    pub fn write(&self, path: &Path) -> Result<(), Error> {
        atomic::write(path, self.csv(&path.display().to_string())?.as_bytes())
    }

    /// Reads the table at `path`.
    ///
    /// # Errors
    /// As [`ScoreTable::parse`], and [`Error::Io`].
    pub fn read(path: &Path) -> Result<Self, Error> {
        Self::parse(&atomic::read(path)?, &path.display().to_string())
    }

    /// The scores, one for each row.
    pub fn scores(&self) -> Vec<f32> {
        self.rows.iter().map(|row| row.score).collect()
    }

    /// The labels, one for each row; `true` is anomalous.
    pub fn labels(&self) -> Vec<bool> {
        self.rows.iter().map(|row| row.label).collect()
    }

    /// The values of the `index`-th term, one for each row; empty if there is no such term.
    pub fn term(&self, index: usize) -> Vec<f32> {
        self.rows.iter().filter_map(|row| row.terms.get(index).copied()).collect()
    }

    fn csv(&self, what: &str) -> Result<String, Error> {
        self.check(what)?;
        let failed = |source| Error::Csv { what: what.to_owned(), source };
        let mut writer = csv::Writer::from_writer(Vec::new());
        writer
            .write_record(FIXED.into_iter().chain(self.terms.iter().map(String::as_str)))
            .map_err(failed)?;
        for row in &self.rows {
            writer.write_field(&row.id).map_err(failed)?;
            writer.write_field(if row.label { "1" } else { "0" }).map_err(failed)?;
            for number in std::iter::once(&row.score).chain(&row.terms) {
                // `{:?}` is the shortest text that parses back to the same bits, with an exponent where it helps.
                writer.write_field(format!("{number:?}")).map_err(failed)?;
            }
            writer.write_record(None::<&[u8]>).map_err(failed)?;
        }
        let bytes = writer
            .into_inner()
            .map_err(|error| failed(csv::Error::from(std::io::Error::other(error.to_string()))))?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    /// Refuses what [`ScoreTable::to_csv`] refuses.
    pub(crate) fn check(&self, what: &str) -> Result<(), Error> {
        let wrong = |line, problem| Err(Error::Scores { what: what.to_owned(), line, problem });
        for (index, name) in self.terms.iter().enumerate() {
            if FIXED.contains(&name.as_str()) || self.terms[..index].contains(name) {
                return wrong(1, format!("expected different column names, found `{name}` twice"));
            }
        }
        for (index, row) in self.rows.iter().enumerate() {
            let line = index as u64 + 2;
            if row.terms.len() != self.terms.len() {
                let (expected, found) = (self.terms.len(), row.terms.len());
                return wrong(line, format!("expected {expected} terms, found {found}"));
            }
            if let Some(value) =
                std::iter::once(&row.score).chain(&row.terms).find(|value| !value.is_finite())
            {
                return wrong(line, format!("expected finite numbers, found {value}"));
            }
        }
        Ok(())
    }
}
