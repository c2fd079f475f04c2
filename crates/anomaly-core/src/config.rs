//! Configurations of methods: defaults, overrides, and errors that name the field.

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

/// A configuration that can't be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// No field has this name.
    #[error("{method}: unknown field `{field}`{}; the fields are {known}", nearest.as_ref().map(|n| format!(", did you mean `{n}`?")).unwrap_or_default())]
    Unknown {
        /// The method.
        method: String,
        /// The name that was given.
        field: String,
        /// The nearest name that exists.
        nearest: Option<String>,
        /// All names.
        known: String,
    },
    /// The field can't take this value.
    #[error("{method}: field `{field}`: {problem}")]
    Field {
        /// The method.
        method: String,
        /// The field.
        field: String,
        /// What was expected and what was found.
        problem: String,
    },
    /// The configuration is no table of fields.
    #[error("{method}: expected a table of fields, found {found}")]
    NotATable {
        /// The method.
        method: String,
        /// What was found.
        found: String,
    },
}

impl ConfigError {
    /// The field can't take this value; for [`MethodConfig::validate`].
    pub fn field(method: &str, field: &str, problem: impl Into<String>) -> Self {
        Self::Field { method: method.to_owned(), field: field.to_owned(), problem: problem.into() }
    }

    /// The offending field, if it is one field's fault.
    pub fn field_name(&self) -> Option<&str> {
        match self {
            Self::Unknown { field, .. } | Self::Field { field, .. } => Some(field),
            Self::NotATable { .. } => None,
        }
    }
}

/// A method's configuration. `Default` is the paper's setting; every field is serialised, always.
pub trait MethodConfig: Default + Serialize + DeserializeOwned {
    /// The method's name, for messages.
    const METHOD: &'static str;

    /// Refuses values that make no sense, by the field's name.
    ///
    /// # Errors
    /// [`ConfigError::Field`].
    fn validate(&self) -> Result<(), ConfigError>;
}

/// The default configuration with `overrides` in place of its fields, validated. Nested tables are merged field by field.
///
/// # Errors
/// [`ConfigError`] names the field: unknown (with the nearest one), of another type, or out of range.
pub fn parse_config<C: MethodConfig>(overrides: &Value) -> Result<C, ConfigError> {
    let Value::Object(overrides) = overrides else {
        if overrides.is_null() {
            let config = C::default();
            config.validate()?;
            return Ok(config);
        }
        return Err(ConfigError::NotATable { method: C::METHOD.into(), found: overrides.to_string() });
    };
    let default = serde_json::to_value(C::default())
        .map_err(|e| ConfigError::field(C::METHOD, "default", e.to_string()))?;
    let Value::Object(default) = default else {
        return Err(ConfigError::NotATable { method: C::METHOD.into(), found: default.to_string() });
    };
    let mut merged = default.clone();
    merge(C::METHOD, "", &mut merged, overrides)?;
    let config: C = serde_json::from_value(Value::Object(merged)).map_err(|whole| {
        // Serde names no field for a wrong type: the first override that fails alone is the one.
        for (field, value) in overrides {
            let mut alone = default.clone();
            let one = Map::from_iter([(field.clone(), value.clone())]);
            let merged = merge(C::METHOD, "", &mut alone, &one);
            if let Err(e) =
                merged.map(|()| serde_json::from_value::<C>(Value::Object(alone))).and_then(|parsed| {
                    parsed.map_err(|e| ConfigError::field(C::METHOD, field, format!("{e}, found {value}")))
                })
            {
                return e;
            }
        }
        ConfigError::field(C::METHOD, "(several)", whole.to_string())
    })?;
    config.validate()?;
    Ok(config)
}

fn merge(
    method: &str,
    prefix: &str,
    into: &mut Map<String, Value>,
    overrides: &Map<String, Value>,
) -> Result<(), ConfigError> {
    for (field, value) in overrides {
        let Some(old) = into.get_mut(field) else {
            let known: Vec<&str> = into.keys().map(String::as_str).collect();
            let nearest = known
                .iter()
                .map(|k| (strsim::damerau_levenshtein(k, field), *k))
                .min()
                .filter(|(distance, k)| *distance <= k.len().max(field.len()) / 2)
                .map(|(_, k)| format!("{prefix}{k}"));
            return Err(ConfigError::Unknown {
                method: method.to_owned(),
                field: format!("{prefix}{field}"),
                nearest,
                known: known.join(", "),
            });
        };
        match (old, value) {
            (Value::Object(old), Value::Object(new)) if !is_tagged(old, new) => {
                merge(method, &format!("{prefix}{field}."), old, new)?;
            }
            (old, value) => *old = value.clone(),
        }
    }
    Ok(())
}

/// Whether these are variants of an enum (`{"quantile": …}`), which replace one another instead of being merged.
fn is_tagged(old: &Map<String, Value>, new: &Map<String, Value>) -> bool {
    old.len() == 1 && new.len() == 1 && old.keys().ne(new.keys())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use serde::{Deserialize, Serialize};
    use serde_json::json;

    use super::{ConfigError, MethodConfig, parse_config};

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Inner {
        rate: f64,
        steps: usize,
    }

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Config {
        epochs: usize,
        image_size: usize,
        inner: Inner,
    }

    impl Default for Config {
        fn default() -> Self {
            Self { epochs: 30, image_size: 384, inner: Inner { rate: 0.1, steps: 3 } }
        }
    }

    impl MethodConfig for Config {
        const METHOD: &'static str = "toy";
        fn validate(&self) -> Result<(), ConfigError> {
            if self.epochs == 0 {
                return Err(ConfigError::field("toy", "epochs", "must be at least 1, found 0"));
            }
            Ok(())
        }
    }

    #[test]
    fn overrides_replace_single_fields_also_nested_ones() {
        assert_eq!(parse_config::<Config>(&json!(null)).unwrap(), Config::default());
        let config: Config = parse_config(&json!({"epochs": 2, "inner": {"steps": 9}})).unwrap();
        assert_eq!(config, Config { epochs: 2, inner: Inner { rate: 0.1, steps: 9 }, ..Config::default() });
    }

    #[test]
    fn each_error_names_its_field() {
        let error = |value| parse_config::<Config>(&value).unwrap_err();
        let typo = error(json!({"epohcs": 2}));
        assert_eq!(typo.field_name(), Some("epohcs"));
        assert!(typo.to_string().contains("did you mean `epochs`?"), "{typo}");
        let nested = error(json!({"inner": {"step": 1}}));
        assert!(nested.to_string().contains("did you mean `inner.steps`?"), "{nested}");
        let far = error(json!({"zzzzzz": 2}));
        assert!(!far.to_string().contains("did you mean"), "{far}");
        let kind = error(json!({"image_size": 84, "epochs": "two"}));
        assert_eq!(kind.field_name(), Some("epochs"));
        assert!(kind.to_string().contains("two"), "{kind}");
        assert_eq!(error(json!({"epochs": 0})).field_name(), Some("epochs"));
        assert!(matches!(error(json!([1])), ConfigError::NotATable { .. }));
    }
}
