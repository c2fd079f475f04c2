//! One case: a safetensors file with its metadata.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};

use safetensors::SafeTensors;
use serde::de::DeserializeOwned;

use crate::{Error, HostTensor, Rule};

/// A numeric case as its file holds it.
#[derive(Clone, Debug, Default)]
pub struct Case {
    /// The file it was read from.
    pub path: PathBuf,
    /// The crate under test.
    pub method: String,
    /// What to build; `method` and `unit` together pick the code to run.
    pub unit: String,
    /// The case's name, for people.
    pub case: String,
    /// `forward`, `grad`, `loss`, `step`, `score`, `metric` or `preprocess`, for people.
    pub kind: String,
    /// Every size and option; see [`Case::config`].
    pub config: serde_json::Value,
    /// All tensors of the file by their full names.
    pub tensors: BTreeMap<String, HostTensor>,
    /// The rules of `compare` in their order; the first that matches a tensor applies to it.
    pub rules: Vec<Rule>,
}

/// Whether a tensor of this full name is one that a unit has to produce.
pub fn is_expected(name: &str) -> bool {
    ["out.", "grad", "w_after"].iter().any(|start| name.starts_with(start))
}

impl Case {
    /// Reads a case.
    ///
    /// # Errors
    /// [`Error::Io`], [`Error::Format`], [`Error::Metadata`] or [`Error::Rule`], each with the path: the file cannot be
    /// read, is no safetensors file, lacks a metadata key, or has a rule that does not exist.
    pub fn load(path: impl AsRef<Path>) -> Result<Self, Error> {
        let path = path.as_ref();
        let bytes = std::fs::read(path).map_err(|source| Error::Io { path: path.to_owned(), source })?;
        Self::parse(path, &bytes)
    }

    /// Reads a case from the bytes of a file; `path` is for messages.
    ///
    /// # Errors
    /// As [`Case::load`].
    pub fn parse(path: &Path, bytes: &[u8]) -> Result<Self, Error> {
        let format = |reason: String| Error::Format { path: path.to_owned(), reason };
        let (_, header) = SafeTensors::read_metadata(bytes).map_err(|error| format(error.to_string()))?;
        let no_metadata = HashMap::new();
        let metadata = header.metadata().as_ref().unwrap_or(&no_metadata);
        let text = |key: &'static str| {
            metadata.get(key).map(String::as_str).ok_or_else(|| Error::Metadata {
                path: path.to_owned(),
                key,
                reason: "expected a string, found nothing".to_owned(),
            })
        };
        let json = |key: &'static str| {
            serde_json::from_str::<serde_json::Value>(text(key)?).map_err(|error| Error::Metadata {
                path: path.to_owned(),
                key,
                reason: format!("expected JSON: {error}"),
            })
        };
        let serde_json::Value::Array(written) = json("compare")? else {
            return Err(Error::Metadata {
                path: path.to_owned(),
                key: "compare",
                reason: "expected a list of rules".to_owned(),
            });
        };
        let rules = written
            .iter()
            .enumerate()
            .map(|(index, rule)| {
                Rule::parse(rule).map_err(|reason| Error::Rule { path: path.to_owned(), index, reason })
            })
            .collect::<Result<_, _>>()?;
        let file = SafeTensors::deserialize(bytes).map_err(|error| format(error.to_string()))?;
        let mut tensors = BTreeMap::new();
        for (name, view) in file.iter() {
            let tensor = HostTensor::from_view(&view)
                .map_err(|reason| format(format!("tensor `{name}`: {reason}")))?;
            tensors.insert(name.to_owned(), tensor);
        }
        Ok(Self {
            path: path.to_owned(),
            method: text("method")?.to_owned(),
            unit: text("unit")?.to_owned(),
            case: text("case")?.to_owned(),
            kind: text("kind")?.to_owned(),
            config: json("config")?,
            tensors,
            rules,
        })
    }

    /// The configuration as `T`. Give `T` the attribute `deny_unknown_fields`, so that nothing is passed over.
    ///
    /// # Errors
    /// [`Error::Config`] with the case and the field: unknown, missing, or of another type or value.
    pub fn config<T: DeserializeOwned>(&self) -> Result<T, Error> {
        serde_path_to_error::deserialize(&self.config).map_err(|error| Error::Config {
            path: self.path.clone(),
            case: self.case.clone(),
            field: error.path().to_string(),
            reason: error.into_inner().to_string(),
        })
    }

    /// The tensor of this full name, such as `in.images`.
    ///
    /// # Errors
    /// [`Error::MissingTensor`] if the file has none.
    pub fn input(&self, name: &str) -> Result<&HostTensor, Error> {
        self.tensors
            .get(name)
            .ok_or_else(|| Error::MissingTensor { path: self.path.clone(), name: name.to_owned() })
    }

    /// Whether the file has a tensor of this full name.
    pub fn has(&self, name: &str) -> bool {
        self.tensors.contains_key(name)
    }

    /// The weights, under the reference's names without the leading `w.`, in the order of their names.
    pub fn weights(&self) -> impl Iterator<Item = (&str, &HostTensor)> {
        self.tensors.iter().filter_map(|(name, tensor)| Some((name.strip_prefix("w.")?, tensor)))
    }

    /// The tensors that a unit has to produce, under their full names and in their order.
    pub fn expected(&self) -> impl Iterator<Item = (&str, &HostTensor)> {
        self.tensors
            .iter()
            .filter(|(name, _)| is_expected(name))
            .map(|(name, tensor)| (name.as_str(), tensor))
    }

    /// The first rule with a pattern that matches.
    pub fn rule_for(&self, name: &str) -> Option<&Rule> {
        self.rules.iter().find(|rule| rule.applies_to(name))
    }
}

