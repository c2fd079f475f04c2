//! `reproduce --executor slurm` against a real Slurm of four nodes on loopback, which each test starts for itself
//! (`tests/slurm/up.sh`). They need Debian's packages `slurmctld slurmd slurm-client munge`: run them with
//! `cargo test --release -p end-to-end -p xtask -- --ignored slurm`.

mod lab;

use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Command, Stdio};

use end_to_end::xtask;
use serde_json::Value;

use crate::reproduce::{assert_same, finished, reproduce, succeeded};
use crate::tracking::{essence, runs, runs_by_id};
use crate::tuning::{PROFILE, SPACE, read};
use lab::Lab;

/// Every record of `summary.json`, by the name of its category and method.
fn summary(out: &Path) -> BTreeMap<String, Value> {
    let bytes = std::fs::read(out.join("summary.json")).unwrap();
    let Value::Array(cells) = serde_json::from_slice(&bytes).unwrap() else { panic!("no list") };
    cells.into_iter().map(|cell| (cell["method"].as_str().unwrap().to_owned(), cell)).collect()
}

/// What is measured, as the bytes of its JSON: of each cell the figures, the terms and the curves.
fn figures(out: &Path) -> Vec<String> {
    let bytes = std::fs::read(out.join("summary.json")).unwrap();
    let Value::Array(cells) = serde_json::from_slice(&bytes).unwrap() else { panic!("no list") };
    let of =
        |cell: &Value| format!("{} {} {} {}", cell["cell"], cell["results"], cell["terms"], cell["curves"]);
    cells.iter().map(of).collect()
}

#[test]
#[ignore = "needs Slurm's packages"]
fn slurm_short_a_matrix_gives_the_same_bytes_as_on_this_machine_and_is_not_submitted_twice() {
    let only = ["--only", "*/[08]/*"];
    let here = tempfile::tempdir().unwrap();
    succeeded(reproduce("kills", here.path()).args(only));
    let lab = Lab::start();
    let out = lab.out("there");
    let told = succeeded(lab.reproduce("kills", &out).args(only).args(["--max-parallel", "2"]));
    assert!(told.contains("submitted 3 tasks as job array"), "{told}");
    assert_same(here.path(), &out);
    assert!(!out.join("work").exists());

    let before = finished(&out);
    let told = succeeded(lab.reproduce("kills", &out).args(only));
    assert!(told.contains("nothing to submit"), "{told}");
    assert_eq!(finished(&out), before);
    // The job that writes the report needs nobody to watch.
    let alone = lab.out("alone");
    succeeded(lab.reproduce("kills", &alone).args(["--only", "pixel-knn/*", "--detach"]));
    let report = alone.join("report.html");
    lab.until("the dependent job has written the report", || report.exists());
}

/// The profile is `smoke`, or the one in `VITAD_SLURM_PROFILE`.
#[test]
#[ignore = "needs Slurm's packages"]
fn slurm_a_profile_of_the_project_gives_the_same_figures_as_on_this_machine() {
    let profile = std::env::var("VITAD_SLURM_PROFILE").unwrap_or_else(|_| "smoke".to_owned());
    let profile = format!("../../matrix/{profile}");
    let here = tempfile::tempdir().unwrap();
    succeeded(&mut reproduce(&profile, here.path()));
    let lab = Lab::start();
    let out = lab.out("there");
    succeeded(lab.reproduce(&profile, &out).args(["--cells-per-task", "3"]));
    assert_eq!(figures(&out), figures(here.path()));
    assert_same(here.path(), &out);
}

