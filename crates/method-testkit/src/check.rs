//! The list of checks.

use std::fmt;

use crate::checks::{batches, config, finite, gradients, offers, prediction, ranking, resume, saving, seeds};
use crate::failure::Problem;
use crate::{Failure, Failures, Suite};

/// One thing that every method must do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Check {
    /// A configuration with an unknown key, a wrong type or a value out of range is refused by the field's name (an
    /// unknown key with the nearest one), and a resolved configuration builds the same method again.
    ConfigNamesTheField,
    /// One seed gives one detector, to the bits of its files; another seed gives another if the method draws, and the
    /// same if it does not.
    SeedDecides,
    /// A loaded detector scores as the saved one did, to the bit; saving it again gives the same bits; a detector of
    /// another method or backbone is refused.
    SaveAndLoad,
    /// An image's score, terms and map don't depend on the batch it comes in, within 1e-5 of their scale (a matrix
    /// product may add in another order for another number of rows).
    BatchIndependence,
    /// A cancelled fit stops; going on from its checkpoint gives the weights of an uninterrupted fit, to the bit, and
    /// does not start again.
    CancelAndResume,
    /// NaN and infinity are refused in `fit` and in `score`, naming the image.
    NotFiniteRefused,
    /// AUROC of at least 0.8 on the scene's 64 test images: higher = more anomalous.
    RanksPlantedDefects,
    /// Every trainable parameter gets a gradient.
    GradientsReachParameters,
    /// Scores, terms, maps and pictures have the shapes they must have, are finite, and don't depend on ids.
    PredictionIsWellFormed,
    /// An offered detector stays as it was when training goes on, and looking at offers changes no training.
    OffersStandStill,
}

impl Check {
    /// All of them, in the order they are run.
    pub const ALL: [Self; 10] = [
        Self::ConfigNamesTheField,
        Self::PredictionIsWellFormed,
        Self::SeedDecides,
        Self::SaveAndLoad,
        Self::BatchIndependence,
        Self::CancelAndResume,
        Self::NotFiniteRefused,
        Self::RanksPlantedDefects,
        Self::GradientsReachParameters,
        Self::OffersStandStill,
    ];

    /// Its name in kebab case.
    pub fn name(self) -> &'static str {
        match self {
            Self::ConfigNamesTheField => "config-names-the-field",
            Self::SeedDecides => "seed-decides",
            Self::SaveAndLoad => "save-and-load",
            Self::BatchIndependence => "batch-independence",
            Self::CancelAndResume => "cancel-and-resume",
            Self::NotFiniteRefused => "not-finite-refused",
            Self::RanksPlantedDefects => "ranks-planted-defects",
            Self::GradientsReachParameters => "gradients-reach-parameters",
            Self::PredictionIsWellFormed => "prediction-is-well-formed",
            Self::OffersStandStill => "offers-stand-still",
        }
    }
}

impl fmt::Display for Check {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl Suite<'_> {
    /// Runs one check.
    ///
    /// # Errors
    /// The [`Failure`].
    pub fn run(&self, check: Check) -> Result<(), Failure> {
        let checked = match check {
            Check::ConfigNamesTheField => config::check(self),
            Check::SeedDecides => seeds::check(self),
            Check::SaveAndLoad => saving::check(self),
            Check::BatchIndependence => batches::check(self),
            Check::CancelAndResume => resume::check(self),
            Check::NotFiniteRefused => finite::check(self),
            Check::RanksPlantedDefects => ranking::check(self),
            Check::GradientsReachParameters => gradients::check(self),
            Check::PredictionIsWellFormed => prediction::check(self),
            Check::OffersStandStill => offers::check(self),
        };
        checked.map_err(|Problem(problem)| Failure { check, method: self.name.to_owned(), problem })
    }

    /// Runs all checks.
    ///
    /// # Errors
    /// [`Failures`] lists those that failed.
    pub fn run_all(&self) -> Result<(), Failures> {
        let failures: Vec<Failure> =
            Check::ALL.into_iter().filter_map(|check| self.run(check).err()).collect();
        if failures.is_empty() { Ok(()) } else { Err(Failures(failures)) }
    }
}
