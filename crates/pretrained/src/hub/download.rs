//! The body of a file: continued where the last attempt ended, checked, and put in place in one step.

use super::cache::{make_parent, with_suffix};
use super::http::{Answer, Ask, Client, Final, Trouble, header};
use crate::{Error, Hub, digest};
use sha2::{Digest, Sha256};
use std::fs::{self, File};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// What the hub says about a file.
#[derive(Debug, Clone)]
pub(crate) struct Description {
    pub(crate) commit: String,
    /// Names the blob; for files in large storage it is their SHA-256.
    pub(crate) etag: String,
    pub(crate) size: u64,
}

impl Description {
    /// The digest the file must have, where the hub says one. (Small files carry Git's own, another kind.)
    fn sha256(&self) -> Option<&str> {
        let is_sha256 = self.etag.len() == 64 && self.etag.bytes().all(|byte| byte.is_ascii_hexdigit());
        is_sha256.then_some(self.etag.as_str())
    }
}

/// How much more is borne before giving up. Progress, and nothing else, renews it.
pub(crate) struct Patience<'a> {
    hub: &'a Hub,
    url: &'a str,
    retries: u32,
    failures: u32,
    furthest: u64,
}

impl<'a> Patience<'a> {
    pub(crate) fn new(hub: &'a Hub, url: &'a str, retries: u32) -> Self {
        Self { hub, url, retries, failures: 0, furthest: 0 }
    }

    /// Notes how long the file has become. Only a new best counts: a server that always breaks off at one place
    /// makes no progress however often the file is begun again.
    fn reached(&mut self, length: u64) {
        if length > self.furthest {
            self.furthest = length;
            self.failures = 0;
        }
    }

    /// Waits before the next attempt.
    ///
    /// # Errors
    /// When there have been too many, or the server wants a longer wait than is allowed.
    pub(crate) fn bear(&mut self, reason: String, retry_after: Option<Duration>) -> Result<(), Error> {
        self.failures += 1;
        let back_off = Duration::from_secs(1 << (self.failures - 1).min(16)).min(self.hub.longest_wait);
        let wait = retry_after.unwrap_or(back_off);
        if self.failures > self.retries || wait > self.hub.longest_wait {
            let (url, attempts) = (self.url.to_owned(), self.failures);
            return Err(Error::Unreachable { url, reason, attempts, retry_after });
        }
        tracing::debug!(url = self.url, reason, wait_s = wait.as_secs(), "trying again");
        self.hub.wait.wait(wait);
        Ok(())
    }
}

/// Downloads `url` to `blob`.
///
/// # Errors
/// What was received so far stays beside `blob`, unless its digest is wrong.
pub(crate) fn download(
    client: &Client,
    url: &str,
    file: &str,
    description: &Description,
    blob: &Path,
) -> Result<(), Final> {
    make_parent(blob)?;
    // The name Python's client uses: either continues what the other began.
    let incomplete = with_suffix(blob, ".incomplete");
    let mut body = Unfinished::open(&incomplete)?;
    if let Some(progress) = &client.hub().progress {
        progress.started(file, description.size, body.length);
    }
    let mut begun_afresh = body.length == 0;
    loop {
        receive(client, url, description.size, &mut body)?;
        let Some(expected) = description.sha256() else { break };
        let found = hash(&incomplete)?;
        if found.eq_ignore_ascii_case(expected) {
            break;
        }
        body.restart(client.hub())?;
        if begun_afresh {
            let remove = fs::remove_file(&incomplete);
            remove.map_err(|source| Error::Write { path: incomplete, source })?;
            let (url, expected) = (url.to_owned(), expected.to_owned());
            return Err(Error::DownloadDigest { url, expected, found }.into());
        }
        // What an earlier attempt left may have been damaged: once more from the start.
        begun_afresh = true;
    }
    let finished = body.file.sync_all().and_then(|()| fs::rename(&incomplete, blob));
    finished.map_err(|source| Error::Write { path: blob.to_owned(), source })?;
    if let Some(progress) = &client.hub().progress {
        progress.finished(file);
    }
    Ok(())
}

/// A file that is not complete yet.
struct Unfinished {
    path: PathBuf,
    file: File,
    length: u64,
}

impl Unfinished {
    fn open(path: &Path) -> Result<Self, Error> {
        let opened = File::options().create(true).append(true).open(path);
        let opened = opened.and_then(|file| Ok((file.metadata()?.len(), file)));
        let (length, file) = opened.map_err(|source| Error::Write { path: path.to_owned(), source })?;
        Ok(Self { path: path.to_owned(), file, length })
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), Error> {
        self.file.write_all(bytes).map_err(|source| Error::Write { path: self.path.clone(), source })?;
        self.length += bytes.len() as u64;
        Ok(())
    }

