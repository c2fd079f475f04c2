//! Slurm's programs.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use crate::program::{Said, run};
use crate::queue::COLUMNS;
use crate::{Entry, Error, Phase, Request};

/// How long a program may take to answer.
const PATIENCE: Duration = Duration::from_secs(30);
/// The highest index plus one of arrays where the cluster does not say: Slurm's default.
const USUAL_ARRAY_SIZE: u32 = 1001;

/// Slurm's programs: `sbatch`, `squeue`, `scontrol`.
#[derive(Debug, Clone)]
pub struct Slurm {
    /// The folder they are in; the `PATH` if `None`.
    folder: Option<PathBuf>,
    patience: Duration,
}

impl Default for Slurm {
    fn default() -> Self {
        Self { folder: None, patience: PATIENCE }
    }
}

impl Slurm {
    /// Slurm's programs in `folder`, each of which may take `patience` to answer.
    pub fn in_folder(folder: PathBuf, patience: Duration) -> Self {
        Self { folder: Some(folder), patience }
    }

    fn run(&self, program: &str, arguments: &[String]) -> Result<Said, Error> {
        let path = self.folder.as_ref().map_or_else(|| OsString::from(program), |f| f.join(program).into());
        run(&path, arguments, self.patience)
    }

    fn succeed(&self, program: &str, arguments: &[String]) -> Result<String, Error> {
        let said = self.run(program, arguments)?;
        if said.well {
            return Ok(said.stdout);
        }
        let message = said.stderr.trim().to_owned();
        Err(Error::Failed { program: program.to_owned(), status: said.status, message })
    }

    /// What the queue says about all jobs of this user called `name`, also those that ended within the last minutes.
    ///
    /// # Errors
    /// If the queue can't be asked. Nothing is known then: it does not mean that there are no jobs.
    pub fn queue(&self, name: &str) -> Result<Vec<Entry>, Error> {
        let arguments = ["-h", "-r", "-t", "all", "--me", "-n", name, "-O", COLUMNS].map(str::to_owned);
        Entry::parse_all(&self.succeed("squeue", &arguments)?)
    }

    /// The largest number of tasks of an array: their indices are below it.
    ///
    /// # Errors
    /// If the controller can't be asked.
    pub fn max_array_size(&self) -> Result<u32, Error> {
        let answer = self.succeed("scontrol", &["show", "config"].map(str::to_owned))?;
        let line = answer.lines().find_map(|line| line.trim().strip_prefix("MaxArraySize"));
        let Some(line) = line else { return Ok(USUAL_ARRAY_SIZE) };
        let number = line.trim_start_matches([' ', '=']).trim();
        number.parse().ok().filter(|&size| size > 0).ok_or_else(|| Error::Answer {
            program: "scontrol",
            expected: "MaxArraySize = NUMBER",
            found: line.to_owned(),
        })
    }

    /// Submits a job and gives its id and the arguments of `sbatch`.
    ///
    /// A submission that fails may have been accepted all the same, so the queue is asked for the job's name before it
    /// is given up; a job of the same name that was there before is none of this submission.
    ///
    /// # Errors
    /// [`Error::Request`] for what can't be submitted, [`Error::Refused`] with Slurm's words, and if Slurm can't be asked.
    pub fn submit(&self, request: &Request<'_>) -> Result<(u64, Vec<String>), Error> {
        let arguments = request.arguments()?;
        let before: Vec<u64> = self.queue(request.name)?.iter().map(|entry| entry.array).collect();
        let failure = match self.run("sbatch", &arguments) {
            Ok(said) if said.well => {
                let id = said.stdout.trim();
                // On federated clusters the cluster's name follows.
                let number = id.split_once(';').map_or(id, |(number, _)| number);
                let expected = "ID or ID;CLUSTER";
                return match number.parse() {
                    Ok(id) => Ok((id, arguments)),
                    Err(_) => Err(Error::Answer { program: "sbatch", expected, found: said.stdout }),
                };
            }
            Ok(said) => Error::Refused {
                name: request.name.to_owned(),
                message: said.stderr.trim().trim_start_matches("sbatch: error: ").to_owned(),
            },
            Err(e @ Error::Silent { .. }) => e,
            Err(e) => return Err(e),
        };
        let queue = self.queue(request.name)?;
        let new = queue.iter().find(|entry| !before.contains(&entry.array) && entry.phase() != Phase::Ended);
        new.map(|entry| (entry.array, arguments)).ok_or(failure)
    }
}
