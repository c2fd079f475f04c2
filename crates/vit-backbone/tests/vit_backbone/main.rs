//! The crate from outside: reference cases, files of every naming scheme, refusals, memory, other implementations.
#![allow(clippy::unwrap_used)]

mod block_gradients;
mod counting_allocator;
mod eva02;
mod fixtures;
mod half_types;
mod ibot;
mod loading;
mod memory;
mod other_implementations;
mod refusals;
mod training;

use std::collections::HashMap;

use candle_core::{Device, Tensor};
use random_streams::Streams;
use vit_backbone::{Activation, Family, NameScheme, Pooling, Positions, QkvBias, Resampling, Vit, VitConfig};

/// Normal numbers, the same for the same name.
fn normal(name: &str, shape: &[usize]) -> Tensor {
    let mut values = vec![0.0; shape.iter().product()];
    Streams::new(0).stream(name).fill_normal(&mut values);
    Tensor::from_vec(values, shape, &Device::Cpu).unwrap()
}

fn values(tensor: &Tensor) -> Vec<f32> {
    tensor.flatten_all().unwrap().to_vec1().unwrap()
}

fn largest_difference(a: &Tensor, b: &Tensor) -> f32 {
    assert_eq!(a.dims(), b.dims());
    values(a).iter().zip(values(b)).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
}

/// A network whose every tensor is far from its usual start, so that a tensor in the wrong place shows.
fn scrambled(config: VitConfig) -> Vit {
    let plain = Vit::random(config, &mut Streams::new(1).stream("init"), &Device::Cpu).unwrap();
    let tensors: HashMap<String, Tensor> = plain
        .named_tensors()
        .unwrap()
        .into_iter()
        .map(|(name, tensor)| {
            let noise = (normal(&name, tensor.dims()) * 0.2).unwrap();
            let moved = (tensor + noise).unwrap();
            (name, moved)
        })
        .collect();
    Vit::from_tensors(plain.config().clone(), &tensors, NameScheme::Timm).unwrap()
}

/// One small network of every family, with its usual naming scheme.
fn every_family() -> Vec<(NameScheme, VitConfig)> {
    let small = |family| VitConfig::new(family, (32, 3, 4), 8, 32);
    let timm_registers = VitConfig { registers: 2, ..small(Family::TimmDinov2Reg) };
    let original_registers = VitConfig {
        registers: 2,
        activation: Activation::Swiglu,
        mlp_hidden: 24,
        positions: Positions::Table(Resampling::BicubicAntialias),
        ..small(Family::FbDinov2)
    };
    let no_class_token = VitConfig {
        class_token: false,
        pooling: Pooling::MeanThenNorm,
        trained_size: (32, 24),
        ..small(Family::TimmVit)
    };
    vec![
        (NameScheme::Timm, small(Family::TimmVit)),
        (NameScheme::Timm, no_class_token),
        (NameScheme::Timm, timm_registers),
        (NameScheme::Timm, small(Family::TimmClip)),
        (NameScheme::Timm, VitConfig { activation: Activation::Swiglu, ..small(Family::TimmDinov2) }),
        (NameScheme::TimmEva, small(Family::TimmDinov3)),
        (
            NameScheme::TimmEva,
            VitConfig {
                qkv_bias: QkvBias::QueryValue,
                activation: Activation::Swiglu,
                ..small(Family::TimmDinov3)
            },
        ),
        (NameScheme::TimmEva02, small(Family::TimmEva02)),
        (NameScheme::TimmEva02, VitConfig { mlp_norm: true, ..small(Family::TimmEva02) }),
        (NameScheme::Original, small(Family::FbDino)),
        (NameScheme::Original, original_registers),
        (NameScheme::HfVit, small(Family::HfVit)),
        (NameScheme::HfDinov2, small(Family::HfDinov2)),
        (
            NameScheme::HfDinov2,
            VitConfig { activation: Activation::Swiglu, mlp_hidden: 88, ..small(Family::HfDinov2Reg) },
        ),
        (NameScheme::HfDinov3, small(Family::HfDinov3)),
        (NameScheme::HfDinov3, VitConfig { activation: Activation::Swiglu, ..small(Family::HfDinov3) }),
        (NameScheme::HfClip, small(Family::HfClipVision)),
        (NameScheme::PytorchPretrainedVit, small(Family::PytorchPretrainedVit)),
    ]
}
