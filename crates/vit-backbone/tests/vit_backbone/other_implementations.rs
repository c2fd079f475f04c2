//! candle-transformers with the same weights: equal where it is faithful, different where it is known not to be.
//!
//! Its `vit` follows `ViTModel`: exact GELU, epsilon from the configuration, one fixed image size; it gives the class
//! token's logits alone. Its `dinov2` departs from the authors' code in three ways:
//! - positions for another image size are resampled by nearest neighbour, not bicubic;
//! - GELU in its tanh form, not with erf;
//! - layer norms with an epsilon of 1e-5, not 1e-6.

use std::collections::HashMap;

use candle_core::{DType, Device, Tensor};
use candle_nn::VarBuilder;
use candle_transformers::models::{dinov2, vit};
use vit_backbone::{Family, NameScheme, Outputs, Pooling, Vit, VitConfig};

use crate::{largest_difference, normal, scrambled};

#[test]
fn vit_agrees_with_candle_transformers() {
    let config = VitConfig {
        pooling: Pooling::ClassToken,
        mlp_hidden: 72,
        classes: Some(5),
        ..VitConfig::new(Family::HfVit, (48, 3, 4), 8, 32)
    };
    let ours = scrambled(config);
    // As `ViTForImageClassification` stores it: the head beside the model.
    let tensors: HashMap<String, Tensor> = ours
        .file_tensors(NameScheme::HfVit)
        .unwrap()
        .into_iter()
        .map(|(name, tensor)| {
            (if name.starts_with("classifier") { name } else { format!("vit.{name}") }, tensor)
        })
        .collect();
    let theirs = vit::Config {
        hidden_size: 48,
        num_hidden_layers: 3,
        num_attention_heads: 4,
        intermediate_size: 72,
        hidden_act: candle_nn::Activation::Gelu,
        layer_norm_eps: 1e-12,
        image_size: 32,
        patch_size: 8,
        num_channels: 3,
        qkv_bias: true,
    };
    let ours = Vit::from_tensors(ours.config().clone(), &tensors, NameScheme::HfVit).unwrap();
    let builder = VarBuilder::from_tensors(tensors, DType::F32, &Device::Cpu);
    let theirs = vit::Model::new(&theirs, 5, builder).unwrap();
    let images = normal("images", &[3, 3, 32, 32]);
    let wanted = Outputs { logits: true, ..Outputs::default() };
    let found = ours.forward(&images, &wanted).unwrap().logits.unwrap();
    let expected = theirs.forward(&images).unwrap();
    let difference = largest_difference(&found, &expected);
    assert!(difference < 1e-4, "{difference}");
}

#[test]
fn dinov2_of_candle_transformers_differs_in_the_known_ways() {
    let config = VitConfig::new(Family::FbDinov2, (32, 3, 4), 14, 518);
    let ours = scrambled(config);
    let mut tensors: HashMap<String, Tensor> = ours.named_tensors().unwrap().into_iter().collect();
    // It insists on a head.
    tensors.insert("head.weight".to_owned(), normal("head", &[1000, 64]));
    tensors.insert("head.bias".to_owned(), normal("head bias", &[1000]));
    let builder = VarBuilder::from_tensors(tensors, DType::F32, &Device::Cpu);
    let theirs = dinov2::DinoVisionTransformer::new(builder, 3, 32, 4).unwrap();
    let differences = |side: usize| {
        let images = normal("images", &[1, 3, side, side]);
        let expected = theirs.get_intermediate_layers(&images, &[0, 2], false, false, false).unwrap();
        let found = ours.forward(&images, &Outputs::blocks([0, 2])).unwrap();
        [0, 1]
            .map(|i| largest_difference(&found.patches(&found.blocks[i]).unwrap(), &expected.get(i).unwrap()))
    };
    // At the trained size only GELU and epsilon differ: little, but more than rounding.
    let [first, last] = differences(518);
    assert!(first > 2e-5 && last < 5e-2, "{first} {last}");
    // At any other size the positions do, from the first block on.
    let [first, _] = differences(56);
    assert!(first > 5e-2, "{first}");
}
