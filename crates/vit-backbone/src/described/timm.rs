//! timm's `config.json`: an architecture's name, from which timm's registry fixes the sizes, and `pretrained_cfg`.

use serde_json::Value;

use super::{Described, Fields};
use crate::{Activation, Error, Family, NameScheme, Normalisation, Pooling, QkvBias, Recipe, VitConfig};

/// The sizes and options timm's registry has under `architecture`, for images of `image_size` pixels where its name
/// does not say; `tag` is the name of the pretrained weights (`openai`, `augreg_in21k`, ...).
pub(crate) fn architecture(architecture: &str, tag: &str) -> Result<(VitConfig, NameScheme), Error> {
    parse(architecture, tag).ok_or_else(|| refusal(architecture))
}

/// Why an architecture is not read.
fn refusal(architecture: &str) -> Error {
    let reason = if architecture.starts_with("eva02_") {
        "this variant of EVA-02 is not implemented; known are eva02_SIZE_patchP_RESOLUTION of sizes tiny, small, base and \
         large"
    } else if architecture.starts_with("vit_") {
        "this variant of the ViT is not implemented; known are vit_SIZE_patchP_RESOLUTION, _dinov2, _reg4_dinov2, \
         _dinov3, _dinov3_qkvb, _clip_RESOLUTION and _clip_quickgelu_RESOLUTION"
    } else {
        "it is no plain Vision Transformer"
    };
    Error::Unsupported { what: format!("timm architecture {architecture:?}"), reason: reason.to_owned() }
}

/// timm's EVA-02: its two larger sizes have a norm inside the feed-forward part.
fn parse_eva02(architecture: &str) -> Option<(VitConfig, NameScheme)> {
    let (size, rest) = architecture.strip_prefix("eva02_")?.split_once("_patch")?;
    let (patch, side) = rest.split_once('_')?;
    let (patch, side): (usize, usize) = (patch.parse().ok()?, side.parse().ok()?);
    if patch == 0 || side < patch {
        return None;
    }
    let (width, mlp_norm) = match size {
        "tiny" => ((192, 12, 3), false),
        "small" => ((384, 12, 6), false),
        "base" => ((768, 12, 12), true),
        "large" => ((1024, 24, 16), true),
        _ => return None,
    };
    let config = VitConfig { mlp_norm, ..VitConfig::new(Family::TimmEva02, width, patch, side) };
    Some((config, NameScheme::TimmEva02))
}

fn parse(architecture: &str, tag: &str) -> Option<(VitConfig, NameScheme)> {
    if architecture.starts_with("eva02_") {
        return parse_eva02(architecture);
    }
    let (size, rest) = architecture.strip_prefix("vit_")?.split_once("_patch")?;
    let (patch, variant) = rest.split_once('_')?;
    let patch: usize = patch.parse().ok()?;
    if patch == 0 {
        return None;
    }
    let common = match size {
        "tiny" => (192, 12, 3),
        "small" => (384, 12, 6),
        "base" => (768, 12, 12),
        "large" => (1024, 24, 16),
        "huge" => (1280, 32, 16),
        _ => (0, 0, 0),
    };
    let resolution = |text: &str| text.parse().ok().filter(|side| *side >= patch);
    if let Some(registers) = match variant {
        "dinov2" => Some(0),
        "reg4_dinov2" => Some(4),
        _ => None,
    } {
        let family = if registers > 0 { Family::TimmDinov2Reg } else { Family::TimmDinov2 };
        let width = match size {
            "giant" => (1536, 40, 24),
            "small" | "base" | "large" => common,
            _ => return None,
        };
        let mut config = VitConfig::new(family, width, patch, 518);
        if size == "giant" {
            config.activation = Activation::Swiglu;
            config.mlp_hidden = 4096;
        }
        return Some((config, NameScheme::Timm));
    }
    if let Some(bias) = match variant {
        "dinov3" => Some(QkvBias::None),
        "dinov3_qkvb" => Some(QkvBias::QueryValue),
        _ => None,
    } {
        let (width, gated) = match size {
            "small_plus" => ((384, 12, 6), Some(1536)),
            "huge_plus" => ((1280, 32, 20), Some(5120)),
            "7b" => ((4096, 40, 32), Some(8192)),
            "small" | "base" | "large" => (common, None),
            _ => return None,
        };
        let mut config = VitConfig::new(Family::TimmDinov3, width, patch, 256);
        config.qkv_bias = bias;
        if let Some(hidden) = gated {
            config.activation = Activation::Swiglu;
            config.mlp_hidden = hidden;
        }
        return Some((config, NameScheme::TimmEva));
    }
    if common.0 == 0 {
        return None;
    }
    if let Some(clip) = variant.strip_prefix("clip_") {
        let (quick, side) = match clip.strip_prefix("quickgelu_") {
            Some(side) => (true, resolution(side)?),
            // timm's plain architecture computes the exact GELU even for OpenAI's weights, which were trained with
            // the quick one: the true model is meant here.
            None => (tag == "openai" || tag.starts_with("openai_"), resolution(clip)?),
        };
        let mut config = VitConfig::new(Family::TimmClip, common, patch, side);
        config.activation = if quick { Activation::QuickGelu } else { Activation::GeluErf };
        return Some((config, NameScheme::Timm));
    }
    Some((VitConfig::new(Family::TimmVit, common, patch, resolution(variant)?), NameScheme::Timm))
}

