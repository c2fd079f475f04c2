//! A tracked run, killed and resumed: every run is where it is tracked once, and whole.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use end_to_end::{root, xtask};

/// Two cells that train and one that does not.
const THREE: &str = "*/[08]/*";

fn tracked(out: &Path, only: &str, places: &[&str]) -> Command {
    let mut command = xtask();
    let profile = root().join("tests/profiles/kills.toml");
    command.arg("reproduce").arg("--profile").arg(profile).arg("--out").arg(out).args(["--device", "cpu"]);
    command.args(["--only", only, "--save-detectors"]);
    // Servers of tests are on this machine, whatever proxy there is.
    command.env("NO_PROXY", "127.0.0.1");
    for place in places {
        command.args(["--track", place]);
    }
    command
}

/// The files of a run in MLflow's layout by their names; of metrics, steps and values alone.
pub(crate) type Files = BTreeMap<String, String>;

/// Every run below `root`, by its name.
pub(crate) fn runs(root: &Path) -> BTreeMap<String, Files> {
    let mut found = BTreeMap::new();
    for files in runs_by_id(root).into_values() {
        let name = files["tags/mlflow.runName"].clone();
        assert!(found.insert(name.clone(), files).is_none(), "{name} is there twice");
    }
    found
}

/// Every run below `root`, by its id.
pub(crate) fn runs_by_id(root: &Path) -> BTreeMap<String, Files> {
    let mut found = BTreeMap::new();
    for experiment in root.read_dir().unwrap() {
        for run in experiment.unwrap().path().read_dir().unwrap() {
            let run = run.unwrap().path();
            if run.is_dir() {
                let mut files = Files::new();
                collect(&run, &run, &mut files);
                found.insert(run.file_name().unwrap().to_str().unwrap().to_owned(), files);
            }
        }
    }
    found
}

fn collect(run: &Path, folder: &Path, files: &mut Files) {
    for item in folder.read_dir().unwrap() {
        let path = item.unwrap().path();
        let name = path.strip_prefix(run).unwrap().to_str().unwrap().to_owned();
        if path.is_dir() {
            collect(run, &path, files);
        } else if name.starts_with("metrics/") {
            let text = std::fs::read_to_string(&path).unwrap();
            let points = text.lines().map(|line| line.split_once(' ').unwrap().1);
            files.insert(name, points.collect::<Vec<_>>().join("\n"));
        } else if !name.starts_with("artifacts/")
            || ["report.html", "most-0", "detector.json"].iter().any(|kept| name.contains(kept))
        {
            files.insert(name, String::from_utf8_lossy(&std::fs::read(&path).unwrap()).into_owned());
        }
    }
}

/// What must be the same however often a run was killed.
pub(crate) fn essence(runs: &BTreeMap<String, Files>) -> BTreeMap<(String, String), String> {
    let mut kept = BTreeMap::new();
    for (run, files) in runs {
        for (name, content) in files {
            let measured =
                name.contains("seconds/") || name.contains("memory") || name.ends_with("report.html");
            // Ids and times differ between two folders.
            let own = (run == "kills" && name == "tags/vitad.id")
                || name == "meta.yaml"
                || name.contains("vitad.run")
                || name.contains("parentRunId")
                || name.contains("commit");
            if !measured && !own {
                kept.insert((run.clone(), name.clone()), content.clone());
            }
        }
    }
    kept
}

/// Files below `folder` that a killed process was writing.
fn temporary(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for item in folder.read_dir().unwrap() {
        let path = item.unwrap().path();
        if path.is_dir() {
            found.extend(temporary(&path));
        } else if path.extension().is_some_and(|ending| ending == "tmp") {
            found.push(path);
        }
    }
    found
}

#[test]
fn a_killed_and_resumed_run_is_tracked_once_and_whole() {
    let straight = tempfile::tempdir().unwrap();
    let place = |folder: &Path| format!("mlflow={}", folder.join("mlruns").display());
    let out = straight.path().join("out");
    let status = tracked(&out, THREE, &["tensorboard", &place(straight.path())])
        .stdout(Stdio::null())
        .status()
        .unwrap();
    assert!(status.success());
    let expected = runs(&straight.path().join("mlruns"));
    assert_eq!(expected.len(), 4, "{:?}", expected.keys());

    let killed = tempfile::tempdir().unwrap();
    let out = killed.path().join("out");
    for pause in [2000, 3000] {
        let mut run = tracked(&out, THREE, &["tensorboard", &place(killed.path())])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        std::thread::sleep(Duration::from_millis(pause));
        run.kill().unwrap();
        run.wait().unwrap();
    }
    let status =
        tracked(&out, THREE, &["tensorboard", &place(killed.path())]).stdout(Stdio::null()).status().unwrap();
    assert!(status.success());
    let found = runs(&killed.path().join("mlruns"));
    let (kept, wanted) = (essence(&found), essence(&expected));
    assert_eq!(kept.keys().collect::<Vec<_>>(), wanted.keys().collect::<Vec<_>>());
    for (file, content) in &wanted {
        assert_eq!(&kept[file], content, "{file:?}");
    }

    let (parents, cells): (Vec<_>, Vec<_>) =
        found.values().partition(|files| !files.contains_key("tags/mlflow.parentRunId"));
    let [parent] = parents[..] else { panic!("one matrix: {}", parents.len()) };
    assert!(parent["artifacts/report.html"].starts_with("<!DOCTYPE html>"));
    for files in cells {
        assert!(parent["meta.yaml"].contains(&files["tags/mlflow.parentRunId"]));
        assert!(files["meta.yaml"].contains("status: 3"), "{}", files["meta.yaml"]);
        assert!(files.keys().any(|name| name.starts_with("artifacts/detectors/last/")), "{:?}", files.keys());
        assert!(
            files.contains_key("metrics/figures/last/image_auroc")
                && files.contains_key("params/config.epochs")
                || files["params/method"] == "pixel-knn"
        );
    }
    // One event file a run.
    let mut event_files = 0;
    for run in out.join("tensorboard/kills").read_dir().unwrap() {
        event_files += run.unwrap().path().read_dir().unwrap().count();
    }
    assert_eq!(event_files, 4);
    assert!(!out.join("work").exists());
    assert_eq!(temporary(killed.path()), Vec::<PathBuf>::new());
}

#[test]
fn a_server_that_is_down_is_a_warning_and_is_made_up_for() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("out");
    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let url = format!("http://{closed}");
    let only = "pixel-knn/*";
    let output = tracked(&out, only, &[&format!("mlflow={url}")]).output().unwrap();
    let told = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "{told}");
    assert!(told.contains(&url) && told.contains("makes up for it"), "{told}");

    // Nothing is left to compute, and all is passed on.
    let root = folder.path().join("mlruns");
    let place = format!("mlflow={}", root.display());
    let status = tracked(&out, only, &[&place, "tensorboard"]).stdout(Stdio::null()).status().unwrap();
    assert!(status.success());
    let names: BTreeSet<String> = runs(&root).into_keys().collect();
    assert!(names.contains("kills") && names.iter().any(|name| name.starts_with("pixel-knn/")), "{names:?}");

    let wrong = tracked(&out, only, &["wandb"]).output().unwrap();
    assert!(!wrong.status.success());
    assert!(String::from_utf8(wrong.stderr).unwrap().contains("mlflow=URL"));
}
