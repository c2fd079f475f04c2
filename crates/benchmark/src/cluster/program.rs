//! The program that tasks run: a copy beside the plan, known by its hash.

use std::io::Read;
use std::path::{Path, PathBuf};

use anomaly_core::hex;
use sha2::{Digest, Sha256};
use slurm_array::Shared;

use super::plan_file::PlanFile;
use crate::Error;

/// The sha256 of a file, in hex.
pub(crate) fn sha256(path: &Path) -> Result<String, Error> {
    let failed = |e| Error::io(path, "can't read the program", e);
    let mut file = std::fs::File::open(path).map_err(failed)?;
    let (mut hash, mut buffer) = (Sha256::new(), vec![0; 1 << 20]);
    loop {
        let read = file.read(&mut buffer).map_err(failed)?;
        if read == 0 {
            return Ok(hex(&hash.finalize()));
        }
        hash.update(&buffer[..read]);
    }
}

/// Where the copy of a program with this hash lies; it is made if it is not there. A build replaces the original, and a
/// task may begin days later.
pub(crate) fn keep(program: &Path, hash: &str, out: &Path) -> Result<PathBuf, Error> {
    let folder = PlanFile::all(out).join("programs").join(&hash[..16]);
    let name = program.file_name().unwrap_or_default();
    let kept = folder.join(name);
    if !kept.exists() {
        let bytes = std::fs::read(program).map_err(|e| Error::io(program, "can't read the program", e))?;
        let writing = name.to_string_lossy().into_owned() + ".writing";
        Shared::new(&folder).put(&writing, &bytes)?;
        let writing = folder.join(writing);
        let data = std::fs::metadata(program).map_err(|e| Error::io(program, "can't look at", e))?;
        std::fs::set_permissions(&writing, data.permissions())
            .and_then(|()| std::fs::rename(&writing, &kept))
            .map_err(|e| Error::io(&kept, "can't put the program in place", e))?;
    }
    Ok(kept)
}

#[cfg(all(test, unix))]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::{keep, sha256};

    #[test]
    fn a_copy_runs_and_is_made_once() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        let program = folder.path().join("tool");
        std::fs::write(&program, "#!/bin/sh\necho ran\n").unwrap();
        std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
        let hash = sha256(&program).unwrap();
        let kept = keep(&program, &hash, folder.path()).unwrap();
        std::fs::remove_file(&program).unwrap();
        assert_eq!(keep(&program, &hash, folder.path()).unwrap(), kept);
        assert_eq!(sha256(&kept).unwrap(), hash);
        assert_eq!(std::fs::metadata(&kept).unwrap().permissions().mode() & 0o777, 0o755);
        // By its interpreter: a child of another test may still hold the copy open for writing, and is not waited for.
        let ran = std::process::Command::new("sh").arg(&kept).output().unwrap();
        assert_eq!(ran.stdout, b"ran\n");
    }
}
