//! The folder that is carried to a machine with a GPU.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::cuda_toolkit::make_executable;
use crate::reproduce::root;

const SCRIPT: &str = include_str!("../../templates/gpu-check/run.sh");

/// What the script unpacks: the program, its commit, the peers' scripts and the cases.
const ARCHIVE: &str = "payload.tar.xz";

/// What a bundle may weigh, in bytes.
const LARGEST_BUNDLE: u64 = 60_000_000;

/// The scripts that the script's benchmarks start.
const PEERS: [&str; 3] = ["contender.py", "torch_contender.py", "bench_torch.py"];

/// A bundle that can be made: its folder is free and there are cases.
#[derive(Debug)]
pub(super) struct Bundle<'a> {
    folder: &'a Path,
    fixtures: &'a Path,
}

impl<'a> Bundle<'a> {
    /// Checks folder and cases, and makes nothing yet.
    ///
    /// # Errors
    /// There is something in the folder already, or no folder of cases.
    pub(super) fn new(folder: &'a Path, fixtures: &'a Path) -> Result<Self> {
        ensure!(
            !folder.exists() || folder.read_dir().is_ok_and(|mut entries| entries.next().is_none()),
            "{} is there already; give a new folder",
            folder.display()
        );
        ensure!(fixtures.is_dir(), "{}: expected a folder of numeric cases, found none", fixtures.display());
        Ok(Self { folder, fixtures })
    }

    /// Makes the folder, all or nothing, and gives its size in bytes.
    ///
    /// # Errors
    /// A file can't be read or written, or the bundle weighs too much.
    pub(super) fn fill(&self, program: &Path, commit: &str) -> Result<u64> {
        let partial = beside(self.folder)?;
        if partial.exists() {
            std::fs::remove_dir_all(&partial)
                .with_context(|| format!("can't remove the old {}", partial.display()))?;
        }
        self.fill_partial(&partial, program, commit)?;
        let size = size_of(&partial)?;
        ensure!(
            size <= LARGEST_BUNDLE,
            "{} has {:.1} MB, more than the {:.0} MB a bundle may have",
            partial.display(),
            size as f64 / 1e6,
            LARGEST_BUNDLE as f64 / 1e6
        );
        if self.folder.exists() {
            // It is empty.
            std::fs::remove_dir(self.folder)
                .with_context(|| format!("can't replace {}", self.folder.display()))?;
        }
        std::fs::rename(&partial, self.folder)
            .with_context(|| format!("can't move {} to {}", partial.display(), self.folder.display()))?;
        Ok(size)
    }

    fn fill_partial(&self, partial: &Path, program: &Path, commit: &str) -> Result<()> {
        let (bin, peers) = (partial.join("bin"), partial.join("bin/peers"));
        std::fs::create_dir_all(&peers).with_context(|| format!("can't create {}", peers.display()))?;
        copy(program, &bin.join("xtask"))?;
        make_executable(&bin.join("xtask"))?;
        write(&bin.join(crate::bench::COMMIT_FILE), commit)?;
        for script in PEERS {
            copy(&root().join("tests/peers").join(script), &peers.join(script))?;
        }
        copy_cases(self.fixtures, &partial.join("fixtures"))?;
        pack(partial, &["bin", "fixtures"])?;
        let script = partial.join("run.sh");
        write(&script, SCRIPT)?;
        make_executable(&script)
    }
}

/// Where a folder is made before it is whole.
fn beside(folder: &Path) -> Result<PathBuf> {
    let name = folder.file_name().with_context(|| format!("{} names no folder", folder.display()))?;
    let mut name = name.to_owned();
    name.push(".partial");
    Ok(folder.with_file_name(name))
}

/// Whether a program was built with the feature `cuda`: it then names the driver's library.
///
/// # Errors
/// It was not, or can't be read.
pub(super) fn ensure_uses_gpu(program: &Path) -> Result<()> {
    let bytes = std::fs::read(program).with_context(|| format!("can't read {}", program.display()))?;
    // As a table of names holds it: this program, which may be without the feature, speaks of the library too.
    let library = b"libcuda.so.1";
    let mut names = bytes.windows(library.len() + 2);
    ensure!(
        names.any(|name| name.first() == Some(&0)
            && name.ends_with(b"\0")
            && &name[1..name.len() - 1] == library),
        "{}: expected a program built with the feature `cuda`, found one that does not need the driver's libcuda.so.1",
        program.display()
    );
    Ok(())
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    std::fs::copy(from, to).with_context(|| format!("can't copy {} to {}", from.display(), to.display()))?;
    Ok(())
}

fn write(path: &Path, text: &str) -> Result<()> {
    std::fs::write(path, text).with_context(|| format!("can't write {}", path.display()))
}

