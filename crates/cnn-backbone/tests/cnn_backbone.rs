//! The crate from outside: torchvision's numbers, files, refusals.
#![allow(clippy::unwrap_used)]

use std::collections::HashMap;
use std::path::Path;

use candle_core::{DType, Device, Tensor};
use cnn_backbone::{BlockKind, Error, LoadOptions, ResNet, ResNetConfig, RunningStatistics, neighbourhoods};
use random_streams::Streams;

const TINY: ResNetConfig =
    ResNetConfig { kind: BlockKind::Bottleneck, blocks: [1, 2, 1, 1], stem: 4, width: 8 };

fn tiny(config: ResNetConfig) -> ResNet {
    ResNet::random(config, &mut Streams::new(0).stream("init"), &Device::Cpu).unwrap()
}

/// Numbers in [0, 1) as `make_reference.py` makes them.
fn numbers(tensor: u32, count: usize) -> Vec<f32> {
    let start = tensor.wrapping_mul(2_654_435_769).wrapping_add(12_345);
    let number = |index: usize| {
        let mut h = (index as u32).wrapping_mul(2_654_435_761).wrapping_add(start);
        h ^= h >> 15;
        h = h.wrapping_mul(2_246_822_519);
        h ^= h >> 13;
        (h >> 8) as f32 / (1 << 24) as f32
    };
    (0..count).map(number).collect()
}

/// Names and shapes of a network's tensors.
fn shapes(config: &ResNetConfig) -> Vec<(String, Vec<usize>)> {
    let mut all = Vec::new();
    let mut add = |conv: String, norm: String, [outputs, inputs, side]: [usize; 3]| {
        all.push((format!("{conv}.weight"), vec![outputs, inputs, side, side]));
        for part in ["weight", "bias", "running_mean", "running_var"] {
            all.push((format!("{norm}.{part}"), vec![outputs]));
        }
    };
    add("conv1".into(), "bn1".into(), [config.stem, 3, 7]);
    let mut inputs = config.stem;
    for stage in 1..=4 {
        let (inner, outputs) = (config.width << (stage - 1), config.channels(stage));
        for block in 0..config.blocks[stage - 1] {
            let start = format!("layer{stage}.{block}.");
            let convolutions = match config.kind {
                BlockKind::Basic => vec![[outputs, inputs, 3], [outputs, outputs, 3]],
                BlockKind::Bottleneck => vec![[inner, inputs, 1], [inner, inner, 3], [outputs, inner, 1]],
            };
            for (number, shape) in (1..).zip(convolutions) {
                add(format!("{start}conv{number}"), format!("{start}bn{number}"), shape);
            }
            if (stage > 1 && block == 0) || inputs != outputs {
                add(format!("{start}downsample.0"), format!("{start}downsample.1"), [outputs, inputs, 1]);
            }
            inputs = outputs;
        }
    }
    all.sort();
    all
}

/// The network that `make_reference.py` fills, with the tensors under their names behind `prefix`.
fn filled(config: &ResNetConfig, prefix: &str) -> HashMap<String, Tensor> {
    let fill = |(place, (name, shape)): (usize, (String, Vec<usize>))| {
        let count = shape.iter().product();
        let mut values = numbers(place as u32, count);
        for value in &mut values {
            *value = if let [_, inputs, height, width] = shape[..] {
                (*value - 0.5) * 4.0 / ((inputs * height * width) as f32).sqrt()
            } else if name.ends_with("running_var") || name.ends_with("weight") {
                *value + 0.5
            } else {
                *value - 0.5
            };
        }
        (format!("{prefix}{name}"), Tensor::from_vec(values, shape, &Device::Cpu).unwrap())
    };
    shapes(config).into_iter().enumerate().map(fill).collect()
}

fn flat(tensor: &Tensor) -> Vec<f32> {
    tensor.flatten_all().unwrap().to_vec1().unwrap()
}

