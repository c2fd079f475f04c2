//! TOML with lines: every error about a value says where in which file it stands.

use std::path::{Path, PathBuf};

use serde_json::Value;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use crate::Error;
use crate::nearest::nearest;

/// A parsed file: its values, and where they stand.
pub(crate) struct TomlFile {
    path: PathBuf,
    text: String,
}

/// A table inside a file, with the dotted name it has there.
#[derive(Clone, Copy)]
pub(crate) struct Table<'f> {
    file: &'f TomlFile,
    spans: &'f DeTable<'f>,
    prefix: &'f str,
    line: usize,
}

/// A value inside a table.
#[derive(Clone, Copy)]
pub(crate) struct Field<'f> {
    table: Table<'f>,
    name: &'f str,
    value: &'f Spanned<DeValue<'f>>,
}

impl TomlFile {
    /// Reads the file's text.
    pub(crate) fn read(path: &Path) -> Result<Self, Error> {
        let text = std::fs::read_to_string(path).map_err(|e| Error::io(path, "can't read", e))?;
        Ok(Self { path: path.to_owned(), text })
    }

    /// Takes the text apart.
    pub(crate) fn parse(&self) -> Result<Spanned<DeTable<'_>>, Error> {
        DeTable::parse(&self.text).map_err(|e| {
            let line = e.span().map_or(1, |span| self.line_at(span.start));
            self.error(line, e.message())
        })
    }

    /// The file as a table.
    pub(crate) fn root<'f>(&'f self, parsed: &'f Spanned<DeTable<'f>>) -> Table<'f> {
        Table { file: self, spans: parsed.get_ref(), prefix: "", line: 1 }
    }

    fn line_at(&self, offset: usize) -> usize {
        self.text[..offset.min(self.text.len())].matches('\n').count() + 1
    }

    fn error(&self, line: usize, problem: impl Into<String>) -> Error {
        Error::Profile { path: self.path.clone(), line, problem: problem.into() }
    }
}

impl<'f> Table<'f> {
    /// The line the table begins at.
    pub(crate) fn line(&self) -> usize {
        self.line
    }

    /// Refuses keys that are not among `known`, with the nearest one.
    pub(crate) fn only(&self, known: &[&str]) -> Result<(), Error> {
        for key in self.spans.keys() {
            let name = key.get_ref().as_ref();
            if !known.contains(&name) {
                let hint = nearest(name, known.iter().copied())
                    .map(|n| format!(", did you mean `{}{n}`?", self.prefix));
                let line = self.file.line_at(key.span().start);
                let problem = format!(
                    "unknown field `{}{name}`{}; the fields here are {}",
                    self.prefix,
                    hint.unwrap_or_default(),
                    known.join(", ")
                );
                return Err(self.file.error(line, problem));
            }
        }
        Ok(())
    }

    /// The names of its fields.
    pub(crate) fn names(&self) -> Vec<&'f str> {
        self.spans.keys().map(|key| key.get_ref().as_ref()).collect()
    }

    /// The value called `name`, if it is there.
    pub(crate) fn get(&self, name: &'f str) -> Option<Field<'f>> {
        self.spans.get(name).map(|value| Field { table: *self, name, value })
    }

    /// The value called `name`.
    pub(crate) fn need(&self, name: &'f str) -> Result<Field<'f>, Error> {
        self.get(name).ok_or_else(|| {
            self.file.error(self.line, format!("field `{}{name}`: expected a value, found none", self.prefix))
        })
    }
}

impl<'f> Field<'f> {
    /// The line it stands in.
    pub(crate) fn line(&self) -> usize {
        self.table.file.line_at(self.value.span().start)
    }

    /// An error about this value.
    pub(crate) fn error(&self, problem: impl std::fmt::Display) -> Error {
        let Table { file, prefix, .. } = self.table;
        file.error(self.line(), format!("field `{prefix}{}`: {problem}", self.name))
    }

    fn expected(&self, what: &str) -> Error {
        let found = &self.table.file.text[self.value.span()];
        self.error(format_args!("expected {what}, found {found}"))
    }

    /// The value as a string.
    pub(crate) fn string(&self) -> Result<&'f str, Error> {
        self.value.get_ref().as_str().ok_or_else(|| self.expected("a string"))
    }

    /// The value as a finite number.
    pub(crate) fn number(&self) -> Result<f64, Error> {
        self.json()?.as_f64().ok_or_else(|| self.expected("a number"))
    }

    /// The value as a whole number of at least `least`.
    pub(crate) fn whole(&self, least: u64) -> Result<u64, Error> {
        let value = self.json()?.as_u64().filter(|value| *value >= least);
        value.ok_or_else(|| self.expected(&format!("a whole number of at least {least}")))
    }

    /// The elements of the value, an array.
    pub(crate) fn elements(&self) -> Result<Vec<Field<'f>>, Error> {
        let array = self.value.get_ref().as_array().ok_or_else(|| self.expected("an array"))?;
        Ok(array.iter().map(|value| Field { value, ..*self }).collect())
    }

    /// The value as a table, whose fields errors will call `prefix` and their name.
    pub(crate) fn table(&self, prefix: &'f str) -> Result<Table<'f>, Error> {
        let spans = self.value.get_ref().as_table().ok_or_else(|| self.expected("a table"))?;
        Ok(Table { file: self.table.file, spans, prefix, line: self.line() })
    }

    /// The value as JSON.
    pub(crate) fn json(&self) -> Result<Value, Error> {
        let deserializer = toml::de::ValueDeserializer::from(self.value.clone());
        serde::Deserialize::deserialize(deserializer).map_err(|e: toml::de::Error| self.error(e.message()))
    }
}
