//! EVA-02 against timm's own code, with small seeded networks (`make_eva02.py`).

use std::collections::HashMap;
use std::path::Path;

use candle_core::{Device, Tensor};
use serde_json::json;
use vit_backbone::{Family, LoadOptions, NameScheme, Outputs, Positions, Vit, VitConfig};

use crate::largest_difference;
use crate::loading::write;

fn reference() -> HashMap<String, Tensor> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/vit_backbone/eva02.safetensors");
    candle_core::safetensors::load(path, &Device::Cpu).unwrap()
}

fn weights(reference: &HashMap<String, Tensor>, kind: &str) -> HashMap<String, Tensor> {
    let prefix = format!("{kind}.w.");
    let own = |(name, t): (&String, &Tensor)| Some((name.strip_prefix(&prefix)?.to_owned(), t.clone()));
    reference.iter().filter_map(own).collect()
}

fn config(kind: &str) -> VitConfig {
    VitConfig { mlp_norm: kind == "split", ..VitConfig::new(Family::TimmEva02, (24, 2, 2), 4, 16) }
}

#[test]
fn tokens_are_timm_s_at_the_trained_and_at_another_grid() {
    let reference = reference();
    for kind in ["packed", "split"] {
        let weights = weights(&reference, kind);
        let names = weights.keys().map(String::as_str);
        assert_eq!(NameScheme::detect(names), Some((NameScheme::TimmEva02, "")));
        let vit = Vit::from_tensors(config(kind), &weights, NameScheme::TimmEva02).unwrap();
        for grid in ["trained", "other"] {
            let get = |name: &str| &reference[&format!("{kind}.{grid}.{name}")];
            let wanted = Outputs { blocks: vec![0], norm: true, pooled: true, ..Outputs::default() };
            let found = vit.forward(get("images"), &wanted).unwrap();
            // There is no norm before the pooling: the last tokens are as they are.
            let (norm, pooled) = (found.norm.unwrap(), found.pooled.unwrap());
            for (name, found) in [("block0", &found.blocks[0]), ("tokens", &norm), ("pooled", &pooled)] {
                let largest = get(name).abs().unwrap().max_all().unwrap().to_scalar::<f32>().unwrap();
                let difference = largest_difference(found, get(name)) / largest;
                assert!(difference < 5e-6, "{kind}, {grid} grid, {name}: {difference}");
            }
        }
        // What the numbers hang on.
        for other in [
            VitConfig {
                positions: Positions::TableAndRope {
                    resampling: vit_backbone::Resampling::BicubicAntialias,
                    base: 100.0,
                    reference: 16,
                },
                ..config(kind)
            },
            VitConfig {
                positions: Positions::TableAndRope {
                    resampling: vit_backbone::Resampling::BicubicAntialias,
                    base: 10_000.0,
                    reference: 4,
                },
                ..config(kind)
            },
            VitConfig { norm_eps: 1e-2, ..config(kind) },
        ] {
            let vit = Vit::from_tensors(other, &weights, NameScheme::TimmEva02).unwrap();
            let found = vit.forward(&reference[&format!("{kind}.trained.images")], &Outputs::norm()).unwrap();
            let difference =
                largest_difference(&found.norm.unwrap(), &reference[&format!("{kind}.trained.tokens")]);
            assert!(difference > 1e-3, "{kind}: {difference}");
        }
    }
}

#[test]
fn gradients_reach_every_weight_through_the_turned_queries() {
    let reference = reference();
    let vars: HashMap<String, candle_core::Var> = weights(&reference, "split")
        .into_iter()
        .map(|(name, tensor)| (name, candle_core::Var::from_tensor(&tensor).unwrap()))
        .collect();
    let tensors = vars.iter().map(|(name, var)| (name.clone(), var.as_tensor().clone())).collect();
    let vit = Vit::from_tensors(config("split"), &tensors, NameScheme::TimmEva02).unwrap();
    let features = vit.forward(&reference["split.trained.images"], &Outputs::pooled()).unwrap();
    let store = features.pooled.unwrap().sqr().unwrap().sum_all().unwrap().backward().unwrap();
    for (name, var) in &vars {
        let gradient = store.get(var).unwrap_or_else(|| panic!("{name} has no gradient"));
        let most = gradient.abs().unwrap().max_all().unwrap().to_scalar::<f32>().unwrap();
        assert!(most > 0.0, "{name}");
    }
}

#[test]
fn a_directory_of_timm_is_read() {
    let reference = reference();
    let folder = tempfile::tempdir().unwrap();
    // A registered architecture has its registered sizes: the small weights don't fit it, and the message says so.
    let text = json!({"architecture": "eva02_tiny_patch14_224", "global_pool": "avg"}).to_string();
    write(folder.path(), weights(&reference, "packed").into_iter().collect(), "", &text);
    let message =
        Vit::load(folder.path().to_str().unwrap(), &LoadOptions::default()).unwrap_err().to_string();
    assert!(message.contains("patch_embed.proj.weight") && message.contains("192"), "{message}");
    // Weights of the wrong kind: an inner norm that the configuration denies.
    let refused = Vit::from_tensors(config("packed"), &weights(&reference, "split"), NameScheme::TimmEva02);
    let message = refused.unwrap_err().to_string();
    assert!(message.contains("mlp.norm"), "{message}");
}
