//! Fetching from a server on the loopback that answers as badly as servers do.
#![allow(clippy::unwrap_used)]

mod archives;
mod downloads;
mod sample;
// The server that `pretrained` is tested with: one for both, so that neither gets a tamer one.
#[allow(dead_code, reason = "each of its users needs another part of it")]
#[path = "../../../pretrained/tests/it/server.rs"]
mod server;
