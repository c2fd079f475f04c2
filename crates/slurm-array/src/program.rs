//! Running one of Slurm's programs: with a clean environment, and not for ever.

use std::ffi::OsStr;
use std::io::Read;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::Error;

/// Variables that change what Slurm's programs do: a stray `SBATCH_ARRAY_INX` silently makes an array of a plain job.
const MEDDLING: [&str; 5] = ["SBATCH_", "SLURM_", "SQUEUE_", "SCANCEL_", "SCONTROL_"];
/// The one that says where the cluster is.
const CONFIGURATION: &str = "SLURM_CONF";

/// What a program said.
#[derive(Debug)]
pub(crate) struct Said {
    pub(crate) well: bool,
    /// Its exit code or signal, in words.
    pub(crate) status: String,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

/// Runs `program` and waits for its end, but not longer than `patience`: a client that finds no configuration tries again
/// for a minute.
pub(crate) fn run<A: AsRef<OsStr>>(
    program: &OsStr,
    arguments: &[A],
    patience: Duration,
) -> Result<Said, Error> {
    let name = || program.to_string_lossy().into_owned();
    let failed = |source| Error::Start { program: name(), source };
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    for (variable, _) in std::env::vars_os() {
        if meddles(&variable) {
            command.env_remove(variable);
        }
    }
    let mut child = command.env("LC_ALL", "C").spawn().map_err(failed)?;
    let mut pipes = [
        child.stdout.take().map(|pipe| Box::new(pipe) as Box<dyn Read + Send>),
        child.stderr.take().map(|pipe| Box::new(pipe) as Box<dyn Read + Send>),
    ]
    .map(|pipe| pipe.map(|pipe| std::thread::spawn(move || read(pipe))));
    let since = Instant::now();
    let status = loop {
        if let Some(status) = child.try_wait().map_err(failed)? {
            break status;
        }
        if since.elapsed() >= patience {
            // It may have ended in this moment; either way it is waited for. The readers end with its pipes.
            let _ = child.kill();
            let _ = child.wait();
            return Err(Error::Silent { program: name(), seconds: patience.as_secs() });
        }
        std::thread::sleep(Duration::from_millis(5));
    };
    // A reader that panicked read nothing.
    let mut text = |at: usize| pipes[at].take().and_then(|reader| reader.join().ok()).unwrap_or_default();
    Ok(Said { well: status.success(), status: status.to_string(), stdout: text(0), stderr: text(1) })
}

fn meddles(variable: &OsStr) -> bool {
    let name = variable.to_string_lossy();
    name != CONFIGURATION && MEDDLING.iter().any(|start| name.starts_with(start))
}

fn read(mut pipe: Box<dyn Read + Send>) -> String {
    let mut bytes = Vec::new();
    // A pipe that breaks gives what came before.
    let _ = pipe.read_to_end(&mut bytes);
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(all(test, unix))]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::ffi::OsStr;
    use std::time::{Duration, Instant};

    use super::{meddles, run};

    #[test]
    fn a_program_is_heard_and_one_that_hangs_is_ended() {
        let sh = OsStr::new("sh");
        let said = run(sh, &["-c", "echo out; echo err >&2; exit 3"], Duration::from_secs(20)).unwrap();
        assert_eq!((said.well, said.stdout.as_str(), said.stderr.as_str()), (false, "out\n", "err\n"));
        assert!(said.status.contains('3'), "{}", said.status);
        let since = Instant::now();
        let message = run(sh, &["-c", "exec sleep 60"], Duration::from_millis(50)).unwrap_err().to_string();
        assert!(message.contains("no answer") && since.elapsed() < Duration::from_secs(30), "{message}");
        assert!(run(OsStr::new("no-such-program"), &["x"], Duration::ZERO).is_err());
    }

    #[test]
    fn only_the_configuration_is_left_of_slurm_s_variables() {
        for name in ["SBATCH_ARRAY_INX", "SLURM_JOB_ID", "SQUEUE_FORMAT"] {
            assert!(meddles(OsStr::new(name)), "{name}");
        }
        for name in ["SLURM_CONF", "PATH", "MY_SLURM_X"] {
            assert!(!meddles(OsStr::new(name)), "{name}");
        }
    }
}
