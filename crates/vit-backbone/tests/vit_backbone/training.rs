//! Trainable blocks: fresh students, copies, gradients, dropout, saving.

use std::collections::HashMap;

use candle_core::{DType, Device, Tensor, Var};
use random_streams::Streams;
use vit_backbone::{
    Activation, Block, BlockContext, BlockDropout, Family, NameScheme, Outputs, QkvBias, TrainableBlock, Vit,
    VitConfig,
};

use crate::{every_family, largest_difference, normal, scrambled, values};

/// Gated, scaled, rotary, without a key bias: every part at once.
fn dinov3() -> VitConfig {
    VitConfig {
        activation: Activation::Swiglu,
        mlp_hidden: 24,
        ..VitConfig::new(Family::HfDinov3, (32, 3, 4), 8, 32)
    }
}

#[test]
fn a_student_starts_as_documented() {
    for config in [VitConfig::new(Family::PytorchPretrainedVit, (32, 3, 4), 8, 32), dinov3()] {
        let draw = || {
            let mut stream = Streams::new(7).stream("init");
            TrainableBlock::student(&config.block(), &mut stream, &Device::Cpu).unwrap()
        };
        let (student, again) = (draw(), draw());
        for ((name, var), (_, same)) in student.vars().iter().zip(again.vars()) {
            let found = values(var);
            assert_eq!(found, values(same), "{name}");
            let largest = found.iter().fold(0.0_f32, |largest, v| largest.max(v.abs()));
            let bound = |fan_in: f32, fan_out: f32| (6.0 / (fan_in + fan_out)).sqrt();
            match name.as_str() {
                "norm1.weight" | "norm2.weight" | "ls1.gamma" | "ls2.gamma" => {
                    assert!(found.iter().all(|v| *v == 1.0), "{name}");
                }
                "norm1.bias" | "norm2.bias" => assert_eq!(largest, 0.0, "{name}"),
                // Three layers side by side, each 32 -> 32, however they are stored.
                "attn.qkv.weight" | "attn.proj.weight" => {
                    let bound = bound(32.0, 32.0);
                    assert!(largest <= bound && largest > 0.97 * bound, "{name} {largest} {bound}");
                }
                "mlp.fc1.weight" | "mlp.fc2.weight" => {
                    let bound = bound(32.0, config.mlp_hidden as f32);
                    assert!(largest <= bound && largest > 0.97 * bound, "{name} {largest} {bound}");
                }
                _ => assert!(largest > 0.0 && largest < 1e-5, "{name} {largest}"),
            }
        }
        let key_bias = student.vars().iter().any(|(name, _)| name == "attn.qkv.bias");
        assert_eq!(key_bias, config.qkv_bias == QkvBias::All);
    }
}

#[test]
fn every_weight_of_every_family_gets_a_gradient() {
    for (_, config) in every_family() {
        let vit = scrambled(config);
        let rope = vit.rope(32, 32).unwrap();
        let tokens = normal("tokens", &[2, vit.prefix_tokens() + 16, 32]);
        let student = vit.blocks()[1].trainable().unwrap();
        let mut context = BlockContext { rope: rope.as_ref(), ..BlockContext::default() };
        let (out, _) = student.forward(&tokens, &mut context).unwrap();
        let (frozen, _) = vit.blocks()[1].forward(&tokens, &mut context).unwrap();
        assert!(out.track_op() && largest_difference(&out, &frozen) < 1e-5);
        let gradients =
            (out * normal("cotangent", tokens.dims())).unwrap().sum_all().unwrap().backward().unwrap();
        for (name, var) in student.vars() {
            let gradient = gradients.get(var).unwrap_or_else(|| panic!("{name} has no gradient"));
            assert!(values(gradient).iter().any(|v| *v != 0.0), "{name}");
        }
    }
}

