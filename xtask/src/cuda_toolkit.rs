//! `cargo xtask cuda-toolkit`: what the feature `cuda` needs to be built, on a machine without GPU, driver or CUDA.
//!
//! NVIDIA publishes the compiler and the libraries as Python wheels; laid out as an installed toolkit would be, they are
//! enough to compile and link. A driver can't be had that way, so the linker gets a `libcuda.so` in which every function
//! says that there is no device: with it on `LD_LIBRARY_PATH` the program even starts, and finds no GPU.

mod stubs;

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use anyhow::{Context, Result, bail, ensure};
use cargo_metadata::{CargoOpt, MetadataCommand};

use crate::say;
use stubs::{write_driver_stub, write_slim_nvcc};

/// Assemble a CUDA toolkit from Python wheels and write the environment to build with it.
///
/// Then: `. target/cuda-toolkit/env.sh && cargo build --release -p xtask --features cuda`. Needs Python with pip, a C
/// compiler and about 1.2 GB; a second call finds everything in place. docs/gpu.md tells more.
#[derive(Debug, clap::Args)]
pub(crate) struct CudaToolkit {
    #[command(flatten)]
    toolkit: Toolkit,
}

/// Which toolkit, and what to compile for.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Toolkit {
    /// Where the toolkit goes or is [default: target/cuda-toolkit]
    #[arg(long = "dir", id = "toolkit", value_name = "DIR")]
    dir: Option<PathBuf>,
    /// A Python that has pip
    #[arg(long, default_value = "python3")]
    python: PathBuf,
    /// Compute capability of the GPU, without the dot: 80 is A100, 89 RTX 40, 90 H100 and H200
    #[arg(long, default_value_t = 90)]
    compute_capability: u32,
    /// Compile candle's kernels for quantised and mixture-of-experts products too, which no Vision Transformer here
    /// calls; takes about 5 minutes more
    #[arg(long)]
    all_kernels: bool,
}

/// The wheels. All of CUDA 13.0: kernels travel as PTX, which a driver translates only if it is at least as new, and
/// 13.0 is what drivers from 580 on know.
const WHEELS: &[(&str, &str)] = &[
    ("nvidia-cuda-nvcc", "13.0.88"),
    ("nvidia-cuda-crt", "13.0.88"),
    ("nvidia-nvvm", "13.0.88"),
    ("nvidia-cuda-runtime", "13.0.96"),
    ("nvidia-cuda-cccl", "13.0.85"),
    ("nvidia-cuda-nvrtc", "13.0.88"),
    ("nvidia-cublas", "13.1.0.3"),
    ("nvidia-curand", "10.4.0.35"),
];
/// The version as cudarc wants to be told.
const CUDARC_VERSION: &str = "13000";

/// Names the wheels that a folder was made from.
const CONTENTS: &str = "contents.txt";

impl CudaToolkit {
    /// Makes the toolkit if it is not there, and prints the environment.
    ///
    /// # Errors
    /// pip or the C compiler is missing or fails, the folder can't be written or holds something else.
    pub(crate) fn run(self) -> Result<ExitCode> {
        let ready = self.toolkit.prepare()?;
        say(&ready.shell())?;
        say(&format!("# written to {}", ready.dir.join("env.sh").display()))?;
        Ok(ExitCode::SUCCESS)
    }
}

/// A toolkit that is in place, and how to build with it.
#[derive(Debug)]
pub(crate) struct Ready {
    /// Absolute.
    dir: PathBuf,
    compute_capability: u32,
    slim: bool,
}

impl Toolkit {
    /// Makes what is missing.
    ///
    /// # Errors
    /// As for [`CudaToolkit::run`].
    pub(crate) fn prepare(&self) -> Result<Ready> {
        ensure!(
            cfg!(target_os = "linux"),
            "cuda-toolkit lays out Linux wheels; this is {}",
            std::env::consts::OS
        );
        // Also finds the packages whose sources say what the stubs must hold.
        let metadata = MetadataCommand::new()
            .features(CargoOpt::AllFeatures)
            .exec()
            .context("can't run cargo metadata in the workspace")?;
        let source_of = |name: &str| -> Result<PathBuf> {
            let package = metadata.packages.iter().find(|p| p.name.as_str() == name);
            let manifest =
                &package.with_context(|| format!("the workspace does not use {name}"))?.manifest_path;
            Ok(manifest.parent().unwrap_or(manifest).as_std_path().join("src"))
        };
        let default = || metadata.target_directory.as_std_path().join("cuda-toolkit");
        let dir = std::path::absolute(self.dir.clone().unwrap_or_else(default))?;
        ensure!(
            !dir.to_string_lossy().contains(|c: char| c.is_whitespace() || c == '\''),
            "{}: compilers are handed this path in lists split at blanks; give one without blanks or quotes",
            dir.display()
        );
        install(&dir, &self.python)?;
        write_driver_stub(&dir.join("lib/stubs"), &source_of("cudarc")?.join("driver/sys/mod.rs"))?;
        write_slim_nvcc(&dir.join("slim"), &source_of("candle-kernels")?.join("ffi.rs"))?;
        let ready = Ready { dir, compute_capability: self.compute_capability, slim: !self.all_kernels };
        write(&ready.dir.join("env.sh"), &ready.shell())?;
        Ok(ready)
    }
}

