use std::collections::HashMap;

use anomaly_core::{Images, MethodError, Streams};
use candle_core::Tensor;
use conformance::{Case, HostTensor, Outputs, UnitError};
use optim::AdamOptions;
use vit_backbone::{Block, BlockDropout, NameScheme, TrainableBlock, Vit};

use super::config::CaseConfig;
use super::data::planes;
use super::{integers, put, statistics, table, to_host, to_tensor, vector};
use crate::fit::Trainer;
use crate::loss::image_errors;
use crate::network::{Descriptors, Imitation, Student, walk};
use crate::{Error, Transformaly};

const SCHEME: NameScheme = NameScheme::PytorchPretrainedVit;

/// The names of a student block's tensors start so.
fn student_prefix(index: usize) -> String {
    format!("transformer.cloned_blocks.{index}.")
}

struct Network {
    teacher: Vit,
    weights: HashMap<String, Tensor>,
}

impl Network {
    fn of(case: &Case, config: &CaseConfig) -> Result<Self, UnitError> {
        let mut weights = HashMap::new();
        for (name, host) in case.weights() {
            weights.insert(name.to_owned(), to_tensor(host)?);
        }
        let vit = config.vit(weights.contains_key("fc.weight"))?;
        let own = |(name, _): &(&String, &Tensor)| !name.contains("cloned_blocks");
        let teacher = weights.iter().filter(own).map(|(name, t)| (name.clone(), t.clone())).collect();
        Ok(Self { teacher: Vit::from_tensors(vit, &teacher, SCHEME)?, weights })
    }

    fn student(&self) -> Result<Student, UnitError> {
        let blocks = self.teacher.blocks().iter().enumerate().map(|(index, block)| {
            TrainableBlock::from_named(SCHEME, block.config(), &self.weights, &student_prefix(index))
        });
        Ok(Student { blocks: blocks.collect::<Result<_, _>>()? })
    }

    fn frozen(&self) -> Result<Vec<Block>, UnitError> {
        Ok(self.student()?.frozen()?)
    }
}

pub(super) fn vit_forward(case: &Case) -> Result<Outputs, UnitError> {
    let config = CaseConfig::of(case)?;
    let network = Network::of(case, &config)?;
    let images = to_tensor(case.input("in.images")?)?;
    let depth = network.teacher.depth();
    let wanted = vit_backbone::Outputs {
        embed: true,
        blocks: (0..depth).collect(),
        pooled: true,
        logits: network.teacher.config().classes.is_some(),
        ..vit_backbone::Outputs::default()
    };
    let features = network.teacher.forward(&images, &wanted)?;
    let mut out = Outputs::new();
    for (index, block) in features.blocks.iter().enumerate() {
        put(&mut out, &format!("block_{index}"), to_host(block)?);
    }
    for (name, tensor) in
        [("tokens", features.embed), ("features", features.pooled), ("logits", features.logits)]
    {
        if let Some(tensor) = tensor {
            put(&mut out, name, to_host(&tensor)?);
        }
    }
    Ok(out)
}

pub(super) fn ts_forward(case: &Case) -> Result<Outputs, UnitError> {
    let config = CaseConfig::of(case)?;
    let network = Network::of(case, &config)?;
    let images = to_tensor(case.input("in.images")?)?;
    let (mut teachers, mut students, mut errors) = (vec![], vec![], vec![]);
    walk(&network.teacher, &network.frozen()?, &images, |student, teacher| {
        teachers.push(teacher.clone());
        students.push(student.clone());
        errors.push(image_errors(student, teacher)?);
        Ok(())
    })?;
    let per_image: Vec<Vec<f64>> =
        (0..images.dim(0)?).map(|image| errors.iter().map(|of_block| -of_block[image]).collect()).collect();
    let mut out = Outputs::new();
    put(&mut out, "teacher", to_host(&Tensor::stack(&teachers, 0)?)?);
    put(&mut out, "student", to_host(&Tensor::stack(&students, 0)?)?);
    put(&mut out, "ts_features", table(&per_image, errors.len()));
    Ok(out)
}

