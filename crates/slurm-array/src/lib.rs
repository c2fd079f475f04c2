//! One job array on Slurm: submitted once, followed through a shared folder.
//!
//! For programs that have many independent tasks and a cluster: [`Slurm`] submits an array and asks for its queue,
//! [`Shared`] is the folder in which tasks say that they began, that they live and how they ended, and a [`Tracker`] makes
//! of both what became of a task. There is no scheduler in here, and no daemon: whoever follows can be closed and opened
//! again.
//!
//! What counts is the folder. Slurm is only asked whether a record that is missing may still come, because without an
//! accounting database it forgets a task five minutes after its end, and a question that fails says nothing.
//!
//! ```
//! use std::time::Duration;
//! use slurm_array::{Entry, Limits, Poll, Sight, Tracker, Verdict};
//!
//! let mut task = Tracker::new(Limits::default());
//! let at = |seconds| Duration::from_secs(seconds);
//! let entry = Entry::parse("12|3|15|PENDING|0|Resources||")?;
//! let waiting = task.observe(at(0), &Sight { poll: Poll::Listed(entry), ..Sight::default() });
//! assert_eq!(waiting, Verdict::Waiting { reason: "Resources".into() });
//! // The queue can't be asked: nothing is known to have changed.
//! assert_eq!(task.observe(at(60), &Sight::default()), waiting);
//! // Its result is there: that settles it, whatever Slurm says.
//! assert_eq!(task.observe(at(90), &Sight { done: true, ..Sight::default() }), Verdict::Done);
//! # Ok::<(), slurm_array::Error>(())
//! ```

mod attempt;
mod error;
mod index_list;
mod program;
mod queue;
mod request;
mod resources;
mod script;
mod shared;
mod slurm;
mod tracker;
mod verdict;

pub use attempt::{Attempt, Pulse, scratch, threads};
pub use error::Error;
pub use queue::{Entry, Phase};
pub use request::{Dependency, Request};
pub use resources::Resources;
pub use script::{array_script, single_script};
pub use shared::{Beat, Ended, Ending, Shared, Started, Submission};
pub use slurm::Slurm;
pub use tracker::{Limits, Poll, Sight, Tracker};
pub use verdict::Verdict;
