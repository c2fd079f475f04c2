//! Files that are written whole or not at all.

use std::io::Write;
use std::path::Path;

use crate::Error;

/// The name of a file that is being written: this, random letters and digits, [`SUFFIX`].
const PREFIX: &str = ".";
const RANDOM: usize = 6;
const SUFFIX: &str = ".tmp";

/// Writes `bytes` to `path` so that a reader sees the old file or the new one, never a part: temporary file in the same
/// folder, flushed to the disk, renamed.
///
/// # Errors
/// [`Error::File`] if any of it fails; the old file is then untouched.
pub fn write_atomic(path: &Path, bytes: &[u8]) -> Result<(), Error> {
    let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or_else(|| Path::new("."));
    let write = || -> std::io::Result<()> {
        let mut file =
            tempfile::Builder::new().prefix(PREFIX).suffix(SUFFIX).rand_bytes(RANDOM).tempfile_in(folder)?;
        file.write_all(bytes)?;
        file.as_file().sync_all()?;
        file.persist(path).map_err(|e| e.error)?;
        // The rename itself must reach the disk too; not every file system lets a folder be opened for that.
        if let Ok(folder) = std::fs::File::open(folder) {
            folder.sync_all().ok();
        }
        Ok(())
    };
    write().map_err(|e| Error::file(path, "can't write", e))
}

/// Removes what killed processes left of [`write_atomic`] in `folder` and in all folders below it; nothing if there is no
/// such folder. Call it only where nobody else is writing: what is being written there would fail.
///
/// # Errors
/// [`Error::File`] if a folder can't be listed or a file not be removed.
pub fn remove_torn_writes(folder: &Path) -> Result<(), Error> {
    let items = match std::fs::read_dir(folder) {
        Ok(items) => items,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        Err(e) => return Err(Error::file(folder, "can't list", e)),
    };
    for item in items {
        let item = item.map_err(|e| Error::file(folder, "can't list", e))?;
        let path = item.path();
        // Links are left alone: what they lead to belongs to others.
        let kind = item.file_type().map_err(|e| Error::file(&path, "can't look at", e))?;
        if kind.is_dir() {
            remove_torn_writes(&path)?;
        } else if kind.is_file() && item.file_name().to_str().is_some_and(is_temporary) {
            std::fs::remove_file(&path).map_err(|e| Error::file(&path, "can't remove", e))?;
        }
    }
    Ok(())
}

fn is_temporary(name: &str) -> bool {
    name.strip_prefix(PREFIX)
        .and_then(|name| name.strip_suffix(SUFFIX))
        .is_some_and(|name| name.len() == RANDOM && name.bytes().all(|byte| byte.is_ascii_alphanumeric()))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn what_a_killed_write_leaves_is_known_by_its_name_and_removed() {
        let folder = tempfile::tempdir().unwrap();
        let inner = folder.path().join("a/b");
        std::fs::create_dir_all(&inner).unwrap();
        write_atomic(&inner.join("kept"), b"x").unwrap();
        let kept = [inner.join("kept"), inner.join(".a-file.tmp"), inner.join("abcdef.tmp")];
        // As `write_atomic` names it, and never renamed.
        let builder =
            || tempfile::Builder::new().prefix(PREFIX).suffix(SUFFIX).rand_bytes(RANDOM).tempfile_in(&inner);
        let torn: Vec<_> = (0..20).map(|_| builder().unwrap().into_temp_path().keep().unwrap()).collect();
        for path in &kept {
            std::fs::write(path, "x").unwrap();
        }
        remove_torn_writes(folder.path()).unwrap();
        assert!(torn.iter().all(|path| !path.exists()));
        assert!(kept.iter().all(|path| path.exists()));
        remove_torn_writes(&folder.path().join("nowhere")).unwrap();
    }
}