pub(super) fn loss_gradients(case: &Case) -> Result<Outputs, UnitError> {
    gradients(case, &CaseConfig::of(case)?, |_, _| Ok(None))
}

pub(super) fn dropout_gradients(case: &Case) -> Result<Outputs, UnitError> {
    gradients(case, &CaseConfig::of(case)?, |who, index| {
        let mask = |place: &str| -> Result<Tensor, UnitError> {
            let host = case.input(&format!("in.mask.{who}.{index}.{place}"))?;
            Ok(Tensor::from_slice(host.as_u8()?, host.shape.clone(), super::device())?)
        };
        Ok(Some([mask("attn")?, mask("proj")?, mask("ffn")?]))
    })
}

/// Loss, outputs and gradients; `masks` gives those of `teacher` or `student` at a block, for the attention, the
/// projection and the feed-forward part.
fn gradients(
    case: &Case,
    config: &CaseConfig,
    masks: impl Fn(&str, usize) -> Result<Option<[Tensor; 3]>, UnitError>,
) -> Result<Outputs, UnitError> {
    let network = Network::of(case, config)?;
    let student = network.student()?;
    let images = to_tensor(case.input("in.images")?)?;
    let depth = network.teacher.depth();
    let rate = config.dropout();
    let mut tokens = network.teacher.embed(&images)?;
    let (mut losses, mut teachers, mut students) = (vec![], vec![], vec![]);
    let mut out = Outputs::new();
    for (index, (block, own)) in network.teacher.blocks().iter().zip(&student.blocks).enumerate() {
        let (of_teacher, of_student) = (masks("teacher", index)?, masks("student", index)?);
        let given = |masks| {
            Option::<&[Tensor; 3]>::map(masks, |[attention, projection, mlp]| BlockDropout::Given {
                rate,
                attention,
                projection,
                mlp,
            })
        };
        let dropout = (given(of_teacher.as_ref()), given(of_student.as_ref()));
        let imitation = Imitation::new(block, own, &tokens, None, dropout)?;
        let loss = imitation.loss()?;
        losses.push(f64::from(loss.to_scalar::<f32>()?));
        let store = (loss / depth as f64)?.backward()?;
        let found = own
            .vars()
            .iter()
            .map(|(name, var)| {
                let gradient = store.get(var).ok_or_else(|| format!("{index}.{name}: no gradient"))?;
                Ok((name.clone(), gradient.clone()))
            })
            .collect::<Result<Vec<_>, UnitError>>()?;
        for (name, gradient) in SCHEME.block_tensors(own.config(), &found)? {
            out.insert(format!("grad.{}{name}", student_prefix(index)), to_host(&gradient)?);
        }
        students.push(imitation.student.detach());
        teachers.push(imitation.teacher.clone());
        tokens = imitation.teacher;
    }
    let mean = losses.iter().sum::<f64>() / depth as f64;
    put(&mut out, "loss", HostTensor::scalar_f64(mean));
    put(&mut out, "loss_per_block", vector(&losses));
    put(&mut out, "teacher", to_host(&Tensor::stack(&teachers, 0)?)?);
    put(&mut out, "student", to_host(&Tensor::stack(&students, 0)?)?);
    Ok(out)
}

/// Of each parameter of a fresh student, whether one training step's loss over `images`, without dropout, gives it a
/// gradient that is not all zero: for tests.
///
/// # Errors
/// As a training step's.
pub fn student_gradients(method: &Transformaly, images: &Images) -> Result<Vec<(String, bool)>, MethodError> {
    let run = || -> Result<Vec<(String, bool)>, Error> {
        let teacher = method.backbone();
        let student = Student::new(teacher, &mut Streams::new(0).stream("init"))?;
        let images = images.pixels().to_device(teacher.device())?;
        let (_, _, height, width) = images.dims4()?;
        let rope = teacher.rope(height, width)?;
        let mut tokens = teacher.embed(&images)?;
        let mut found = Vec::new();
        for (index, (block, own)) in teacher.blocks().iter().zip(&student.blocks).enumerate() {
            let imitation = Imitation::new(block, own, &tokens, rope.as_ref(), (None, None))?;
            let store = imitation.loss()?.backward()?;
            for (name, var) in own.vars() {
                let largest = match store.get(var) {
                    Some(gradient) => gradient.abs()?.flatten_all()?.max(0)?.to_scalar::<f32>()?,
                    None => 0.0,
                };
                found.push((format!("{index}.{name}"), largest > 0.0));
            }
            tokens = imitation.teacher;
        }
        Ok(found)
    };
    Ok(run()?)
}