/// Gradients of a whole network arrive under the file's names, joined or not, and are the slope of the function.
#[test]
fn every_tensor_of_a_file_gets_its_gradient() {
    for (scheme, config) in every_family() {
        let plain = scrambled(config.clone());
        let file: HashMap<String, Tensor> = plain.file_tensors(scheme).unwrap().into_iter().collect();
        let vars: HashMap<String, Var> =
            file.iter().map(|(name, tensor)| (name.clone(), Var::from_tensor(tensor).unwrap())).collect();
        let tracked = vars.iter().map(|(name, var)| (name.clone(), var.as_tensor().clone())).collect();
        let vit = Vit::from_tensors(config.clone(), &tracked, scheme).unwrap();
        let images = Var::from_tensor(&normal("images", &[1, 3, 40, 32])).unwrap();
        let scalar = |vit: &Vit, images: &Tensor| {
            let features =
                vit.forward(images, &Outputs { pooled: true, norm: true, ..Outputs::default() }).unwrap();
            let norm = features.norm.unwrap();
            let first = (&norm * normal("cotangent", norm.dims())).unwrap().sum_all().unwrap();
            let pooled = features.pooled.unwrap();
            (first + (&pooled * normal("pooled", pooled.dims())).unwrap().sum_all().unwrap()).unwrap()
        };
        let gradients = scalar(&vit, images.as_tensor()).backward().unwrap();
        assert!(gradients.get(&images).is_some());

        // The slope along a direction, against a central difference of the frozen network.
        let mut slope = 0.0;
        for (name, var) in &vars {
            let gradient = gradients.get(var).unwrap_or_else(|| panic!("{scheme:?}: {name} has no gradient"));
            let along = (gradient * normal(name, var.dims())).unwrap();
            slope += f64::from(along.sum_all().unwrap().to_scalar::<f32>().unwrap());
        }
        let moved = |step: f64| {
            let tensors = file
                .iter()
                .map(|(name, tensor)| {
                    let step = (normal(name, tensor.dims()) * step).unwrap();
                    (name.clone(), (tensor + step).unwrap())
                })
                .collect();
            let vit = Vit::from_tensors(config.clone(), &tensors, scheme).unwrap();
            f64::from(scalar(&vit, images.as_tensor()).to_scalar::<f32>().unwrap())
        };
        let difference = (moved(2e-4) - moved(-2e-4)) / 4e-4;
        let size = difference.abs().max(50.0);
        assert!(
            (slope - difference).abs() < 0.03 * size,
            "{scheme:?} {:?}: {slope} {difference}",
            config.family
        );
    }
}

#[test]
fn weights_go_out_and_in_and_the_original_stays() {
    let vit = scrambled(dinov3());
    let (rope, tokens) = (vit.rope(32, 32).unwrap(), normal("tokens", &[1, 21, 32]));
    let run = |block: &dyn Fn(&mut BlockContext) -> Tensor| {
        block(&mut BlockContext { rope: rope.as_ref(), ..BlockContext::default() })
    };
    let block = &vit.blocks()[0];
    let before = run(&|context| block.forward(&tokens, context).unwrap().0);
    let student = block.trainable().unwrap();
    let saved: HashMap<String, Tensor> = student.named_tensors().unwrap().into_iter().collect();
    for (name, var) in student.vars() {
        var.set(&(var.as_tensor() + normal(name, var.dims())).unwrap()).unwrap();
    }
    let moved = run(&|context| student.forward(&tokens, context).unwrap().0);
    assert!(largest_difference(&before, &moved) > 0.1);
    let frozen = student.detached().unwrap();
    let detached = run(&|context| frozen.forward(&tokens, context).unwrap().0);
    let size = values(&moved).iter().fold(0.0_f32, |size, v| size.max(v.abs()));
    assert!(!detached.track_op());
    assert!(largest_difference(&moved, &detached) < 1e-5 * size);
    student.load(&saved).unwrap();
    let restored = run(&|context| student.detached().unwrap().forward(&tokens, context).unwrap().0);
    assert_eq!(largest_difference(&before, &restored), 0.0);
    assert_eq!(largest_difference(&before, &run(&|context| block.forward(&tokens, context).unwrap().0)), 0.0);
    let mut short = saved;
    short.remove("ls2.gamma");
    assert!(student.load(&short).unwrap_err().to_string().contains("ls2.gamma"));
}

#[test]
fn weights_of_another_type_go_out_and_in() {
    let vit = scrambled(dinov3());
    let block = &vit.blocks()[0];
    let wide: HashMap<String, Tensor> = block
        .named_tensors()
        .unwrap()
        .into_iter()
        .map(|(name, tensor)| (name, (tensor.to_dtype(DType::F64).unwrap() / 3.0).unwrap()))
        .collect();
    let student = TrainableBlock::from_tensors(block.config(), &wide).unwrap();
    let saved: HashMap<String, Tensor> = student.named_tensors().unwrap().into_iter().collect();
    for (_, var) in student.vars() {
        var.set(&var.zeros_like().unwrap()).unwrap();
    }
    student.load(&saved).unwrap();
    for (name, var) in student.vars() {
        let off = (var.as_tensor() - &wide[name]).unwrap().abs().unwrap().max_all().unwrap();
        assert_eq!(off.to_scalar::<f64>().unwrap(), 0.0, "{name}");
    }
    // What is narrower is widened.
    let narrow = block.named_tensors().unwrap().into_iter().collect();
    student.load(&narrow).unwrap();
    for (name, var) in student.vars() {
        assert_eq!(largest_difference(&var.to_dtype(DType::F32).unwrap(), &narrow[name]), 0.0, "{name}");
    }
}

