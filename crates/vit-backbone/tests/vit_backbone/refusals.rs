//! What does not fit is refused, and the message says what, where, and what was expected.

use std::collections::HashMap;

use candle_core::{DType, Device, Tensor};
use serde_json::json;
use vit_backbone::{
    Description, Error, Family, LoadOptions, NameScheme, Outputs, Pooling, Positions, QkvBias, Resampling,
    Vit, VitConfig,
};

use crate::loading::{load, write};
use crate::{normal, scrambled};

fn small() -> VitConfig {
    VitConfig::new(Family::TimmVit, (32, 2, 4), 8, 32)
}

/// What loading says after `change` went over a good file.
fn message(config: &VitConfig, change: impl FnOnce(&mut HashMap<String, Tensor>)) -> String {
    let mut tensors = scrambled(small()).named_tensors().unwrap().into_iter().collect();
    change(&mut tensors);
    let folder = tempfile::tempdir().unwrap();
    let description = Description::new(config.clone(), NameScheme::Timm).to_json();
    write(folder.path(), tensors.into_iter().collect(), "", &description);
    load(folder.path()).unwrap_err().to_string()
}

fn has(message: &str, words: &[&str]) {
    for word in words {
        assert!(message.contains(word), "{word:?} is not in: {message}");
    }
}

#[test]
fn tensors_that_disagree_with_the_configuration_are_named() {
    let zeros = |shape: &[usize]| Tensor::zeros(shape, DType::F32, &Device::Cpu).unwrap();
    let put = |name: &str, tensor: Tensor| {
        let name = name.to_owned();
        move |tensors: &mut HashMap<String, Tensor>| {
            tensors.insert(name, tensor);
        }
    };
    let good = small();
    has(
        &message(&good, put("blocks.1.mlp.fc1.weight", zeros(&[120, 32]))),
        &["blocks.1.mlp.fc1.weight", "[128, 32]", "[120, 32]"],
    );
    has(
        &message(&good, put("pos_embed", zeros(&[1, 20, 32]))),
        &["pos_embed", "16 or 17", "[1, 20, 32]", "4x4"],
    );
    has(
        &message(&good, put("blocks.0.ls1.gamma", zeros(&[32]))),
        &["blocks.0.ls1.gamma", "layer_scale false"],
    );
    has(&message(&good, put("reg_token", zeros(&[1, 4, 32]))), &["reg_token", "registers = 0"]);
    has(&message(&good, put("norm_pre.weight", zeros(&[32]))), &["norm_pre.weight", "pre_norm = false"]);
    has(&message(&good, put("blocks.2.norm1.weight", zeros(&[32]))), &["depth", "3", "2"]);
    let missing = message(&good, |tensors| {
        tensors.remove("blocks.0.attn.proj.bias");
    });
    has(&missing, &["blocks.0.attn.proj.bias", "[32]", "missing"]);
    let no_bias = VitConfig { qkv_bias: QkvBias::None, ..small() };
    has(&message(&no_bias, |_| ()), &["blocks.0.attn.qkv.bias", "None"]);
    let deeper = VitConfig { depth: 3, ..small() };
    has(&message(&deeper, |_| ()), &["blocks.2.norm1.weight"]);
    let patch = VitConfig { patch: (4, 4), ..small() };
    has(&message(&patch, |_| ()), &["patch_embed.proj.weight", "[32, 3, 4, 4]", "[32, 3, 8, 8]"]);
    let other_names = message(&good, |tensors| tensors.retain(|name, _| name.starts_with("blocks")));
    has(&other_names, &["names", "blocks.0."]);
}

#[test]
fn names_that_lead_nowhere_are_answered_with_neighbours() {
    let offline = LoadOptions::default();
    let error = Vit::load("dinov2-smal-b9", &offline).unwrap_err();
    has(&error.to_string(), &["dinov2-smal-b9", "dinov2-small-b9"]);
    let error = Vit::load("vit_base_patch16_224_ibot", &offline).unwrap_err();
    assert!(matches!(error, Error::Unsupported { .. }));
    has(&error.to_string(), &["vit_base_patch16_224_ibot.pth", "github.com/bytedance/ibot"]);
    // No network and no cache: the hub is never asked.
    let error = Vit::load("facebook/dinov2-small", &offline).unwrap_err();
    assert!(matches!(error, Error::Pretrained(_)), "{error}");
}

