//! VT-ADL (Mishra et al. 2021).

use crate::{Error, ScoredMap, pixel_auroc};

/// What the reference prints as its "PRO score": the AUROC of all pixels, without regions and without a limit. The
/// published PRO columns may be this number.
///
/// # Errors
/// As [`pixel_auroc`].
pub fn pro_reference_vtadl(images: &[ScoredMap<'_>]) -> Result<f64, Error> {
    pixel_auroc(images)
}
