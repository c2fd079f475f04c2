//! From a data set's name to its folder.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use crate::digest::Algorithm;
use crate::download::Download;
use crate::lock::{Lock, Record};
use crate::unpack::unpack;
use crate::{Access, Error, Packing, Remote, Source};

/// Told how far a download is; the crate itself prints nothing.
pub trait Progress: Send + Sync {
    /// A download begins; `present` bytes were left by an earlier attempt.
    fn started(&self, file: &str, present: u64);
    /// The file is this long.
    fn sized(&self, _total: u64) {}
    /// `bytes` more have been written.
    fn advanced(&self, bytes: u64);
    /// The server does not continue where the last attempt ended: it starts at 0 again.
    fn restarted(&self) {}
    /// The file is complete, checked and in place.
    fn finished(&self, file: &str);
}

/// How data sets are fetched.
#[derive(Clone)]
#[non_exhaustive]
pub struct Fetcher {
    /// The folder that holds a folder per data set.
    pub folder: PathBuf,
    /// Where to ask instead of the publishers' servers: the files are looked for at `mirror/NAME-OF-THE-FILE`.
    pub mirror: Option<String>,
    /// How often a request that failed for a passing reason (a reset, 429, 5xx) is repeated without any progress before
    /// giving up; 5 unless set.
    pub retries: u32,
    /// The longest single wait between two attempts, 60 s unless set; a server that asks for more gets an error that
    /// says so.
    pub longest_wait: Duration,
    /// How long a connection may take to open, or to deliver its next bytes; 30 s unless set.
    pub timeout: Duration,
    /// Whether archives are kept once they are unpacked.
    pub keep_archives: bool,
    /// The most that an archive may unpack to, in bytes; 64 GiB unless set.
    pub most_unpacked: u64,
    /// Who is told how far a download is.
    pub progress: Option<Arc<dyn Progress>>,
    /// How to wait between attempts.
    pub wait: Arc<dyn Fn(Duration) + Send + Sync>,
}

/// What a file was checked against.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Check {
    /// The digest that its publisher or a loader states.
    Stated,
    /// The digest that an earlier fetch recorded.
    Recorded,
    /// Nothing: nobody states a digest, and this is the first fetch. Its SHA-256 is now recorded.
    FirstFetch {
        /// What was received, in hexadecimal.
        sha256: String,
    },
}

/// A data set that is there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fetched {
    /// The place that `datasets` opens.
    pub root: PathBuf,
    /// What each file was checked against, by name; empty if the data set was there already.
    pub checks: Vec<(String, Check)>,
}

impl Fetcher {
    /// Fetches into folders below `folder`.
    pub fn new(folder: impl Into<PathBuf>) -> Self {
        Self {
            folder: folder.into(),
            mirror: None,
            retries: 5,
            longest_wait: Duration::from_secs(60),
            timeout: Duration::from_secs(30),
            keep_archives: false,
            most_unpacked: 64 << 30,
            progress: None,
            wait: Arc::new(std::thread::sleep),
        }
    }

    /// Where the data set called `name` goes.
    pub fn place(&self, source: &Source) -> PathBuf {
        self.folder.join(source.name)
    }

