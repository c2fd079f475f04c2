//! Verdicts over the lives of tasks, and the client against programs that stand in for Slurm's.
#![allow(clippy::unwrap_used)]

mod lives;
#[cfg(unix)]
mod programs;
