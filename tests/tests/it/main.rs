//! End-to-end tests.
#![allow(clippy::unwrap_used)]

mod bench;
mod fixtures;
mod photographs;
mod quantisation;
mod random_weights;
mod reproduce;
mod runs;
mod tracking;
mod tuning;