#[test]
#[ignore = "needs Slurm's packages"]
fn slurm_a_killed_task_and_a_requeued_one_go_on_to_the_same_bytes() {
    let only = ["--only", "transformaly/*"];
    let here = tempfile::tempdir().unwrap();
    succeeded(reproduce("kills", here.path()).args(only));
    let lab = Lab::start();
    let out = lab.out("there");
    let mut watching = lab.reproduce("kills", &out).args(only).stderr(Stdio::piped()).spawn().unwrap();
    let (killed, requeued) = (0, 1);
    // With a checkpoint, so that there is something to go on from.
    lab.until("two tasks have checkpoints", || {
        [killed, requeued].iter().all(|&task| Lab::has_checkpoint(&out, task))
    });
    lab.scontrol(&["requeue", &Lab::address(&out, requeued)]);
    lab.kill(Lab::process(&out, killed));
    // A requeued task waits for its old credential to expire, or until it is told not to.
    lab.until("the task waits again", || {
        lab.try_scontrol(&["update", &format!("jobid={}", Lab::address(&out, requeued)), "StartTime=now"])
            && lab.state(&out, requeued) != "RUNNING"
            || Lab::attempts(&out, requeued) > 1
    });
    assert!(!watching.wait().unwrap().success());
    let failed: Vec<Value> =
        Lab::records(&out).into_iter().filter(|record| record["status"] == "failed").collect();
    assert_eq!(failed.len(), 1, "{failed:?}");
    let error = failed[0]["error"].as_str().unwrap();
    assert!(error.contains("Slurm job") && error.contains("FAILED") && error.contains("signal 9"), "{error}");
    assert_eq!(Lab::attempts(&out, requeued), 2);

    let told = succeeded(lab.reproduce("kills", &out).args(only));
    assert!(told.contains("submitted 1 tasks"), "{told}");
    assert_same(here.path(), &out);
}

#[test]
#[ignore = "needs Slurm's packages"]
fn slurm_a_follower_is_closed_and_reopened_over_a_dead_controller_and_a_lost_note() {
    let lab = Lab::start();
    let out = lab.out("there");
    let only = ["--only", "*/[08]/*"];
    // One at a time, so that some wait.
    let options = ["--max-parallel", "1"];
    let mut watching = lab.reproduce("kills", &out).args(only).args(options).spawn().unwrap();
    lab.until("a task is at work", || Lab::cell_process(&out, 0).is_some());
    // However slow the machine: nothing may end or begin while the controller is dead.
    let cell = Lab::cell_process(&out, 0).unwrap();
    lab.hold(cell);
    let address = Lab::address(&out, 0);
    lab.interrupt(&watching);
    assert!(!watching.wait().unwrap().success());

    // Whoever submitted died before it could note what it did: the queue is asked by name.
    std::fs::remove_dir_all(Lab::plan(&out).join("submissions")).unwrap();
    let told = succeeded(lab.reproduce("kills", &out).args(only).args(options).arg("--detach"));
    assert!(told.contains("tasks were in Slurm's hands already") && !told.contains("submitted"), "{told}");

    lab.until_it_is_written_down(&address);
    lab.kill(lab.daemon("slurmctld"));
    let log = lab.out("watching.log");
    let said = std::fs::File::create(&log).unwrap();
    let mut watching = lab.reproduce("kills", &out).arg("--follow").stderr(said).spawn().unwrap();
    lab.until("the watcher says that it gets no answer", || {
        std::fs::read_to_string(&log).unwrap().contains("the queue can't be asked")
    });
    assert!(watching.try_wait().unwrap().is_none());
    lab.start_controller();
    lab.release(cell);
    assert!(watching.wait().unwrap().success());
    assert_eq!(Lab::attempts(&out, 0), 1);
    assert!(Lab::records(&out).iter().all(|record| record["status"] == "ok"));
}