impl Ready {
    /// The variables that the build reads. A value that starts with a colon stands before what the variable holds.
    fn variables(&self) -> Vec<(&'static str, String)> {
        let dir = self.dir.display();
        let nvcc = if self.slim { "slim/nvcc" } else { "bin/nvcc" };
        vec![
            ("CUDA_HOME", dir.to_string()),
            ("CUDA_PATH", dir.to_string()),
            ("CUDA_ROOT", dir.to_string()),
            ("CUDA_TOOLKIT_ROOT_DIR", dir.to_string()),
            ("NVCC", format!("{dir}/{nvcc}")),
            // Asked of nvidia-smi otherwise.
            ("CUDA_COMPUTE_CAP", self.compute_capability.to_string()),
            ("CUDARC_CUDA_VERSION", CUDARC_VERSION.to_owned()),
            ("PATH", format!(":{dir}/bin")),
            ("LIBRARY_PATH", format!(":{dir}/lib:{dir}/lib/stubs")),
            (
                "RUSTFLAGS",
                format!(
                    // The libraries that the libraries need are looked for by -rpath-link alone; where the program
                    // looks for its own on the machine that runs it stands last.
                    "-L native={dir}/lib -L native={dir}/lib/stubs -C link-arg=-Wl,-rpath-link,{dir}/lib \
                     -C link-arg=-Wl,-rpath,$ORIGIN/lib:/usr/local/cuda/lib64"
                ),
            ),
            ("CARGO_PROFILE_RELEASE_STRIP", "symbols".to_owned()),
        ]
    }

    /// The environment as lines for a POSIX shell.
    fn shell(&self) -> String {
        let line = |(name, value): &(&str, String)| match value.strip_prefix(':') {
            Some(first) => format!("export {name}='{first}'${{{name}:+:${name}}}\n"),
            None => format!("export {name}='{value}'\n"),
        };
        let mut lines: Vec<String> = self.variables().iter().map(line).collect();
        // Other flags would otherwise make every CPU build compile everything anew, and the reverse; and kernels that
        // one nvcc compiled are not compiled again because another is named.
        lines.push(format!("export CARGO_TARGET_DIR='{}'\n", self.target_dir().display()));
        lines.concat()
    }

    /// Where builds with this toolkit go.
    fn target_dir(&self) -> PathBuf {
        let kind = if self.slim { "slim" } else { "all" };
        self.dir.join(format!("build-{}-{kind}", self.compute_capability))
    }

    /// Builds the commands with the feature `cuda`: the program's path.
    ///
    /// # Errors
    /// The build fails.
    pub(crate) fn build_xtask(&self) -> Result<PathBuf> {
        let mut cargo = Command::new("cargo");
        cargo.args(["build", "--release", "-p", "xtask", "--features", "cuda"]);
        for (name, value) in self.variables() {
            match value.strip_prefix(':') {
                Some(first) => {
                    let rest = std::env::var(name).map_or(String::new(), |rest| format!(":{rest}"));
                    cargo.env(name, format!("{first}{rest}"));
                }
                None => _ = cargo.env(name, value),
            }
        }
        cargo.env("CARGO_TARGET_DIR", self.target_dir());
        run(&mut cargo)?;
        Ok(self.target_dir().join("release/xtask"))
    }
}

fn write(path: &Path, text: &str) -> Result<()> {
    // A file that is newer without need would make cargo compile again.
    if std::fs::read_to_string(path).is_ok_and(|old| old == text) {
        return Ok(());
    }
    std::fs::write(path, text).with_context(|| format!("can't write {}", path.display()))
}

fn run(command: &mut Command) -> Result<()> {
    let name = command.get_program().to_string_lossy().into_owned();
    let status = command.status().with_context(|| format!("can't start {name}"))?;
    ensure!(status.success(), "{name} failed ({status})");
    Ok(())
}

