//! Networks whose layers keep half types: tokens, norms and probabilities stay f32, what lies between layers does not.

use std::collections::HashMap;

use candle_core::{DType, Tensor};
use vit_backbone::{Features, NameScheme, Outputs, Vit};

use crate::{every_family, normal, scrambled};

/// The size of the difference by that of `b`, root mean squares.
fn relative_difference(a: &Tensor, b: &Tensor) -> f64 {
    let square = |t: Tensor| f64::from(t.sqr().unwrap().mean_all().unwrap().to_scalar::<f32>().unwrap());
    (square((a - b).unwrap()) / square(b.clone())).sqrt()
}

#[test]
fn every_family_runs_with_half_weights_on_f32_images() {
    for (_, config) in every_family() {
        // The host multiplies f16, which stands here for a GPU's bf16.
        let mut tensors: HashMap<String, Tensor> =
            scrambled(config.clone()).named_tensors().unwrap().into_iter().collect();
        for (name, tensor) in &mut tensors {
            if name.ends_with("weight") && tensor.rank() > 1 {
                // Both networks have these digits, so that only what lies between differs.
                *tensor = tensor.to_dtype(DType::F16).unwrap();
            }
        }
        let network = |tensors: &HashMap<String, Tensor>| {
            Vit::from_tensors(config.clone(), tensors, NameScheme::Timm).unwrap()
        };
        let half = network(&tensors);
        for tensor in tensors.values_mut() {
            *tensor = tensor.to_dtype(DType::F32).unwrap();
        }
        let single = network(&tensors);

        let (height, width) = config.trained_size;
        let images = normal("images", &[2, 3, height, width]);
        let wanted = Outputs {
            blocks: vec![0, 2],
            norm: true,
            pooled: true,
            full_attention_of: Some(1),
            ..Outputs::default()
        };
        let (half, single) =
            (half.forward(&images, &wanted).unwrap(), single.forward(&images, &wanted).unwrap());
        let all = |features: &Features| {
            let Features { norm, pooled, full_attention, .. } = features.clone();
            [features.blocks.clone(), [norm, pooled, full_attention].into_iter().flatten().collect()].concat()
        };
        for (half, single) in all(&half).iter().zip(all(&single)) {
            assert_eq!(half.dtype(), DType::F32, "{:?}", config.family);
            let difference = relative_difference(half, &single);
            // Not the same: they were rounded. Not far: by 2^-11 here and there.
            assert!(difference > 1e-6 && difference < 1e-2, "{:?}: {difference}", config.family);
        }
    }
}