#[cfg(test)]
pub(crate) mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use safetensors::tensor::{Dtype, TensorView, serialize};
    use serde::Deserialize;

    /// A case of nothing but tensors and rules.
    pub(crate) fn case<const N: usize>(tensors: [(&str, HostTensor); N], rules: &serde_json::Value) -> Case {
        Case {
            tensors: tensors.into_iter().map(|(name, tensor)| (name.to_owned(), tensor)).collect(),
            rules: rules.as_array().unwrap().iter().map(|rule| Rule::parse(rule).unwrap()).collect(),
            ..Case::default()
        }
    }

    fn file(change: impl FnOnce(&mut HashMap<String, String>)) -> Vec<u8> {
        let mut metadata: HashMap<String, String> = [
            ("method", "m"),
            ("unit", "u"),
            ("case", "c"),
            ("kind", "forward"),
            ("config", r#"{"size": 3, "inner": {"rate": 1}}"#),
            ("compare", r#"[{"tensors": ["*"], "exact": true}]"#),
        ]
        .into_iter()
        .map(|(k, v)| (k.to_owned(), v.to_owned()))
        .collect();
        change(&mut metadata);
        let floats: Vec<u8> = [1.0_f32, -2.0].iter().flat_map(|x| x.to_le_bytes()).collect();
        let view = |dtype, bytes| TensorView::new(dtype, vec![2], bytes).unwrap();
        serialize(
            [
                ("in.x", view(Dtype::F32, &floats[..])),
                ("w.block.weight", view(Dtype::F32, &floats[..])),
                ("out.y", view(Dtype::U8, &[1, 2][..])),
                ("grad_head.y", view(Dtype::BOOL, &[1, 0][..])),
                ("mask.y", view(Dtype::U8, &[1, 0][..])),
            ],
            Some(metadata),
        )
        .unwrap()
    }

    fn read(bytes: &[u8]) -> Result<Case, Error> {
        Case::parse(Path::new("some/case.safetensors"), bytes)
    }

    #[test]
    fn a_file_is_read_whole() {
        let case = read(&file(|_| {})).unwrap();
        assert_eq!((case.method.as_str(), case.unit.as_str(), case.kind.as_str()), ("m", "u", "forward"));
        assert_eq!(case.input("in.x").unwrap(), &HostTensor::f32([2], vec![1.0, -2.0]));
        assert_eq!(case.weights().map(|(name, _)| name).collect::<Vec<_>>(), ["block.weight"]);
        assert_eq!(case.expected().map(|(name, _)| name).collect::<Vec<_>>(), ["grad_head.y", "out.y"]);
        assert_eq!(case.input("grad_head.y").unwrap(), &HostTensor::bool([2], vec![true, false]));
        assert_eq!(case.input("in.z").unwrap_err().to_string(), "some/case.safetensors: no tensor `in.z`");
        assert!(case.has("mask.y") && !is_expected("mask.y") && !is_expected("output.y"));
    }

    #[test]
    fn the_configuration_is_read_strictly() {
        #[derive(Debug, Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Inner {
            rate: f64,
        }
        #[derive(Debug, Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Config {
            size: usize,
            inner: Inner,
        }
        let case = read(&file(|_| {})).unwrap();
        let config: Config = case.config().unwrap();
        assert_eq!((config.size, config.inner.rate), (3, 1.0));
        for (json, says) in [
            (r#"{"size": 3, "inner": {"rate": "1"}}"#, "`inner.rate`"),
            (r#"{"size": 3, "inner": {"rate": 1, "more": 2}}"#, "`more`"),
            (r#"{"size": -3, "inner": {"rate": 1}}"#, "`size`"),
            (r#"{"size": 3}"#, "`inner`"),
        ] {
            let case = read(&file(|m| drop(m.insert("config".into(), json.into())))).unwrap();
            let message = case.config::<Config>().unwrap_err().to_string();
            assert!(message.contains(says) && message.contains("case `c`"), "{message}");
        }
    }

    #[test]
    fn broken_files_are_refused_with_their_path() {
        let missing = file(|m| drop(m.remove("unit")));
        let no_json = file(|m| drop(m.insert("config".into(), "{".into())));
        let no_list = file(|m| drop(m.insert("compare".into(), "{}".into())));
        let bad_rule =
            file(|m| drop(m.insert("compare".into(), r#"[{"tensors": ["*"], "wide": 1}]"#.into())));
        let truncated = file(|_| {})[..200].to_vec();
        for (bytes, says) in [
            (missing, "`unit`"),
            (no_json, "`config`"),
            (no_list, "a list of rules"),
            (bad_rule, "rule 0"),
            (truncated, "safetensors"),
            (vec![], "safetensors"),
        ] {
            let message = read(&bytes).unwrap_err().to_string();
            assert!(message.starts_with("some/case.safetensors: ") && message.contains(says), "{message}");
        }
        assert!(Case::load("no/such.safetensors").unwrap_err().to_string().contains("no/such.safetensors"));
    }
}
