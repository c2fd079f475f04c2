//! The configuration that all units share.

use std::collections::BTreeMap;

use serde::Deserialize;

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Config {
    pub(super) sets: Vec<String>,
    pub(super) expect: BTreeMap<String, SetExpectation>,
    pub(super) num_thresholds: Option<NumThresholds>,
    pub(super) fpr_bounds: Option<[f64; 2]>,
    pub(super) limits: Vec<f64>,
    /// The only rule there is, and the one that is used.
    #[serde(rename = "rule")]
    pub(super) _rule: Option<DecisionRule>,
    pub(super) connectivity: Option<usize>,
    /// About how the scores were drawn.
    #[serde(rename = "levels")]
    pub(super) _levels: Option<usize>,
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
pub(super) enum SetExpectation {
    Whole(Refusal),
    ByMetric(ByMetric),
}

#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Refusal {
    Error,
}

#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub(super) enum Expectation {
    Error,
    Value,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct ByMetric {
    auroc: Option<Expectation>,
    ap: Option<Expectation>,
    f1_max: Option<Expectation>,
    fpr95: Option<Expectation>,
    adaptive_threshold: Option<Expectation>,
    pixel_auroc: Option<Expectation>,
    pixel_ap: Option<Expectation>,
    aupro: Option<Expectation>,
}

impl SetExpectation {
    /// What is expected of a metric, if anything is said of it.
    pub(super) fn of(&self, metric: &str) -> Option<Expectation> {
        let by_metric = match self {
            Self::Whole(Refusal::Error) => return Some(Expectation::Error),
            Self::ByMetric(by_metric) => by_metric,
        };
        match metric {
            "auroc" => by_metric.auroc,
            "ap" => by_metric.ap,
            "f1_max" => by_metric.f1_max,
            "fpr95" => by_metric.fpr95,
            "adaptive_threshold" => by_metric.adaptive_threshold,
            "pixel_auroc" => by_metric.pixel_auroc,
            "pixel_ap" => by_metric.pixel_ap,
            metric if metric.starts_with("aupro_") => by_metric.aupro,
            _ => None,
        }
    }
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
pub(super) enum NumThresholds {
    All(usize),
    BySet(BTreeMap<String, usize>),
}

#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum DecisionRule {
    Greater,
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn what_is_not_in_the_table_is_refused() {
        let read = serde_json::from_str::<Config>;
        let good = r#"{"sets": ["a"], "expect": {"a": "error", "b": {"ap": "value"}}, "num_thresholds": {"a": 3},
            "fpr_bounds": [1, 2], "limits": [1], "rule": "greater", "connectivity": 8, "levels": 3}"#;
        let config = read(good).unwrap();
        assert_eq!(config.expect["a"].of("anything"), Some(Expectation::Error));
        assert_eq!(config.expect["b"].of("ap"), Some(Expectation::Value));
        assert_eq!(config.expect["b"].of("auroc"), None);
        for wrong in [
            r#"{"bins": 3}"#,
            r#"{"rule": "less"}"#,
            r#"{"expect": {"a": "value"}}"#,
            r#"{"expect": {"a": {"pro": "value"}}}"#,
            r#"{"expect": {"a": {"ap": "maybe"}}}"#,
            r#"{"num_thresholds": -3}"#,
            r#"{"num_thresholds": {"a": "b"}}"#,
            r#"{"fpr_bounds": [1]}"#,
        ] {
            assert!(read(wrong).is_err(), "{wrong}");
        }
    }
}
