use std::collections::BTreeMap;

use candle_core::backprop::GradStore;
use candle_core::{Tensor, Var};

use crate::fused::{Real, Update, apply};
use crate::group::{Parameter, below_one, flatten, not_negative};
use crate::{Optimizer, OptimizerState, ParameterGroup, Result};

/// What weight decay means.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Decay {
    /// `weight_decay * parameter` is added to the gradient (Adam).
    #[default]
    L2,
    /// The parameter shrinks by `learning_rate * weight_decay` before the step (`AdamW`, Loshchilov and Hutter 2017,
    /// arXiv 1711.05101).
    Decoupled,
}

/// Where epsilon is added.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum EpsilonPlace {
    /// To the root of the bias-corrected second moment (`PyTorch`).
    #[default]
    Corrected,
    /// To the root of the second moment as it is (Keras).
    Uncorrected,
}

/// The settings of [`Adam`]; the default is `PyTorch`'s Adam.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct AdamOptions {
    /// The learning rate of a group with factor 1; 1e-3.
    pub learning_rate: f64,
    /// How slowly the mean of the gradient forgets, in `[0, 1)`; 0.9.
    pub beta1: f64,
    /// How slowly the mean of its square forgets, in `[0, 1)`; 0.999.
    pub beta2: f64,
    /// Added to the denominator; 1e-8.
    pub epsilon: f64,
    /// Where it is added.
    pub epsilon_place: EpsilonPlace,
    /// The weight decay of groups without their own; 0.
    pub weight_decay: f64,
    /// What weight decay means.
    pub decay: Decay,
}

impl Default for AdamOptions {
    fn default() -> Self {
        Self {
            learning_rate: 1e-3,
            beta1: 0.9,
            beta2: 0.999,
            epsilon: 1e-8,
            epsilon_place: EpsilonPlace::Corrected,
            weight_decay: 0.0,
            decay: Decay::L2,
        }
    }
}

impl AdamOptions {
    /// `PyTorch`'s `AdamW`: decoupled weight decay of 0.01.
    pub fn adam_w() -> Self {
        Self { weight_decay: 0.01, decay: Decay::Decoupled, ..Self::default() }
    }
}

/// Adam (Kingma and Ba 2014, arXiv 1412.6980) and `AdamW`, in `PyTorch`'s arithmetic; Keras' by an option.
#[derive(Debug)]
pub struct Adam {
    options: AdamOptions,
    slots: Vec<Slot>,
}

#[derive(Debug)]
struct Slot {
    parameter: Parameter,
    step: u64,
    /// Mean of the gradient and of its square; none before the first step.
    moments: Option<(Var, Var)>,
}

const KIND: &str = "adam";
const MEAN: &str = "mean";
const SQUARE: &str = "mean_square";

impl Adam {
    /// Adam over all parameters of `groups`.
    ///
    /// # Errors
    ///
    /// If an option is outside of its range, or two parameters have one name.
    pub fn new(groups: Vec<ParameterGroup>, options: AdamOptions) -> Result<Self> {
        not_negative("learning_rate", options.learning_rate)?;
        not_negative("epsilon", options.epsilon)?;
        below_one("beta1", options.beta1)?;
        below_one("beta2", options.beta2)?;
        let slots = flatten(groups, options.weight_decay)?
            .into_iter()
            .map(|parameter| Slot { parameter, step: 0, moments: None })
            .collect();
        Ok(Self { options, slots })
    }

    /// `AdamW` over all parameters of `groups`: [`AdamOptions::adam_w`] with this learning rate and weight decay.
    ///
    /// # Errors
    ///
    /// As [`Adam::new`].
    pub fn adam_w(groups: Vec<ParameterGroup>, learning_rate: f64, weight_decay: f64) -> Result<Self> {
        Self::new(groups, AdamOptions { learning_rate, weight_decay, ..AdamOptions::adam_w() })
    }
}

