//! The cache layout that Python's `huggingface_hub` and this crate share.
//!
//! `models--OWNER--NAME/blobs/ETAG` holds the bytes, `snapshots/COMMIT/FILE` links to them, `refs/BRANCH` holds the
//! commit a branch had when last asked, and `.no_exist/COMMIT/FILE` records that a commit lacks a file.

use crate::Error;
use hf_hub::{Cache, CacheRepo, Repo, RepoType};
use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

/// One repository's folder in the cache.
pub(crate) struct Layout {
    cache: PathBuf,
    folder: String,
    paths: CacheRepo,
}

impl Layout {
    pub(crate) fn new(cache: &Path, repo: &str) -> Self {
        let repo = Repo::new(repo.to_owned(), RepoType::Model);
        let folder = repo.folder_name();
        Self { cache: cache.to_owned(), folder, paths: Cache::new(cache.to_owned()).repo(repo) }
    }

    /// Where the bytes with this `ETag` belong.
    pub(crate) fn blob(&self, etag: &str) -> PathBuf {
        self.paths.blob_path(etag)
    }

    /// Where a commit's file is found.
    pub(crate) fn snapshot(&self, commit: &str, file: &str) -> PathBuf {
        self.paths.pointer_path(commit).join(file)
    }

    /// The commit a branch or tag had when last asked.
    pub(crate) fn commit_of(&self, revision: &str) -> Option<String> {
        let text = fs::read_to_string(self.reference(revision)).ok()?;
        Some(text.trim().to_owned()).filter(|commit| !commit.is_empty())
    }

    /// Records the commit a branch or tag has now.
    pub(crate) fn set_commit_of(&self, revision: &str, commit: &str) -> Result<(), Error> {
        let path = self.reference(revision);
        if self.commit_of(revision).as_deref() == Some(commit) {
            return Ok(());
        }
        make_parent(&path)?;
        // Written beside it and renamed: a reader must never see half a commit.
        let beside = beside(&path);
        let written = fs::write(&beside, commit).and_then(|()| fs::rename(&beside, &path));
        written.map_err(|source| Error::Write { path, source })
    }

    /// Whether it is known that a commit lacks a file.
    pub(crate) fn is_absent(&self, commit: &str, file: &str) -> bool {
        self.absence(commit, file).exists()
    }

    /// Records that a commit lacks a file, so that nobody needs to ask again.
    pub(crate) fn set_absent(&self, commit: &str, file: &str) -> Result<(), Error> {
        let path = self.absence(commit, file);
        make_parent(&path)?;
        File::create(&path).map(drop).map_err(|source| Error::Write { path, source })
    }

    /// Makes a commit's file point to a blob: by a relative symbolic link, else a hard link, else a copy.
    pub(crate) fn link(&self, etag: &str, commit: &str, file: &str) -> Result<PathBuf, Error> {
        let (blob, path) = (self.blob(etag), self.snapshot(commit, file));
        if path.exists() && fs::canonicalize(&path).ok() == fs::canonicalize(&blob).ok() {
            return Ok(path);
        }
        make_parent(&path)?;
        let beside = beside(&path);
        // Up through the file's own folders, the commit and `snapshots`.
        let up = "../".repeat(Path::new(file).components().count() + 1);
        let linked = symlink(Path::new(&format!("{up}blobs/{etag}")), &beside)
            .or_else(|_| fs::hard_link(&blob, &beside))
            .or_else(|_| fs::copy(&blob, &beside).map(drop))
            .and_then(|()| fs::rename(&beside, &path));
        linked.map(|()| path.clone()).map_err(|source| Error::Write { path, source })
    }

    /// Keeps every other process (Python's included) from downloading the same blob until the result is dropped.
    pub(crate) fn lock(&self, etag: &str) -> Result<File, Error> {
        let path = self.cache.join(".locks").join(&self.folder).join(format!("{etag}.lock"));
        make_parent(&path)?;
        let file = File::options().create(true).truncate(false).write(true).open(&path);
        let mut file = file.map_err(|source| Error::Write { path: path.clone(), source })?;
        match file.lock() {
            Ok(()) => {}
            // Some network file systems have no locks; two downloads at once are then merely wasteful, because
            // each ends in a check and a rename.
            Err(error) => tracing::warn!(lock = %path.display(), %error, "no lock; going on without"),
        }
        // Nothing reads it; some file systems only keep a lock on a file that was written.
        file.flush().map_err(|source| Error::Write { path, source })?;
        Ok(file)
    }

    fn reference(&self, revision: &str) -> PathBuf {
        self.cache.join(&self.folder).join("refs").join(revision)
    }

    fn absence(&self, commit: &str, file: &str) -> PathBuf {
        self.cache.join(&self.folder).join(".no_exist").join(commit).join(file)
    }
}

/// A name next to `path` that no other thread or process uses.
fn beside(path: &Path) -> PathBuf {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let number = COUNT.fetch_add(1, Ordering::Relaxed);
    with_suffix(path, &format!(".{}-{number}.new", std::process::id()))
}

/// The path with more at the end of its last name.
pub(crate) fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

/// Makes the folder a file is to lie in.
pub(crate) fn make_parent(path: &Path) -> Result<(), Error> {
    let Some(parent) = path.parent() else { return Ok(()) };
    fs::create_dir_all(parent).map_err(|source| Error::Write { path: parent.to_owned(), source })
}

#[cfg(unix)]
fn symlink(target: &Path, link: &Path) -> std::io::Result<()> {
    std::os::unix::fs::symlink(target, link)
}

#[cfg(windows)]
fn symlink(target: &Path, link: &Path) -> std::io::Result<()> {
    std::os::windows::fs::symlink_file(target, link)
}
