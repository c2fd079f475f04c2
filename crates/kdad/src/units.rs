//! The numeric cases of this crate, for the conformance runner.

mod config;

use std::collections::BTreeMap;

use anomaly_core::{Images, MethodError, Streams};
use candle_core::{DType, Device, Tensor};
use conformance::{Case, HostTensor, Outputs, Unit, UnitError};
use optim::{AdamOptions, Optimizer};

use crate::fit::Trainer;
use crate::student::Student;
use crate::{Error, Kdad, loss};
use config::CaseConfig;

/// All units of method `kdad`.
pub fn conformance_units() -> Vec<Unit> {
    type Run = fn(&Case) -> Result<Outputs, UnitError>;
    let units: [(&'static str, Run); 2] = [("student_gradients", gradients), ("train_step", train_step)];
    units.into_iter().map(|(unit, run)| Unit { method: crate::INFO.name, unit, run }).collect()
}

/// Where the cases compute: the device that the run is for, the CPU if it names none.
fn device() -> &'static Device {
    conformance::context().unwrap_or(&Device::Cpu)
}

fn to_tensor(host: &HostTensor) -> Result<Tensor, UnitError> {
    Ok(Tensor::from_vec(host.to_f32_vec()?, host.shape.clone(), device())?)
}

fn to_host(tensor: &Tensor) -> Result<HostTensor, UnitError> {
    let values = tensor.to_dtype(DType::F32)?.flatten_all()?.to_vec1::<f32>()?;
    Ok(HostTensor::f32(tensor.dims().to_vec(), values))
}

fn vector(values: &[f64]) -> HostTensor {
    HostTensor::f64([values.len()], values.to_vec())
}

fn student(case: &Case, config: &CaseConfig) -> Result<Student, UnitError> {
    let weights = case
        .weights()
        .map(|(name, host)| Ok((name.to_owned(), to_tensor(host)?)))
        .collect::<Result<BTreeMap<_, _>, UnitError>>()?;
    Ok(Student::of(config.sizes()?, &weights)?)
}

/// The teacher's tokens without the prefix, `(B, N, D)`.
fn teacher_tokens(case: &Case, name: &str, config: &CaseConfig) -> Result<Tensor, UnitError> {
    let tokens = to_tensor(case.input(name)?)?;
    let prefix = config.prefix_tokens()?;
    let patches = tokens.dim(1)?.checked_sub(prefix).ok_or("prefix_tokens: more than there are tokens")?;
    Ok(tokens.narrow(1, prefix, patches)?.contiguous()?)
}

fn gradients(case: &Case) -> Result<Outputs, UnitError> {
    let config = CaseConfig::of(case)?;
    let student = student(case, &config)?;
    let tokens = teacher_tokens(case, "in.teacher_tokens", &config)?;
    let imitated = student.network()?.forward(&to_tensor(case.input("in.images")?)?, &mut None)?;
    let value = loss::loss(&imitated, &tokens)?;
    let store = value.backward()?;
    let mut out = Outputs::new();
    for (name, var) in student.vars() {
        let gradient = store.get(var).ok_or_else(|| format!("{name}: no gradient"))?;
        out.insert(format!("grad.{name}"), to_host(gradient)?);
    }
    out.insert("out.student".to_owned(), to_host(&imitated.detach())?);
    out.insert("out.loss".to_owned(), HostTensor::f32([1], vec![value.to_scalar::<f32>()?]));
    out.insert("out.image_scores".to_owned(), vector(&loss::image_scores(&imitated.detach(), &tokens)?));
    Ok(out)
}

fn train_step(case: &Case) -> Result<Outputs, UnitError> {
    let config = CaseConfig::of(case)?;
    let options = AdamOptions {
        learning_rate: config.lr()?,
        weight_decay: config.adamw_wd()?,
        beta1: config.betas()[0],
        beta2: config.betas()[1],
        epsilon: config.eps(),
        ..AdamOptions::adam_w()
    };
    let milestones = (config.milestones()?, config.gamma()?);
    let unused = Streams::new(0).stream("unused");
    let mut trainer = Trainer::new(student(case, &config)?, options, milestones, (0.0, unused))?;
    let (mut losses, mut rates) = (Vec::new(), Vec::new());
    for step in 0..config.steps()? {
        trainer.enter(if config.epoch_per_step() { step } else { 0 });
        rates.push(trainer.adam.learning_rate());
        let images = to_tensor(case.input(&format!("in.step{step}.images"))?)?;
        let tokens = teacher_tokens(case, &format!("in.step{step}.teacher_tokens"), &config)?;
        losses.push(trainer.step(&images, &tokens)?);
    }
    let mut out = Outputs::new();
    out.insert("out.losses".to_owned(), vector(&losses));
    out.insert("out.lrs".to_owned(), vector(&rates));
    for (name, tensor) in trainer.student.weights()? {
        out.insert(format!("w_after.{name}"), to_host(&tensor)?);
    }
    Ok(out)
}

/// Of each weight of a fresh student, whether the loss over `images`, without dropout, gives it a gradient that is not
/// all zero: for tests.
///
/// # Errors
/// As a training step's.
pub fn student_gradients(method: &Kdad, images: &Images) -> Result<Vec<(String, bool)>, MethodError> {
    let run = || -> Result<Vec<(String, bool)>, Error> {
        let teacher = method.teacher();
        let sizes = teacher.student(method.settings());
        let device = teacher.vit.device();
        let student = Student::new(sizes, &mut Streams::new(0).stream("init"), device)?;
        let tokens = teacher.tokens(images.pixels())?;
        let imitated = student.network()?.forward(&images.pixels().to_device(device)?, &mut None)?;
        let store = loss::loss(&imitated, &tokens)?.backward()?;
        let reached = |var: &candle_core::Var| -> Result<bool, Error> {
            let Some(gradient) = store.get(var) else { return Ok(false) };
            Ok(gradient.abs()?.flatten_all()?.max(0)?.to_scalar::<f32>()? > 0.0)
        };
        student.vars().iter().map(|(name, var)| Ok((name.clone(), reached(var)?))).collect()
    };
    Ok(run()?)
}
