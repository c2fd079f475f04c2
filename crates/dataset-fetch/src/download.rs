//! The body of a file: continued where the last attempt ended, checked, and put in place in one step.

use std::fs::{self, File};
use std::io::{ErrorKind, Read, Write};
use std::path::Path;
use std::time::Duration;

use ureq::Agent;
use ureq::http::HeaderMap;

use crate::fetcher::{Fetcher, Progress};
use crate::{Digest, Error, Remote};

/// What one attempt came to, if it did not succeed.
enum Trouble {
    /// Perhaps it goes better later.
    Passing { reason: String, retry_after: Option<Duration> },
    /// It never will.
    Final(Error),
}

impl From<Error> for Trouble {
    fn from(error: Error) -> Self {
        Self::Final(error)
    }
}

fn passing(reason: impl Into<String>) -> Trouble {
    Trouble::Passing { reason: reason.into(), retry_after: None }
}

/// A file on its way.
struct Unfinished<'a> {
    path: &'a Path,
    file: File,
    length: u64,
    progress: Option<&'a dyn Progress>,
}

impl Unfinished<'_> {
    fn failed(&self) -> impl Fn(std::io::Error) -> Error + '_ {
        |source| Error::Write { path: self.path.to_owned(), source }
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), Error> {
        self.file.write_all(bytes).map_err(self.failed())?;
        self.length += bytes.len() as u64;
        if let Some(progress) = self.progress {
            progress.advanced(bytes.len() as u64);
        }
        Ok(())
    }

    fn restart(&mut self) -> Result<(), Error> {
        if self.length > 0 {
            self.file.set_len(0).map_err(self.failed())?;
            self.length = 0;
            if let Some(progress) = self.progress {
                progress.restarted();
            }
        }
        Ok(())
    }
}

/// One file's download.
pub(crate) struct Download<'a> {
    pub(crate) fetcher: &'a Fetcher,
    pub(crate) remote: &'a Remote,
    /// The address: the remote's own, or a mirror's.
    pub(crate) url: &'a str,
    /// The data set's page, for messages.
    pub(crate) page: &'a str,
}

