use crate::descent::{Descent, Settings};
use crate::group::{Decay, at_least_zero, below_one};
use crate::number::Number;
use crate::slots::{ReadySlot, StateLayout};
use crate::sweep::{Changed, Rule};
use crate::{Error, GradientChange, ParameterGroup, Result};

/// Where Adam's epsilon is added.
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
    /// Divide by the largest second moment so far, not by the last (`AMSGrad`, Reddi et al. 2018,
    /// arXiv 1904.09237); no.
    pub amsgrad: bool,
    /// Shorten the step of a parameter by which the root mean square of `gradient / denominator` is above this, the
    /// denominator being the step's own; no limit. `Some(1.0)` makes `AdamW` the `StableAdamW` of
    /// [`AdamOptions::stable_adam_w`].
    pub update_limit: Option<f64>,
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
            amsgrad: false,
            update_limit: None,
        }
    }
}

impl AdamOptions {
    /// `PyTorch`'s `AdamW`: decoupled weight decay of 0.01.
    pub fn adam_w() -> Self {
        Self { weight_decay: 0.01, decay: Decay::Decoupled, ..Self::default() }
    }

    /// `StableAdamW` as the public code of Dinomaly has it (Guo et al. 2024, arXiv 2405.14325): `AdamW` whose step is
    /// divided by `max(1, rms(gradient / denominator))` for each parameter, weight decay going on at the full rate.
    ///
    /// The idea is that of Wortsman et al. 2023 (arXiv 2304.13013, algorithm 2), which takes `max(v, epsilon^2)`
    /// under the root in place of the denominator and lets the weight decay shrink with the step.
    pub fn stable_adam_w() -> Self {
        Self { update_limit: Some(1.0), ..Self::adam_w() }
    }
}

/// Adam (Kingma and Ba 2014, arXiv 1412.6980), `AdamW` (Loshchilov and Hutter 2017, arXiv 1711.05101), `AMSGrad` and
/// `StableAdamW`, in `PyTorch`'s arithmetic; Keras' by an option.
pub type Adam = Descent<AdamOptions>;

impl Adam {
    /// `AdamW` over all parameters of `groups`: [`AdamOptions::adam_w`] with this learning rate and weight decay.
    ///
    /// # Errors
    ///
    /// As [`Adam::new`].
    pub fn adam_w(groups: Vec<ParameterGroup>, learning_rate: f64, weight_decay: f64) -> Result<Self> {
        Self::new(groups, AdamOptions { learning_rate, weight_decay, ..AdamOptions::adam_w() })
    }
}

impl Settings for AdamOptions {
    fn check(&self) -> Result<()> {
        at_least_zero("learning_rate", self.learning_rate)?;
        at_least_zero("epsilon", self.epsilon)?;
        below_one("beta1", self.beta1)?;
        below_one("beta2", self.beta2)?;
        match self.update_limit {
            Some(found) if !(found.is_finite() && found > 0.0) => {
                Err(Error::Option { option: "update_limit", expected: "finite and above 0", found })
            }
            _ => Ok(()),
        }
    }

    fn layout(&self) -> StateLayout {
        let names: &[&str] =
            if self.amsgrad { &["mean", "mean_square", "largest_square"] } else { &["mean", "mean_square"] };
        StateLayout { kind: "adam", names, initial: 0.0 }
    }

    fn learning_rate(&self) -> f64 {
        self.learning_rate
    }

    fn set_learning_rate(&mut self, learning_rate: f64) {
        self.learning_rate = learning_rate;
    }

    fn weight_decay(&self) -> f64 {
        self.weight_decay
    }