#[test]
#[ignore = "needs Slurm's packages"]
fn slurm_a_tracked_run_is_there_once_and_whole_whoever_watched_when() {
    let only = ["--only", "*/[08]/*"];
    let here = tempfile::tempdir().unwrap();
    let place = |folder: &Path| format!("mlflow={}", folder.join("mlruns").display());
    succeeded(reproduce("kills", here.path()).args(only).args(["--track", &place(here.path())]));
    let expected = runs(&here.path().join("mlruns"));
    assert_eq!(expected.len(), 4);

    let lab = Lab::start();
    let out = lab.out("there");
    let (mlruns, track) = (out.join("mlruns"), ["--track", &place(&out)]);
    let mut watching =
        lab.reproduce("kills", &out).args(only).args(track).args(["--track", "tensorboard"]).spawn().unwrap();
    let (killed, requeued) = (0, 1);
    // Its curve is shown while it runs: what the follower has of it is from its attempt's own folder.
    lab.until("points of a cell that is at work are tracked", || {
        let curve =
            |run: std::path::PathBuf| run.join("metrics").read_dir().is_ok_and(|mut m| m.next().is_some());
        let below = |folder: &Path| -> Vec<std::path::PathBuf> {
            folder.read_dir().map_or_else(|_| Vec::new(), |items| items.flatten().map(|i| i.path()).collect())
        };
        let shown = below(&mlruns).iter().flat_map(|experiment| below(experiment)).any(curve);
        shown && [killed, requeued].iter().all(|&task| Lab::has_checkpoint(&out, task))
    });
    // Nobody watches while one attempt fails and another is followed by a next.
    lab.interrupt(&watching);
    assert!(!watching.wait().unwrap().success());
    lab.scontrol(&["requeue", &Lab::address(&out, requeued)]);
    lab.kill(Lab::process(&out, killed));
    lab.until("the task waits again", || {
        lab.try_scontrol(&["update", &format!("jobid={}", Lab::address(&out, requeued)), "StartTime=now"])
            && lab.state(&out, requeued) != "RUNNING"
            || Lab::attempts(&out, requeued) > 1
    });
    assert!(!lab.reproduce("kills", &out).arg("--follow").args(track).status().unwrap().success());
    let failed: Vec<_> =
        runs(&mlruns).into_values().filter(|files| files.contains_key("tags/vitad.error")).collect();
    let [failed] = failed.as_slice() else { panic!("{failed:?}") };
    assert!(failed["tags/vitad.error"].contains("signal 9") && failed["meta.yaml"].contains("status: 4"));
    succeeded(lab.reproduce("kills", &out).args(only).args(track));

    let found = runs(&mlruns);
    let (mut kept, wanted) = (essence(&found), essence(&expected));
    // It failed once, and the matrix with it.
    kept.retain(|(_, file), _| file != "tags/vitad.error");
    for ((_, file), points) in kept.iter_mut().filter(|((run, _), _)| run == "kills") {
        if file.starts_with("metrics/figures/") {
            *points = points.lines().last().unwrap().to_owned();
        }
    }
    assert_eq!(kept.keys().collect::<Vec<_>>(), wanted.keys().collect::<Vec<_>>());
    for (file, content) in &wanted {
        assert_eq!(&kept[file], content, "{file:?}");
    }
    assert!(found.values().all(|files| files["meta.yaml"].contains("status: 3")));
    // All is passed on to a new place too, when nothing is left to run, and nobody tracks what nobody watches.
    let later = lab.out("later");
    let told = succeeded(lab.reproduce("kills", &out).args(only).args(["--track", &place(&later)]));
    assert!(told.contains("nothing to submit"), "{told}");
    assert_eq!(runs(&later.join("mlruns")).len(), 4);
    assert!(!lab.reproduce("kills", &out).arg("--detach").args(track).status().unwrap().success());
}

#[test]
#[ignore = "needs Slurm's packages"]
fn slurm_a_lost_node_and_a_lost_node_daemon_end_no_cell() {
    let only = ["--only", "transformaly/*/[08]/*"];
    let here = tempfile::tempdir().unwrap();
    succeeded(reproduce("kills", here.path()).args(only));
    let lab = Lab::start();
    let out = lab.out("there");
    let mut watching = lab.reproduce("kills", &out).args(only).args(["--cpus", "2"]).spawn().unwrap();
    lab.until("both tasks have checkpoints", || (0..2).all(|task| Lab::has_checkpoint(&out, task)));
    let nodes = [0, 1].map(|task| Lab::node(&out, task));
    // Both daemons die. The controller takes the first one's node for lost, and the task runs again elsewhere, though its
    // former attempt is still alive; the second one's step goes on and reports by itself.
    for node in &nodes {
        lab.kill(lab.daemon(&format!("slurmd-{node}")));
    }
    lab.scontrol(&["update", &format!("nodename={}", nodes[0]), "state=down", "reason=test"]);
    lab.until("the first task runs again", || {
        lab.try_scontrol(&["update", &format!("jobid={}", Lab::address(&out, 0)), "StartTime=now"]);
        Lab::attempts(&out, 0) > 1
    });
    assert!(watching.wait().unwrap().success());
    assert_ne!(Lab::node(&out, 0), nodes[0]);
    assert_same(here.path(), &out);
}