impl Slot {
    fn step(&mut self, gradient: Tensor, options: &AdamOptions) -> Result<()> {
        let var = &self.parameter.var;
        let rate = options.learning_rate * self.parameter.factor;
        let decay = self.parameter.weight_decay;
        let gradient = if decay == 0.0 {
            gradient
        } else {
            match options.decay {
                Decay::L2 => (gradient + (var.as_detached_tensor() * decay)?)?,
                Decay::Decoupled => {
                    apply(&Scale(1.0 - rate * decay), var, &gradient, &gradient)?;
                    gradient
                }
            }
        };
        let (mean, square) = match &mut self.moments {
            Some(moments) => moments,
            none => {
                let zeros = || Var::zeros(var.shape(), var.dtype(), var.device());
                none.insert((zeros()?, zeros()?))
            }
        };
        self.step += 1;
        apply(&Mean { keep: options.beta1 }, mean, &gradient, &gradient)?;
        apply(&MeanSquare { keep: options.beta2 }, square, &gradient, &gradient)?;
        let correction = |beta: f64| 1.0 - beta.powf(self.step as f64);
        let (first, second) = (correction(options.beta1), correction(options.beta2).sqrt());
        let step = match options.epsilon_place {
            EpsilonPlace::Corrected => {
                Step { size: rate / first, root_divisor: second, epsilon: options.epsilon }
            }
            EpsilonPlace::Uncorrected => {
                Step { size: rate * second / first, root_divisor: 1.0, epsilon: options.epsilon }
            }
        };
        apply(&step, var, mean, square)?;
        Ok(())
    }
}

impl Optimizer for Adam {
    fn step(&mut self, gradients: &GradStore) -> Result<()> {
        // All gradients are checked before the first parameter moves.
        let mut ready = Vec::new();
        for slot in &mut self.slots {
            if let Some(gradient) = slot.parameter.gradient(gradients)? {
                ready.push((slot, gradient));
            }
        }
        for (slot, gradient) in ready {
            slot.step(gradient, &self.options)?;
        }
        Ok(())
    }

    fn learning_rate(&self) -> f64 {
        self.options.learning_rate
    }

    fn set_learning_rate(&mut self, learning_rate: f64) {
        self.options.learning_rate = learning_rate;
    }

    fn parameters(&self) -> Vec<(&str, &Var)> {
        self.slots.iter().map(|s| (s.parameter.name.as_str(), &s.parameter.var)).collect()
    }

    fn state(&self) -> Result<OptimizerState> {
        let mut state = OptimizerState {
            kind: KIND.to_owned(),
            learning_rate: self.options.learning_rate,
            steps: BTreeMap::new(),
            tensors: BTreeMap::new(),
        };
        for slot in &self.slots {
            let name = &slot.parameter.name;
            state.steps.insert(name.clone(), slot.step);
            if let Some((mean, square)) = &slot.moments {
                state.tensors.insert(format!("{MEAN}/{name}"), mean.as_detached_tensor().copy()?);
                state.tensors.insert(format!("{SQUARE}/{name}"), square.as_detached_tensor().copy()?);
            }
        }
        Ok(state)
    }

    fn load_state(&mut self, state: &OptimizerState) -> Result<()> {
        let parameters: Vec<Parameter> = self.slots.iter().map(|s| s.parameter.clone()).collect();
        state.check(KIND, &parameters, &[MEAN, SQUARE])?;
        let moments = parameters
            .iter()
            .map(|p| Ok(state.slot(MEAN, p)?.zip(state.slot(SQUARE, p)?)))
            .collect::<Result<Vec<_>>>()?;
        for (slot, moments) in self.slots.iter_mut().zip(moments) {
            slot.step = state.steps.get(&slot.parameter.name).copied().unwrap_or(0);
            slot.moments = moments;
        }
        self.options.learning_rate = state.learning_rate;
        Ok(())
    }
}

struct Scale(f64);

impl Update for Scale {
    const NAME: &'static str = "weight_decay";

