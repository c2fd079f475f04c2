//! What a `config.json` says about the weights beside it.
//!
//! Three dialects are read: `transformers` (`model_type`), timm (`architecture`), and this crate's own
//! (`"model_type": "vit-backbone"`, for weights that come without one: `.pth` files of DINO or `pytorch_pretrained_vit`).

mod hugging_face;
pub(crate) mod timm;

use pretrained::Weights;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::preprocessing::{family_recipe, family_size};
use crate::{Error, NameScheme, Normalisation, Recipe, VitConfig};

/// A network and its input, as described beside its weights.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Described {
    pub(crate) config: VitConfig,
    pub(crate) names: NameScheme,
    pub(crate) recipe: Recipe,
    pub(crate) normalisation: Normalisation,
    /// Side of the input where nothing else is asked for.
    pub(crate) image_size: usize,
    pub(crate) licence: Option<String>,
}

/// This crate's own `config.json`, to be put beside weights that come without one.
///
/// ```
/// use vit_backbone::{Description, Family, NameScheme, VitConfig};
///
/// let config = VitConfig::new(Family::FbDino, (384, 12, 6), 8, 224);
/// let text = Description::new(config, NameScheme::Original).to_json();
/// assert!(text.contains(r#""model_type": "vit-backbone""#));
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Description {
    model_type: OwnModelType,
    /// How the weight file names its tensors.
    pub names: NameScheme,
    /// Every size and option.
    pub config: VitConfig,
    /// How images are resized; the family's own if left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recipe: Option<Recipe>,
    /// How pixels are normalised; the family's own if left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub normalisation: Option<Normalisation>,
    /// Licence of the weights.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub licence: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
enum OwnModelType {
    #[serde(rename = "vit-backbone")]
    VitBackbone,
}

impl Description {
    /// Describes weights of this configuration under these names.
    pub fn new(config: VitConfig, names: NameScheme) -> Self {
        Self {
            model_type: OwnModelType::VitBackbone,
            names,
            config,
            recipe: None,
            normalisation: None,
            licence: None,
        }
    }

    /// The text of the `config.json`.
    pub fn to_json(&self) -> String {
        // A structure of numbers, flags and names: writing it to memory does not fail.
        serde_json::to_string_pretty(self).unwrap_or_default()
    }
}

impl Described {
    pub(crate) fn of_family(config: VitConfig, names: NameScheme) -> Self {
        let (recipe, normalisation) = family_recipe(config.family);
        let trained = config.trained_size.0.min(config.trained_size.1);
        let image_size = family_size(config.family, trained);
        Self { config, names, recipe, normalisation, image_size, licence: None }
    }
}

/// Reads the `config.json` that came with `weights`.
pub(crate) fn describe(weights: &Weights) -> Result<Described, Error> {
    let origin = weights.origin();
    let Some(json) = weights.config() else {
        return Err(Error::Unsupported {
            what: format!("{origin} without a config.json"),
            reason:
                "put one beside the weights (transformers, timm, or this crate's Description), or give the \
                     configuration in LoadOptions"
                    .to_owned(),
        });
    };
    if let Some(architecture) = text(json, "architecture") {
        timm::describe(architecture, json, origin)
    } else {
        match text(json, "model_type") {
            Some("vit-backbone") => own(json, origin),
            Some(model_type) => hugging_face::describe(model_type, json, origin),
            None => Err(Error::Config {
                field: format!("{origin}/config.json"),
                expected: "model_type (transformers) or architecture (timm)".to_owned(),
                found: "neither".to_owned(),
            }),
        }
    }
}

fn own(json: &Value, origin: &str) -> Result<Described, Error> {
    let description: Description = serde_json::from_value(json.clone()).map_err(|error| Error::Config {
        field: format!("{origin}/config.json"),
        expected: "a description of a vit-backbone".to_owned(),
        found: error.to_string(),
    })?;
    let mut described = Described::of_family(description.config, description.names);
    described.recipe = description.recipe.unwrap_or(described.recipe);
    described.normalisation = description.normalisation.unwrap_or(described.normalisation);
    described.licence = description.licence;
    Ok(described)
}

fn text<'a>(json: &'a Value, key: &str) -> Option<&'a str> {
    json.get(key).and_then(Value::as_str)
}

/// Typed access to one JSON object, with the file and field in every message.
struct Fields<'a> {
    json: &'a Value,
    origin: &'a str,
}

impl<'a> Fields<'a> {
    fn refuse(&self, key: &str, expected: &str, found: impl std::fmt::Display) -> Error {
        Error::Config {
            field: format!("{}/config.json: {key}", self.origin),
            expected: expected.to_owned(),
            found: found.to_string(),
        }
    }

    /// The value, unless it is absent or null.
    fn value(&self, key: &str) -> Option<&'a Value> {
        self.json.get(key).filter(|value| !value.is_null())
    }

    fn size(&self, key: &str, default: usize) -> Result<usize, Error> {
        match self.value(key) {
            None => Ok(default),
            Some(value) => value
                .as_u64()
                .and_then(|value| usize::try_from(value).ok())
                .ok_or_else(|| self.refuse(key, "a whole number", value)),
        }
    }

    /// One number, or two alike.
    fn side(&self, key: &str, default: usize) -> Result<(usize, usize), Error> {
        let Some(Value::Array(pair)) = self.value(key) else {
            return self.size(key, default).map(|side| (side, side));
        };
        let side = |value: &Value| value.as_u64().and_then(|value| usize::try_from(value).ok());
        match pair.as_slice() {
            [height, width] => match (side(height), side(width)) {
                (Some(height), Some(width)) => Ok((height, width)),
                _ => Err(self.refuse(key, "whole numbers", format!("{pair:?}"))),
            },
            _ => Err(self.refuse(key, "one number or two", format!("{pair:?}"))),
        }
    }

    fn number(&self, key: &str, default: f64) -> Result<f64, Error> {
        match self.value(key) {
            None => Ok(default),
            Some(value) => value.as_f64().ok_or_else(|| self.refuse(key, "a number", value)),
        }
    }

    fn flag(&self, key: &str, default: bool) -> Result<bool, Error> {
        match self.value(key) {
            None => Ok(default),
            Some(value) => value.as_bool().ok_or_else(|| self.refuse(key, "true or false", value)),
        }
    }

    fn text(&self, key: &str, default: &'static str) -> Result<&'a str, Error> {
        match self.value(key) {
            None => Ok(default),
            Some(value) => value.as_str().ok_or_else(|| self.refuse(key, "a string", value)),
        }
    }
}
