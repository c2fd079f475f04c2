//! Every optimiser and schedule against values that `PyTorch` wrote (`tests/peers/optimizer_steps.py`), and the Keras
//! forms against a conformance case.
#![allow(clippy::unwrap_used)]

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};

use candle_core::{DType, Device, Tensor, Var};
use optim::{
    Adadelta, AdadeltaOptions, Adagrad, AdagradOptions, Adam, AdamOptions, Better, Decay, EpsilonPlace,
    GradientChange, Momentum, Optimizer, OptimizerState, ParameterGroup, Plateau, PlateauOptions, RmsProp,
    RmsPropOptions, RootEpsilon, Schedule, Sgd, SgdOptions, Threshold,
};
use serde::Deserialize;

/// `PyTorch`'s names of the options.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Options {
    lr: f64,
    betas: Option<(f64, f64)>,
    eps: Option<f64>,
    weight_decay: Option<f64>,
    #[serde(default)]
    amsgrad: bool,
    update_limit: Option<f64>,
    #[serde(default)]
    momentum: f64,
    #[serde(default)]
    dampening: f64,
    #[serde(default)]
    nesterov: bool,
    alpha: Option<f64>,
    rho: Option<f64>,
    #[serde(default)]
    lr_decay: f64,
    #[serde(default)]
    initial_accumulator_value: f64,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields)]
struct Group {
    learning_rate_factor: Option<f64>,
    weight_decay: Option<f64>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Case {
    name: String,
    options: Options,
    #[serde(default)]
    groups: [Group; 2],
    schedule: Option<Schedule>,
    max_norm: Option<f64>,
    max_value: Option<f64>,
}

#[derive(Deserialize)]
struct Settings {
    steps: usize,
    without_gradient: BTreeMap<String, Vec<usize>>,
    cases: Vec<Case>,
}

struct Fixture {
    settings: String,
    tensors: HashMap<String, Tensor>,
}

impl Fixture {
    fn read(path: &Path) -> Self {
        let bytes = std::fs::read(path).unwrap();
        let (_, metadata) = safetensors::SafeTensors::read_metadata(&bytes).unwrap();
        let about = metadata.metadata().clone().unwrap_or_default();
        Self {
            settings: about.get("settings").cloned().unwrap_or_default(),
            tensors: candle_core::safetensors::load_buffer(&bytes, &Device::Cpu).unwrap(),
        }
    }

    fn of(name: &str) -> Self {
        let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures");
        Self::read(&folder.join(format!("{name}.safetensors")))
    }