impl Download<'_> {
    /// Downloads to `path` by way of `path` with `.part` at its end, which a broken download leaves behind for the next.
    ///
    /// # Errors
    /// When the server refuses, patience ends, the disk is full, or length or digest are wrong.
    pub(crate) fn run(&self, path: &Path) -> Result<(), Error> {
        let part = crate::fetcher::beside(path, ".part");
        let opened = File::options().create(true).append(true).open(&part);
        let opened = opened.and_then(|file| Ok((file.metadata()?.len(), file)));
        let (length, file) = opened.map_err(|source| Error::Write { path: part.clone(), source })?;
        let progress = self.fetcher.progress.as_deref();
        let mut body = Unfinished { path: &part, file, length, progress };
        if let Some(progress) = progress {
            progress.started(self.remote.file_name(), length);
        }
        let mut begun_afresh = length == 0;
        loop {
            self.receive(&mut body)?;
            let Some(digest) = self.remote.digest else { break };
            let found = digest.algorithm.of_file(&part)?;
            if found == digest.hex {
                break;
            }
            body.restart()?;
            if begun_afresh {
                fs::remove_file(&part).map_err(|source| Error::Write { path: part.clone(), source })?;
                return Err(self.wrong(digest, found));
            }
            // What an earlier attempt left may have been of another file: once more from the start.
            begun_afresh = true;
        }
        let finished = body.file.sync_all().and_then(|()| fs::rename(&part, path));
        finished.map_err(|source| Error::Write { path: path.to_owned(), source })?;
        if let Some(progress) = progress {
            progress.finished(self.remote.file_name());
        }
        Ok(())
    }

    fn wrong(&self, digest: Digest, found: String) -> Error {
        Error::Digest {
            url: self.url.to_owned(),
            algorithm: digest.algorithm.name(),
            expected: digest.hex.to_owned(),
            stated_by: digest.stated_by.to_string(),
            found,
        }
    }

    /// Fills `body` to its end, with as many requests as patience allows.
    fn receive(&self, body: &mut Unfinished<'_>) -> Result<(), Error> {
        let (mut failures, mut furthest) = (0u32, body.length);
        loop {
            let trouble = match self.attempt(body) {
                Ok(()) => return Ok(()),
                Err(Trouble::Final(error)) => return Err(error),
                Err(Trouble::Passing { reason, retry_after }) => (reason, retry_after),
            };
            // Only a new best is progress: a server that always breaks off at one place makes none.
            if body.length > furthest {
                (furthest, failures) = (body.length, 0);
            }
            failures += 1;
            let (reason, retry_after) = trouble;
            let wait = retry_after.unwrap_or(Duration::from_secs(1 << (failures - 1).min(16)));
            let wait = if retry_after.is_none() { wait.min(self.fetcher.longest_wait) } else { wait };
            if failures > self.fetcher.retries || wait > self.fetcher.longest_wait {
                return Err(Error::Unreachable {
                    url: self.url.to_owned(),
                    reason,
                    attempts: failures,
                    retry_after,
                });
            }
            tracing::debug!(url = self.url, reason, wait_s = wait.as_secs(), "trying again");
            (self.fetcher.wait)(wait);
        }
    }

    /// One request for what is missing.
    fn attempt(&self, body: &mut Unfinished<'_>) -> Result<(), Trouble> {
        if self.remote.bytes.is_some_and(|bytes| body.length == bytes) {
            return Ok(());
        }
        if self.remote.bytes.is_some_and(|bytes| body.length > bytes) {
            body.restart()?;
        }
        let mut request = agent(self.fetcher.timeout).get(self.url);
        if body.length > 0 {
            request = request.header("Range", format!("bytes={}-", body.length));
        }
        let response = request.call().map_err(|error| self.sort_failure(&error))?;
        let (head, answer) = response.into_parts();
        let total = match head.status.as_u16() {
            206 => {
                let range = header(&head.headers, "content-range").and_then(parse_content_range);
                let Some((_, total)) = range.filter(|(start, _)| *start == body.length) else {
                    body.restart()?;
                    return Err(passing("the server sent another part of the file than was asked for"));
                };
                total
            }
            200 => {
                // The whole file, asked for or not.
                body.restart()?;
                header(&head.headers, "content-length").and_then(|length| length.parse().ok())
            }
            416 => {
                // Nothing after what is here: it is whole, or of another file. The digest tells which.
                let total = header(&head.headers, "content-range")
                    .and_then(|range| range.trim().strip_prefix("bytes */")?.parse::<u64>().ok());
                if total == Some(body.length) && self.remote.bytes.is_none() {
                    return Ok(());
                }
                body.restart()?;
                return Err(passing("the server has nothing after what is here (status 416)"));
            }
            status => return Err(self.sort_status(status, &head.headers)),
        };
        if let (Some(expected), Some(found)) = (self.remote.bytes, total)
            && expected != found
        {
            return Err(self.length(expected, found).into());
        }
        if let (Some(progress), Some(total)) = (body.progress, total) {
            progress.sized(total);
        }
        self.copy(answer.into_reader(), total.or(self.remote.bytes), body)
    }

    /// Copies an answer's body; `total` is the length of the whole file, where it is known.
    fn copy(
        &self,
        mut reader: impl Read,
        total: Option<u64>,
        body: &mut Unfinished<'_>,
    ) -> Result<(), Trouble> {
        let mut buffer = vec![0; 1 << 16];
        loop {
            let count = match reader.read(&mut buffer) {
                Ok(0) => break,
                Ok(count) => count,
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) => return Err(passing(error.to_string())),
            };
            let found = body.length + count as u64;
            if let Some(expected) = total.filter(|total| found > *total) {
                body.restart()?;
                return Err(self.length(expected, found).into());
            }
            body.write(&buffer[..count])?;
        }
        match total {
            Some(total) if body.length < total => {
                Err(passing(format!("the answer ended after {} of {total} bytes", body.length)))
            }
            _ => Ok(()),
        }
    }

    fn length(&self, expected: u64, found: u64) -> Error {
        Error::Length { url: self.url.to_owned(), expected, found }
    }

    fn sort_status(&self, status: u16, headers: &HeaderMap) -> Trouble {
        if matches!(status, 408 | 429 | 500 | 502 | 503 | 504) {
            // The header may also hold a date; the usual back-off serves then.
            let retry_after = header(headers, "retry-after").and_then(|text| text.trim().parse().ok());
            return Trouble::Passing {
                reason: format!("status {status}"),
                retry_after: retry_after.map(Duration::from_secs),
            };
        }
        Error::Refused { url: self.url.to_owned(), status, page: self.page.to_owned() }.into()
    }

    fn sort_failure(&self, error: &ureq::Error) -> Trouble {
        match error {
            ureq::Error::BadUri(_) | ureq::Error::Http(_) | ureq::Error::TooManyRedirects => {
                Error::Protocol { url: self.url.to_owned(), reason: error.to_string() }.into()
            }
            _ => passing(error.to_string()),
        }
    }
}

fn agent(timeout: Duration) -> Agent {
    Agent::config_builder()
        .http_status_as_error(false)
        .timeout_connect(Some(timeout))
        .timeout_recv_response(Some(timeout))
        .timeout_per_read(Some(timeout))
        .user_agent(concat!("vitad-dataset-fetch/", env!("CARGO_PKG_VERSION")))
        // A compressed answer would have another length than the announced one.
        .accept_encoding("identity")
        .build()
        .new_agent()
}

fn header<'h>(headers: &'h HeaderMap, name: &str) -> Option<&'h str> {
    headers.get(name).and_then(|value| value.to_str().ok())
}

/// First byte and total size from `bytes 5-9/10`; the total may be unknown (`*`).
fn parse_content_range(text: &str) -> Option<(u64, Option<u64>)> {
    let (range, total) = text.trim().strip_prefix("bytes ")?.split_once('/')?;
    let start = range.split_once('-')?.0.trim().parse().ok()?;
    Some((start, total.trim().parse().ok()))
}

#[cfg(test)]
mod tests {
    use super::parse_content_range;

    #[test]
    fn content_ranges_are_read() {
        assert_eq!(parse_content_range("bytes 5-9/10"), Some((5, Some(10))));
        assert_eq!(parse_content_range("bytes 5-9/*"), Some((5, None)));
        assert_eq!(parse_content_range("5-9/10"), None);
    }
}
