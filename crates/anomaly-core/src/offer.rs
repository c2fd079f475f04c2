//! Choosing among what a fit passes through.
//!
//! References often keep the epoch that is best on the *test* set. So that one fit gives that figure, an honest one
//! and the last side by side, a method does not choose: it offers, and the harness keeps.

use crate::{Detector, Images, MethodError};

/// What a method offers after an epoch (or a number of steps).
///
/// Both functions may be costly and are called only if the rule needs them.
pub trait Offer {
    /// The method's validation loss over these normal images, a batch at a time; `None` if it has none.
    ///
    /// # Errors
    /// Whatever the method's forward pass gives.
    fn validation_loss(&mut self, images: &Images) -> Result<Option<f64>, MethodError>;

    /// The finished detector as of now, independent of all further training.
    ///
    /// # Errors
    /// Whatever the method needs to finish it.
    fn detector(&mut self) -> Result<Box<dyn Detector>, MethodError>;
}

/// Whether to go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flow {
    /// Go on.
    Continue,
    /// Stop training here; the fit returns what it has.
    Stop,
}

/// The harness's side of offers. A method reaches it through [`crate::FitContext::offer`].
pub trait Harness {
    /// Looks at what stands after `epoch` (1-based), with the epoch's mean training loss where there is one.
    ///
    /// # Errors
    /// What the offer gave, or [`MethodError::Data`].
    fn offer(
        &mut self,
        epoch: usize,
        train_loss: Option<f64>,
        offer: &mut dyn Offer,
    ) -> Result<Flow, MethodError>;
}

/// A harness that keeps nothing: the fit's own result, the last, is all there is.
#[derive(Debug, Clone, Copy, Default)]
pub struct KeepNothing;

impl Harness for KeepNothing {
    fn offer(&mut self, _: usize, _: Option<f64>, _: &mut dyn Offer) -> Result<Flow, MethodError> {
        Ok(Flow::Continue)
    }
}

/// Which images a validation loss is taken over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ValidationImages {
    /// The normal images of the test split: what some references do. An oracle.
    TestNormals,
    /// A share of the training images that the fit never saw.
    HeldOut,
}

/// A metric over the whole test set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TestMetric {
    /// Image-level AUROC.
    ImageAuroc,
    /// Pixel-level AUROC.
    PixelAuroc,
}

/// By what rule one of the offers is kept.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub enum Criterion {
    /// The fit's own result.
    Last,
    /// An offer replaces the kept one when `best - min_delta > loss`, the loss being the unweighted mean over batches.
    LowestValidationLoss {
        /// Over which images.
        on: ValidationImages,
        /// Images a batch.
        batch: usize,
        /// The smallest improvement that counts.
        min_delta: f64,
    },
    /// An offer replaces the kept one when its training loss is lower.
    LowestTrainingLoss,
    /// An offer replaces the kept one when its metric on the test set is strictly higher. An oracle.
    HighestOnTest {
        /// The metric.
        metric: TestMetric,
        /// To how many decimals it is rounded before it is compared.
        decimals: Option<u32>,
    },
}

/// The reference's way to choose and an honest one.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Selection {
    /// What the reference does, leak or not.
    pub faithful: Criterion,
    /// What may be done when held-out normal images exist; without them the honest choice is [`Criterion::Last`].
    pub honest: Criterion,
}

impl Selection {
    /// The last state, both ways: methods without training, or with a fixed length and no choice.
    pub const LAST: Self = Self { faithful: Criterion::Last, honest: Criterion::Last };
}