    fn restart(&mut self, hub: &Hub) -> Result<(), Error> {
        if self.length > 0 {
            self.file.set_len(0).map_err(|source| Error::Write { path: self.path.clone(), source })?;
            self.length = 0;
            if let Some(progress) = &hub.progress {
                progress.restarted();
            }
        }
        Ok(())
    }
}

/// Fills `body` up to `size` bytes, with as many requests as patience allows.
fn receive(client: &Client, url: &str, size: u64, body: &mut Unfinished) -> Result<(), Final> {
    let hub = client.hub();
    let mut patience = Patience::new(hub, url, hub.retries);
    while body.length != size {
        if body.length > size {
            body.restart(hub)?;
        }
        let result = client.send(url, Ask::BytesFrom(body.length)).and_then(|answer| {
            check_range(hub, url, size, &answer, body)?;
            copy(hub, url, size, answer, body)
        });
        patience.reached(body.length);
        match result {
            Ok(()) => {}
            Err(Trouble::Passing { reason, retry_after }) => patience.bear(reason, retry_after)?,
            Err(Trouble::Short { found }) => {
                let borne = patience.bear("the answer ended early".into(), None);
                borne.map_err(|_| Error::Length { url: url.to_owned(), expected: size, found })?;
            }
            Err(Trouble::OutOfRange) => {
                // What is here is not the beginning of the server's file.
                body.restart(hub)?;
                patience.bear("the server has nothing after what is here (status 416)".into(), None)?;
            }
            Err(Trouble::Final(error)) => return Err(error),
        }
    }
    Ok(())
}

/// Whether the answer continues where `body` ends; if it starts at 0 instead, so does `body`.
fn check_range(
    hub: &Hub,
    url: &str,
    size: u64,
    answer: &Answer,
    body: &mut Unfinished,
) -> Result<(), Trouble> {
    let announced = if answer.status == 206 {
        let range = header(&answer.headers, "content-range").and_then(parse_content_range);
        let Some((_, total)) = range.filter(|(start, _)| *start == body.length) else {
            body.restart(hub)?;
            return Err(Trouble::passing("the server sent another part of the file than was asked for"));
        };
        total
    } else {
        body.restart(hub)?;
        header(&answer.headers, "content-length").and_then(|text| text.parse().ok())
    };
    match announced {
        Some(found) if found != size => {
            Err(Error::Length { url: url.to_owned(), expected: size, found }.into())
        }
        _ => Ok(()),
    }
}

/// First byte and total size from `bytes 5-9/10`; the total may be unknown (`*`).
fn parse_content_range(text: &str) -> Option<(u64, Option<u64>)> {
    let (range, total) = text.trim().strip_prefix("bytes ")?.split_once('/')?;
    let start = range.split_once('-')?.0.trim().parse().ok()?;
    Some((start, total.trim().parse().ok()))
}

fn copy(hub: &Hub, url: &str, size: u64, answer: Answer, body: &mut Unfinished) -> Result<(), Trouble> {
    let mut reader = answer.body.into_reader();
    let mut buffer = vec![0; 1 << 16];
    loop {
        let count = match reader.read(&mut buffer) {
            Ok(0) if body.length < size => return Err(Trouble::Short { found: body.length }),
            Ok(0) => return Ok(()),
            Ok(count) => count,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(Trouble::passing(error.to_string())),
        };
        let found = body.length + count as u64;
        if found > size {
            body.restart(hub)?;
            return Err(Error::Length { url: url.to_owned(), expected: size, found }.into());
        }
        body.write(&buffer[..count])?;
        if let Some(progress) = &hub.progress {
            progress.advanced(count as u64);
        }
    }
}

fn hash(path: &Path) -> Result<String, Error> {
    let unreadable = |source| Error::Read { path: path.to_owned(), source };
    let mut file = File::open(path).map_err(unreadable)?;
    let mut hasher = Sha256::new();
    let mut buffer = vec![0; 1 << 18];
    loop {
        let count = file.read(&mut buffer).map_err(unreadable)?;
        if count == 0 {
            return Ok(digest::hex(&hasher.finalize()));
        }
        hasher.update(&buffer[..count]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_content_range_gives_start_and_total() {
        assert_eq!(parse_content_range("bytes 5-9/10"), Some((5, Some(10))));
        assert_eq!(parse_content_range("bytes 5-9/*"), Some((5, None)));
        assert_eq!(parse_content_range("bytes */10"), None);
        assert_eq!(parse_content_range("pages 1-2/3"), None);
    }
}
