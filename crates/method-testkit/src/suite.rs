//! What a method tells the testkit about itself.

use std::cell::OnceCell;
use std::path::Path;

use anomaly_core::{Detector, Method, MethodError};
use candle_core::Device;
use serde_json::Value;

use crate::fitting::Reference;
use crate::{Defect, Scene, Texture};

/// Builds the method from overrides of its default configuration.
pub type Build<'a> = Box<dyn Fn(&Value) -> Result<Box<dyn Method>, MethodError> + 'a>;

/// Loads a detector from its directory.
pub type Load<'a> = Box<dyn Fn(&Path) -> Result<Box<dyn Detector>, MethodError> + 'a>;

/// Runs one training step and says of each trainable parameter whether it got a gradient that is not all zero.
pub type Gradients<'a> = Box<dyn Fn() -> Result<Vec<(String, bool)>, MethodError> + 'a>;

/// Whether a fit draws random numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SeedUse {
    /// It does: another seed must give other weights.
    Draws,
    /// It does not: every seed gives the same weights.
    NoDraws,
}

/// What a fit does with a checkpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Resume {
    /// It trains for long: it keeps checkpoints and goes on from the latest.
    FromCheckpoint,
    /// It is done in one short pass and starts again.
    StartsAgain,
}

/// A method's tests: how to make it, and the small settings and images that it works on.
///
/// [`Suite::new`] fills in defaults; set the public fields that should be otherwise.
pub struct Suite<'a> {
    /// The method's name, as its `Info` says.
    pub name: &'static str,
    /// Builds the method.
    pub build: Build<'a>,
    /// Loads a detector.
    pub load: Load<'a>,
    /// Overrides that make it small: a whole fit should take well under a second, for it is done some twenty times.
    pub config: Value,
    /// Values that the configuration must refuse, by field. Not empty if the configuration holds a number.
    pub out_of_range: Vec<(&'static str, Value)>,
    /// The images it learns from and is tested on, the defect it should find, and how large both are.
    pub scene: Scene,
    /// Why this texture, defect, size and these settings are right for the method. Printed when the ranking fails.
    pub reason: &'static str,
    /// Whether its fit draws.
    pub seed_use: SeedUse,
    /// What its fit does with checkpoints.
    pub resume: Resume,
    /// One training step's gradients; `None` if nothing is trained.
    pub gradients: Option<Gradients<'a>>,
    /// Where to compute.
    pub device: Device,
    pub(crate) reference: OnceCell<Reference>,
}

impl<'a> Suite<'a> {
    /// A suite with default settings, [`Texture::Part`]s of 32 pixels with [`Defect::Spot`]s, for a method that neither
    /// draws nor trains.
    pub fn new(
        name: &'static str,
        build: impl Fn(&Value) -> Result<Box<dyn Method>, MethodError> + 'a,
        load: impl Fn(&Path) -> Result<Box<dyn Detector>, MethodError> + 'a,
    ) -> Self {
        Self {
            name,
            build: Box::new(build),
            load: Box::new(load),
            config: Value::Null,
            out_of_range: Vec::new(),
            scene: Scene { texture: Texture::Part, defect: Defect::Spot, size: 32, training_images: 32 },
            reason: "the default scene",
            seed_use: SeedUse::NoDraws,
            resume: Resume::StartsAgain,
            gradients: None,
            device: Device::Cpu,
            reference: OnceCell::new(),
        }
    }
}
