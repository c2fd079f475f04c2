//! A configuration that can't be used is refused by the field's name.

use anomaly_core::{ConfigError, MethodError};
use serde_json::{Map, Value, json};

use crate::Suite;
use crate::failure::{Problem, problem};

pub(crate) fn check(suite: &Suite<'_>) -> Result<(), Problem> {
    let method =
        (suite.build)(&suite.config).map_err(|e| Problem(format!("the suite's own settings: {e}")))?;
    let resolved = method.config();
    let Value::Object(fields) = &resolved else {
        return problem(format!("`config()` must be a table of fields, found {resolved}"));
    };
    let again =
        (suite.build)(&resolved).map_err(|e| Problem(format!("its own resolved configuration: {e}")))?;
    if again.config() != resolved {
        return problem(format!("built from {resolved}, `config()` says {}", again.config()));
    }
    let Value::Object(settings) = (if suite.config.is_null() { json!({}) } else { suite.config.clone() })
    else {
        return problem(format!("the suite's settings must be a table of fields, found {}", suite.config));
    };
    for (field, value) in fields {
        unknown(suite, &settings, field, value)?;
        // No field takes two keys of this kind, and one that is a table takes no string.
        let wrong = if value.is_object() { json!("no table") } else { json!({"no": 1, "such": 2}) };
        named(suite, &settings, field, wrong)?;
    }
    if suite.out_of_range.is_empty() && fields.values().any(Value::is_number) {
        return problem(
            "the configuration holds a number, but the suite names no value that is out of range",
        );
    }
    for (field, value) in &suite.out_of_range {
        named(suite, &settings, field, value.clone())?;
    }
    Ok(())
}

/// A misspelt `field` must be refused with the right spelling.
fn unknown(
    suite: &Suite<'_>,
    settings: &Map<String, Value>,
    field: &str,
    value: &Value,
) -> Result<(), Problem> {
    let misspelt = format!("{field}z");
    let mut overrides = settings.clone();
    overrides.insert(misspelt.clone(), value.clone());
    match (suite.build)(&Value::Object(overrides)).map(|_| ()) {
        Err(MethodError::Config(ConfigError::Unknown { field: named, nearest, .. }))
            if named == misspelt && nearest.as_deref() == Some(field) =>
        {
            Ok(())
        }
        Err(e) => {
            problem(format!("`{misspelt}` must be refused as unknown, with `{field}` as nearest; found: {e}"))
        }
        Ok(()) => problem(format!("`{misspelt}` must be refused as unknown, but it was taken")),
    }
}

/// `field` = `value` must be refused by the field's name.
fn named(suite: &Suite<'_>, settings: &Map<String, Value>, field: &str, value: Value) -> Result<(), Problem> {
    let mut overrides = settings.clone();
    let shown = value.to_string();
    overrides.insert(field.to_owned(), value);
    match (suite.build)(&Value::Object(overrides)).map(|_| ()) {
        Err(MethodError::Config(e)) if e.field_name().is_some_and(|name| is_or_in(name, field)) => Ok(()),
        Err(e) => {
            problem(format!("`{field}` = {shown} must be refused by the name of the field; found: {e}"))
        }
        Ok(()) => problem(format!("`{field}` = {shown} must be refused, but it was taken")),
    }
}

/// Whether `name` is `field` or a field within it.
fn is_or_in(name: &str, field: &str) -> bool {
    name == field || name.strip_prefix(field).is_some_and(|rest| rest.starts_with('.'))
}
