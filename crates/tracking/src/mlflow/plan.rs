//! What of a log goes where in MLflow.

use std::collections::BTreeMap;

use crate::names::mlflow_key;
use crate::{Ending, Line, Number, What};

/// The longest value of a parameter that every server of the last years takes.
const LONGEST_PARAM: usize = 500;
/// The same for tags.
const LONGEST_TAG: usize = 5000;

/// A point of a metric.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Point {
    pub(crate) key: String,
    pub(crate) value: Number,
    pub(crate) time: u64,
    pub(crate) step: i64,
}

/// What some lines come to.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Told {
    pub(crate) points: Vec<Point>,
    pub(crate) params: BTreeMap<String, String>,
    pub(crate) tags: BTreeMap<String, String>,
}

impl Told {
    /// What `lines` say, in their order.
    pub(crate) fn of(lines: &[Line]) -> Self {
        let mut told = Self::default();
        for Line { time, what } in lines {
            let point = |name: &str, value: &Number, step| Point {
                key: mlflow_key(name),
                value: *value,
                time: *time,
                step,
            };
            match what {
                What::Run(run) => {
                    let cut = |(name, value): (&String, &String)| {
                        (mlflow_key(name), one_line(value, LONGEST_PARAM))
                    };
                    told.params.extend(run.params.iter().map(cut));
                    let tags =
                        run.tags.iter().map(|(name, value)| (mlflow_key(name), cut_to(value, LONGEST_TAG)));
                    told.tags.extend(tags);
                    told.tags.insert("vitad.id".to_owned(), run.id.clone());
                }
                What::Metric { name, at, value } => told.points.push(point(name, value, at.step())),
                What::Figures { values } => {
                    told.points.extend(
                        values.iter().map(|(name, value)| point(&format!("figures/{name}"), value, 0)),
                    );
                }
                What::Phase { name, .. } => {
                    told.tags.insert("vitad.phase".to_owned(), cut_to(name, LONGEST_TAG));
                }
                What::Warning { text } => {
                    told.tags.insert("vitad.warning".to_owned(), cut_to(text, LONGEST_TAG));
                }
                What::End { error: Some(why), .. } => {
                    told.tags.insert("vitad.error".to_owned(), cut_to(why, LONGEST_TAG));
                }
                What::Resumed | What::Step { .. } | What::Note { .. } | What::End { .. } => {}
            }
        }
        told
    }
}

/// MLflow's words for an ending, and the numbers its files have for them; running while there is none.
pub(crate) fn status(ending: Option<Ending>) -> (&'static str, u8) {
    match ending {
        None => ("RUNNING", 1),
        Some(Ending::Finished) => ("FINISHED", 3),
        Some(Ending::Failed) => ("FAILED", 4),
        Some(Ending::Cancelled) => ("KILLED", 5),
    }
}

fn cut_to(text: &str, most: usize) -> String {
    if text.chars().count() <= most {
        return text.to_owned();
    }
    text.chars().take(most - 1).chain(['…']).collect()
}

fn one_line(text: &str, most: usize) -> String {
    cut_to(&text.replace(['\n', '\r'], " "), most)
}

#[cfg(test)]
mod tests {
    use super::{Told, cut_to, status};
    use crate::Ending;
    use crate::example::lines;

    #[test]
    fn a_log_comes_to_points_params_and_tags() {
        let told = Told::of(&lines());
        let points: Vec<_> =
            told.points.iter().map(|p| (p.key.as_str(), p.step, p.value.to_string())).collect();
        let expected = [
            ("loss", 1, "0.5"),
            ("loss", 2, "NaN"),
            ("loss", 3, "0.125"),
            ("figures/last/image_auroc", 0, "0.75"),
        ];
        assert_eq!(points, expected.map(|(key, step, value)| (key, step, value.to_owned())));
        assert_eq!(told.params["config.kind"], "a");
        assert_eq!((told.tags["commit"].as_str(), told.tags["vitad.phase"].as_str()), ("abc", "train"));
        assert_eq!(status(Some(Ending::Cancelled)), ("KILLED", 5));
    }

    #[test]
    fn long_values_end_with_a_sign_that_they_are_cut() {
        assert_eq!(cut_to("äöü", 3), "äöü");
        assert_eq!(cut_to("äöüß", 3), "äö…");
    }
}