#[test]
fn a_table_follows_its_var_at_every_size() {
    let plain = scrambled(VitConfig::new(Family::TimmVit, (32, 1, 4), 8, 32));
    let mut tensors: HashMap<String, Tensor> = plain.named_tensors().unwrap().into_iter().collect();
    let table = Var::from_tensor(&tensors["pos_embed"]).unwrap();
    tensors.insert("pos_embed".to_owned(), table.as_tensor().clone());
    let vit = Vit::from_tensors(plain.config().clone(), &tensors, NameScheme::Timm).unwrap();
    for (height, width) in [(32, 32), (40, 32)] {
        let at = |vit: &Vit| vit.position_table(height, width).unwrap().unwrap();
        let before = at(&vit).copy().unwrap();
        table.set(&(table.as_tensor() * 2.0).unwrap()).unwrap();
        assert!(largest_difference(&at(&vit), &(before * 2.0).unwrap()) < 1e-5, "{height}x{width}");
        let gradients = at(&vit).sum_all().unwrap().backward().unwrap();
        assert!(gradients.get(&table).is_some(), "{height}x{width}");
    }
}

#[test]
fn a_block_goes_through_every_naming_scheme() {
    for (scheme, config) in every_family() {
        let vit = scrambled(config);
        let block = &vit.blocks()[2];
        let file: HashMap<String, Tensor> = scheme
            .block_tensors(block.config(), &block.named_tensors().unwrap())
            .unwrap()
            .into_iter()
            .map(|(name, tensor)| (format!("transformer.cloned_blocks.2.{name}"), tensor))
            .collect();
        let read = Block::from_named(scheme, *block.config(), &file, "transformer.cloned_blocks.2.").unwrap();
        for ((name, a), (_, b)) in block.named_tensors().unwrap().iter().zip(read.named_tensors().unwrap()) {
            assert_eq!(largest_difference(a, &b), 0.0, "{scheme:?} {name}");
        }
    }
    // Names a scheme does not have are refused, not dropped.
    let block = scrambled(dinov3()).blocks()[0].clone();
    let tensors = block.named_tensors().unwrap();
    assert!(NameScheme::PytorchPretrainedVit.block_tensors(block.config(), &tensors).is_err());
}

#[test]
fn dropout_acts_in_its_three_places() {
    let vit = scrambled(VitConfig::new(Family::PytorchPretrainedVit, (32, 1, 4), 8, 32));
    let block = &vit.blocks()[0];
    let tokens = normal("tokens", &[2, 17, 32]);
    let run = |dropout: Option<BlockDropout<'_>>| with_dropout(block, &tokens, dropout);
    let plain = run(None);
    let drawn = |seed| {
        let mut stream = Streams::new(seed).stream("dropout");
        run(Some(BlockDropout::Drawn { rate: 0.3, stream: &mut stream }))
    };
    assert_eq!(largest_difference(&drawn(0), &drawn(0)), 0.0);
    assert!(largest_difference(&drawn(0), &drawn(1)) > 0.01);
    assert!(largest_difference(&drawn(0), &plain) > 0.01);
    let mut stream = Streams::new(0).stream("dropout");
    assert_eq!(
        largest_difference(&run(Some(BlockDropout::Drawn { rate: 0.0, stream: &mut stream })), &plain),
        0.0
    );

    let ones = |shape: &[usize]| Tensor::ones(shape, candle_core::DType::F32, &Device::Cpu).unwrap();
    let (all, none) = (ones(&[2, 17, 32]), ones(&[2, 17, 32]).zeros_like().unwrap());
    let attention = ones(&[2, 4, 17, 17]);
    let given = |projection, mlp| {
        run(Some(BlockDropout::Given { rate: 0.5, attention: &attention, projection, mlp }))
    };
    // Both branches dropped whole: the stream passes untouched.
    assert_eq!(largest_difference(&given(&none, &none), &tokens), 0.0);
    // The feed-forward branch alone, kept whole: doubled.
    let twice = given(&none, &all);
    let hidden = block_mlp(block, &tokens);
    let expected = (&tokens + (hidden * 2.0).unwrap()).unwrap();
    assert!(largest_difference(&twice, &expected) < 1e-4);
    let wrong = ones(&[2, 17, 31]);
    let mut context = BlockContext {
        dropout: Some(BlockDropout::Given {
            rate: 0.5,
            attention: &attention,
            projection: &wrong,
            mlp: &all,
        }),
        ..BlockContext::default()
    };
    assert!(block.forward(&tokens, &mut context).is_err());
}

fn with_dropout(block: &Block, tokens: &Tensor, dropout: Option<BlockDropout<'_>>) -> Tensor {
    block.forward(tokens, &mut BlockContext { dropout, ..BlockContext::default() }).unwrap().0
}

/// `fc2(gelu(fc1(norm2(x))))` by hand.
fn block_mlp(block: &Block, x: &Tensor) -> Tensor {
    let tensors: HashMap<String, Tensor> = block.named_tensors().unwrap().into_iter().collect();
    let get = |name: &str| tensors[name].clone();
    let linear = |x: &Tensor, name: &str| {
        let weight = get(&format!("{name}.weight")).t().unwrap();
        x.broadcast_matmul(&weight).unwrap().broadcast_add(&get(&format!("{name}.bias"))).unwrap()
    };
    let normed = vit_ops::layer_norm(x, &get("norm2.weight"), &get("norm2.bias"), 1e-6).unwrap();
    linear(&linear(&normed, "mlp.fc1").gelu_erf().unwrap(), "mlp.fc2")
}
