//! From a repository's name to files on this disk.

use super::cache::Layout;
use super::download::{Description, Patience, download};
use super::http::{Ask, COMMIT_HEADER, Client, Final, Trouble, header, protocol};
use crate::directory::{self, WeightFiles};
use crate::{Error, Hub, HubRefusal};
use std::path::PathBuf;

struct Fetched {
    path: PathBuf,
    commit: String,
}

/// A file by its three names.
#[derive(Clone, Copy)]
struct Wanted<'a> {
    repo: &'a str,
    revision: &'a str,
    file: &'a str,
}

impl Hub {
    /// A file of a model repository, from the cache or downloaded into it.
    ///
    /// With a commit as `revision` (40 hexadecimal digits), a cached file is returned without any request. With a
    /// branch the hub is asked whether it moved; if it cannot be reached, the commit it had last time is used.
    /// Files in large storage are checked against their SHA-256, all others against their size.
    ///
    /// # Errors
    /// [`Error::Refused`], [`Error::Offline`], [`Error::Unreachable`] and the others of the hub; each says what to do.
    pub fn fetch(&self, repo: &str, revision: Option<&str>, file: &str) -> Result<PathBuf, Error> {
        let wanted = Wanted { repo, revision: revision.unwrap_or("main"), file };
        self.fetch_wanted(wanted).map(|fetched| fetched.path)
    }

    /// The weights of a repository and its `config.json`, all of one commit. `files` empty means the usual names.
    pub(crate) fn weight_files(
        &self,
        repo: &str,
        revision: Option<&str>,
        files: &[String],
    ) -> Result<WeightFiles, Error> {
        let mut found = WeightFiles::default();
        // After the first file a branch counts as the commit it had then: it may move between two requests.
        let mut revision = revision.unwrap_or("main").to_owned();
        let mut fetch = |file: &str| -> Result<PathBuf, Error> {
            let fetched = self.fetch_wanted(Wanted { repo, revision: &revision, file })?;
            revision = fetched.commit;
            Ok(fetched.path)
        };
        if files.is_empty() {
            if let Some(path) = optional(fetch(directory::SINGLE))? {
                found.weights.push(path);
            } else if let Some(index) = optional(fetch(directory::INDEX))? {
                for shard in directory::shards(&index)? {
                    found.weights.push(fetch(&shard)?);
                }
                found.index = Some(index);
            } else {
                found.weights.push(fetch(directory::TORCH)?);
            }
        }
        for file in files {
            found.weights.push(fetch(file)?);
        }
        found.config = optional(fetch(directory::CONFIG))?;
        Ok(found)
    }

    fn fetch_wanted(&self, wanted: Wanted) -> Result<Fetched, Error> {
        check_names(wanted)?;
        let cache = self.cache.as_ref().ok_or(Error::NoCache)?;
        let layout = Layout::new(cache, wanted.repo);
        if is_commit(wanted.revision)
            && let Some(result) = cached(&layout, wanted, wanted.revision)
        {
            return result;
        }
        let known = || {
            let commit = layout.commit_of(wanted.revision).unwrap_or_else(|| wanted.revision.to_owned());
            cached(&layout, wanted, &commit)
        };
        if self.offline {
            return known().unwrap_or_else(|| {
                Err(Error::Offline {
                    repo: wanted.repo.to_owned(),
                    revision: wanted.revision.to_owned(),
                    file: wanted.file.to_owned(),
                    cache: cache.clone(),
                })
            });
        }
        let client = Client::new(self)?;
        let url = client.address(wanted.repo, wanted.revision, wanted.file);
        let fallback = known();
        // With last time's file at hand nobody should wait for a network that is down.
        let retries = if fallback.is_some() { 0 } else { self.retries };
        let description = match (describe(&client, &url, retries), fallback) {
            (Ok(description), _) => description,
            (Err(Final::Failed(error @ Error::Unreachable { .. })), Some(fallback)) => {
                tracing::warn!(%error, "the hub cannot be reached; using what was downloaded before");
                return fallback;
            }
            (Err(Final::Refused { refusal: HubRefusal::NoFile, commit }), _) => {
                if let Some(commit) = commit.filter(|commit| is_commit(commit)) {
                    layout.set_absent(&commit, wanted.file)?;
                }
                return Err(self.refused(wanted, HubRefusal::NoFile));
            }
            (Err(error), _) => return Err(self.explain(wanted, error)),
        };
        self.bring(&client, &layout, wanted, &url, description)
    }

