//! Directories as people have them: every naming scheme, every dialect of `config.json`.

use std::collections::HashMap;
use std::path::Path;

use candle_core::{Device, Tensor};
use serde_json::json;
use vit_backbone::{
    Activation, Description, Error, Family, LoadOptions, NameScheme, Outputs, Pooling, Precision,
    PrecisionSetting, Vit, VitConfig, catalogue,
};

use crate::{every_family, largest_difference, normal, scrambled};

/// Writes a directory; `prefix` goes in front of every name.
pub(crate) fn write(folder: &Path, tensors: Vec<(String, Tensor)>, prefix: &str, config: &str) {
    let tensors: HashMap<String, Tensor> =
        tensors.into_iter().map(|(name, tensor)| (format!("{prefix}{name}"), tensor)).collect();
    candle_core::safetensors::save(&tensors, folder.join("model.safetensors")).unwrap();
    std::fs::write(folder.join("config.json"), config).unwrap();
}

pub(crate) fn load(folder: &Path) -> Result<Vit, Error> {
    Vit::load(folder.to_str().unwrap(), &LoadOptions::default())
}

fn same_features(a: &Vit, b: &Vit) {
    let last = a.depth() - 1;
    let wanted = Outputs { norm: true, pooled: true, full_attention_of: Some(last), ..Outputs::default() };
    // Another grid than the trained one, and not square.
    let images = normal("images", &[2, 3, 40, 24]);
    let run = |vit: &Vit| {
        let features = vit.forward(&images, &wanted).unwrap();
        [features.norm.unwrap(), features.pooled.unwrap(), features.full_attention.unwrap()]
    };
    for (a, b) in run(a).iter().zip(&run(b)) {
        assert_eq!(largest_difference(a, b), 0.0);
    }
}

#[test]
fn every_naming_scheme_survives_a_round_trip() {
    for (scheme, config) in every_family() {
        let vit = scrambled(config.clone());
        let folder = tempfile::tempdir().unwrap();
        let description = Description::new(config.clone(), scheme);
        write(folder.path(), vit.file_tensors(scheme).unwrap(), "", &description.to_json());
        let loaded =
            load(folder.path()).unwrap_or_else(|error| panic!("{scheme:?} {:?}: {error}", config.family));
        assert_eq!(loaded.config(), &config);
        same_features(&vit, &loaded);
        assert_eq!(loaded.identity().name, folder.path().to_str().unwrap());
        assert_eq!(loaded.identity().sha256.len(), 64);
        assert_eq!(loaded.preprocess(), vit.preprocess());
    }
}

#[test]
fn strided_tensors_go_out_contiguous() {
    for (scheme, config) in every_family() {
        let vit = scrambled(config.clone());
        let file: HashMap<String, Tensor> = vit.file_tensors(scheme).unwrap().into_iter().collect();
        let strided = |tensor: &Tensor| {
            let last = tensor.rank();
            let strided = Tensor::stack(&[tensor, tensor], last).unwrap().get_on_dim(last, 0).unwrap();
            assert!(!strided.is_contiguous());
            strided
        };
        let tensors = file.iter().map(|(name, tensor)| (name.clone(), strided(tensor))).collect();
        let of_strided = Vit::from_tensors(config, &tensors, scheme).unwrap();
        same_features(&vit, &of_strided);
        for (name, tensor) in of_strided.file_tensors(scheme).unwrap() {
            assert!(tensor.is_contiguous(), "{scheme:?} {name}");
            assert_eq!(largest_difference(&tensor, &file[&name]), 0.0, "{scheme:?} {name}");
        }
    }
}

