//! Inference holds the weights once and the activations of one block, not of all.

use std::collections::HashMap;
use std::process::Command;

use candle_core::Device;
use pretrained::Weights;
use random_streams::Streams;
use vit_backbone::{Family, NameScheme, Outputs, Vit, VitConfig};

use crate::counting_allocator::{live, peak_of};
use crate::{every_family, normal};

fn network(depth: usize) -> Vit {
    let config = VitConfig::new(Family::TimmDinov2, (128, depth, 4), 8, 64);
    Vit::random(config, &mut Streams::new(0).stream("init"), &Device::Cpu).unwrap()
}

/// Counts bytes of the whole program: run alone, in a process of its own, by the test below.
#[test]
#[ignore = "run by inference_memory_is_weights_and_one_batch"]
fn measured_alone() {
    let images = normal("images", &[1, 3, 64, 64]);
    // One forward pass of a network, once the threads and their scratch memory are there: which thread does what is
    // chance, so a pass may now and then meet one that has none yet.
    let forward = |depth: usize| {
        let vit = network(depth);
        let run = || vit.forward(&images, &Outputs::norm()).unwrap();
        let mut peaks: Vec<usize> = (0..16).map(|_| peak_of(run).1).collect();
        peaks.sort_unstable();
        // Three passes in four must stay as low: a spike now and then is a thread's first scratch memory, no more.
        peaks[11]
    };
    let (shallow, deep) = (forward(2), forward(16));
    // 65 tokens: the widest moment holds the stream, the normed tokens, the hidden layer before and after its
    // activation, and scratch memory of the matrix product. A graph would add all of it for every block.
    let one_block = 65 * 128 * 4 * 24 + 4 * 65 * 65 * 4 * 4;
    assert!(shallow < one_block, "{shallow} bytes for two blocks, {one_block} allowed");
    assert!(deep < shallow + 65 * 128 * 4 * 2, "{shallow} bytes for 2 blocks, {deep} for 16");

    // Weights are held once: the file's tensors are gone when the network stands.
    let tensors: HashMap<_, _> = network(8).named_tensors().unwrap().into_iter().collect();
    let bytes: usize = tensors.values().map(|tensor| tensor.elem_count() * 4).sum();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.safetensors");
    candle_core::safetensors::save(&tensors, &path).unwrap();
    drop(tensors);
    let before = live();
    let config = VitConfig::new(Family::TimmDinov2, (128, 8, 4), 8, 64);
    let vit = {
        let source = pretrained::Source::File(path);
        let weights = Weights::open(&source, &pretrained::Hub::offline()).unwrap();
        Vit::from_weights(config, &weights, NameScheme::Timm, &Device::Cpu, None).unwrap()
    };
    let held = live() - before;
    assert!(
        held < bytes + bytes / 10,
        "{held} bytes held for {bytes} bytes of weights in {} blocks",
        vit.depth()
    );
}

#[test]
fn inference_memory_is_weights_and_one_batch() {
    let program = std::env::current_exe().unwrap();
    let arguments = ["--ignored", "--exact", "memory::measured_alone", "--test-threads=1"];
    let output = Command::new(program).args(arguments).output().unwrap();
    let text =
        format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success() && text.contains("1 passed"), "{text}");
}

#[test]
fn a_frozen_network_keeps_no_graph() {
    fn shared_between_threads<T: Send + Sync>() {}
    shared_between_threads::<Vit>();
    for (_, config) in every_family() {
        let vit = Vit::random(config, &mut Streams::new(0).stream("init"), &Device::Cpu).unwrap();
        let outputs = Outputs {
            embed: true,
            blocks: vec![0, 2],
            normed_blocks: vec![1],
            norm: true,
            pooled: true,
            full_attention_of: Some(1),
            ..Outputs::default()
        };
        let features = vit.forward(&normal("images", &[2, 3, 32, 32]), &outputs).unwrap();
        let tensors = features.blocks.iter().chain(&features.normed_blocks).chain(&features.embed);
        let tensors = tensors.chain(&features.norm).chain(&features.pooled).chain(&features.full_attention);
        let mut count = 0;
        for tensor in tensors {
            assert!(!tensor.track_op());
            count += 1;
        }
        assert_eq!(count, 7);
        assert!(vit.named_tensors().unwrap().iter().all(|(_, tensor)| !tensor.track_op()));
    }
}