pub(super) fn train_step(case: &Case) -> Result<Outputs, UnitError> {
    let config = CaseConfig::of(case)?;
    let network = Network::of(case, &config)?;
    let [beta1, beta2] = config.betas()?;
    let options = AdamOptions {
        learning_rate: config.lr()?,
        beta1,
        beta2,
        epsilon: config.eps()?,
        weight_decay: config.weight_decay(),
        ..AdamOptions::default()
    };
    // Dropout is only on where masks are given, and here are none.
    let still = || Streams::new(0).stream("unused");
    let mut trainer =
        Trainer::new(&network.teacher, network.student()?, options, (0.0, false), (still(), still()))?;
    let losses = (0..config.steps()?)
        .map(|step| Ok(trainer.step(&to_tensor(case.input(&format!("in.batch_{step}"))?)?)?))
        .collect::<Result<Vec<f64>, UnitError>>()?;
    let mut out = Outputs::new();
    put(&mut out, "losses", vector(&losses));
    for (index, block) in trainer.student.blocks.iter().enumerate() {
        for (name, tensor) in SCHEME.block_tensors(block.config(), &block.named_tensors()?)? {
            out.insert(format!("w_after.{}{name}", student_prefix(index)), to_host(&tensor)?);
        }
    }
    Ok(out)
}

pub(super) fn end_to_end(case: &Case) -> Result<Outputs, UnitError> {
    let config = CaseConfig::of(case)?;
    let network = Network::of(case, &config)?;
    let students = network.frozen()?;
    let normalisation = config.normalisation()?;
    let train_labels = case.input("in.train_labels")?.to_usize_vec()?;
    let test_labels = case.input("in.test_labels")?.to_usize_vec()?;
    let normal = config.select(&train_labels, &test_labels)?.train;
    let [height, width] = config.image_size()?;

    let describe = |name: &str, wanted: &[usize]| -> Result<Descriptors, UnitError> {
        let all = planes(case.input(name)?, &normalisation)?;
        if let Some(other) = all.iter().find(|image| (image.height, image.width) != (height, width)) {
            let found = format!("{} x {}", other.height, other.width);
            return Err(format!("image_size: is {height} x {width}, but {name} is {found}").into());
        }
        let mut found = Descriptors::default();
        for batch in wanted.chunks(32) {
            let mut pixels = Vec::with_capacity(batch.len() * 3 * height * width);
            for at in batch {
                pixels.extend_from_slice(&all.get(*at).ok_or_else(|| format!("{name}: no image {at}"))?.data);
            }
            let images = Tensor::from_vec(pixels, (batch.len(), 3, height, width), super::device())?;
            found.append(Descriptors::of(&network.teacher, &students, &images)?);
        }
        Ok(found)
    };
    let train = describe("in.train_u8", &normal)?;
    let test = describe("in.test_u8", &(0..test_labels.len()).collect::<Vec<_>>())?;

    let mut out = Outputs::new();
    statistics::scores(
        &config,
        (&train.pretrained, &test.pretrained),
        (&train.teacher_student, &test.teacher_student),
        &test_labels,
        &mut out,
    )?;
    let (dim, depth) = (network.teacher.dim(), network.teacher.depth());
    put(&mut out, "train_indices", integers(normal));
    put(&mut out, "pre_train", table(&train.pretrained, dim));
    put(&mut out, "pre_test", table(&test.pretrained, dim));
    put(&mut out, "ts_train", table(&train.teacher_student, depth));
    put(&mut out, "ts_test", table(&test.teacher_student, depth));
    Ok(out)
}