    /// Has a described file in the cache and linked.
    fn bring(
        &self,
        client: &Client,
        layout: &Layout,
        wanted: Wanted,
        url: &str,
        description: Description,
    ) -> Result<Fetched, Error> {
        let blob = layout.blob(&description.etag);
        let _lock = layout.lock(&description.etag)?;
        // Looked at under the lock: another process may just have finished it.
        let present = std::fs::metadata(&blob).is_ok_and(|found| found.len() == description.size);
        if !present {
            download(client, url, wanted.file, &description, &blob)
                .map_err(|error| self.explain(wanted, error))?;
        }
        let path = layout.link(&description.etag, &description.commit, wanted.file)?;
        if wanted.revision != description.commit {
            layout.set_commit_of(wanted.revision, &description.commit)?;
        }
        Ok(Fetched { path, commit: description.commit })
    }

    fn explain(&self, wanted: Wanted, error: Final) -> Error {
        match error {
            Final::Failed(error) => error,
            Final::Refused { refusal, .. } => self.refused(wanted, refusal),
        }
    }

    fn refused(&self, wanted: Wanted, refusal: HubRefusal) -> Error {
        let refusal = match refusal {
            HubRefusal::Gated { token_sent, .. } => {
                HubRefusal::Gated { page: format!("{}/{}", self.endpoint, wanted.repo), token_sent }
            }
            other => other,
        };
        Error::Refused {
            repo: wanted.repo.to_owned(),
            revision: wanted.revision.to_owned(),
            file: wanted.file.to_owned(),
            refusal,
        }
    }
}

/// What the hub says about a file, asked until it answers or patience ends.
fn describe(client: &Client, url: &str, retries: u32) -> Result<Description, Final> {
    let mut patience = Patience::new(client.hub(), url, retries);
    let answer = loop {
        match client.send(url, Ask::Description) {
            Ok(answer) => break answer,
            Err(Trouble::Passing { reason, retry_after }) => patience.bear(reason, retry_after)?,
            // A description has no body and no range; a server that says otherwise is treated as a busy one.
            Err(Trouble::Short { .. } | Trouble::OutOfRange) => {
                patience.bear("the answer is not one to a question for headers".into(), None)?;
            }
            Err(Trouble::Final(error)) => return Err(error),
        }
    };
    let value = |name: &str| header(&answer.headers, name);
    let needed = |found: Option<&str>, what: &str| {
        // Both become names of files.
        let harmless = |text: &&str| {
            !text.is_empty()
                && !text.starts_with('.')
                && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b))
        };
        let found = found.map(|text| text.trim_start_matches("W/").trim_matches('"'));
        found
            .filter(harmless)
            .map(str::to_owned)
            .ok_or_else(|| protocol(url, format!("the answer has no usable {what}")))
    };
    let commit = needed(value(COMMIT_HEADER), "X-Repo-Commit")?;
    let etag = needed(value("x-linked-etag").or_else(|| value("etag")), "ETag")?;
    // A redirect's own length is that of its own small body.
    let own_length = || value("content-length").filter(|_| answer.status == 200);
    let size = value("x-linked-size").or_else(own_length).and_then(|text| text.parse().ok());
    let size =
        size.ok_or_else(|| protocol(url, "the answer has neither X-Linked-Size nor Content-Length"))?;
    Ok(Description { commit, etag, size })
}

/// What the cache knows about a file at a commit: where it is, or that it does not exist.
fn cached(layout: &Layout, wanted: Wanted, commit: &str) -> Option<Result<Fetched, Error>> {
    let path = layout.snapshot(commit, wanted.file);
    if path.is_file() {
        return Some(Ok(Fetched { path, commit: commit.to_owned() }));
    }
    layout.is_absent(commit, wanted.file).then(|| {
        Err(Error::Refused {
            repo: wanted.repo.to_owned(),
            revision: wanted.revision.to_owned(),
            file: wanted.file.to_owned(),
            refusal: HubRefusal::NoFile,
        })
    })
}

/// `None` where the file does not exist, or cannot be known to offline.
fn optional(result: Result<PathBuf, Error>) -> Result<Option<PathBuf>, Error> {
    match result {
        Ok(path) => Ok(Some(path)),
        Err(Error::Refused { refusal: HubRefusal::NoFile, .. } | Error::Offline { .. }) => Ok(None),
        Err(error) => Err(error),
    }
}

fn is_commit(revision: &str) -> bool {
    revision.len() == 40 && revision.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// Names become paths in the cache; none may lead out of it.
fn check_names(wanted: Wanted) -> Result<(), Error> {
    let checks = [("repository", wanted.repo), ("revision", wanted.revision), ("file", wanted.file)];
    for (what, value) in checks {
        let parts: Vec<&str> = value.split('/').collect();
        let reason = if parts.iter().any(|part| part.is_empty() || *part == "." || *part == "..") {
            Some("it has an empty part, `.` or `..`")
        } else if value.contains(['\\', ':', '\0']) {
            Some("it has a backslash, a colon or a zero byte")
        } else if what == "repository" && parts.len() > 2 {
            Some("expected owner/name")
        } else {
            None
        };
        if let Some(reason) = reason {
            return Err(Error::HubName { what, value: value.to_owned(), reason });
        }
    }
    Ok(())
}
