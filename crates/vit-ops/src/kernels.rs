//! All unsafe code of the crate.
#![allow(unsafe_code)]

mod board;
mod strided;
mod written;

pub(crate) use board::Board;
pub(crate) use strided::{View, multiply};
pub(crate) use written::{BLOCK, written};