    /// Makes the data set's folder, unless a fetch has made it already. The folder appears when everything in it is
    /// complete; until then its parts lie in `NAME.partial` beside it.
    ///
    /// # Errors
    /// [`Error::Manual`] if it is not for programs to download; [`Error::Occupied`]; anything about servers, digests,
    /// disks and archives. A fetch that failed goes on where it ended when it is called again.
    pub fn fetch(&self, source: &Source) -> Result<Fetched, Error> {
        let place = self.place(source);
        let root = if source.root.is_empty() { place.clone() } else { place.join(source.root) };
        let files = match source.access {
            Access::Free(files) => files,
            Access::Manual { steps } => {
                let steps = steps.replace("{}", &place.display().to_string());
                return Err(Error::Manual { name: source.name.to_owned(), steps });
            }
        };
        if place.join(MARK).is_file() {
            return Ok(Fetched { root, checks: Vec::new() });
        }
        if fs::read_dir(&place).is_ok_and(|mut entries| entries.next().is_some()) {
            return Err(Error::Occupied { path: place });
        }
        let partial = beside(&place, ".partial");
        make(&partial)?;
        let mut checks = Vec::with_capacity(files.len());
        for remote in files {
            let path = partial.join(remote.file_name());
            checks.push((remote.file_name().to_owned(), self.file(source, remote, &path)?));
        }
        for remote in files.iter().filter(|remote| remote.packing != Packing::None) {
            let archive = partial.join(remote.file_name());
            unpack(&archive, remote.packing, &partial.join(CONTENT), self.most_unpacked)?;
            if !self.keep_archives {
                fs::remove_file(&archive).map_err(|source| Error::Write { path: archive, source })?;
            }
        }
        finish(&partial, &place)?;
        Ok(Fetched { root, checks })
    }

    /// Gets one file to `path`, and checks it.
    fn file(&self, source: &Source, remote: &Remote, path: &Path) -> Result<Check, Error> {
        let url = match &self.mirror {
            Some(mirror) => format!("{}/{}", mirror.trim_end_matches('/'), remote.file_name()),
            None => remote.url.to_owned(),
        };
        if !path.is_file() {
            Download { fetcher: self, remote, url: &url, page: source.page }.run(path)?;
        }
        if remote.digest.is_some() {
            return Ok(Check::Stated);
        }
        let metadata = fs::metadata(path).map_err(|source| Error::Read { path: path.to_owned(), source })?;
        let found = Record { bytes: metadata.len(), sha256: Algorithm::Sha256.of_file(path)? };
        let mut lock = Lock::read(&self.folder)?;
        // By the publisher's address, also from a mirror: it is the same file or none.
        match lock.get(remote.url) {
            Some(known) if *known == found => Ok(Check::Recorded),
            Some(known) => {
                let expected = known.sha256.clone();
                fs::remove_file(path).map_err(|source| Error::Write { path: path.to_owned(), source })?;
                let stated_by = "recorded at its first fetch".to_owned();
                Err(Error::Digest { url, algorithm: "SHA-256", expected, stated_by, found: found.sha256 })
            }
            None => {
                let sha256 = found.sha256.clone();
                lock.set(remote.url, found)?;
                Ok(Check::FirstFetch { sha256 })
            }
        }
    }
}

/// Moves what is complete to its place.
fn finish(partial: &Path, place: &Path) -> Result<(), Error> {
    let failed = |path: &Path| {
        let path = path.to_owned();
        move |source| Error::Write { path, source }
    };
    let content = partial.join(CONTENT);
    // Files that came unpacked, and kept archives, go along.
    make(&content)?;
    let entries = fs::read_dir(partial).map_err(|source| Error::Read { path: partial.to_owned(), source })?;
    for entry in entries {
        let entry = entry.map_err(|source| Error::Read { path: partial.to_owned(), source })?;
        if entry.file_name() != CONTENT {
            fs::rename(entry.path(), content.join(entry.file_name())).map_err(failed(&entry.path()))?;
        }
    }
    fs::write(content.join(MARK), b"").map_err(failed(&content))?;
    if place.is_dir() {
        // An empty one, as was checked.
        fs::remove_dir(place).map_err(failed(place))?;
    }
    fs::rename(&content, place).map_err(failed(place))?;
    fs::remove_dir(partial).map_err(failed(partial))
}

/// Where an archive's content lies until it is complete.
const CONTENT: &str = "content";

/// An empty file in a data set's folder that says a fetch has completed it. Hidden: no reader lists it.
const MARK: &str = ".fetched";

/// The path with more at the end of its last name.
pub(crate) fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

fn make(folder: &Path) -> Result<(), Error> {
    fs::create_dir_all(folder).map_err(|source| Error::Write { path: folder.to_owned(), source })
}