pub(super) fn describe(name: &str, json: &Value, origin: &str) -> Result<Described, Error> {
    let fields = Fields { json, origin };
    let nothing = Value::Object(serde_json::Map::new());
    let pretrained = json.get("pretrained_cfg").unwrap_or(&nothing);
    let pretrained = Fields { json: pretrained, origin };
    let (mut config, names) = architecture(name, pretrained.text("tag", "")?)?;

    if let Some(input) = pretrained.value("input_size") {
        let sides: Option<Vec<usize>> = input
            .as_array()
            .map(|sides| sides.iter().filter_map(|side| usize::try_from(side.as_u64()?).ok()).collect());
        match sides.as_deref() {
            Some(&[3, height, width]) => config.trained_size = (height, width),
            _ => return Err(pretrained.refuse("pretrained_cfg.input_size", "[3, H, W]", input)),
        }
    }
    let mut pool = fields.value("global_pool").and_then(Value::as_str);
    if let Some(Value::Object(arguments)) = fields.value("model_args") {
        let arguments_fields = Fields { json: &json["model_args"], origin };
        for key in arguments.keys() {
            match key.as_str() {
                "img_size" => config.trained_size = arguments_fields.side("img_size", 0)?,
                "global_pool" => pool = Some(arguments_fields.text("global_pool", "token")?),
                // Whether other sizes are allowed, and the head: this crate always allows them and reads its own.
                "dynamic_img_size" | "dynamic_img_pad" | "num_classes" => {}
                other => {
                    return Err(fields.refuse("model_args", "img_size, global_pool or nothing", other));
                }
            }
        }
    }
    config.pooling = match (pool, config.family) {
        (None, _) => config.pooling,
        (Some("token"), _) => Pooling::ClassToken,
        (Some("avg"), Family::TimmDinov3) => Pooling::Mean,
        (Some("avg"), _) => Pooling::MeanThenNorm,
        (Some(other), _) => return Err(fields.refuse("global_pool", "token or avg", other)),
    };

    let mut described = Described::of_family(config, names);
    if let Some(interpolation) = pretrained.value("interpolation").filter(|value| *value != "bicubic") {
        return Err(pretrained.refuse("pretrained_cfg.interpolation", "bicubic", interpolation));
    }
    let fraction = pretrained.number("crop_pct", 0.875)?;
    if !(fraction > 0.0 && fraction <= 1.0) {
        return Err(pretrained.refuse("pretrained_cfg.crop_pct", "above 0 and at most 1", fraction));
    }
    described.recipe = match pretrained.text("crop_mode", "center")? {
        "center" => Recipe::Timm { fraction },
        "squash" => Recipe::PillowSquareBicubic,
        other => return Err(pretrained.refuse("pretrained_cfg.crop_mode", "center or squash", other)),
    };
    if let Some(normalisation) = normalisation(&pretrained)? {
        described.normalisation = normalisation;
    }
    Ok(described)
}

