//! The rules of a case's `compare`, read strictly.

use serde::Deserialize;

use crate::pattern::matches;

/// One rule: which expected tensors it is for and when they pass.
///
/// An element passes when |g - w| <= `atol` + `rtol`·|w| + `max_scale`·max|w over the whole tensor|, w wanted and g
/// computed, both in f64.
#[derive(Clone, Debug, PartialEq)]
pub struct Rule {
    /// Patterns over full tensor names: `*` stands for any run of characters, nothing else is special.
    pub tensors: Vec<String>,
    /// Tolerance relative to the wanted element.
    pub rtol: f64,
    /// Absolute tolerance.
    pub atol: f64,
    /// Tolerance relative to the largest wanted element of the tensor.
    pub max_scale: f64,
    /// Every element equals the wanted one; wanted f32 values are compared as f32.
    pub exact: bool,
    /// Not every element has to be within the tolerance.
    pub pooled: Option<Pooled>,
    /// Name of a u8 tensor that says with a 1 which elements count; `{name}` is the expected tensor's name after its
    /// first dot.
    pub mask: Option<String>,
    /// Half-open ranges of the flattened tensor that do not count.
    pub skip: Vec<(usize, usize)>,
    /// The expected tensor is the start of the flattened computed tensor of this name (`{name}` as in `mask`).
    pub prefix_of: Option<String>,
    /// Which lines of the matrix may have the opposite sign as a whole.
    pub sign_free: Option<SignFree>,
}

/// The share of elements that must be within the tolerance, over all tensors of one rule together.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Pooled {
    /// At least this share, in [0, 1], passes.
    pub fraction: f64,
    /// And every element has |g - w| at most this.
    pub hard_atol: f64,
}

/// Lines of a matrix whose sign is free.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SignFree {
    /// Each row.
    Rows,
    /// Each column.
    Columns,
}

/// A rule as it is written.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    tensors: Vec<String>,
    rtol: Option<f64>,
    atol: Option<f64>,
    max_scale: Option<f64>,
    #[serde(default)]
    exact: bool,
    fraction: Option<f64>,
    hard_atol: Option<f64>,
    mask: Option<String>,
    #[serde(default)]
    skip: Vec<(usize, usize)>,
    prefix_of: Option<String>,
    sign_free: Option<SignFree>,
}

impl Rule {
    /// Whether the rule is for the tensor of this full name.
    pub fn applies_to(&self, name: &str) -> bool {
        self.tensors.iter().any(|pattern| matches(pattern, name))
    }

    /// Reads one rule; the reason in words if it is none.
    pub(crate) fn parse(value: &serde_json::Value) -> Result<Self, String> {
        let written: Written = serde_path_to_error::deserialize(value).map_err(|error| {
            let field = error.path().to_string();
            let inner = error.into_inner();
            if field == "." { inner.to_string() } else { format!("`{field}`: {inner}") }
        })?;
        let tolerances = [
            ("rtol", written.rtol),
            ("atol", written.atol),
            ("max_scale", written.max_scale),
            ("fraction", written.fraction),
            ("hard_atol", written.hard_atol),
        ];
        for (key, value) in tolerances {
            let Some(value) = value else { continue };
            if !(value.is_finite() && value >= 0.0) {
                return Err(format!("`{key}`: expected a finite number of at least 0, found {value}"));
            }
            if written.exact {
                return Err(format!("`{key}` beside `exact`, which leaves no room for a tolerance"));
            }
        }
        let pooled = match (written.fraction, written.hard_atol) {
            (None, None) => None,
            (Some(fraction), Some(hard_atol)) if fraction <= 1.0 => Some(Pooled { fraction, hard_atol }),
            (Some(fraction), Some(_)) => {
                return Err(format!("`fraction`: expected at most 1, found {fraction}"));
            }
            _ => return Err("`fraction` and `hard_atol` come together, found one of them".to_owned()),
        };
        if written.tensors.is_empty() {
            return Err("`tensors`: expected at least one pattern, found none".to_owned());
        }
        if let Some((start, end)) = written.skip.iter().find(|(start, end)| start > end) {
            return Err(format!("`skip`: expected start <= end, found [{start}, {end}]"));
        }
        Ok(Self {
            tensors: written.tensors,
            rtol: written.rtol.unwrap_or(0.0),
            atol: written.atol.unwrap_or(0.0),
            max_scale: written.max_scale.unwrap_or(0.0),
            exact: written.exact,
            pooled,
            mask: written.mask,
            skip: written.skip,
            prefix_of: written.prefix_of,
            sign_free: written.sign_free,
        })
    }
}