    fn on_slices<T: Real>(&self, target: &mut [T], _: &[T], _: &[T]) {
        let factor = T::from_f64(self.0);
        for value in target {
            *value *= factor;
        }
    }

    fn on_tensors(&self, target: &Tensor, _: &Tensor, _: &Tensor) -> candle_core::Result<Tensor> {
        target * self.0
    }
}

struct Mean {
    keep: f64,
}

impl Update for Mean {
    const NAME: &'static str = "adam_mean";

    fn on_slices<T: Real>(&self, target: &mut [T], gradient: &[T], _: &[T]) {
        let share = T::from_f64(1.0 - self.keep);
        for (mean, &gradient) in target.iter_mut().zip(gradient) {
            // `m + (1 - beta) (g - m)`: PyTorch's order of the rounding.
            *mean += share * (gradient - *mean);
        }
    }

    fn on_tensors(&self, target: &Tensor, gradient: &Tensor, _: &Tensor) -> candle_core::Result<Tensor> {
        target + ((gradient - target)? * (1.0 - self.keep))?
    }
}

struct MeanSquare {
    keep: f64,
}

impl Update for MeanSquare {
    const NAME: &'static str = "adam_mean_square";

    fn on_slices<T: Real>(&self, target: &mut [T], gradient: &[T], _: &[T]) {
        let (keep, share) = (T::from_f64(self.keep), T::from_f64(1.0 - self.keep));
        for (square, &gradient) in target.iter_mut().zip(gradient) {
            *square = *square * keep + share * gradient * gradient;
        }
    }

    fn on_tensors(&self, target: &Tensor, gradient: &Tensor, _: &Tensor) -> candle_core::Result<Tensor> {
        (target * self.keep)? + ((gradient * (1.0 - self.keep))? * gradient)?
    }
}

struct Step {
    size: f64,
    root_divisor: f64,
    epsilon: f64,
}

impl Update for Step {
    const NAME: &'static str = "adam_step";

    fn on_slices<T: Real>(&self, target: &mut [T], mean: &[T], square: &[T]) {
        let (size, divisor, epsilon) =
            (T::from_f64(self.size), T::from_f64(self.root_divisor), T::from_f64(self.epsilon));
        for ((value, &mean), &square) in target.iter_mut().zip(mean).zip(square) {
            *value -= size * mean / (square.root() / divisor + epsilon);
        }
    }

