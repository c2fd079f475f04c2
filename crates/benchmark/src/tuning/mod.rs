//! Choosing settings: a search whose trials are cells, on training images alone.
//!
//! Trials are judged by a rehearsal (`datasets::rehearsal`): normal images held out of the training images, and the same with
//! pasted defects. Test images never enter; they are looked at once, by the final evaluation of what was chosen.
//!
//! Where a search stands follows from its settings and the records of its cells, so there is no state beside them: a search
//! that was stopped is done again from its beginning, and finds finished cells finished.

mod importance;
mod sampler;
mod space;
mod study;

pub use sampler::Sampler;
pub use space::{Dimension, Range, Space};
pub use study::{Budget, Rung, Study, StudySettings, Trial, TrialState, final_evaluation, tune};
