//! One attempt at a task, from inside.

use std::fmt;
use std::path::PathBuf;
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::{Beat, Error, Shared};

/// One attempt at a task: a task that is requeued keeps its id and is attempted again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Attempt {
    /// The array's id.
    pub array: u64,
    /// The task's index.
    pub index: u32,
    /// How many attempts there were before it under this id.
    pub restarts: u32,
}

impl fmt::Display for Attempt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}_{}.{}", self.array, self.index, self.restarts)
    }
}

impl Attempt {
    /// The attempt that this process is.
    ///
    /// # Errors
    /// [`Error::NoTask`] outside a job array.
    pub fn from_environment() -> Result<Self, Error> {
        Self::from_variables(&|name| std::env::var(name).ok())
    }

    fn from_variables(variable: &dyn Fn(&str) -> Option<String>) -> Result<Self, Error> {
        fn number<T: std::str::FromStr>(
            name: &'static str,
            variable: &dyn Fn(&str) -> Option<String>,
        ) -> Result<T, Error> {
            let text = variable(name);
            let wrong = || Error::NoTask {
                variable: name,
                found: text.as_ref().map_or_else(|| "not set".to_owned(), |text| format!("`{text}`")),
            };
            text.as_ref().and_then(|text| text.parse().ok()).ok_or_else(wrong)
        }
        Ok(Self {
            array: number("SLURM_ARRAY_JOB_ID", variable)?,
            index: number("SLURM_ARRAY_TASK_ID", variable)?,
            // Not set the first time.
            restarts: variable("SLURM_RESTART_COUNT").and_then(|text| text.parse().ok()).unwrap_or(0),
        })
    }

    /// The node that this process runs on, as far as it says.
    pub fn node() -> String {
        let kernel = || std::fs::read_to_string("/proc/sys/kernel/hostname").ok();
        let name = std::env::var("SLURMD_NODENAME").ok().or_else(kernel);
        name.map_or_else(|| "an unknown node".to_owned(), |name| name.trim().to_owned())
    }
}

/// How many threads a task may use: the CPUs it was given, else those of its node that it has, else all there are.
///
/// `SLURM_CPUS_PER_TASK` is not set unless it was asked for, and without binding the system shows the whole machine.
pub fn threads() -> usize {
    threads_by(&|name| std::env::var(name).ok())
}

fn threads_by(variable: &dyn Fn(&str) -> Option<String>) -> usize {
    ["SLURM_CPUS_PER_TASK", "SLURM_CPUS_ON_NODE"]
        .into_iter()
        .find_map(|name| variable(name)?.parse().ok().filter(|&n: &usize| n > 0))
        .unwrap_or_else(|| std::thread::available_parallelism().map_or(1, usize::from))
}

/// A folder of this attempt's own on its node: in `SLURM_TMPDIR` where a site has it, else in the folder for temporary
/// files, which all tasks share. It is not made, and whoever makes it removes it.
pub fn scratch(attempt: &Attempt) -> PathBuf {
    let site = std::env::var_os("SLURM_TMPDIR").map(PathBuf::from).filter(|folder| folder.is_dir());
    site.unwrap_or_else(std::env::temp_dir).join(format!("slurm-array-{attempt}"))
}

/// Signs of life, from a thread of its own, until it is dropped.
#[derive(Debug)]
pub struct Pulse {
    at: Arc<Mutex<String>>,
    stop: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Pulse {
    /// A sign of life of `attempt` now and after every `interval`.
    ///
    /// One that can't be written is left out: the folder may be back for the next.
    pub fn start(shared: Shared, attempt: Attempt, interval: Duration) -> Self {
        let at = Arc::new(Mutex::new(String::new()));
        let (stop, stopped) = channel();
        let said = at.clone();
        let thread = std::thread::spawn(move || {
            for count in 0.. {
                let at = said.lock().unwrap_or_else(PoisonError::into_inner).clone();
                let _ = shared.beat(&Beat { attempt, count, at });
                if stopped.recv_timeout(interval) != Err(RecvTimeoutError::Timeout) {
                    return;
                }
            }
        });
        Self { at, stop: Some(stop), thread: Some(thread) }
    }

    /// What the next signs are to say.
    pub fn say(&self, at: &str) {
        at.clone_into(&mut self.at.lock().unwrap_or_else(PoisonError::into_inner));
    }
}

impl Drop for Pulse {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // Whether it panicked makes no difference any more.
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::time::{Duration, Instant};

    use super::{Attempt, Pulse, threads_by};
    use crate::Shared;

    fn of<'a>(variables: &'a [(&str, &str)]) -> impl Fn(&str) -> Option<String> + 'a {
        move |name| variables.iter().find(|(n, _)| *n == name).map(|(_, value)| (*value).to_owned())
    }

    #[test]
    fn an_attempt_is_known_by_its_variables() {
        let first = [("SLURM_ARRAY_JOB_ID", "12"), ("SLURM_ARRAY_TASK_ID", "3")];
        let attempt = Attempt::from_variables(&of(&first)).unwrap();
        assert_eq!(attempt.to_string(), "12_3.0");
        let again = [first[0], first[1], ("SLURM_RESTART_COUNT", "2")];
        assert_eq!(Attempt::from_variables(&of(&again)).unwrap().restarts, 2);
        let message = Attempt::from_variables(&of(&first[..1])).unwrap_err().to_string();
        assert!(message.contains("SLURM_ARRAY_TASK_ID is not set"), "{message}");
    }

    #[test]
    fn threads_are_those_asked_for_else_those_of_the_node() {
        let both = [("SLURM_CPUS_PER_TASK", "3"), ("SLURM_CPUS_ON_NODE", "8")];
        assert_eq!(threads_by(&of(&both)), 3);
        assert_eq!(threads_by(&of(&both[1..])), 8);
        assert!(threads_by(&of(&[("SLURM_CPUS_PER_TASK", "0")])) > 0);
    }

    #[test]
    fn a_pulse_beats_and_stops() {
        let folder = tempfile::tempdir().unwrap();
        let shared = Shared::new(folder.path());
        let attempt = Attempt { array: 1, index: 2, restarts: 0 };
        let pulse = Pulse::start(shared.clone(), attempt, Duration::from_millis(1));
        pulse.say("cell 7");
        let since = Instant::now();
        let beat = || shared.latest(1, 2).unwrap().1;
        while beat().is_none_or(|beat| beat.count < 3 || beat.at != "cell 7") {
            assert!(since.elapsed() < Duration::from_secs(20));
        }
        drop(pulse);
        let last = beat();
        std::thread::sleep(Duration::from_millis(20));
        assert_eq!(beat(), last);
    }
}