#[test]
fn maps_and_running_statistics_are_those_of_torchvision() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/reference.safetensors");
    let reference = candle_core::safetensors::load(path, &Device::Cpu).unwrap();
    let images = numbers(1000, 2 * 3 * 64 * 48).into_iter().map(|u| u * 4.0 - 2.0).collect();
    let images = Tensor::from_vec(images, (2, 3, 64, 48), &Device::Cpu).unwrap();
    let near = |found: &[f32], wanted: &str, name: &str| {
        let wanted = flat(&reference[wanted]);
        let scale = wanted.iter().fold(0.0_f32, |most, value| most.max(value.abs()));
        assert!(found.len() == wanted.len() && scale > 0.1, "{name}: {scale}");
        let off = found.iter().zip(&wanted).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        assert!(off <= 2e-5 * scale, "{name}: off by {off}, largest {scale}");
    };
    let blocks = [2, 1, 1, 1];
    let basic = ResNetConfig { blocks, ..ResNetConfig::RESNET18 };
    for (name, config) in
        [("basic", basic), ("wide", ResNetConfig { blocks, ..ResNetConfig::WIDE_RESNET50_2 })]
    {
        let network = ResNet::from_tensors(&filled(&config, "")).unwrap();
        assert_eq!(network.config(), &config);
        let all = [1, 2, 3, 4];
        let mut running = RunningStatistics::default();
        let by_batch = network.stages_of_batch(&images, &all, &mut running).unwrap();
        for (mode, maps) in [("eval", network.stages(&images, &all).unwrap()), ("batch", by_batch)] {
            for (stage, map) in (1..).zip(maps) {
                let sample: Vec<f32> = flat(&map).into_iter().step_by(13).collect();
                near(&sample, &format!("{name}.{mode}.{stage}"), &format!("{name}, stage {stage}, {mode}"));
            }
        }
        for norm in ["bn1", "layer1.0.bn2", "layer2.0.downsample.1"] {
            let (mean, variance) = &running.0[norm];
            near(&flat(mean), &format!("{name}.after.{norm}.running_mean"), norm);
            near(&flat(variance), &format!("{name}.after.{norm}.running_var"), norm);
        }
    }
}

fn images(batch: usize, side: usize) -> Tensor {
    let values = numbers(7, batch * 3 * side * side);
    Tensor::from_vec(values, (batch, 3, side, side), &Device::Cpu).unwrap()
}

#[test]
fn an_image_s_maps_do_not_depend_on_the_batch() {
    let network = tiny(TINY);
    let together = network.stages(&images(3, 40), &[3, 1]).unwrap();
    assert_eq!(together[0].dims(), [3, 16, 10, 10]);
    assert_eq!(together[1].dims(), [3, 64, 3, 3]);
    for (maps, stage) in together.iter().zip([1, 3]) {
        let alone = images(3, 40).narrow(0, 1, 1).unwrap();
        let alone = network.stages(&alone, &[stage]).unwrap();
        assert_eq!(flat(&maps.get(1).unwrap()), flat(&alone[0]));
    }
}

#[test]
fn drifted_statistics_go_back_in() {
    let network = tiny(TINY);
    let mut running = network.running_statistics();
    assert_eq!(running.0.len(), 1 + 5 * 3 + 4);
    let before = network.stages(&images(2, 32), &[2]).unwrap();
    network.stages_of_batch(&images(2, 32), &[2], &mut running).unwrap();
    let moved = network.with_statistics(&running).unwrap();
    assert_ne!(flat(&before[0]), flat(&moved.stages(&images(2, 32), &[2]).unwrap()[0]));
    // The network itself has not changed.
    assert_eq!(flat(&before[0]), flat(&network.stages(&images(2, 32), &[2]).unwrap()[0]));
    let (first, second) = (&running.0["bn1"], &network.running_statistics().0["bn1"]);
    assert_ne!(flat(&first.0), flat(&second.0));

    let wrong = Tensor::zeros(3, DType::F32, &Device::Cpu).unwrap();
    running.0.insert("bn1".into(), (wrong.clone(), wrong.clone()));
    assert!(network.with_statistics(&running).unwrap_err().to_string().contains("bn1"));
    let unknown = RunningStatistics([("bn9".to_owned(), (wrong.clone(), wrong))].into());
    assert!(network.with_statistics(&unknown).unwrap_err().to_string().contains("bn9"));
}

