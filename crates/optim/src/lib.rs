//! Optimisers, schedules and gradient clipping, with state that can be saved and restored bit for bit.
//!
//! candle's own optimisers keep their moments to themselves, so a run with them cannot be resumed; and they skip a
//! parameter without gradient in silence. Those here do `PyTorch`'s arithmetic, take parameter groups, hand out their
//! whole state, and name the parameters that got no gradient.
//!
//! ```
//! use candle_core::{DType, Device, Var};
//! use optim::{Adam, AdamOptions, Optimizer, ParameterGroup, Schedule};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let weight = Var::ones(3, DType::F32, &Device::Cpu)?;
//! let group = ParameterGroup::new([("weight".to_owned(), weight.clone())]);
//! let mut adam = Adam::new(vec![group], AdamOptions { learning_rate: 0.1, ..AdamOptions::default() })?;
//! let schedule = Schedule::Cosine { length: 10, floor: 0.0 };
//! for step in 0..10 {
//!     adam.set_learning_rate(schedule.at(0.1, step));
//!     let loss = weight.sqr()?.sum_all()?;
//!     let gradients = loss.backward()?;
//!     assert!(adam.missing_gradients(&gradients).is_empty());
//!     adam.step(&gradients)?;
//! }
//! let saved = adam.state()?; // goes into a checkpoint
//! adam.load_state(&saved)?;
//! assert!(weight.to_vec1::<f32>()?[0] < 0.6);
//! # Ok(())
//! # }
//! ```

#![allow(clippy::inline_always, reason = "vector instructions chosen at run time reach only what is inlined")]

mod adadelta;
mod adagrad;
mod adam;
mod clipping;
#[cfg(any(test, feature = "cuda"))]
mod cuda;
mod descent;
mod error;
mod group;
mod number;
mod plateau;
mod rms_prop;
mod schedule;
mod sgd;
mod slots;
mod state;
mod sweep;

pub use adadelta::{Adadelta, AdadeltaOptions};
pub use adagrad::{Adagrad, AdagradOptions};
pub use adam::{Adam, AdamOptions, EpsilonPlace};
pub use clipping::{GradientChange, clip_grad_norm, gradient_norm};
pub use descent::Descent;
pub use error::{Error, Result};
pub use group::{Decay, ParameterGroup, RootEpsilon};
pub use plateau::{Better, Plateau, PlateauOptions, Threshold};
pub use rms_prop::{RmsProp, RmsPropOptions};
pub use schedule::{Ramp, Schedule};
pub use sgd::{Momentum, Sgd, SgdOptions};
pub use state::OptimizerState;

use std::collections::BTreeMap;

use candle_core::backprop::GradStore;
use candle_core::{Tensor, Var};

/// What changes parameters along their gradients.
pub trait Optimizer: Send {
    /// Changes every parameter that `gradients` holds a gradient of; the others stay as they are, their step count
    /// and state included. Parts of a model may therefore be stepped one after the other, each from its own backward
    /// pass.
    ///
    /// # Errors
    ///
    /// If a gradient has another shape, type or device than its parameter, or the learning rate is not finite; no
    /// parameter has moved then.
    fn step(&mut self, gradients: &GradStore) -> Result<()> {
        self.step_with(gradients, GradientChange::default())
    }

    /// The same along gradients changed on the way, in the same pass over memory.
    ///
    /// # Errors
    ///
    /// As [`Optimizer::step`], and if the change has a limit below 0 or is not a number.
    fn step_with(&mut self, gradients: &GradStore, change: GradientChange) -> Result<()>;

    /// The same along gradients whose norm over all parameters is brought to at most `max_norm`; returns the norm
    /// before it.
    ///
    /// # Errors
    ///
    /// As [`Optimizer::step`], and if the norm is NaN or infinite, or `max_norm` NaN or below 0; no parameter has moved
    /// then.
    fn step_clipped(&mut self, gradients: &GradStore, max_norm: f64) -> Result<f64> {
        let norm = gradient_norm(gradients, self.parameters().into_iter().map(|(_, var)| var))?;
        self.step_with(gradients, GradientChange::to_norm(norm, max_norm)?)?;
        Ok(norm)
    }

    /// The learning rate of a group with factor 1.
    fn learning_rate(&self) -> f64;

    /// Sets the learning rate of a group with factor 1, before a step, from a [`Schedule`] for instance.
    fn set_learning_rate(&mut self, learning_rate: f64);

    /// All parameters with their names, in the order of the groups.
    fn parameters(&self) -> Vec<(&str, &Var)>;

    /// A copy of everything the next step depends on besides parameters and gradients.
    ///
    /// # Errors
    ///
    /// If the device cannot copy.
    fn state(&self) -> Result<OptimizerState>;

    /// Goes on from `state`; the optimiser must have been made over the same parameters.
    ///
    /// # Errors
    ///
    /// If the state is of another kind of optimiser, or a parameter's state is missing, unknown or of another shape;
    /// the optimiser is then unchanged.
    fn load_state(&mut self, state: &OptimizerState) -> Result<()>;

    /// [`Optimizer::state`] as tensors alone, as a checkpoint keeps them.
    ///
    /// # Errors
    ///
    /// As [`Optimizer::state`] and [`OptimizerState::to_tensors`].
    fn state_tensors(&self) -> Result<BTreeMap<String, Tensor>> {
        self.state()?.to_tensors()
    }

    /// Goes on from [`Optimizer::state_tensors`].
    ///
    /// # Errors
    ///
    /// As [`OptimizerState::from_tensors`] and [`Optimizer::load_state`].
    fn load_state_tensors(&mut self, tensors: BTreeMap<String, Tensor>) -> Result<()> {
        self.load_state(&OptimizerState::from_tensors(tensors)?)
    }

    /// The names of the parameters without a gradient in `gradients`: a part of the network that is cut off from the
    /// loss, most often by an operation that has no backward pass.
    fn missing_gradients(&self, gradients: &GradStore) -> Vec<String> {
        self.parameters()
            .into_iter()
            .filter(|(_, var)| gradients.get(var).is_none())
            .map(|(name, _)| name.to_owned())
            .collect()
    }
}