/// Puts folders of the bundle into its one archive, by xz: the program carries a backbone and GPU code, and gzip leaves
/// more than a bundle may weigh.
fn pack(bundle: &Path, folders: &[&str]) -> Result<()> {
    let mut tar = Command::new("tar");
    tar.arg("-C").arg(bundle).arg("-cJf").arg(bundle.join(ARCHIVE)).args(folders);
    let status = tar.status().context("can't start tar, which packs the bundle with xz")?;
    ensure!(status.success(), "tar failed ({status}); is xz there?");
    for folder in folders {
        let folder = bundle.join(folder);
        std::fs::remove_dir_all(&folder).with_context(|| format!("can't remove {}", folder.display()))?;
    }
    Ok(())
}

/// Copies the case files below a folder.
fn copy_cases(from: &Path, to: &Path) -> Result<()> {
    std::fs::create_dir_all(to).with_context(|| format!("can't create {}", to.display()))?;
    for entry in from.read_dir().with_context(|| format!("can't read the cases in {}", from.display()))? {
        let path = entry?.path();
        let Some(name) = path.file_name() else { continue };
        if path.is_dir() {
            copy_cases(&path, &to.join(name))?;
        } else if path.extension().is_some_and(|extension| extension == "safetensors") {
            copy(&path, &to.join(name))?;
        }
    }
    Ok(())
}

fn size_of(folder: &Path) -> Result<u64> {
    let mut size = 0;
    for entry in folder.read_dir().with_context(|| format!("can't read {}", folder.display()))? {
        let entry = entry?;
        let metadata = entry.metadata()?;
        size += if metadata.is_dir() { size_of(&entry.path())? } else { metadata.len() };
    }
    Ok(size)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::{ARCHIVE, Bundle, ensure_uses_gpu};
    use std::process::Command;

    #[test]
    fn a_bundle_holds_the_program_the_peers_the_cases_and_the_script() {
        let folder = tempfile::tempdir().unwrap();
        let (program, cases) = (folder.path().join("xtask"), folder.path().join("cases"));
        std::fs::write(&program, "a program").unwrap();
        std::fs::create_dir_all(cases.join("method")).unwrap();
        std::fs::write(cases.join("method/case.safetensors"), "a case").unwrap();
        std::fs::write(cases.join("method/README.md"), "words").unwrap();
        let place = folder.path().join("bundle");
        let bundle = Bundle::new(&place, &cases).unwrap();
        assert!(!place.exists());
        let message = bundle.fill(&folder.path().join("nothing"), "c0ffee").unwrap_err().to_string();
        assert!(message.contains("nothing"), "{message}");
        assert!(!place.exists(), "a failure must not leave half a bundle");

        let size = bundle.fill(&program, "c0ffee").unwrap();
        let packed = place.join(ARCHIVE).metadata().unwrap().len();
        let script = std::fs::read_to_string(place.join("run.sh")).unwrap();
        assert!(
            script.contains("conform") && script.contains("bench") && script.contains(ARCHIVE),
            "{script}"
        );
        assert_eq!(size, packed + script.len() as u64);

        let unpacked = folder.path().join("unpacked");
        std::fs::create_dir(&unpacked).unwrap();
        let mut tar = Command::new("tar");
        tar.arg("-C").arg(&unpacked).arg("-xJf").arg(place.join(ARCHIVE));
        assert!(tar.status().unwrap().success());
        assert!(unpacked.join("fixtures/method/case.safetensors").is_file());
        assert!(!unpacked.join("fixtures/method/README.md").exists());
        assert!(unpacked.join("bin/peers/bench_torch.py").is_file());
        assert_eq!(std::fs::read_to_string(unpacked.join("bin/commit.txt")).unwrap(), "c0ffee");
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            for file in [unpacked.join("bin/xtask"), place.join("run.sh")] {
                let mode = file.metadata().unwrap().permissions().mode();
                assert_eq!(mode & 0o111, 0o111, "{}", file.display());
            }
        }
    }

    #[test]
    fn arguments_are_looked_at_before_anything_is_built() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("file");
        std::fs::write(&file, "a program").unwrap();
        let message = Bundle::new(folder.path(), folder.path()).unwrap_err().to_string();
        assert!(message.contains("new folder"), "{message}");
        let message = Bundle::new(&folder.path().join("new"), &file).unwrap_err().to_string();
        assert!(message.contains("numeric cases"), "{message}");
        let message = ensure_uses_gpu(&file).unwrap_err().to_string();
        assert!(message.contains("feature `cuda`"), "{message}");
        std::fs::write(&file, "it opens libcuda.so.1 at times\0").unwrap();
        assert!(ensure_uses_gpu(&file).is_err());
        std::fs::write(&file, "\0libcublas.so.13\0libcuda.so.1\0").unwrap();
        ensure_uses_gpu(&file).unwrap();
    }
}