#[test]
fn configurations_of_transformers_are_read() {
    let sizes = json!({"hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4, "patch_size": 8,
                       "image_size": 32, "intermediate_size": 40, "architectures": ["X"], "torch_dtype": "float32"});
    let with = |more: serde_json::Value| {
        let mut all = sizes.clone();
        all.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        all
    };
    let small = |family| VitConfig { mlp_hidden: 40, ..VitConfig::new(family, (32, 3, 4), 8, 32) };
    let cases = [
        (NameScheme::HfVit, "", small(Family::HfVit), with(json!({"model_type": "vit"}))),
        (
            NameScheme::HfVit,
            "vit.",
            VitConfig { pooling: Pooling::ClassToken, norm_eps: 1e-6, ..small(Family::HfVit) },
            with(
                json!({"model_type": "vit", "layer_norm_eps": 1e-6, "hidden_act": "gelu", "qkv_bias": true}),
            ),
        ),
        (
            NameScheme::HfDinov2,
            "dinov2.",
            VitConfig { mlp_hidden: 64, ..small(Family::HfDinov2) },
            with(json!({"model_type": "dinov2", "mlp_ratio": 2, "layerscale_value": 1.0})),
        ),
        (
            NameScheme::HfDinov2,
            "",
            VitConfig {
                activation: Activation::Swiglu,
                mlp_hidden: 88,
                registers: 2,
                ..small(Family::HfDinov2Reg)
            },
            with(
                json!({"model_type": "dinov2_with_registers", "num_register_tokens": 2, "use_swiglu_ffn": true}),
            ),
        ),
        (
            NameScheme::HfDinov3,
            "",
            small(Family::HfDinov3),
            with(json!({"model_type": "dinov3_vit", "num_register_tokens": 4, "rope_theta": 100.0})),
        ),
        (
            NameScheme::HfDinov3,
            "",
            VitConfig { activation: Activation::Swiglu, ..small(Family::HfDinov3) },
            with(json!({"model_type": "dinov3_vit", "num_register_tokens": 4, "use_gated_mlp": true,
                        "hidden_act": "silu", "rope_parameters": {"rope_theta": 100.0, "rope_type": "default"}})),
        ),
        (
            NameScheme::HfClip,
            "vision_model.",
            small(Family::HfClipVision),
            with(json!({"model_type": "clip_vision_model"})),
        ),
        (
            NameScheme::HfClip,
            "vision_model.",
            VitConfig { activation: Activation::GeluErf, ..small(Family::HfClipVision) },
            json!({"model_type": "clip", "vision_config": with(json!({"hidden_act": "gelu"}))}),
        ),
    ];
    for (scheme, prefix, config, json) in cases {
        let vit = scrambled(config.clone());
        let folder = tempfile::tempdir().unwrap();
        let mut tensors = vit.file_tensors(scheme).unwrap();
        // What a file may also hold.
        tensors.push(("embeddings.mask_token".to_owned(), normal("mask", &[1, 32])));
        write(folder.path(), tensors, prefix, &json.to_string());
        let loaded = load(folder.path()).unwrap_or_else(|error| panic!("{json}: {error}"));
        assert_eq!(loaded.config(), &config, "{json}");
        same_features(&vit, &loaded);
    }
}

#[test]
fn configurations_of_timm_are_read() {
    let json = json!({
        "architecture": "vit_tiny_patch16_32", "num_classes": 3, "num_features": 192, "global_pool": "avg",
        "pretrained_cfg": {"tag": "augreg", "input_size": [3, 48, 32], "crop_pct": 0.9, "interpolation": "bicubic",
                           "mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225], "crop_mode": "center"},
        "model_args": {"img_size": 32}
    });
    let config = VitConfig {
        pooling: Pooling::MeanThenNorm,
        classes: Some(3),
        ..VitConfig::new(Family::TimmVit, (192, 12, 3), 16, 32)
    };
    let vit = scrambled(config);
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), vit.file_tensors(NameScheme::Timm).unwrap(), "", &json.to_string());
    let options = LoadOptions { head: true, image_size: Some(64), ..LoadOptions::default() };
    let loaded = Vit::load(folder.path().to_str().unwrap(), &options).unwrap();
    assert_eq!(loaded.config(), vit.config());
    same_features(&vit, &loaded);
    assert_eq!(loaded.preprocess().fixed_output_size(), Some((64, 64)));
    assert_eq!(loaded.preprocess().mean, image_prep::IMAGENET_MEAN);
    let logits = Outputs { logits: true, ..Outputs::default() };
    let images = normal("images", &[2, 3, 32, 32]);
    assert_eq!(loaded.forward(&images, &logits).unwrap().logits.unwrap().dims(), [2, 3]);
}

