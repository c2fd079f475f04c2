//! Configurations of transformers. A field left out has the default of that library's configuration class.

use serde_json::Value;

use super::{Described, Fields};
use crate::{Activation, Error, Family, NameScheme, Positions, QkvBias, VitConfig, dinov2_swiglu_hidden};

pub(super) fn describe(model_type: &str, json: &Value, origin: &str) -> Result<Described, Error> {
    let fields = Fields { json, origin };
    match model_type {
        "vit" => vit(&fields),
        "dinov2" => dinov2(&fields, false),
        "dinov2_with_registers" => dinov2(&fields, true),
        "dinov3_vit" => dinov3(&fields),
        "clip_vision_model" => clip(&fields),
        "clip" => match json.get("vision_config").filter(|value| value.is_object()) {
            Some(vision) => clip(&Fields { json: vision, origin }),
            None => Err(fields.refuse("vision_config", "the image tower's configuration", "nothing")),
        },
        other => Err(Error::Unsupported {
            what: format!("model_type {other:?} of {origin}"),
            reason:
                "this crate reads vit, dinov2, dinov2_with_registers, dinov3_vit, clip and clip_vision_model"
                    .to_owned(),
        }),
    }
}

/// What all configuration classes have.
fn common(fields: &Fields, family: Family, default_patch: usize) -> Result<VitConfig, Error> {
    let width = (
        fields.size("hidden_size", if family == Family::HfDinov3 { 384 } else { 768 })?,
        fields.size("num_hidden_layers", 12)?,
        fields.size("num_attention_heads", if family == Family::HfDinov3 { 6 } else { 12 })?,
    );
    let mut config = VitConfig::new(family, width, default_patch, default_patch);
    config.patch = fields.side("patch_size", default_patch)?;
    config.trained_size = fields.side("image_size", 224)?;
    config.norm_eps = fields.number("layer_norm_eps", config.norm_eps)?;
    let channels = fields.size("num_channels", 3)?;
    if channels != 3 {
        return Err(fields.refuse("num_channels", "3", channels));
    }
    Ok(config)
}

fn activation(fields: &Fields, default: &'static str) -> Result<Activation, Error> {
    match fields.text("hidden_act", default)? {
        "gelu" => Ok(Activation::GeluErf),
        "quick_gelu" => Ok(Activation::QuickGelu),
        other => Err(fields.refuse("hidden_act", "gelu or quick_gelu", other)),
    }
}

fn qkv_bias(fields: &Fields) -> Result<QkvBias, Error> {
    Ok(if fields.flag("qkv_bias", true)? { QkvBias::All } else { QkvBias::None })
}

fn vit(fields: &Fields) -> Result<Described, Error> {
    let mut config = common(fields, Family::HfVit, 16)?;
    config.mlp_hidden = fields.size("intermediate_size", 3072)?;
    config.activation = activation(fields, "gelu")?;
    config.qkv_bias = qkv_bias(fields)?;
    Ok(Described::of_family(config, NameScheme::HfVit))
}

fn dinov2(fields: &Fields, registers: bool) -> Result<Described, Error> {
    let family = if registers { Family::HfDinov2Reg } else { Family::HfDinov2 };
    let mut config = common(fields, family, 14)?;
    config.registers = if registers { fields.size("num_register_tokens", 4)? } else { 0 };
    let ratio = fields.number("mlp_ratio", 4.0)?;
    if fields.flag("use_swiglu_ffn", false)? {
        config.activation = Activation::Swiglu;
        config.mlp_hidden = dinov2_swiglu_hidden(config.dim, ratio);
    } else {
        config.activation = activation(fields, "gelu")?;
        config.mlp_hidden = (config.dim as f64 * ratio) as usize;
    }
    config.qkv_bias = qkv_bias(fields)?;
    Ok(Described::of_family(config, NameScheme::HfDinov2))
}

fn dinov3(fields: &Fields) -> Result<Described, Error> {
    let mut config = common(fields, Family::HfDinov3, 16)?;
    config.registers = fields.size("num_register_tokens", 0)?;
    config.mlp_hidden = fields.size("intermediate_size", 1536)?;
    if fields.flag("use_gated_mlp", false)? {
        match fields.text("hidden_act", "silu")? {
            "silu" => config.activation = Activation::Swiglu,
            other => return Err(fields.refuse("hidden_act", "silu for a gated MLP", other)),
        }
    } else {
        config.activation = activation(fields, "gelu")?;
    }
    let biases =
        (fields.flag("query_bias", true)?, fields.flag("key_bias", false)?, fields.flag("value_bias", true)?);
    config.qkv_bias = match biases {
        (true, true, true) => QkvBias::All,
        (true, false, true) => QkvBias::QueryValue,
        (false, false, false) => QkvBias::None,
        other => {
            let expected = "all, query and value, or none";
            return Err(fields.refuse("query_bias, key_bias, value_bias", expected, format!("{other:?}")));
        }
    };
    config.proj_bias = fields.flag("proj_bias", true)?;
    config.mlp_bias = fields.flag("mlp_bias", true)?;
    // Newer files keep the base among the rotary parameters.
    let base = match fields.value("rope_parameters").and_then(|parameters| parameters.get("rope_theta")) {
        Some(theta) => {
            theta.as_f64().ok_or_else(|| fields.refuse("rope_parameters.rope_theta", "a number", theta))?
        }
        None => fields.number("rope_theta", 100.0)?,
    };
    config.positions = Positions::Rope { base };
    Ok(Described::of_family(config, NameScheme::HfDinov3))
}

fn clip(fields: &Fields) -> Result<Described, Error> {
    let mut config = common(fields, Family::HfClipVision, 32)?;
    config.mlp_hidden = fields.size("intermediate_size", 3072)?;
    config.activation = activation(fields, "quick_gelu")?;
    Ok(Described::of_family(config, NameScheme::HfClip))
}
