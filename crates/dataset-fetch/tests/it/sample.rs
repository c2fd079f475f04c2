//! A data set of one file, and servers of it.

use std::fmt::Write as _;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use dataset_fetch::{Access, Algorithm, Digest, Fetcher, Packing, Remote, Source, StatedBy};
use sha2::{Digest as _, Sha256};

use crate::server::{Reply, Request, Server};

/// A source of one file, which lives as long as the tests.
pub(crate) fn source(packing: Packing, bytes: Option<u64>, sha256: Option<String>) -> Source {
    let digest = sha256.map(|hex| Digest {
        algorithm: Algorithm::Sha256,
        hex: Box::leak(hex.into_boxed_str()),
        stated_by: StatedBy::Publisher,
    });
    // Nothing listens at this address: every test goes through its own mirror.
    let files = vec![Remote { url: "http://127.0.0.1:9/where/the.file", bytes, digest, packing }];
    let files: &'static [Remote] = Box::leak(files.into_boxed_slice());
    Source {
        name: "sample",
        title: "Sample",
        licence: "none",
        page: "https://example.org/sample",
        root: "",
        access: Access::Free(files),
    }
}

pub(crate) fn hex(content: &[u8]) -> String {
    Sha256::digest(content).iter().fold(String::new(), |mut hex, byte| {
        write!(hex, "{byte:02x}").unwrap();
        hex
    })
}

pub(crate) fn content() -> Vec<u8> {
    (0..300_000u32).map(|at| (at.wrapping_mul(2_654_435_761) >> 24) as u8).collect()
}

/// A fetcher that asks `server` and notes its waits instead of waiting.
pub(crate) fn fetcher(folder: &Path, server: &Server) -> (Fetcher, Arc<Mutex<Vec<Duration>>>) {
    let waits = Arc::new(Mutex::new(Vec::new()));
    let mut fetcher = Fetcher::new(folder);
    fetcher.mirror = Some(format!("{}/", server.url));
    fetcher.retries = 3;
    let noted = Arc::clone(&waits);
    fetcher.wait = Arc::new(move |wait| noted.lock().unwrap().push(wait));
    (fetcher, waits)
}

/// A good server's answer: the part that was asked for.
pub(crate) fn good(content: &[u8], request: &Request) -> Reply {
    match request.range_start() {
        None => Reply::new(200).body(content),
        Some(start) if start < content.len() => Reply::new(206)
            .header("Content-Range", format!("bytes {start}-{}/{}", content.len() - 1, content.len()))
            .body(&content[start..]),
        Some(_) => Reply::new(416).header("Content-Range", format!("bytes */{}", content.len())),
    }
}
