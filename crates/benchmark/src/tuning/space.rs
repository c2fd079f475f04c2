//! What is searched: settings and their ranges, as a TOML file.

use std::path::Path;

use serde::Serialize;
use serde_json::{Map, Value};

use crate::Error;
use crate::toml_file::{Field, TomlFile};

/// The settings that are searched, in the order of their names.
#[derive(Debug, Clone, PartialEq)]
pub struct Space {
    /// One or more.
    pub dimensions: Vec<Dimension>,
}

/// One setting.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Dimension {
    /// The field of the method's configuration; parts of a nested one are joined with a dot.
    pub name: String,
    /// What it may be.
    pub range: Range,
}

/// What a setting may be.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Range {
    /// A number from `low` to `high`, drawn evenly in its logarithm if `log`; whole if `whole`.
    Number {
        /// The lowest.
        low: f64,
        /// The highest.
        high: f64,
        /// Whether evenly in the logarithm.
        log: bool,
        /// Whether whole numbers only.
        whole: bool,
    },
    /// One of these.
    Choice(Vec<Value>),
}

impl Space {
    /// Reads a space: a table for each setting, with `low` and `high` (and `log`, `whole`), or with `choice`.
    ///
    /// # Errors
    /// [`Error::Io`] if the file can't be read; [`Error::Profile`] with the line for anything that is not as it must be.
    pub fn read(path: &Path) -> Result<Self, Error> {
        let file = TomlFile::read(path)?;
        let parsed = file.parse()?;
        let root = file.root(&parsed);
        let mut dimensions = Vec::new();
        for name in root.names() {
            let field = root.need(name)?;
            dimensions.push(Dimension { name: name.to_owned(), range: range(&field)? });
        }
        dimensions.sort_by(|a, b| a.name.cmp(&b.name));
        if dimensions.is_empty() {
            let problem = "expected a table for each setting that is searched, found none".to_owned();
            return Err(Error::Profile { path: path.to_owned(), line: 1, problem });
        }
        Ok(Self { dimensions })
    }

    /// `config` with the settings at `point`, which has a coordinate for each dimension (see [`Range::value`]).
    pub fn applied(&self, config: &Value, point: &[f64]) -> Value {
        let mut config = if config.is_object() { config.clone() } else { Value::Object(Map::new()) };
        for (dimension, &at) in self.dimensions.iter().zip(point) {
            set(&mut config, &dimension.name, dimension.range.value(at));
        }
        config
    }
}

impl Range {
    /// The ends of the coordinate that stands for this setting in a search: the number or its logarithm, half a step beyond
    /// whole numbers, or the places of a choice.
    pub(crate) fn ends(&self) -> (f64, f64) {
        let scaled = |value: f64, log: bool| if log { value.ln() } else { value };
        match self {
            Self::Number { low, high, log, whole: false } => (scaled(*low, *log), scaled(*high, *log)),
            Self::Number { low, high, log, whole: true } => {
                (scaled(low - 0.5, *log), scaled(high + 0.5, *log))
            }
            Self::Choice(choices) => (0.0, choices.len() as f64),
        }
    }

    /// The setting that a coordinate stands for.
    pub fn value(&self, at: f64) -> Value {
        match self {
            Self::Number { low, high, log, whole } => {
                let number = if *log { at.exp() } else { at };
                if *whole {
                    Value::from(number.round().clamp(*low, *high) as i64)
                } else {
                    // Six digits are more than any search resolves, and a person can read them.
                    let short = format!("{:.5e}", number.clamp(*low, *high)).parse().unwrap_or(number);
                    Value::from(f64::clamp(short, *low, *high))
                }
            }
            Self::Choice(choices) => choices[(at.max(0.0) as usize).min(choices.len() - 1)].clone(),
        }
    }
}

/// Sets the field at a dotted path, making tables on the way.
pub(crate) fn set(config: &mut Value, path: &str, value: Value) {
    let mut place = config;
    for part in path.split('.') {
        if !place.is_object() {
            *place = Value::Object(Map::new());
        }
        place = &mut place[part];
    }
    *place = value;
}

fn range(field: &Field<'_>) -> Result<Range, Error> {
    let table = field.table("")?;
    table.only(&["low", "high", "log", "whole", "choice"])?;
    let flag = |name| match table.get(name) {
        None => Ok(false),
        Some(field) => field.json()?.as_bool().ok_or_else(|| field.error("expected true or false")),
    };
    if let Some(choice) = table.get("choice") {
        table.only(&["choice"])?;
        let choices: Vec<Value> = choice.elements()?.iter().map(Field::json).collect::<Result<_, _>>()?;
        if choices.len() < 2 {
            return Err(choice.error("expected at least two to choose from"));
        }
        return Ok(Range::Choice(choices));
    }
    let (low, high) = (table.need("low")?, table.need("high")?);
    let (log, whole) = (flag("log")?, flag("whole")?);
    let (least, most) = (low.number()?, high.number()?);
    if least >= most {
        return Err(high.error(format_args!("expected more than `low`, {least}, found {most}")));
    }
    if log && least <= 0.0 {
        return Err(low.error(format_args!("expected more than 0 for a logarithm, found {least}")));
    }
    if whole && (least.fract() != 0.0 || most.fract() != 0.0) {
        return Err(low.error("expected whole numbers at both ends"));
    }
    Ok(Range::Number { low: least, high: most, log, whole })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use serde_json::json;

    use super::{Range, Space};

    fn read(text: &str) -> Result<Space, crate::Error> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("space.toml");
        std::fs::write(&path, text).unwrap();
        Space::read(&path)
    }

    #[test]
    fn settings_are_read_and_set_where_they_belong() {
        let space = read(
            "[rate]\nlow = 1e-4\nhigh = 1e-2\nlog = true\n[epochs]\nlow = 2\nhigh = 6\nwhole = true\n\
             [\"loss.kind\"]\nchoice = [\"mse\", \"l1\"]\n",
        )
        .unwrap();
        let names: Vec<_> = space.dimensions.iter().map(|dimension| dimension.name.as_str()).collect();
        assert_eq!(names, ["epochs", "loss.kind", "rate"]);
        let config = space.applied(&json!({"loss": {"weight": 2}}), &[6.4, 1.5, f64::ln(1e-3)]);
        assert_eq!(config, json!({"epochs": 6, "loss": {"kind": "l1", "weight": 2}, "rate": 0.001}));
        // Coordinates at the ends and beyond stay in range.
        for dimension in &space.dimensions {
            let (low, high) = dimension.range.ends();
            for at in [low, high, low - 1.0, high + 1.0] {
                match (&dimension.range, dimension.range.value(at)) {
                    (Range::Number { low, high, .. }, value) => {
                        assert!((*low..=*high).contains(&value.as_f64().unwrap()), "{value}");
                    }
                    (Range::Choice(choices), value) => assert!(choices.contains(&value)),
                }
            }
        }
    }

    #[test]
    fn what_cannot_be_searched_is_refused_with_its_line() {
        for (text, expected) in [
            ("", "space.toml:1: expected a table"),
            ("[a]\nlow = 2\nhigh = 1\n", "space.toml:3: field `high`: expected more than `low`"),
            ("[a]\nlow = 0\nhigh = 1\nlog = true\n", "space.toml:2: field `low`: expected more than 0"),
            ("[a]\nchoice = [1]\n", "space.toml:2: field `choice`: expected at least two"),
            ("[a]\nlow = 1\nhig = 2\n", "did you mean `high`?"),
        ] {
            let error = read(text).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
    }
}