    fn step(&self, slot: &mut ReadySlot<'_>, change: GradientChange) -> candle_core::Result<()> {
        let rate = slot.rate(self.learning_rate);
        let (added, kept) = self.decay.split(slot.parameter.weight_decay, rate);
        let correction = |beta: f64| 1.0 - beta.powf(slot.step as f64);
        let (first, second) = (correction(self.beta1), correction(self.beta2).sqrt());
        let (size, root_divisor) = match self.epsilon_place {
            EpsilonPlace::Corrected => (rate / first, second),
            EpsilonPlace::Uncorrected => (rate * second / first, 1.0),
        };
        let moments = Moments {
            added,
            kept,
            mean_share: 1.0 - self.beta1,
            beta2: self.beta2,
            square_share: 1.0 - self.beta2,
        };
        let step = Step { size, root_divisor, epsilon: self.epsilon };
        match (self.update_limit, self.amsgrad) {
            (None, false) => slot.sweep::<2>(Whole { moments, step }, change)?,
            (None, true) => slot.sweep::<3>(Whole { moments, step }, change)?,
            // The step's length hangs on all elements: one sweep for the moments, one for the step.
            (Some(limit), false) => {
                let sum = slot.sweep::<2>(Measured { moments, step }, change)?;
                slot.sweep::<2>(step.shortened(sum, slot, limit), change)?
            }
            (Some(limit), true) => {
                let sum = slot.sweep::<3>(Measured { moments, step }, change)?;
                slot.sweep::<3>(step.shortened(sum, slot, limit), change)?
            }
        };
        Ok(())
    }
}

/// The moments after one more gradient.
#[derive(Debug, Clone, Copy)]
struct Moments {
    /// Share of the parameter added to its gradient.
    added: f64,
    /// Share of the parameter that decay leaves.
    kept: f64,
    mean_share: f64,
    beta2: f64,
    square_share: f64,
}

impl Moments {
    #[inline(always)]
    fn next<N: Number>(
        &self,
        value: &N,
        gradient: &N,
        mean: &N,
        square: &N,
    ) -> std::result::Result<(N, N, N), N::Error> {
        let gradient =
            if self.added == 0.0 { gradient.clone() } else { gradient.plus(&value.scaled(self.added)?)? };
        let mean = mean.towards(&gradient, self.mean_share)?;
        let square =
            square.scaled(self.beta2)?.plus(&gradient.scaled(self.square_share)?.times(&gradient)?)?;
        Ok((value.scaled(self.kept)?, mean, square))
    }
}

/// The step along the mean, divided by the root of `square`.
#[derive(Debug, Clone, Copy)]
struct Step {
    size: f64,
    root_divisor: f64,
    epsilon: f64,
}

impl Step {
    #[inline(always)]
    fn denominator<N: Number>(&self, square: &N) -> std::result::Result<N, N::Error> {
        square.root()?.divided(self.root_divisor)?.shifted(self.epsilon)
    }

    #[inline(always)]
    fn from<N: Number>(&self, value: &N, mean: &N, square: &N) -> std::result::Result<N, N::Error> {
        value.minus(&mean.scaled(self.size)?.over(&self.denominator(square)?)?)
    }

    /// For a sum of squares over the whole parameter, what the update may have as its root mean square.
    fn shortened(self, sum: f64, slot: &ReadySlot<'_>, limit: f64) -> Self {
        let elements = slot.parameter.var.elem_count().max(1) as f64;
        Self { size: self.size / ((sum / elements).sqrt() / limit).max(1.0), ..self }
    }
}

/// Moments and step in one sweep.
#[derive(Debug, Clone, Copy)]
struct Whole {
    moments: Moments,
    step: Step,
}

impl Rule<2> for Whole {
    #[inline(always)]
    fn change<N: Number>(&self, value: N, gradient: N, [mean, square]: [N; 2]) -> Changed<N, 2> {
        let (value, mean, square) = self.moments.next(&value, &gradient, &mean, &square)?;
        Ok((self.step.from(&value, &mean, &square)?, [mean, square]))
    }
}