/// The known normalisation a `pretrained_cfg` states.
fn normalisation(pretrained: &Fields) -> Result<Option<Normalisation>, Error> {
    let triple = |key: &str| -> Option<Vec<f64>> {
        pretrained.value(key)?.as_array().map(|values| values.iter().filter_map(Value::as_f64).collect())
    };
    let (Some(mean), Some(std)) = (triple("mean"), triple("std")) else {
        return Ok(None);
    };
    let close = |found: &[f64], known: [f32; 3]| {
        found.len() == 3
            && found.iter().zip(known).all(|(found, known)| (found - f64::from(known)).abs() < 1e-4)
    };
    [Normalisation::Half, Normalisation::Imagenet, Normalisation::Clip]
        .into_iter()
        .find(|known| {
            let (known_mean, known_std) = known.mean_std();
            close(&mean, known_mean) && close(&std, known_std)
        })
        .map(Some)
        .ok_or_else(|| {
            let found = format!("mean {mean:?}, std {std:?}");
            pretrained.refuse("pretrained_cfg.mean and std", "0.5, those of ImageNet or of CLIP", found)
        })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn names_give_the_registry_sizes() {
        let parse = |name: &str, tag: &str| architecture(name, tag).unwrap();
        let (config, names) = parse("vit_base_patch16_384", "orig_in21k_ft_in1k");
        assert_eq!((config.dim, config.depth, config.heads, config.patch), (768, 12, 12, (16, 16)));
        assert_eq!((config.trained_grid(), names), ((24, 24), NameScheme::Timm));
        let (config, _) = parse("vit_giant_patch14_reg4_dinov2", "lvd142m");
        assert_eq!((config.activation, config.mlp_hidden, config.registers), (Activation::Swiglu, 4096, 4));
        assert_eq!(config.trained_grid(), (37, 37));
        let (config, names) = parse("vit_huge_plus_patch16_dinov3_qkvb", "lvd1689m");
        assert_eq!((config.heads, config.mlp_hidden, config.qkv_bias), (20, 5120, QkvBias::QueryValue));
        assert_eq!(names, NameScheme::TimmEva);
        let (config, names) = parse("eva02_large_patch14_448", "mim_m38m_ft_in1k");
        assert_eq!((config.mlp_hidden, config.mlp_norm, config.trained_grid()), (2730, true, (32, 32)));
        assert_eq!((names, config.final_norm()), (NameScheme::TimmEva02, false));
        assert!(!parse("eva02_small_patch14_224", "").0.mlp_norm);
        assert_eq!(parse("vit_base_patch16_clip_224", "openai").0.activation, Activation::QuickGelu);
        assert_eq!(parse("vit_base_patch16_clip_224", "laion2b").0.activation, Activation::GeluErf);
        assert_eq!(parse("vit_base_patch32_clip_quickgelu_224", "").0.activation, Activation::QuickGelu);
    }

    #[test]
    fn other_architectures_are_refused_by_name() {
        for name in [
            "eva02_enormous_patch14_clip_224",
            "vit_base_patch16_siglip_224",
            "vit_base_patch16_rope_224",
            "vit_giant_patch14_224",
            "vit_base_patch16",
            "vit_base_patch0_224",
            "resnet50",
        ] {
            let message = architecture(name, "").unwrap_err().to_string();
            assert!(message.contains(name), "{message}");
        }
        assert!(architecture("eva02_base_patch16_clip_224", "").unwrap_err().to_string().contains("EVA-02"));
    }
}