#[test]
#[ignore = "needs Slurm's packages"]
fn slurm_what_is_cancelled_or_takes_too_long_or_was_a_ghost_is_named_so() {
    let lab = Lab::start();
    for (word, status) in [("CANCELLED", "cancelled"), ("TIMEOUT", "failed"), ("ghost", "failed")] {
        let out = lab.out(word);
        let mut watching =
            lab.reproduce("endless", &out).args(["--time", "1"]).stdout(Stdio::piped()).spawn().unwrap();
        lab.until("the task is at work", || Lab::cell_process(&out, 0).is_some());
        let address = Lab::address(&out, 0);
        match word {
            "CANCELLED" => lab.scancel(&address),
            "ghost" => {
                let (step, task) = (lab.step_daemon(&address), Lab::process(&out, 0));
                lab.kill(step);
                lab.kill(task);
            }
            _ => {}
        }
        assert!(!watching.wait().unwrap().success());
        let cells = summary(&out);
        assert_eq!(cells["pixel-knn"]["status"], "ok", "{word}");
        assert_eq!(cells["transformaly"]["status"], status, "{word}");
        let error = cells["transformaly"]["error"].as_str().unwrap();
        assert!(error.contains(word) && error.contains(&address), "{error}");
        if word == "ghost" {
            // Slurm holds it: it is not submitted again until it is cancelled.
            let told = succeeded(lab.reproduce("endless", &out).arg("--detach"));
            assert!(told.contains("1 tasks were in Slurm's hands already"), "{told}");
            lab.scancel(&address);
            lab.until("it is gone", || lab.state(&out, 0) != "RUNNING");
            let told = succeeded(lab.reproduce("endless", &out).arg("--detach"));
            assert!(told.contains("submitted 1 tasks"), "{told}");
        }
    }
}

#[test]
#[ignore = "needs Slurm's packages"]
fn slurm_what_cannot_begin_is_refused_or_stuck() {
    let lab = Lab::start();
    let cases = [
        (["--partition", "nowhere"], "refused", "invalid partition"),
        (["--cpus", "999"], "stuck", "PartitionConfig"),
        // `PartitionConfig` for its first seconds, then `PartitionTimeLimit`.
        (["--time", "10-0"], "stuck", "(Partition"),
        (["--sbatch", "--hold"], "stuck", "JobHeldUser"),
    ];
    for (number, (options, word, why)) in cases.into_iter().enumerate() {
        let out = lab.out(&format!("case{number}"));
        let output = lab.reproduce("failing", &out).args(options).output().unwrap();
        assert!(!output.status.success());
        for record in Lab::records(&out) {
            let error = record["error"].as_str().unwrap();
            assert!(record["status"] == "failed" && error.contains(word) && error.contains(why), "{error}");
        }
        assert_eq!(Lab::records(&out).len(), 2);
        let told = String::from_utf8(output.stdout).unwrap();
        assert_eq!(told.contains("scancel"), word == "stuck", "{told}");
    }
    // A program that is not what was submitted.
    let out = lab.out("other-program");
    succeeded(lab.reproduce("failing", &out).args(["--sbatch", "--hold", "--detach"]));
    let programs = out.join("slurm/programs");
    let kept = programs.read_dir().unwrap().next().unwrap().unwrap().path().join("xtask");
    let mut bytes = std::fs::read(&kept).unwrap();
    bytes.push(0);
    std::fs::write(&kept, bytes).unwrap();
    lab.scontrol(&["release", &Lab::address(&out, 0), &Lab::address(&out, 1)]);
    assert!(!lab.reproduce("failing", &out).arg("--follow").status().unwrap().success());
    for record in Lab::records(&out) {
        let error = record["error"].as_str().unwrap();
        assert!(error.contains("refused: expected a program with sha256"), "{error}");
    }
}