    fn values(&self, name: &str) -> Vec<f64> {
        let tensor = self.tensors.get(name).unwrap_or_else(|| panic!("no tensor {name}"));
        tensor.to_dtype(DType::F64).unwrap().flatten_all().unwrap().to_vec1().unwrap()
    }
}

fn make(kind: &str, options: &Options, groups: Vec<ParameterGroup>) -> Box<dyn Optimizer> {
    let learning_rate = options.lr;
    match kind {
        "adam" | "adam_w" | "stable_adam_w" => {
            let start = match kind {
                "adam" => AdamOptions::default(),
                "adam_w" => AdamOptions::adam_w(),
                _ => AdamOptions::stable_adam_w(),
            };
            let (beta1, beta2) = options.betas.unwrap_or((start.beta1, start.beta2));
            let options = AdamOptions {
                learning_rate,
                beta1,
                beta2,
                epsilon: options.eps.unwrap_or(start.epsilon),
                weight_decay: options.weight_decay.unwrap_or(start.weight_decay),
                amsgrad: options.amsgrad,
                update_limit: options.update_limit.or(start.update_limit),
                ..start
            };
            Box::new(Adam::new(groups, options).unwrap())
        }
        "sgd" => {
            let options = SgdOptions {
                learning_rate,
                momentum: options.momentum,
                dampening: options.dampening,
                nesterov: options.nesterov,
                weight_decay: options.weight_decay.unwrap_or(0.0),
                ..SgdOptions::default()
            };
            Box::new(Sgd::new(groups, options).unwrap())
        }
        "rms_prop" => {
            let start = RmsPropOptions::default();
            let options = RmsPropOptions {
                learning_rate,
                rho: options.alpha.unwrap_or(start.rho),
                epsilon: options.eps.unwrap_or(start.epsilon),
                momentum: options.momentum,
                weight_decay: options.weight_decay.unwrap_or(0.0),
                ..start
            };
            Box::new(RmsProp::new(groups, options).unwrap())
        }
        "adagrad" => {
            let start = AdagradOptions::default();
            let options = AdagradOptions {
                learning_rate,
                rate_decay: options.lr_decay,
                initial_sum: options.initial_accumulator_value,
                epsilon: options.eps.unwrap_or(start.epsilon),
                weight_decay: options.weight_decay.unwrap_or(0.0),
                ..start
            };
            Box::new(Adagrad::new(groups, options).unwrap())
        }
        "adadelta" => {
            let start = AdadeltaOptions::default();
            let options = AdadeltaOptions {
                learning_rate,
                rho: options.rho.unwrap_or(start.rho),
                epsilon: options.eps.unwrap_or(start.epsilon),
                weight_decay: options.weight_decay.unwrap_or(0.0),
                ..start
            };
            Box::new(Adadelta::new(groups, options).unwrap())
        }
        other => panic!("no optimiser {other}"),
    }
}

/// How a case is followed.
struct Way {
    dtype: &'static str,
    tolerance: f64,
    /// Goes on half-way with another optimiser over other parameters, made from the saved state alone.
    resumed: bool,
}

/// Follows a case step by step, and gives the bits of what it ends with.
fn follow(kind: &str, fixture: &Fixture, settings: &Settings, case: &Case, way: &Way) -> Vec<u64> {
    let Way { dtype, tolerance, resumed } = *way;
    let tensor = |name: String| fixture.tensors[&name].clone();
    let var = |t: &Tensor| Var::from_tensor(&t.copy().unwrap()).unwrap();
    let optimizer_of = |vars: &[Var]| {
        let groups = ["a", "b"].iter().zip(vars).zip(&case.groups).map(|((name, var), own)| {
            let mut group = ParameterGroup::new([((*name).to_owned(), var.clone())]);
            group.learning_rate_factor = own.learning_rate_factor.unwrap_or(1.0);
            group.weight_decay = own.weight_decay;
            group
        });
        make(kind, &case.options, groups.collect())
    };
    let mut vars = ["a", "b"].map(|name| var(&tensor(format!("{dtype}.start.{name}"))));
    let mut optimizer = optimizer_of(&vars);
    let rates = fixture.values(&format!("rates.{}", case.name));
    assert_eq!(rates.len(), settings.steps);
    for (step, wanted_rate) in rates.into_iter().enumerate() {
        if resumed && step == settings.steps / 2 {
            let saved = optimizer.state().unwrap().to_tensors().unwrap();
            vars = vars.map(|v| var(v.as_tensor()));
            optimizer = optimizer_of(&vars);
            optimizer.load_state(&OptimizerState::from_tensors(saved).unwrap()).unwrap();
        }
        let schedule = case.schedule.clone().unwrap_or(Schedule::Constant);
        let rate = schedule.at(case.options.lr, step as u64);
        assert!((rate - wanted_rate).abs() <= 1e-14, "{kind} {}: rate {rate} {wanted_rate}", case.name);
        optimizer.set_learning_rate(rate);

        let mut gradients = vars[0].sum_all().unwrap().backward().unwrap();
        for (name, var) in ["a", "b"].iter().zip(&vars) {
            let skipped = settings.without_gradient.get(*name).is_some_and(|s| s.contains(&step));
            if skipped {
                gradients.remove(var);
            } else {
                let all = tensor(format!("{dtype}.gradients.{name}"));
                gradients.insert(var, all.get(step).unwrap());
            }
        }
        match (case.max_norm, case.max_value) {
            (Some(max_norm), _) => {
                optimizer.step_clipped(&gradients, max_norm).unwrap();
            }
            (None, Some(limit)) => {
                let change = GradientChange { limit, ..GradientChange::default() };
                optimizer.step_with(&gradients, change).unwrap();
            }
            (None, None) => optimizer.step(&gradients).unwrap(),
        }
        for (name, var) in ["a", "b"].iter().zip(&vars) {
            let found = var.to_dtype(DType::F64).unwrap().flatten_all().unwrap().to_vec1::<f64>().unwrap();
            let wanted = tensor(format!("{dtype}.{}.{name}", case.name)).get(step).unwrap();
            let wanted =
                wanted.to_dtype(DType::F64).unwrap().flatten_all().unwrap().to_vec1::<f64>().unwrap();
            for (found, wanted) in found.iter().zip(&wanted) {
                let off = (found - wanted).abs() / (1.0 + wanted.abs());
                assert!(
                    off <= tolerance,
                    "{kind} {} {dtype} {name} step {step}: {found} {wanted}",
                    case.name
                );
            }
        }
    }
    let all = vars.map(|v| v.to_dtype(DType::F64).unwrap().flatten_all().unwrap().to_vec1::<f64>().unwrap());
    all.iter().flatten().map(|v| v.to_bits()).collect()
}

fn follow_all(kind: &str) {
    let fixture = Fixture::of(kind);
    let settings: Settings = serde_json::from_str(&fixture.settings).unwrap();
    assert!(settings.cases.len() > 1 && settings.steps >= 10);
    for case in &settings.cases {
        // PyTorch fuses some products and sums and rounds others: in f32 a few units in the last place a step.
        for (dtype, tolerance) in [("f64", 1e-12), ("f32", 2e-6)] {
            let ends = [false, true]
                .map(|resumed| follow(kind, &fixture, &settings, case, &Way { dtype, tolerance, resumed }));
            assert_eq!(ends[0], ends[1], "{kind} {} {dtype}: resuming changed the bits", case.name);
        }
    }
}

#[test]
fn adam_steps_are_those_of_pytorch() {
    follow_all("adam");
    follow_all("adam_w");
}

#[test]
fn stable_adam_w_steps_are_those_of_its_definition() {
    follow_all("stable_adam_w");
}

#[test]
fn sgd_steps_are_those_of_pytorch() {
    follow_all("sgd");
}

#[test]
fn the_other_optimisers_steps_are_those_of_pytorch() {
    follow_all("rms_prop");
    follow_all("adagrad");
    follow_all("adadelta");
}

#[derive(Deserialize)]
struct RateSettings {
    base: f64,
    schedules: BTreeMap<String, Schedule>,
    plateaus: BTreeMap<String, serde_json::Value>,
}

#[test]
fn schedules_are_those_of_pytorch() {
    let fixture = Fixture::of("schedules");
    let settings: RateSettings = serde_json::from_str(&fixture.settings).unwrap();
    assert!(settings.schedules.len() >= 10);
    for (name, schedule) in &settings.schedules {
        // The rates as a run of steps gives them, and by the closed form where PyTorch has one.
        for what in ["rates", "closed"] {
            let key = format!("{name}.{what}");
            if !fixture.tensors.contains_key(&key) {
                assert_eq!(what, "closed");
                continue;
            }
            for (t, wanted) in fixture.values(&key).into_iter().enumerate() {
                let found = schedule.at(settings.base, t as u64);
                assert!((found - wanted).abs() <= 1e-13, "{key} at {t}: {found} {wanted}");
            }
        }
    }
}

#[test]
fn plateaus_are_those_of_pytorch() {
    let fixture = Fixture::of("schedules");
    let settings: RateSettings = serde_json::from_str(&fixture.settings).unwrap();
    assert!(settings.plateaus.len() >= 5);
    for (name, options) in &settings.plateaus {
        let mut plateau = Plateau::new(serde_json::from_value(options.clone()).unwrap()).unwrap();
        let mut rate = settings.base;
        let (values, rates) =
            (fixture.values(&format!("{name}.values")), fixture.values(&format!("{name}.rates")));
        for (t, (value, wanted)) in values.into_iter().zip(rates).enumerate() {
            rate = plateau.next(value, rate);
            assert!((rate - wanted).abs() <= 1e-15, "{name} at {t}: {rate} {wanted}");
        }
        assert!(rate < settings.base, "{name} never fell");
    }
    let defaults = PlateauOptions::default();
    assert_eq!((defaults.better, defaults.threshold), (Better::Lower, Threshold::Relative(1e-4)));
}

/// Keras' optimisers, from a conformance case of the workspace: three steps under a warm-up.
#[test]
fn keras_forms_are_met() {
    let fixtures = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures");
    let fixture = Fixture::read(&fixtures.join("vtadl-registers/optimizers_a.safetensors"));
    let schedule = |length, from| Schedule::Warmup {
        length,
        from,
        ramp: optim::Ramp::Linear,
        then: Box::new(Schedule::Constant),
    };
    let names = ["adam", "adamw", "sgd", "rmsprop", "adagrad", "adadelta"];
    for name in names {
        let vars = ["a", "b"].map(|p| Var::from_tensor(&fixture.tensors[&format!("w.{p}")]).unwrap());
        let groups =
            vec![ParameterGroup::new([("a".to_owned(), vars[0].clone()), ("b".to_owned(), vars[1].clone())])];
        let adam =
            AdamOptions { epsilon: 1e-7, epsilon_place: EpsilonPlace::Uncorrected, ..AdamOptions::default() };
        let mut optimizer: Box<dyn Optimizer> = match name {
            "adam" => Box::new(Adam::new(groups, adam).unwrap()),
            "adamw" => {
                let options = AdamOptions { weight_decay: 0.004, decay: Decay::Decoupled, ..adam };
                Box::new(Adam::new(groups, options).unwrap())
            }
            "sgd" => Box::new(Sgd::new(groups, SgdOptions::default()).unwrap()),
            "rmsprop" => {
                let options = RmsPropOptions {
                    rho: 0.9,
                    epsilon: 1e-7,
                    epsilon_place: RootEpsilon::Inside,
                    ..RmsPropOptions::default()
                };
                Box::new(RmsProp::new(groups, options).unwrap())
            }
            "adagrad" => {
                let options = AdagradOptions {
                    initial_sum: 0.1,
                    epsilon: 1e-7,
                    epsilon_place: RootEpsilon::Inside,
                    ..AdagradOptions::default()
                };
                Box::new(Adagrad::new(groups, options).unwrap())
            }
            _ => {
                let options = AdadeltaOptions { rho: 0.95, epsilon: 1e-7, ..AdadeltaOptions::default() };
                Box::new(Adadelta::new(groups, options).unwrap())
            }
        };
        for step in 0..3 {
            optimizer.set_learning_rate(schedule(2, 0.005).at(0.05, step));
            let mut gradients = vars[0].sum_all().unwrap().backward().unwrap();
            for (p, var) in ["a", "b"].iter().zip(&vars) {
                gradients.insert(var, fixture.tensors[&format!("in.grad_{step}.{p}")].clone());
            }
            optimizer.step(&gradients).unwrap();
        }
        for (p, var) in ["a", "b"].iter().zip(&vars) {
            let wanted = fixture.values(&format!("w_after.{name}.{p}"));
            let found = var.to_dtype(DType::F64).unwrap().flatten_all().unwrap().to_vec1::<f64>().unwrap();
            for (found, wanted) in found.iter().zip(&wanted) {
                // The case's own tolerance.
                let tolerance = 1e-6 + 2e-5 * wanted.abs();
                assert!((found - wanted).abs() <= tolerance, "{name} {p}: {found} {wanted}");
            }
        }
    }
    for (what, schedule, base) in [("", schedule(2, 0.005), 0.05), ("default_", schedule(1000, 1e-5), 1e-3)] {
        let steps = fixture.values(&format!("in.{what}schedule_steps"));
        let rates = fixture.values(&format!("out.{what}schedule_lr"));
        for (step, wanted) in steps.into_iter().zip(rates) {
            let found = schedule.at(base, step as u64);
            assert!((found - wanted).abs() <= 1e-6 * wanted, "{what}{step}: {found} {wanted}");
        }
    }
}

/// Keras keeps the step in its momentum, `PyTorch` the direction: they part once the learning rate changes.
#[test]
fn momentum_of_steps_is_that_of_keras() {
    let gradient = |t: u64| (t as f64 * 1.3).cos();
    let rate = |t: u64| 0.1 / (1 + t) as f64;
    for (nesterov, root) in [(false, false), (true, false), (false, true)] {
        let var = Var::new(&[2_f64], &Device::Cpu).unwrap();
        let groups = vec![ParameterGroup::new([("p".to_owned(), var.clone())])];
        let mut optimizer: Box<dyn Optimizer> = if root {
            let options = RmsPropOptions {
                momentum: 0.8,
                momentum_of: Momentum::Step,
                epsilon_place: RootEpsilon::Inside,
                ..RmsPropOptions::default()
            };
            Box::new(RmsProp::new(groups, options).unwrap())
        } else {
            let options = SgdOptions {
                momentum: 0.8,
                momentum_of: Momentum::Step,
                nesterov,
                weight_decay: 0.1,
                decay: Decay::Decoupled,
                ..SgdOptions::default()
            };
            Box::new(Sgd::new(groups, options).unwrap())
        };
        let (mut p, mut velocity, mut square) = (2.0, 0.0, 0.0);
        for t in 0..12 {
            optimizer.set_learning_rate(rate(t));
            let loss = (var.as_tensor() * gradient(t)).unwrap().sum_all().unwrap();
            optimizer.step(&loss.backward().unwrap()).unwrap();
            let (g, lr) = (gradient(t), rate(t));
            if root {
                square = 0.99 * square + 0.01 * g * g;
                velocity = 0.8 * velocity + lr * g / (square + 1e-8_f64).sqrt();
                p -= velocity;
            } else {
                p -= lr * 0.1 * p;
                velocity = 0.8 * velocity - lr * g;
                p += if nesterov { 0.8 * velocity - lr * g } else { velocity };
            }
        }
        let found = var.to_vec1::<f64>().unwrap()[0];
        assert!((found - p).abs() < 1e-12, "nesterov {nesterov}, root {root}: {found} {p}");
    }
}