#[test]
fn a_directory_is_read_and_names_what_it_lacks() {
    let parent = tempfile::tempdir().unwrap();
    let folder = parent.path().join("small_resnet");
    std::fs::create_dir(&folder).unwrap();
    let mut tensors = filled(&TINY, "module.");
    // What files hold besides.
    tensors.insert("module.fc.weight".into(), Tensor::zeros((5, 128), DType::F32, &Device::Cpu).unwrap());
    let path = folder.join("model.safetensors");
    candle_core::safetensors::save(&tensors, &path).unwrap();
    let load = || ResNet::load(folder.to_str().unwrap(), &LoadOptions::default());
    let network = load().unwrap();
    assert_eq!(network.config(), &TINY);
    assert_eq!(network.identity().name, folder.to_str().unwrap());
    assert_eq!(network.identity().sha256.len(), 64);

    let wrong = Tensor::zeros((8, 4, 3, 3), DType::F32, &Device::Cpu).unwrap();
    tensors.insert("module.layer2.1.conv1.weight".into(), wrong);
    candle_core::safetensors::save(&tensors, &path).unwrap();
    let message = load().unwrap_err().to_string();
    assert!(message.contains("layer2.1.conv1.weight") && message.contains("[16, 32, 1, 1]"), "{message}");
    tensors.remove("module.bn1.running_var");
    candle_core::safetensors::save(&tensors, &path).unwrap();
    let message = load().unwrap_err().to_string();
    assert!(message.contains("module.bn1.running_var") && message.contains("none"), "{message}");
}

#[test]
fn unknown_names_stages_and_images_are_refused() {
    let unknown = ResNet::load("wide_resnet50", &LoadOptions::default()).unwrap_err();
    assert!(
        matches!(&unknown, Error::UnknownName { nearest, .. } if nearest[0].starts_with("wide_resnet50_2"))
    );
    let network = tiny(TINY);
    for stages in [&[][..], &[0], &[5]] {
        let message = network.stages(&images(1, 32), stages).unwrap_err().to_string();
        assert!(message.contains("1 to 4"), "{message}");
    }
    let grey = Tensor::zeros((1, 1, 32, 32), DType::F32, &Device::Cpu).unwrap();
    assert!(network.stages(&grey, &[1]).unwrap_err().to_string().contains("(B, 3, H, W)"));
}

#[test]
fn neighbours_are_averaged_and_coarser_maps_enlarged() {
    let ones = |side: usize| Tensor::ones((1, 1, side, side), DType::F32, &Device::Cpu).unwrap();
    let features = neighbourhoods(&[ones(4), ones(2)], 0, 3).unwrap();
    assert_eq!(features.dims(), [1, 16, 2]);
    let rows = features.squeeze(0).unwrap().to_vec2::<f32>().unwrap();
    // Zeros beyond the edge count: 4, 6 or 9 of 9 neighbours are there.
    for (place, share) in [(0, 4.0), (1, 6.0), (5, 9.0)] {
        assert!(rows[place].iter().all(|v| (v - share / 9.0_f32).abs() < 1e-6), "{place}: {:?}", rows[place]);
    }
    assert_eq!(neighbourhoods(&[ones(4), ones(2)], 1, 1).unwrap().dims(), [1, 4, 2]);
    assert!(neighbourhoods(&[ones(4)], 1, 3).is_err() && neighbourhoods(&[ones(4)], 0, 0).is_err());
}
