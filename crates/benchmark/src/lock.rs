//! One process at a time works on a cell.
//!
//! A lock is an advisory lock on a file of its own, which goes with it: the system drops the lock when its process
//! ends, however it ends. The file is removed on release. Who waited for a file that was removed meanwhile holds a lock
//! on nothing, so a lock counts only if the file under its name is still the one that is locked.

use std::fs::{File, OpenOptions, TryLockError};
use std::path::{Path, PathBuf};

use crate::Error;

/// A lock that is held until it is dropped.
#[derive(Debug)]
pub struct Lock {
    file: File,
    path: PathBuf,
}

impl Lock {
    /// Takes the lock at `path` if nobody holds it; its folder is made if it isn't there.
    ///
    /// # Errors
    /// [`Error::Io`] if the file can't be made or the file system can't lock.
    pub fn try_take(path: &Path) -> Result<Option<Self>, Error> {
        let failed = |e| Error::io(path, "can't lock", e);
        loop {
            if let Some(folder) = path.parent() {
                std::fs::create_dir_all(folder).map_err(failed)?;
            }
            let file = match OpenOptions::new().create(true).truncate(false).write(true).open(path) {
                Ok(file) => file,
                // Whoever released the last lock of the folder may just have removed it.
                Err(e) if e.kind() == std::io::ErrorKind::NotFound => continue,
                Err(e) => return Err(failed(e)),
            };
            match file.try_lock() {
                Ok(()) => {}
                Err(TryLockError::WouldBlock) => return Ok(None),
                Err(TryLockError::Error(e)) => return Err(failed(e)),
            }
            if is_under_its_name(&file, path).map_err(failed)? {
                return Ok(Some(Self { file, path: path.to_owned() }));
            }
        }
    }

    /// Whether nobody holds the lock at `path` just now. Leaves no file behind.
    ///
    /// # Errors
    /// As [`Lock::try_take`].
    pub fn is_free(path: &Path) -> Result<bool, Error> {
        Ok(!path.exists() || Self::try_take(path)?.is_some())
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        // Removed while it is still locked, so that nobody else's file of the same name is hit. If either step fails
        // the lock still ends with the file's descriptor, and the file left behind does no harm.
        if cfg!(unix) {
            let _ = std::fs::remove_file(&self.path);
        }
        let _ = self.file.unlock();
    }
}

#[cfg(unix)]
fn is_under_its_name(file: &File, path: &Path) -> std::io::Result<bool> {
    use std::os::unix::fs::MetadataExt;
    let ours = file.metadata()?;
    match std::fs::metadata(path) {
        Ok(named) => Ok((named.dev(), named.ino()) == (ours.dev(), ours.ino())),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(false),
        Err(e) => Err(e),
    }
}

/// Elsewhere lock files are never removed, so the name always leads to the file.
#[cfg(not(unix))]
fn is_under_its_name(_: &File, _: &Path) -> std::io::Result<bool> {
    Ok(true)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::Lock;

    #[test]
    fn a_lock_is_held_once_and_leaves_no_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("deep/er/cell.lock");
        assert!(Lock::is_free(&path).unwrap());
        let lock = Lock::try_take(&path).unwrap().unwrap();
        assert!(Lock::try_take(&path).unwrap().is_none());
        assert!(!Lock::is_free(&path).unwrap());
        drop(lock);
        assert!(Lock::is_free(&path).unwrap());
        assert_eq!(path.exists(), cfg!(not(unix)));
    }

    #[test]
    fn of_many_that_take_and_release_only_one_holds_it_at_a_time() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("cell.lock");
        let (inside, taken) = (AtomicUsize::new(0), AtomicUsize::new(0));
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    while taken.load(Ordering::SeqCst) < 200 {
                        let Some(lock) = Lock::try_take(&path).unwrap() else { continue };
                        assert_eq!(inside.fetch_add(1, Ordering::SeqCst), 0);
                        taken.fetch_add(1, Ordering::SeqCst);
                        inside.fetch_sub(1, Ordering::SeqCst);
                        drop(lock);
                    }
                });
            }
        });
    }
}