#[test]
fn a_network_computes_in_the_precision_it_is_loaded_in() {
    let (scheme, config) = every_family().swap_remove(10);
    let vit = scrambled(config.clone());
    let folder = tempfile::tempdir().unwrap();
    let description = Description::new(config, scheme).to_json();
    write(folder.path(), vit.file_tensors(scheme).unwrap(), "", &description);
    let images = normal("images", &[2, 3, 40, 24]);
    let run = |vit: &Vit| vit.forward(&images, &Outputs::norm()).unwrap().norm.unwrap();
    let wanted = run(&vit);
    let size = wanted.sqr().unwrap().mean_all().unwrap().to_scalar::<f32>().unwrap().sqrt();
    for (precision, range) in
        [(Precision::F32, 0.0..=0.0), (Precision::Bf16x3, 1e-7..=2e-4), (Precision::Bf16, 1e-3..=1e-1)]
    {
        let options = LoadOptions { precision: PrecisionSetting::Fixed(precision), ..LoadOptions::default() };
        let loaded = Vit::load(folder.path().to_str().unwrap(), &options).unwrap();
        assert_eq!(loaded.precision(), precision);
        let difference = (run(&loaded) - &wanted).unwrap().sqr().unwrap().mean_all().unwrap();
        let relative = difference.to_scalar::<f32>().unwrap().sqrt() / size;
        assert!(range.contains(&relative), "{precision}: {relative}");
    }
}

#[test]
fn truncation_keeps_the_first_blocks_and_the_norm() {
    let (scheme, config) = every_family().swap_remove(10);
    let vit = scrambled(config.clone());
    let folder = tempfile::tempdir().unwrap();
    let description = Description::new(config, scheme).to_json();
    write(folder.path(), vit.file_tensors(scheme).unwrap(), "", &description);
    let options = LoadOptions { blocks: Some(2), ..LoadOptions::default() };
    let short = Vit::load(folder.path().to_str().unwrap(), &options).unwrap();
    assert_eq!((short.depth(), short.config().depth), (2, 2));
    // What is in use can be written and read again by itself.
    let tensors = short.named_tensors().unwrap().into_iter().collect();
    same_features(&short, &Vit::from_tensors(short.config().clone(), &tensors, NameScheme::Timm).unwrap());
    let images = normal("images", &[1, 3, 32, 32]);
    let wanted = vit.forward(&images, &Outputs::normed_blocks([1])).unwrap();
    let found = short.forward(&images, &Outputs::norm()).unwrap();
    assert_eq!(largest_difference(&wanted.normed_blocks[0], &found.norm.unwrap()), 0.0);
    assert!(matches!(
        short.forward(&images, &Outputs::blocks([2])),
        Err(Error::NoSuchBlock { index: 2, depth: 2 })
    ));
}