impl Rule<3> for Whole {
    #[inline(always)]
    fn change<N: Number>(&self, value: N, gradient: N, [mean, square, largest]: [N; 3]) -> Changed<N, 3> {
        let (value, mean, square) = self.moments.next(&value, &gradient, &mean, &square)?;
        let largest = largest.larger(&square)?;
        Ok((self.step.from(&value, &mean, &largest)?, [mean, square, largest]))
    }
}

/// The moments alone, and the square of `gradient / denominator`.
#[derive(Debug, Clone, Copy)]
struct Measured {
    moments: Moments,
    step: Step,
}

impl Measured {
    #[inline(always)]
    fn ratio<N: Number>(&self, gradient: &N, square: &N) -> std::result::Result<Option<N>, N::Error> {
        let ratio = gradient.over(&self.step.denominator(square)?)?;
        Ok(Some(ratio.times(&ratio)?))
    }
}

impl Rule<2> for Measured {
    #[inline(always)]
    fn change<N: Number>(&self, value: N, gradient: N, [mean, square]: [N; 2]) -> Changed<N, 2> {
        let (value, mean, square) = self.moments.next(&value, &gradient, &mean, &square)?;
        Ok((value, [mean, square]))
    }

    #[inline(always)]
    fn measure<N: Number>(
        &self,
        gradient: &N,
        [_, square]: &[N; 2],
    ) -> std::result::Result<Option<N>, N::Error> {
        self.ratio(gradient, square)
    }
}

impl Rule<3> for Measured {
    #[inline(always)]
    fn change<N: Number>(&self, value: N, gradient: N, [mean, square, largest]: [N; 3]) -> Changed<N, 3> {
        let (value, mean, square) = self.moments.next(&value, &gradient, &mean, &square)?;
        let largest = largest.larger(&square)?;
        Ok((value, [mean, square, largest]))
    }

    #[inline(always)]
    fn measure<N: Number>(
        &self,
        gradient: &N,
        [_, _, largest]: &[N; 3],
    ) -> std::result::Result<Option<N>, N::Error> {
        self.ratio(gradient, largest)
    }
}

impl Rule<2> for Step {
    #[inline(always)]
    fn change<N: Number>(&self, value: N, _: N, [mean, square]: [N; 2]) -> Changed<N, 2> {
        Ok((self.from(&value, &mean, &square)?, [mean, square]))
    }
}

impl Rule<3> for Step {
    #[inline(always)]
    fn change<N: Number>(&self, value: N, _: N, [mean, square, largest]: [N; 3]) -> Changed<N, 3> {
        Ok((self.from(&value, &mean, &largest)?, [mean, square, largest]))
    }
}

#[cfg(test)]
pub(crate) mod tests {
    #![allow(clippy::unwrap_used)]
    use super::{Adam, AdamOptions, EpsilonPlace, Measured, Moments, Step, Whole};
    use crate::sweep::tests::{BothWaysAgree, Check};
    use crate::{Decay, Error, Optimizer, OptimizerState, ParameterGroup};
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

    pub(crate) fn every_form(check: &impl Check) {
        let l2 = Moments { added: 0.02, kept: 0.99, mean_share: 0.1, beta2: 0.99, square_share: 0.01 };
        let step = Step { size: 0.02, root_divisor: 0.3, epsilon: 1e-3 };
        for moments in [l2, Moments { added: 0.0, ..l2 }, Moments { mean_share: 0.7, ..l2 }] {
            check.rule::<2>(Whole { moments, step });
            check.rule::<3>(Whole { moments, step });
            check.rule::<2>(Measured { moments, step });
            check.rule::<3>(Measured { moments, step });
        }
        check.rule::<2>(step);
        check.rule::<3>(step);
    }

    #[test]
    fn host_and_other_devices_agree() {
        every_form(&BothWaysAgree);
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
        let one = Adam::new(vec![group("a", &a), group("b", &a)], AdamOptions::default());
        assert!(one.unwrap_err().to_string().contains("`a` and `b` are one parameter"));
        assert!(adam(AdamOptions { update_limit: Some(0.0), ..AdamOptions::default() }).is_err());

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
