//! Whether a training has run away.

use serde::{Deserialize, Serialize};

use crate::Error;
use crate::trainer::StepLosses;

/// Below this probability of a reconstruction less than a hundredth of the adversarial gradient is left: its
/// denominator `p (1 - p)` is held at 1e-12 and more.
const SATURATED: f32 = 1e-14;

/// Looks at each step's losses; part of a checkpoint.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(crate) struct Watch {
    /// Steps in a row with nothing from the discriminator.
    silent: usize,
}

impl Watch {
    /// Looks at `step` (counted from 1).
    ///
    /// # Errors
    /// [`Error::Diverged`] at once if a loss is no finite number; [`Error::Collapsed`] after `patience` steps in a row
    /// in which the discriminator gave every image and every reconstruction the very same probability, or all
    /// reconstructions one so small that no gradient is left.
    pub(crate) fn see(&mut self, step: usize, losses: &StepLosses, patience: usize) -> Result<(), Error> {
        for (what, value) in [
            ("the reconstruction loss", losses.reconstruction),
            ("the adversarial loss", losses.adversarial),
            ("the latent loss", losses.latent),
            ("the discriminator's loss", losses.discriminator),
        ] {
            if !value.is_finite() {
                return Err(Error::Diverged { step, what: what.to_owned(), value });
            }
        }
        let all = &losses.probabilities;
        let painted = &all[all.len() / 2..];
        let what = if all.iter().all(|probability| *probability == all[0]) {
            "it gave every image and every reconstruction the same probability"
        } else if painted.iter().all(|probability| *probability < SATURATED) {
            "it was so sure of every reconstruction that no gradient was left"
        } else {
            self.silent = 0;
            return Ok(());
        };
        self.silent += 1;
        if self.silent < patience {
            return Ok(());
        }
        Err(Error::Collapsed { step, steps: self.silent, what })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::Watch;
    use crate::trainer::StepLosses;

    fn losses(probabilities: [f32; 4]) -> StepLosses {
        StepLosses { probabilities: probabilities.to_vec(), ..StepLosses::default() }
    }

    #[test]
    fn no_number_is_reported_at_once_with_its_step() {
        let broken = StepLosses { latent: f64::NAN, ..losses([0.1, 0.2, 0.3, 0.4]) };
        let error = Watch::default().see(7, &broken, 100).unwrap_err().to_string();
        assert!(error.contains("step 7") && error.contains("latent"), "{error}");
    }

    #[test]
    fn a_silent_discriminator_is_reported_after_some_steps_in_a_row() {
        for silent in [[0.5; 4], [1.0, 0.9, 0.0, 1e-20]] {
            let mut watch = Watch::default();
            watch.see(1, &losses(silent), 3).unwrap();
            watch.see(2, &losses(silent), 3).unwrap();
            // One good step, and the count begins anew.
            watch.see(3, &losses([0.5, 0.6, 0.5, 0.4]), 3).unwrap();
            watch.see(4, &losses(silent), 3).unwrap();
            watch.see(5, &losses(silent), 3).unwrap();
            let error = watch.see(6, &losses(silent), 3).unwrap_err().to_string();
            assert!(error.contains("step 6") && error.contains("3 steps"), "{error}");
        }
        // Sure of the images alone is what it should be.
        let mut watch = Watch::default();
        watch.see(1, &losses([1.0, 1.0, 1e-3, 1e-20]), 1).unwrap();
    }
}
