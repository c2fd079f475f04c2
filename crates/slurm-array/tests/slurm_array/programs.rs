//! The client against programs that stand in for Slurm's: what they are asked, and what becomes of their answers.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use slurm_array::{Dependency, Error, Request, Resources, Slurm};

/// Written by a process of its own: a child that another test starts meanwhile would inherit the open file, and nothing can
/// run a file that somebody may write to.
fn program(folder: &Path, name: &str, script: &str) {
    let text = format!("#!/bin/sh\ncd '{}' || exit 99\n{script}\n", folder.display());
    let write = "printf %s \"$1\" > \"$0\" && chmod 755 \"$0\"";
    let status = Command::new("sh").args(["-c", write]).arg(folder.join(name)).arg(text).status().unwrap();
    assert!(status.success());
}

fn slurm(folder: &Path) -> Slurm {
    Slurm::in_folder(folder.to_owned(), Duration::from_secs(10))
}

/// Submits indices 0, 2 and 3 of an array called `vitad-x`.
fn submit(folder: &Path) -> Result<u64, Error> {
    let script = folder.join("run.sh");
    let indices = BTreeSet::from([0, 2, 3]);
    let resources = Resources { max_parallel: Some(2), ..Resources::default() };
    let request = Request {
        name: "vitad-x",
        indices: &indices,
        script: &script,
        logs: folder,
        resources: &resources,
        dependency: Dependency::Singleton { after: Vec::new() },
    };
    slurm(folder).submit(&request).map(|(id, _)| id)
}

const EMPTY: &str = "exit 0";
/// What `squeue` says once `accepted` is there.
const ACCEPTED: &str =
    "echo '9|0|9|COMPLETED|0|None||'; [ -e accepted ] && echo '41|2|41|PENDING|0|Priority||'; exit 0";

#[test]
fn an_id_is_read_with_or_without_its_cluster_and_asked_for_by_one_array() {
    for answer in ["41", "41;lab"] {
        let folder = tempfile::tempdir().unwrap();
        program(folder.path(), "squeue", EMPTY);
        program(
            folder.path(),
            "sbatch",
            &format!("printf '%s\\n' \"$@\" >asked; echo warning >&2; echo '{answer}'"),
        );
        assert_eq!(submit(folder.path()).unwrap(), 41);
        let asked = std::fs::read_to_string(folder.path().join("asked")).unwrap();
        for expected in
            ["--parsable", "--array=0,2-3%2", "--job-name=vitad-x", "--dependency=singleton", "--requeue"]
        {
            assert!(asked.lines().any(|line| line == expected), "{expected} of {asked}");
        }
        assert!(asked.trim_end().ends_with("run.sh"), "{asked}");
    }
}

#[test]
fn a_submission_that_failed_but_was_accepted_is_found_by_its_name() {
    let folder = tempfile::tempdir().unwrap();
    program(folder.path(), "squeue", ACCEPTED);
    program(folder.path(), "sbatch", "touch accepted; echo 'sbatch: error: Socket timed out' >&2; exit 1");
    assert_eq!(submit(folder.path()).unwrap(), 41);
}

#[test]
fn a_refusal_is_told_in_slurm_s_words_and_an_answer_that_is_none_is_an_error() {
    let folder = tempfile::tempdir().unwrap();
    program(folder.path(), "squeue", ACCEPTED);
    program(folder.path(), "sbatch", "echo 'sbatch: error: invalid partition specified: gpu' >&2; exit 1");
    let error = submit(folder.path()).unwrap_err();
    assert!(matches!(error, Error::Refused { .. }), "{error:?}");
    assert_eq!(error.to_string(), "Slurm refused the job vitad-x: invalid partition specified: gpu");
    program(folder.path(), "sbatch", "echo 'Submitted batch job 41'");
    assert!(submit(folder.path()).unwrap_err().to_string().contains("Submitted batch job"));
}

#[test]
fn nothing_is_submitted_while_the_queue_cannot_be_asked() {
    let folder = tempfile::tempdir().unwrap();
    program(
        folder.path(),
        "squeue",
        "echo 'slurm_load_jobs error: Unable to contact slurm controller' >&2; exit 1",
    );
    program(folder.path(), "sbatch", "touch accepted; echo 41");
    let message = submit(folder.path()).unwrap_err().to_string();
    assert!(message.contains("squeue failed") && message.contains("Unable to contact"), "{message}");
    assert!(!folder.path().join("accepted").exists());
    let message = slurm(Path::new("/nowhere")).queue("x").unwrap_err().to_string();
    assert!(message.contains("can't start"), "{message}");
}

#[test]
fn a_program_that_hangs_is_given_up() {
    let folder = tempfile::tempdir().unwrap();
    program(folder.path(), "squeue", "exec sleep 100");
    let slurm = Slurm::in_folder(folder.path().to_owned(), Duration::from_millis(100));
    assert!(matches!(slurm.queue("x"), Err(Error::Silent { .. })));
}

#[test]
fn the_largest_array_is_the_cluster_s() {
    let folder = tempfile::tempdir().unwrap();
    program(folder.path(), "scontrol", "echo 'MaxArraySize            = 10001'");
    assert_eq!(slurm(folder.path()).max_array_size().unwrap(), 10001);
    program(folder.path(), "scontrol", "echo 'SlurmUser = slurm'");
    assert_eq!(slurm(folder.path()).max_array_size().unwrap(), 1001);
    program(folder.path(), "scontrol", "echo 'MaxArraySize = many'");
    assert!(slurm(folder.path()).max_array_size().is_err());
}