    fn on_tensors(&self, target: &Tensor, mean: &Tensor, square: &Tensor) -> candle_core::Result<Tensor> {
        let below = ((square.sqrt()? / self.root_divisor)? + self.epsilon)?;
        target - ((mean * self.size)? / below)?
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::{Adam, AdamOptions, Decay, EpsilonPlace, Mean, MeanSquare, Scale, Step};
    use crate::fused::tests::both_ways_agree;
    use crate::{Error, Optimizer, OptimizerState, ParameterGroup};
    use candle_core::backprop::GradStore;
    use candle_core::{DType, Device, Tensor, Var};

    fn gradient(step: usize, i: usize) -> f64 {
        ((step * 7 + i * 3) as f64).sin() * 10_f64.powi(i as i32 - 2)
    }

    /// Gradients with the values wanted: those of the sum of `parameter * value`.
    fn gradients(var: &Var, values: &[f64]) -> GradStore {
        let values = Tensor::new(values, &Device::Cpu).unwrap().to_dtype(var.dtype()).unwrap();
        (var.as_tensor() * values).unwrap().sum_all().unwrap().backward().unwrap()
    }

    fn group(name: &str, var: &Var) -> ParameterGroup {
        ParameterGroup::new([(name.to_owned(), var.clone())])
    }

    fn recurrence(options: &AdamOptions, start: &[f64], steps: usize) -> Vec<f64> {
        let AdamOptions { learning_rate: lr, beta1: b1, beta2: b2, epsilon, .. } = *options;
        let mut p = start.to_vec();
        for (i, p) in p.iter_mut().enumerate() {
            let (mut m, mut v) = (0.0, 0.0);
            for t in 1..=steps {
                let mut g = gradient(t, i);
                match options.decay {
                    Decay::L2 => g += options.weight_decay * *p,
                    Decay::Decoupled => *p -= lr * options.weight_decay * *p,
                }
                m = b1 * m + (1.0 - b1) * g;
                v = b2 * v + (1.0 - b2) * g * g;
                let (c1, c2) = (1.0 - b1.powi(t as i32), 1.0 - b2.powi(t as i32));
                *p -= match options.epsilon_place {
                    EpsilonPlace::Corrected => lr * (m / c1) / ((v / c2).sqrt() + epsilon),
                    EpsilonPlace::Uncorrected => m * lr * c2.sqrt() / c1 / (v.sqrt() + epsilon),
                };
            }
        }
        p
    }

    #[test]
    fn steps_are_those_of_the_recurrence() {
        let start = [1.0, -2.0, 0.5, 3.0, 0.0];
        let plain = AdamOptions { learning_rate: 0.01, ..AdamOptions::default() };
        let all = [
            plain,
            AdamOptions { weight_decay: 0.1, ..plain },
            AdamOptions { weight_decay: 0.1, decay: Decay::Decoupled, ..plain },
            AdamOptions { beta1: 0.5, epsilon: 1e-7, epsilon_place: EpsilonPlace::Uncorrected, ..plain },
        ];
        for options in all {
            for (dtype, tolerance) in [(DType::F64, 1e-12), (DType::F32, 3e-6)] {
                let tensor = Tensor::new(&start, &Device::Cpu).unwrap().to_dtype(dtype).unwrap();
                let var = Var::from_tensor(&tensor).unwrap();
                let mut adam = Adam::new(vec![group("p", &var)], options).unwrap();
                for step in 1..=20 {
                    let values: Vec<f64> = (0..start.len()).map(|i| gradient(step, i)).collect();
                    adam.step(&gradients(&var, &values)).unwrap();
                }
                let found = var.to_dtype(DType::F64).unwrap().to_vec1::<f64>().unwrap();
                for (found, wanted) in found.iter().zip(recurrence(&options, &start, 20)) {
                    assert!((found - wanted).abs() <= tolerance, "{options:?}: {found} {wanted}");
                }
            }
        }
    }

    #[test]
    fn host_and_other_devices_agree() {
        both_ways_agree(&Scale(0.99));
        both_ways_agree(&Mean { keep: 0.9 });
        both_ways_agree(&MeanSquare { keep: 0.999 });
        both_ways_agree(&Step { size: 0.02, root_divisor: 0.3, epsilon: 1e-3 });
    }

    #[test]
    fn a_restored_state_goes_on_bit_for_bit() {
        let var = Var::new(&[1_f32, -2., 0.5], &Device::Cpu).unwrap();
        let options = AdamOptions { weight_decay: 0.02, ..AdamOptions::default() };
        let mut adam = Adam::new(vec![group("p", &var)], options).unwrap();
        let values = |step: usize| -> Vec<f64> { (0..3).map(|i| gradient(step, i)).collect() };
        for step in 0..5 {
            adam.step(&gradients(&var, &values(step))).unwrap();
        }
        adam.set_learning_rate(5e-3);
        let saved = adam.state().unwrap().to_tensors().unwrap();
        let weights = var.as_detached_tensor().copy().unwrap();
        for step in 5..9 {
            adam.step(&gradients(&var, &values(step))).unwrap();
        }
        let again = Var::from_tensor(&weights).unwrap();
        let mut resumed = Adam::new(vec![group("p", &again)], options).unwrap();
        resumed.load_state(&OptimizerState::from_tensors(saved).unwrap()).unwrap();
        assert_eq!(resumed.learning_rate(), 5e-3);
        for step in 5..9 {
            resumed.step(&gradients(&again, &values(step))).unwrap();
        }
        let bits = |v: &Var| v.to_vec1::<f32>().unwrap().iter().map(|x| x.to_bits()).collect::<Vec<_>>();
        assert_eq!(bits(&var), bits(&again));
    }

    #[test]
    fn groups_have_their_own_settings() {
        let (a, b) = (Var::new(&[1_f64], &Device::Cpu).unwrap(), Var::new(&[1_f64], &Device::Cpu).unwrap());
        let mut slow = group("b", &b);
        slow.learning_rate_factor = 0.1;
        slow.weight_decay = Some(0.5);
        let mut adam = Adam::adam_w(vec![group("a", &a), slow], 0.01, 0.0).unwrap();
        let mut store = gradients(&a, &[1.0]);
        store.extend(gradients(&b, &[1.0])).unwrap();
        adam.step(&store).unwrap();
        // The first step of Adam is the learning rate, whatever the gradient.
        assert!((a.to_vec1::<f64>().unwrap()[0] - (1.0 - 0.01)).abs() < 1e-8);
        assert!((b.to_vec1::<f64>().unwrap()[0] - (1.0 - 0.001 * 0.5 - 0.001)).abs() < 1e-8);
    }

    #[test]
    fn parameters_without_gradient_stay_and_are_named() {
        let (a, b) = (Var::new(&[1_f32], &Device::Cpu).unwrap(), Var::new(&[1_f32], &Device::Cpu).unwrap());
        let groups = vec![group("a", &a), group("b", &b)];
        let mut adam =
            Adam::new(groups, AdamOptions { weight_decay: 0.1, ..AdamOptions::default() }).unwrap();
        let store = gradients(&a, &[1.0]);
        assert_eq!(adam.missing_gradients(&store), ["b"]);
        adam.step(&store).unwrap();
        assert_eq!(b.to_vec1::<f32>().unwrap(), [1.0]);
        let state = adam.state().unwrap();
        assert_eq!((state.steps["a"], state.steps["b"]), (1, 0));
        adam.load_state(&state).unwrap();
        adam.step(&gradients(&b, &[1.0])).unwrap();
        assert_eq!(adam.state().unwrap().steps["b"], 1);
    }

    #[test]
    fn wrong_options_and_states_are_refused() {
        let a = Var::new(&[1_f32], &Device::Cpu).unwrap();
        let adam = |options| Adam::new(vec![group("a", &a)], options);
        let bad = AdamOptions { beta1: 1.0, ..AdamOptions::default() };
        assert!(adam(bad).unwrap_err().to_string().contains("beta1"));
        assert!(adam(AdamOptions { learning_rate: f64::NAN, ..AdamOptions::default() }).is_err());
        let twice = Adam::new(vec![group("a", &a), group("a", &a)], AdamOptions::default());
        assert!(matches!(twice.unwrap_err(), Error::Duplicate(_)));

        let mut one = adam(AdamOptions::default()).unwrap();
        one.step(&gradients(&a, &[1.0])).unwrap();
        let state = one.state().unwrap();
        let mut other_kind = state.clone();
        other_kind.kind = "sgd".to_owned();
        assert!(one.load_state(&other_kind).unwrap_err().to_string().contains("sgd"));
        let mut lost = state.clone();
        lost.tensors.remove("mean/a");
        assert!(one.load_state(&lost).unwrap_err().to_string().contains("mean/a"));
        let mut stranger = state.clone();
        stranger.tensors.insert("mean/b".to_owned(), Tensor::new(&[1_f32], &Device::Cpu).unwrap());
        assert!(one.load_state(&stranger).unwrap_err().to_string().contains("mean/b"));
        let mut shape = state;
        shape.tensors.insert("mean/a".to_owned(), Tensor::new(&[1_f32, 2.], &Device::Cpu).unwrap());
        assert!(one.load_state(&shape).is_err());
        let mut wrong = gradients(&a, &[1.0]);
        wrong.insert(&a, Tensor::new(&[1_f32, 2.], &Device::Cpu).unwrap());
        assert!(one.step(&wrong).unwrap_err().to_string().contains("`a`"));
    }
}
