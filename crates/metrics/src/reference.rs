//! Figures as the methods' reference programs compute them, under the programs' names: to reproduce published numbers,
//! beside the figures of this crate that mean what they say.

mod advit;
mod anotrans;
mod generalad;
mod vtadl;

pub use advit::{f1_threshold_reference_advit, fpr_threshold_reference_advit, pro_reference_advit};
pub use anotrans::{f1_reference_anotrans, scaled_reference_anotrans};
pub use generalad::{ProReference, pro_reference_generalad, pro_reference_simplenet};
pub use vtadl::pro_reference_vtadl;
