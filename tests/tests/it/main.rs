//! End-to-end tests.
#![allow(clippy::unwrap_used)]

mod bench;
mod fixtures;
mod localisation;
mod photographs;
mod quantisation;
mod random_weights;
mod reproduce;
mod runs;
#[cfg(target_os = "linux")]
mod slurm;
mod tracking;
mod tuning;

/// As in the binaries: fits are timed by nobody here, but waited for.
#[global_allocator]
static GLOBAL: mimalloc::MiMalloc = mimalloc::MiMalloc;