#[test]
#[ignore = "needs Slurm's packages"]
fn slurm_a_cell_that_fails_says_why_and_is_alone_submitted_again() {
    let lab = Lab::start();
    let out = lab.out("there");
    assert!(!lab.reproduce("failing", &out).status().unwrap().success());
    let records = Lab::records(&out);
    let errors: Vec<&str> = records.iter().filter_map(|record| record["error"].as_str()).collect();
    let [error] = errors.as_slice() else { panic!("{errors:?}") };
    assert!(error.contains("`k`") && error.contains("10") && !error.contains("Slurm"), "{error}");
    let output = lab.reproduce("failing", &out).output().unwrap();
    let told = String::from_utf8(output.stdout).unwrap();
    assert!(!output.status.success() && told.contains("submitted 1 tasks"), "{told}");
}

#[test]
#[ignore = "needs Slurm's packages"]
fn slurm_a_search_is_a_submission_for_each_rung_and_goes_on_where_it_was() {
    let folder = tempfile::tempdir().unwrap();
    let (profile, space) = (folder.path().join("knn.toml"), folder.path().join("space.toml"));
    std::fs::write(&profile, PROFILE).unwrap();
    std::fs::write(
        &space,
        SPACE.replace("[k]\nlow = 1\nhigh = 8\nwhole = true\n", "[image_size]\nchoice = [14, 28]\n"),
    )
    .unwrap();
    let with = |command: &mut Command| {
        command.arg(&profile).arg("--space").arg(&space);
        command.args(["--sampler", "random", "--budget", "k=1,2", "--batch", "4", "--trials", "4"]);
    };
    let here = tempfile::tempdir().unwrap();
    let mut local = xtask();
    with(local.args(["tune", "--device", "cpu", "--out"]).arg(here.path()));
    succeeded(&mut local);

    let lab = Lab::start();
    let out = lab.out("there");
    let mlruns = out.join("mlruns");
    let place = format!("mlflow={}", mlruns.display());
    let search = || {
        let mut command = lab.command("tune", &out);
        with(&mut command);
        command
    };
    // The first rung is submitted and left; the next call finds it in Slurm's hands.
    let left = search().arg("--detach").output().unwrap();
    let told = String::from_utf8(left.stderr).unwrap();
    assert!(!left.status.success() && told.contains("as job array") && told.contains("goes on"), "{told}");
    let mut watching = search().spawn().unwrap();
    lab.until("a task is over", || {
        out.join("cells").read_dir().is_ok_and(|mut cells| cells.next().is_some())
    });
    lab.interrupt(&watching);
    assert!(!watching.wait().unwrap().success());
    succeeded(search().args(["--track", &place]));

    let (there, same) = (read(&out.join("tuning.json")), read(&here.path().join("tuning.json")));
    assert_eq!(there["trials"], same["trials"]);
    assert_eq!(there["best"], same["best"]);
    // Two rungs, an array each.
    let plans = out.join("slurm").read_dir().unwrap().map(|item| item.unwrap().path());
    let submissions: Vec<usize> = plans
        .filter(|path| path.join("plan.json").exists())
        .map(|path| path.join("submissions").read_dir().unwrap().count())
        .collect();
    assert_eq!(submissions, [1, 1]);
    assert!(!out.join("report.html").exists() && out.join("tuning.html").exists());
    let runs = runs_by_id(&mlruns);
    assert_eq!(runs.len(), 1 + 4 + out.join("cells").read_dir().unwrap().count());
    assert!(runs.values().all(|files| !files["meta.yaml"].contains("status: 1")));
    // Nothing is left to submit, also for the final evaluation but its own cells.
    let told = succeeded(search().arg("--final"));
    assert!(told.matches("as job array").count() == 1 && out.join("final/report.html").exists(), "{told}");
    assert!(!search().arg("--follow").status().unwrap().success());
}
