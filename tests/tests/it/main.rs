//! End-to-end tests.
#![allow(clippy::unwrap_used)]

mod fixtures;
mod quantisation;
mod random_weights;
mod reproduce;
