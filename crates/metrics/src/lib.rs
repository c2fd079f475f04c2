//! Figures of merit for anomaly detection, on plain slices: image and pixel AUROC, AP, F1-max and FPR95, AUPRO,
//! AU-sPRO and AUPIMO, counts at a fixed threshold, thresholds and normalisation.
//!
//! Everything is exact: scores are compared as they are (never squashed, binned or sampled), equal scores are never
//! split, counts are integers and sums f64. Where a figure is undefined (one class only, NaN, no region, …) there is a
//! typed [`Error`] and no number. Higher scores are more anomalous; labels are `true` for anomalous.
//!
//! ```
//! let scores = [0.2_f32, 0.9, 0.4, 0.7];
//! let labels = [false, true, false, true];
//! assert_eq!(metrics::auroc(&scores, &labels)?, 1.0);
//! assert_eq!(metrics::f1_max(&scores, &labels)?.threshold, 0.7);
//! assert!(metrics::auroc(&scores, &[false; 4]).is_err());
//!
//! let map = [0.1, 0.2, 0.8, 0.3];
//! let image = metrics::ScoredMap::new(2, 2, &map, Some(&[0, 0, 1, 0]))?;
//! assert_eq!(metrics::pixel_auroc(&[image])?, 1.0);
//! assert_eq!(metrics::aupro(&[image], 0.3)?, 1.0);
//! # Ok::<(), metrics::Error>(())
//! ```

mod background;
mod confusion;
mod curve;
mod error;
mod gallop;
mod image;
mod interval;
#[cfg(test)]
mod invariants;
mod map;
mod normalise;
mod overlap;
mod pimo;
mod pixels;
mod presorting;
mod pro;
mod quantile_scale;
mod ranking;
mod reference;
mod regions;
mod score;
mod sort;
mod split;
mod spro;
mod state_bytes;
mod threshold;
#[cfg(feature = "conformance")]
pub mod units;

pub use confusion::Confusion;
pub use curve::{PrPoint, RocPoint, thin};
pub use error::Error;
pub use image::{
    adaptive_threshold, aupr_trapezoid, auroc, average_precision, equal_error_rate, f1_max, fpr_at_tpr,
    pr_curve, roc_curve,
};
pub use interval::{Bootstrap, DeLong, Interval, delong};
pub use map::{ScoredMap, pixel_auroc, pixel_average_precision, pixel_f1_max, pixel_fpr_at_tpr};
pub use normalise::Normalisation;
pub use pimo::{Aupimo, FEWEST_POINTS, Pimo, PimoCurve, PimoRange, PimoRates, PimoWindow};
pub use pixels::{Aupro, Bounded, ExactPixels, PixelFigures, RankedPixels, SpilledPixels, StreamedPixels};
pub use presorting::{presorted_bad, presorted_good};
pub use pro::{ProCurve, aupro, count_regions, pro_at};
pub use quantile_scale::QuantileScale;
pub use ranking::{F1Max, Ranking};
pub use reference::{
    ProReference, f1_reference_anotrans, f1_threshold_reference_advit, fpr_threshold_reference_advit,
    pro_reference_advit, pro_reference_generalad, pro_reference_simplenet, pro_reference_vtadl,
    scaled_reference_anotrans,
};
pub use regions::Connectivity;
pub use score::{Score, labels_from_integers};
pub use spro::{Channel, ChannelMap, Saturation, SproAt, SproCurve, SproPixels, saturation_areas, spro_at};
pub use threshold::{FprThreshold, normal_quantile, threshold_at_fpr};

/// Raised whenever a change of this crate changes figures; part of the id of every benchmark cell.
pub const REVISION: u32 = 2;
