//! Choosing settings: a search whose trials are cells, on training images alone.
//!
//! Trials are judged by a rehearsal (`datasets::rehearsal`): normal images held out of the training images, and the same with
//! pasted defects; or by the loss, or the mean of a term of the score, on the former. Test images never enter; they are looked at once, by the final evaluation of
//! what was chosen.
//!
//! Where a search stands follows from its settings and the records of its cells, so there is no state beside them: a search
//! that was stopped is done again from its beginning, and finds finished cells finished.

mod importance;
mod objective;
mod pruner;
mod rehearsals;
mod sampler;
mod search;
mod space;
mod study;
mod tracked;

pub use objective::{HELD_OUT_LOSS, NORMAL_MEAN};
pub use pruner::Pruner;
pub use rehearsals::{RunCells, Search, tune};
pub use sampler::Sampler;
pub use space::{Dimension, Range, Space};
pub use study::{Budget, Rung, Study, StudySettings, Trial, TrialState, final_evaluation};
