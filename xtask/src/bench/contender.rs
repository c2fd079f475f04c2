//! A contender: a process that does one piece of work, again and again.

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use anyhow::{Context, Result, bail};
use serde_json::Value;

use super::options::Options;
use super::protocol::{Reply, Request, Turn};
use super::work::Case;

/// Who takes part in a comparison.
#[derive(Debug, Clone)]
pub(crate) struct Contender {
    /// What the table calls it.
    pub(crate) label: String,
    /// What runs.
    pub(crate) program: Program,
    /// Its work.
    pub(crate) case: Value,
    /// Whether a run in which it fails has failed.
    pub(crate) required: bool,
}

/// What runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Program {
    /// This program.
    Ours,
    /// Another build of it.
    Build(PathBuf),
    /// A script of `tests/peers`.
    Peer(&'static str),
}

impl Contender {
    /// This program.
    pub(crate) fn ours(label: impl Into<String>, case: &Case) -> Result<Self> {
        let case = serde_json::to_value(case)?;
        Ok(Self { label: label.into(), program: Program::Ours, case, required: true })
    }

    /// This program doing the work by candle alone, which is left out where it fails.
    pub(crate) fn candle(label: impl Into<String>, case: &Case) -> Result<Self> {
        Ok(Self { required: false, ..Self::ours(label, case)? })
    }

    /// A script of `tests/peers`, which is left out where it cannot run.
    pub(crate) fn peer(label: impl Into<String>, script: &'static str, case: Value) -> Self {
        Self { label: label.into(), program: Program::Peer(script), case, required: false }
    }

    /// The same work by another build of this program.
    pub(crate) fn in_build(&self, path: &Path) -> Self {
        let label = format!("{}, other build", self.label);
        Self { label, program: Program::Build(path.to_owned()), ..self.clone() }
    }

    /// Starts its process and has it make its work ready.
    pub(crate) fn start(&self, options: &Options) -> Result<Running> {
        let mut command = match &self.program {
            Program::Ours => own(&std::env::current_exe().context("this program's path")?),
            Program::Build(path) => own(path),
            Program::Peer(script) => {
                let mut command = Command::new(&options.python);
                command.arg(script_path(&folders_of_scripts()?, script)?);
                command
            }
        };
        let threads = options.threads().to_string();
        for variable in ["RAYON_NUM_THREADS", "CANDLE_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"] {
            command.env(variable, &threads);
        }
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| format!("can't start {}", command.get_program().to_string_lossy()))?;
        let (Some(stdin), Some(stdout)) = (child.stdin.take(), child.stdout.take()) else {
            bail!("the pipes of a contender's process are gone");
        };
        let mut running =
            Running { child, stdin: Some(stdin), stdout: BufReader::new(stdout), case: self.case.clone() };
        running.turn(0.0, None)?;
        Ok(running)
    }
}

/// Where the peers' scripts may be: `peers` beside the program, as a bundle has them, or the sources.
fn folders_of_scripts() -> Result<[PathBuf; 2]> {
    let program = std::env::current_exe().context("this program's path")?;
    Ok([program.with_file_name("peers"), crate::reproduce::root().join("tests/peers")])
}

fn script_path(folders: &[PathBuf], script: &str) -> Result<PathBuf> {
    let places: Vec<PathBuf> = folders.iter().map(|folder| folder.join(script)).collect();
    let Some(found) = places.iter().find(|place| place.is_file()) else {
        let places: Vec<String> = places.iter().map(|place| place.display().to_string()).collect();
        bail!("no script at {}", places.join(" or "));
    };
    Ok(found.clone())
}

fn own(program: &Path) -> Command {
    let mut command = Command::new(program);
    command.arg("bench-child");
    benchmark::keep_freed_memory(&mut command);
    command
}

/// A contender's process, its work ready.
#[derive(Debug)]
pub(crate) struct Running {
    child: Child,
    /// Taken when the process is to end.
    stdin: Option<ChildStdin>,
    stdout: BufReader<ChildStdout>,
    case: Value,
}

impl Running {
    /// One turn of so many seconds; with `outcome`, a turn that writes what the work computes.
    pub(crate) fn turn(&mut self, seconds: f64, outcome: Option<&Path>) -> Result<Turn> {
        let request = Request { case: &self.case, seconds, outcome: outcome.map(Path::to_owned) };
        let line = serde_json::to_string(&request)?;
        if let Some(stdin) = &mut self.stdin {
            // A process that is gone shows below, where its answer is missing.
            let _ = writeln!(stdin, "{line}").and_then(|()| stdin.flush());
        }
        let mut answer = String::new();
        self.stdout.read_line(&mut answer).context("can't read a contender's answer")?;
        if answer.is_empty() {
            let status = self.child.wait().context("can't wait for a contender")?;
            bail!("its process ended without an answer ({status})");
        }
        match serde_json::from_str(&answer)
            .with_context(|| format!("expected an answer, found {answer:?}"))?
        {
            Reply::Done(turn) => Ok(turn),
            Reply::Failed { error } => bail!("{error}"),
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // The end of its input ends it; what it still computes is of no use.
        drop(self.stdin.take());
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::script_path;

    #[test]
    fn scripts_beside_the_program_come_first_and_missing_ones_are_named() {
        let folder = tempfile::tempdir().unwrap();
        let folders = ["beside", "sources"].map(|name| folder.path().join(name));
        let message = script_path(&folders, "bench.py").unwrap_err().to_string();
        assert!(message.starts_with("no script at ") && message.contains("beside/bench.py or "), "{message}");
        for place in folders.iter().rev() {
            std::fs::create_dir(place).unwrap();
            std::fs::write(place.join("bench.py"), "").unwrap();
            assert_eq!(script_path(&folders, "bench.py").unwrap(), place.join("bench.py"));
        }
    }
}