/// Downloads the wheels and lays them out in `dir`, all or nothing.
fn install(dir: &Path, python: &Path) -> Result<()> {
    let wanted: Vec<String> = WHEELS.iter().map(|(name, version)| format!("{name}=={version}\n")).collect();
    let wanted = wanted.concat();
    let contents = dir.join(CONTENTS);
    match std::fs::read_to_string(&contents) {
        Ok(found) if found == wanted => return Ok(()),
        Ok(_) => {
            std::fs::remove_dir_all(dir)
                .with_context(|| format!("can't remove the old {}", dir.display()))?;
        }
        Err(_) if dir.read_dir().is_ok_and(|mut entries| entries.next().is_some()) => bail!(
            "{} holds something that is no toolkit of this command's (it has no {CONTENTS}); give another --dir",
            dir.display()
        ),
        Err(_) => {}
    }
    let partial = dir.with_extension("partial");
    if partial.exists() {
        std::fs::remove_dir_all(&partial).with_context(|| format!("can't remove {}", partial.display()))?;
    }
    let wheels = partial.join("wheels");
    std::fs::create_dir_all(&wheels).with_context(|| format!("can't create {}", wheels.display()))?;
    say(&format!("downloading {} wheels, about 0.6 GB", WHEELS.len()))?;
    let mut pip = Command::new(python);
    pip.args([
        "-m",
        "pip",
        "install",
        "--quiet",
        "--no-deps",
        "--no-compile",
        "--only-binary=:all:",
        "--target",
    ])
    .arg(&wheels)
    .args(wanted.lines());
    run(&mut pip).with_context(|| {
        format!("the wheels come by `{} -m pip`; name a Python that has pip with --python", python.display())
    })?;

    // The compiler finds its parts from its own place, and the wheels agree on one folder.
    let toolkit = wheels.join("nvidia/cu13");
    for entry in toolkit.read_dir().with_context(|| format!("no {} in the wheels", toolkit.display()))? {
        let entry = entry?;
        std::fs::rename(entry.path(), partial.join(entry.file_name()))?;
    }
    std::fs::remove_dir_all(&wheels)?;
    finish_layout(&partial)?;
    std::fs::write(partial.join(CONTENTS), wanted)?;
    if dir.exists() {
        // It is empty.
        std::fs::remove_dir(dir)?;
    }
    std::fs::rename(&partial, dir)
        .with_context(|| format!("can't move {} to {}", partial.display(), dir.display()))
}

/// What wheels lack of an installed toolkit: executable programs, `lib64`, and the names that a linker looks for.
#[cfg(unix)]
fn finish_layout(dir: &Path) -> Result<()> {
    use std::os::unix::fs::{PermissionsExt, symlink};
    for programs in ["bin", "nvvm/bin"] {
        for entry in
            dir.join(programs).read_dir().with_context(|| format!("the wheels have no {programs}"))?
        {
            let path = entry?.path();
            if path.is_file() {
                std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755))?;
            }
        }
    }
    symlink("lib", dir.join("lib64"))?;
    for entry in dir.join("lib").read_dir()? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        if let Some((stem, _)) = name.split_once(".so.") {
            symlink(&name, dir.join("lib").join(format!("{stem}.so")))
                .with_context(|| format!("can't link {name}"))?;
        }
    }
    std::fs::create_dir_all(dir.join("lib/stubs"))?;
    std::fs::create_dir_all(dir.join("slim"))?;
    Ok(())
}

#[cfg(not(unix))]
fn finish_layout(_: &Path) -> Result<()> {
    bail!("cuda-toolkit lays out Linux wheels")
}

/// Lets everybody run a file.
///
/// # Errors
/// If it isn't there or isn't ours.
#[cfg(unix)]
pub(crate) fn make_executable(path: &Path) -> Result<()> {
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755))
        .with_context(|| format!("can't make {} executable", path.display()))
}

/// Elsewhere files need no leave to run.
///
/// # Errors
/// Never.
#[cfg(not(unix))]
pub(crate) fn make_executable(_: &Path) -> Result<()> {
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::{Ready, WHEELS, install};

    #[test]
    fn the_wheels_are_of_one_cuda() {
        let compilers = ["nvidia-cuda-nvcc", "nvidia-cuda-crt", "nvidia-nvvm", "nvidia-cuda-nvrtc"];
        let versions: Vec<&str> =
            WHEELS.iter().filter(|(name, _)| compilers.contains(name)).map(|(_, version)| *version).collect();
        assert_eq!(versions, ["13.0.88"; 4]);
    }

    #[test]
    fn the_environment_keeps_what_search_paths_hold() {
        let ready = Ready { dir: "/tk".into(), compute_capability: 80, slim: true };
        let shell = ready.shell();
        assert!(shell.contains("export PATH='/tk/bin'${PATH:+:$PATH}\n"), "{shell}");
        assert!(shell.contains("export CUDA_COMPUTE_CAP='80'\n"), "{shell}");
        assert!(shell.contains("export NVCC='/tk/slim/nvcc'\n"), "{shell}");
        // The dollar must reach the linker.
        assert!(shell.contains("-rpath,$ORIGIN/lib") && shell.contains("export RUSTFLAGS='"), "{shell}");
        assert_ne!(ready.target_dir(), Ready { slim: false, ..ready }.target_dir());
    }

    #[test]
    fn a_folder_of_other_things_and_a_missing_python_are_named() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("thesis.txt"), "").unwrap();
        let message = install(folder.path(), "python3".as_ref()).unwrap_err().to_string();
        assert!(message.contains("--dir"), "{message}");
        assert!(folder.path().join("thesis.txt").exists());

        let empty = tempfile::tempdir().unwrap();
        let nowhere = empty.path().join("no-python");
        let message = install(&empty.path().join("toolkit"), &nowhere).unwrap_err();
        assert!(format!("{message:#}").contains("--python"), "{message:#}");
    }
}