#[test]
fn configurations_of_other_networks_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let tensors = || scrambled(small()).named_tensors().unwrap();
    for (json, words) in [
        (json!({"model_type": "ijepa"}), &["ijepa", "dinov2_with_registers"][..]),
        (json!({"model_type": "vit", "hidden_act": "gelu_new"}), &["hidden_act", "gelu_new"]),
        (json!({"model_type": "vit", "num_channels": 1}), &["num_channels", "3"]),
        (json!({"model_type": "vit", "hidden_size": "big"}), &["hidden_size", "whole number"]),
        (json!({"model_type": "clip"}), &["vision_config"]),
        (json!({"architecture": "eva02_base_patch16_clip_224"}), &["EVA-02"]),
        (json!({"architecture": "vit_base_patch16_siglip_224"}), &["vit_base_patch16_siglip_224"]),
        (
            json!({"architecture": "vit_base_patch16_224", "model_args": {"class_token": false}}),
            &["model_args", "class_token"],
        ),
        (
            json!({"architecture": "vit_base_patch16_224", "pretrained_cfg": {"interpolation": "nearest"}}),
            &["interpolation", "nearest"],
        ),
        (json!({"model_type": "vit-backbone", "names": "timm", "config": {}}), &["config.json"]),
        (json!({"model_type": "dinov2"}), &["Timm", "HfDinov2"]),
        (json!({}), &["model_type", "architecture"]),
    ] {
        write(folder.path(), tensors(), "", &json.to_string());
        has(&load(folder.path()).unwrap_err().to_string(), words);
    }
    std::fs::remove_file(folder.path().join("config.json")).unwrap();
    has(&load(folder.path()).unwrap_err().to_string(), &["config.json", "LoadOptions"]);
    // What the file cannot say, the caller can.
    let options = LoadOptions { described: Some((small(), NameScheme::Timm)), ..LoadOptions::default() };
    assert_eq!(Vit::load(folder.path().to_str().unwrap(), &options).unwrap().config(), &small());
}

#[test]
fn inputs_and_wishes_that_cannot_be_met_are_refused() {
    let vit = scrambled(VitConfig { positions: Positions::Table(Resampling::None), ..small() });
    let images = normal("images", &[1, 3, 32, 32]);
    let refused = |images: &Tensor, outputs: &Outputs, words: &[&str]| {
        has(&vit.forward(images, outputs).unwrap_err().to_string(), words);
    };
    let norm = Outputs::norm();
    vit.forward(&images, &norm).unwrap();
    refused(&normal("images", &[1, 3, 32, 40]), &norm, &["4x4", "4x5"]);
    refused(&normal("images", &[1, 1, 32, 32]), &norm, &["(B, 3, H, W)", "[1, 1, 32, 32]"]);
    refused(&normal("images", &[1, 3, 7, 32]), &norm, &["at least 8", "[1, 3, 7, 32]"]);
    refused(&images.to_dtype(DType::F64).unwrap(), &norm, &["f32", "F64"]);
    refused(&images, &Outputs::blocks([0, 2]), &["block 2", "0 to 1"]);
    refused(&images, &Outputs { logits: true, ..Outputs::default() }, &["logits", "head"]);
    let options = LoadOptions { image_size: Some(7), ..LoadOptions::default() };
    has(&Vit::load("dinov2-small-b9", &options).unwrap_err().to_string(), &["image_size", "14"]);
    let options = LoadOptions { blocks: Some(10), ..LoadOptions::default() };
    has(&Vit::load("dinov2-small-b9", &options).unwrap_err().to_string(), &["blocks", "1 to 9", "10"]);
}

#[test]
fn tokens_that_cannot_be_pooled_are_refused() {
    for pooling in [Pooling::Mean, Pooling::MeanThenNorm, Pooling::ClassToken, Pooling::TanhPooler] {
        let vit = scrambled(VitConfig { pooling, ..small() });
        assert_eq!(vit.pool(&normal("tokens", &[2, 2, 32])).unwrap().dims(), [2, 32], "{pooling:?}");
        for wrong in [&[2, 1, 32][..], &[2, 0, 32], &[2, 17, 31], &[17, 32]] {
            let message = vit.pool(&Tensor::zeros(wrong, DType::F32, &Device::Cpu).unwrap()).unwrap_err();
            has(&message.to_string(), &["tokens", "(B, N, 32)", "at least 2", &format!("{wrong:?}")]);
        }
    }
}
