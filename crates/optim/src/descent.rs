use std::fmt::Debug;

use candle_core::Var;
use candle_core::backprop::GradStore;

use crate::slots::{ReadySlot, Slots, StateLayout};
use crate::{Error, GradientChange, Optimizer, OptimizerState, ParameterGroup, Result};

/// What tells one optimiser from another.
pub(crate) trait Settings: Copy + Debug + Send {
    /// Refuses what is out of range.
    fn check(&self) -> Result<()>;
    fn layout(&self) -> StateLayout;
    fn learning_rate(&self) -> f64;
    fn set_learning_rate(&mut self, learning_rate: f64);
    fn weight_decay(&self) -> f64;
    fn step(&self, slot: &mut ReadySlot<'_>, change: GradientChange) -> candle_core::Result<()>;
}

/// An optimiser: parameters that go down their gradients as the options `O` say. Use it by its names, [`Adam`],
/// [`Sgd`], [`RmsProp`], [`Adagrad`] and [`Adadelta`].
///
/// [`Adam`]: crate::Adam
/// [`Sgd`]: crate::Sgd
/// [`RmsProp`]: crate::RmsProp
/// [`Adagrad`]: crate::Adagrad
/// [`Adadelta`]: crate::Adadelta
#[derive(Debug)]
pub struct Descent<O> {
    options: O,
    slots: Slots,
}

#[expect(private_bounds, reason = "sealed: the options of this crate are all there are")]
impl<O: Settings> Descent<O> {
    /// An optimiser over all parameters of `groups`.
    ///
    /// # Errors
    ///
    /// If an option is outside of its range, or two parameters have one name or are one.
    pub fn new(groups: Vec<ParameterGroup>, options: O) -> Result<Self> {
        options.check()?;
        Ok(Self { options, slots: Slots::new(groups, options.weight_decay(), options.layout())? })
    }

    /// The options, with the learning rate that was set last.
    pub fn options(&self) -> &O {
        &self.options
    }
}

impl<O: Settings> Optimizer for Descent<O> {
    fn step_with(&mut self, gradients: &GradStore, change: GradientChange) -> Result<()> {
        change.check()?;
        let rate = self.options.learning_rate();
        if !rate.is_finite() {
            return Err(Error::Option { option: "learning_rate", expected: "finite", found: rate });
        }
        let options = &self.options;
        self.slots.step(gradients, |slot| options.step(slot, change))
    }

    fn learning_rate(&self) -> f64 {
        self.options.learning_rate()
    }

    fn set_learning_rate(&mut self, learning_rate: f64) {
        self.options.set_learning_rate(learning_rate);
    }

    fn parameters(&self) -> Vec<(&str, &Var)> {
        self.slots.parameters().collect()
    }

    fn state(&self) -> Result<OptimizerState> {
        self.slots.state(self.options.learning_rate())
    }

    fn load_state(&mut self, state: &OptimizerState) -> Result<()> {
        self.slots.load_state(state)?;
        self.options.set_learning_rate(state.learning_rate);
        Ok(())
    }
}
