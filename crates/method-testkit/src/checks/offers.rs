//! Offers: what is offered stays, and looking changes nothing.

use anomaly_core::{Detector, Flow, Harness, Images, MethodError, Offer, Prediction, TrainingData};

use crate::Suite;
use crate::checks::prediction::difference;
use crate::failure::{Problem, problem};
use crate::fitting::{Plan, SEED, files};

pub(crate) fn check(suite: &Suite<'_>) -> Result<(), Problem> {
    let reference = suite.reference()?;
    let images = reference.tests.get(&(0..4).collect::<Vec<_>>())?;
    let mut looker = Looker { images: &images, kept: Vec::new(), losses: Vec::new() };
    let outcome = suite.fit(&*reference.method, &reference.training, Plan::WHOLE, &mut looker)?;
    let Some(detector) = outcome.detector else {
        return problem("a fit that nobody cancelled said that it was cancelled");
    };
    let Looker { kept, losses, .. } = looker;
    for (epoch, then, offered) in &kept {
        if let Some(what) = difference(then, &offered.score(&images)?)? {
            return problem(format!(
                "the detector offered after epoch {epoch} changed as training went on: {what}"
            ));
        }
    }
    if let Some((epoch, loss)) = losses.iter().find(|(_, loss)| !loss.is_finite()) {
        return problem(format!("the loss after epoch {epoch} is {loss}"));
    }
    let looked_at = files(&*reference.method, &reference.training, &*detector, SEED)?;
    match reference.files.difference(&looked_at)? {
        Some(what) => {
            problem(format!("a fit whose offers were looked at ends with another detector: {what}"))
        }
        None => Ok(()),
    }
}

/// A harness that looks at everything it is offered.
struct Looker<'a> {
    images: &'a Images,
    /// Epoch, what the detector said then, the detector.
    kept: Vec<(usize, Prediction, Box<dyn Detector>)>,
    losses: Vec<(usize, f64)>,
}

impl Harness for &mut Looker<'_> {
    fn offer(
        &mut self,
        epoch: usize,
        train_loss: Option<f64>,
        offer: &mut dyn Offer,
    ) -> Result<Flow, MethodError> {
        self.losses.extend(train_loss.map(|loss| (epoch, loss)));
        self.losses.extend(offer.validation_loss(self.images)?.map(|loss| (epoch, loss)));
        let detector = offer.detector()?;
        self.kept.push((epoch, detector.score(self.images)?, detector));
        Ok(Flow::Continue)
    }
}