/// `template` with `{name}` replaced by what follows the first dot of `tensor`.
pub(crate) fn fill_in(template: &str, tensor: &str) -> String {
    let name = tensor.split_once('.').map_or("", |(_, name)| name);
    template.replace("{name}", name)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use serde_json::json;

    #[test]
    fn every_key_is_read() {
        let rule = Rule::parse(&json!({
            "tensors": ["a", "b*"], "rtol": 1e-3, "atol": 1, "max_scale": 0.5, "fraction": 0.9, "hard_atol": 2.0,
            "mask": "mask.{name}", "skip": [[1, 3]], "prefix_of": "grad.{name}", "sign_free": "rows",
        }))
        .unwrap();
        assert_eq!((rule.rtol, rule.atol, rule.max_scale, rule.exact), (1e-3, 1.0, 0.5, false));
        assert_eq!(rule.pooled, Some(Pooled { fraction: 0.9, hard_atol: 2.0 }));
        assert_eq!(rule.skip, [(1, 3)]);
        assert_eq!(rule.sign_free, Some(SignFree::Rows));
        assert!(rule.applies_to("bc") && !rule.applies_to("c"));
        assert!(Rule::parse(&json!({"tensors": ["*"], "exact": true})).unwrap().exact);
    }

    #[test]
    fn wrong_rules_are_refused() {
        let wrong = [
            (json!({"tensors": ["*"], "tolerance": 1}), "tolerance"),
            (json!({"tensors": ["*"], "atol": "1e-3"}), "`atol`"),
            (json!({"tensors": "*"}), "`tensors`"),
            (json!({"tensors": [3]}), "`tensors[0]`"),
            (json!({"tensors": []}), "at least one pattern"),
            (json!({"atol": 1}), "tensors"),
            (json!({"tensors": ["*"], "atol": -1}), "at least 0"),
            (json!({"tensors": ["*"], "exact": true, "atol": 1}), "exact"),
            (json!({"tensors": ["*"], "exact": 1}), "`exact`"),
            (json!({"tensors": ["*"], "fraction": 0.9}), "come together"),
            (json!({"tensors": ["*"], "hard_atol": 0.9}), "come together"),
            (json!({"tensors": ["*"], "fraction": 1.5, "hard_atol": 1}), "at most 1"),
            (json!({"tensors": ["*"], "sign_free": "both"}), "`sign_free`"),
            (json!({"tensors": ["*"], "skip": [[3, 1]]}), "start <= end"),
            (json!({"tensors": ["*"], "skip": [[1, 2, 3]]}), "`skip"),
            (json!({"tensors": ["*"], "skip": [[-1, 2]]}), "`skip"),
            (json!(["*"]), "expected"),
        ];
        for (value, says) in wrong {
            let reason = Rule::parse(&value).unwrap_err();
            assert!(reason.contains(says), "{value}: {reason}");
        }
    }

    #[test]
    fn name_is_what_follows_the_first_dot() {
        assert_eq!(fill_in("mask.{name}", "w_after.blocks.0.bias"), "mask.blocks.0.bias");
        assert_eq!(fill_in("out.full", "grad_head.a"), "out.full");
    }
}
