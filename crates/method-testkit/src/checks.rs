//! The checks, one file each. Every file has a function `check` and says in words what went wrong.

pub(crate) mod batches;
pub(crate) mod config;
pub(crate) mod finite;
pub(crate) mod gradients;
pub(crate) mod offers;
pub(crate) mod prediction;
pub(crate) mod ranking;
pub(crate) mod resume;
pub(crate) mod saving;
pub(crate) mod seeds;