/// Blocks come in the order asked for, each with what the single steps give.
#[test]
fn outputs_agree_with_the_single_steps() {
    for (_, config) in every_family() {
        let vit = scrambled(config);
        let images = normal("images", &[2, 3, 45, 33]);
        let class_token = vit.config().class_token;
        let wanted = Outputs {
            embed: true,
            blocks: vec![2, 0],
            normed_blocks: vec![1, 2],
            norm: true,
            pooled: true,
            class_attention_of: class_token.then_some(1),
            full_attention_of: Some(1),
            ..Outputs::default()
        };
        let features = vit.forward(&images, &wanted).unwrap();
        assert_eq!((features.grid, features.prefix_tokens), ((5, 4), vit.prefix_tokens()));
        let rope = vit.rope(45, 33).unwrap();
        let mut tokens = vit.embed(&images).unwrap();
        assert_eq!(tokens.dims(), [2, vit.prefix_tokens() + 20, 32]);
        assert_eq!(largest_difference(&tokens, features.embed.as_ref().unwrap()), 0.0);
        let mut stream = Vec::new();
        for block in vit.blocks() {
            let mut context = vit_backbone::BlockContext { rope: rope.as_ref(), ..Default::default() };
            tokens = block.forward(&tokens, &mut context).unwrap().0;
            stream.push(tokens.clone());
        }
        let normed: Vec<Tensor> = stream.iter().map(|tokens| vit.norm(tokens).unwrap()).collect();
        let close = |a: &Tensor, b: &Tensor| assert!(largest_difference(a, b) < 1e-5);
        close(&features.blocks[0], &stream[2]);
        close(&features.blocks[1], &stream[0]);
        close(&features.normed_blocks[0], &normed[1]);
        close(features.norm.as_ref().unwrap(), &normed[2]);
        close(features.pooled.as_ref().unwrap(), &vit.pool(&normed[2]).unwrap());
        let patches = features.patches(&normed[2]).unwrap();
        assert_eq!(patches.dims(), [2, 20, 32]);
        if class_token {
            let row = features.full_attention.unwrap().narrow(2, 0, 1).unwrap().squeeze(2).unwrap();
            close(&row, features.class_attention.as_ref().unwrap());
            let sums = values_sum(&row);
            assert!(sums.iter().all(|sum| (sum - 1.0).abs() < 1e-5));
        }
    }
}

fn values_sum(rows: &Tensor) -> Vec<f32> {
    crate::values(&rows.sum(2).unwrap())
}

/// The backbone inside the program: sizes as its origin states them, features of real magnitude.
#[test]
fn the_embedded_backbone_loads_without_any_file() {
    let options = LoadOptions { image_size: Some(84), ..LoadOptions::default() };
    let vit = Vit::load("dinov2-small-b9", &options).unwrap();
    assert_eq!((vit.dim(), vit.depth(), vit.patch(), vit.prefix_tokens()), (384, 9, (14, 14), 1));
    assert_eq!(vit.identity().name, "dinov2-small-b9");
    assert_eq!(vit.identity().licence, "Apache-2.0");
    assert_eq!(vit.preprocess().fixed_output_size(), Some((84, 84)));
    let features = vit.forward(&normal("images", &[1, 3, 84, 84]), &Outputs::norm()).unwrap();
    let norm = features.norm.unwrap();
    assert_eq!(norm.dims(), [1, 37, 384]);
    let spread = crate::values(&norm).iter().map(|v| v * v).sum::<f32>() / (37.0 * 384.0);
    assert!((0.5..2.0).contains(&spread), "{spread}");
}

#[test]
fn catalogue_entries_say_what_their_files_hold() {
    // A file with the entry's configuration loads under the entry's names; checked where it is small.
    for entry in catalogue::entries() {
        let mut config = entry.config.clone();
        (config.dim, config.depth, config.heads, config.mlp_hidden) = (16, 1, 2, 24);
        config.trained_size = (2 * config.patch.0, 2 * config.patch.1);
        let vit = scrambled(config.clone());
        let tensors = vit.file_tensors(entry.names).unwrap().into_iter().collect();
        let loaded = Vit::from_tensors(config, &tensors, entry.names).unwrap();
        assert_eq!(loaded.device().location(), Device::Cpu.location(), "{}", entry.name);
        assert_eq!(
            NameScheme::detect(tensors.keys().map(String::as_str)).unwrap().0,
            entry.names,
            "{}",
            entry.name
        );
    }
}
