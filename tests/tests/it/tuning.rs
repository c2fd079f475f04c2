//! `tune` as a program: it searches on training images alone, goes on where it was, and looks at test data once.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use end_to_end::xtask;
use serde_json::Value;

use crate::tracking::{Files, runs_by_id};

pub(crate) const PROFILE: &str = r#"
description = "nearest neighbours, to be tuned"
seeds = [0, 1]
[[entry]]
method = "pixel-knn"
dataset = "fashion-mnist-sample"
protocol = "unimodal"
categories = ["0", "8"]
image_size = 28
train_limit = 40
test_limit = 40
held_out = 0.25
"#;

pub(crate) const SPACE: &str =
    "[k]\nlow = 1\nhigh = 8\nwhole = true\n[metric]\nchoice = [\"l2\", \"cosine\"]\n";

pub(crate) fn read(path: &Path) -> Value {
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

/// The ids in every `split.json` below `cells`, as images: a pasted one is the one it was made of.
fn images(out: &Path, lists: &[&str]) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for cell in out.join("cells").read_dir().unwrap() {
        let split = read(&cell.unwrap().path().join("split.json"));
        for list in lists {
            let ids = split[list].as_array().unwrap().iter().map(|id| id.as_str().unwrap());
            found.extend(ids.map(|id| id.trim_end_matches("#pasted").to_owned()));
        }
    }
    found
}

#[test]
fn settings_are_searched_on_training_images_and_the_best_is_evaluated_once() {
    let folder = tempfile::tempdir().unwrap();
    let (profile, space, out) =
        (folder.path().join("knn.toml"), folder.path().join("space.toml"), folder.path().join("out"));
    std::fs::write(&profile, PROFILE).unwrap();
    std::fs::write(&space, SPACE).unwrap();
    let tune = |more: &[&str]| {
        let mut command = xtask();
        command.arg("tune").arg(&profile).arg("--space").arg(&space).arg("--out").arg(&out);
        let output = command.args(["--device", "cpu", "--batch", "2"]).args(more).output().unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        (output.status.success(), text(output.stdout), text(output.stderr))
    };
    let (well, table, errors) = tune(&["--trials", "4"]);
    assert!(well, "{errors}");
    assert!(table.contains("| metric |") && table.contains("complete"), "{table}");
    let first = read(&out.join("tuning.json"));
    let trials = first["trials"].as_array().unwrap();
    assert_eq!(trials.len(), 4);
    assert!(
        trials.iter().all(|trial| trial["rungs"][0]["value"].as_f64().is_some_and(|v| v > 0.0 && v <= 1.0))
    );
    // One seed, both categories.
    assert!(trials.iter().all(|trial| trial["rungs"][0]["cells"].as_array().unwrap().len() == 2));
    let record = |trial: &Value| {
        let id = trial["rungs"][0]["cells"][0].as_str().unwrap();
        std::fs::read(out.join("cells").join(id).join("result.json")).unwrap()
    };
    let before: Vec<_> = trials.iter().map(record).collect();

    // Done again nothing is computed again; with more trials it goes on.
    assert!(tune(&["--trials", "4"]).0);
    assert_eq!(read(&out.join("tuning.json")), first);
    let (well, _, errors) = tune(&["--trials", "6", "--final"]);
    assert!(well, "{errors}");
    let more = read(&out.join("tuning.json"));
    assert_eq!(more["trials"].as_array().unwrap()[..4], trials[..]);
    assert_eq!(trials.iter().map(record).collect::<Vec<_>>(), before);
    let page = std::fs::read_to_string(out.join("tuning.html")).unwrap();
    assert_eq!(page.matches("<polyline").count(), 6);

    // The final evaluation has all seeds on test images; no trial has seen one.
    let summary = read(&out.join("final/summary.json"));
    let cells = summary.as_array().unwrap();
    assert_eq!(cells.len(), 4);
    let best = &more["trials"][more["best"].as_u64().unwrap() as usize];
    for cell in cells {
        assert_eq!((cell["status"].as_str(), cell["protocol"].as_str()), (Some("ok"), Some("unimodal")));
        assert_eq!(
            (&cell["config"]["k"], &cell["config"]["metric"]),
            (&best["settings"]["k"], &best["settings"]["metric"])
        );
    }
    let tested = images(&out.join("final"), &["test"]);
    let seen = images(&out, &["train", "held_out", "test"]);
    assert!(!tested.is_empty() && tested.is_disjoint(&seen));

    // Another search does not belong into this folder, and another winner is not evaluated.
    let (well, _, errors) = tune(&["--trials", "4", "--seed", "5"]);
    assert!(!well && errors.contains("study.json"), "{errors}");
    std::fs::write(out.join("final/chosen.json"), "{}").unwrap();
    let (well, _, errors) = tune(&["--trials", "6", "--final"]);
    assert!(!well && errors.contains("test data are looked at once"), "{errors}");
}

#[test]
fn the_better_half_of_a_batch_gets_more() {
    let folder = tempfile::tempdir().unwrap();
    let (profile, space, out) =
        (folder.path().join("knn.toml"), folder.path().join("space.toml"), folder.path().join("out"));
    std::fs::write(&profile, PROFILE).unwrap();
    // A budget need not be epochs.
    std::fs::write(&space, "[metric]\nchoice = [\"l2\", \"cosine\"]\n[image_size]\nchoice = [14, 20, 28]\n")
        .unwrap();
    std::fs::write(&profile, PROFILE.replace("image_size = 28\n", "")).unwrap();
    let mut command = xtask();
    command.arg("tune").arg(&profile).arg("--space").arg(&space).arg("--out").arg(&out);
    command.args([
        "--device",
        "cpu",
        "--trials",
        "4",
        "--budget",
        "k=1,2,3",
        "--sampler",
        "random",
        "--batch",
        "4",
    ]);
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let study = read(&out.join("tuning.json"));
    let mut rungs: Vec<usize> = study["trials"]
        .as_array()
        .unwrap()
        .iter()
        .map(|trial| trial["rungs"].as_array().unwrap().len())
        .collect();
    rungs.sort_unstable();
    assert_eq!(rungs, [1, 1, 2, 3]);
    let best = &study["trials"][study["best"].as_u64().unwrap() as usize];
    assert_eq!((best["state"].as_str(), best["rungs"][2]["budget"].as_u64()), (Some("complete"), Some(3)));
}

/// `tune` in `folder`, with a profile and a space written there.
fn tune(folder: &Path, profile: &str, space: &str) -> Command {
    let (profile_file, space_file) = (folder.join("knn.toml"), folder.join("space.toml"));
    std::fs::write(&profile_file, profile).unwrap();
    std::fs::write(&space_file, space).unwrap();
    let mut command = xtask();
    command.arg("tune").arg(profile_file).arg("--space").arg(space_file).arg("--out").arg(folder.join("out"));
    command.args(["--device", "cpu"]);
    command
}

fn succeeded(command: &mut Command) {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn a_tracked_search_has_its_trials_as_runs_and_their_cells_within_them() {
    let folder = tempfile::tempdir().unwrap();
    let mlruns = folder.path().join("mlruns");
    let place = format!("mlflow={}", mlruns.display());
    let search = |trials: &str| {
        let mut command = tune(
            folder.path(),
            PROFILE,
            "[metric]\nchoice = [\"l2\", \"cosine\"]\n[image_size]\nchoice = [14, 28]\n",
        );
        command.args(["--budget", "k=1,2", "--batch", "4", "--sampler", "random", "--trials", trials]);
        command.args(["--track", &place, "--track", "tensorboard"]);
        command
    };
    // Killed, wherever it is, it is there once and whole all the same.
    let mut killed = search("4").stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    std::thread::sleep(Duration::from_millis(1500));
    killed.kill().unwrap();
    killed.wait().unwrap();
    succeeded(&mut search("4"));
    let runs = runs_by_id(&mlruns);
    let parent = |files: &Files| files.get("tags/mlflow.parentRunId").cloned();
    let below = |id: &str| -> BTreeMap<&String, &Files> {
        runs.iter().filter(|(_, files)| parent(files).as_deref() == Some(id)).collect()
    };
    let whole: Vec<_> = runs.iter().filter(|(_, files)| parent(files).is_none()).collect();
    let [(id, files)] = whole[..] else { panic!("{:?}", runs.keys()) };
    assert_eq!(
        (files["tags/mlflow.runName"].as_str(), files["params/metric"].as_str()),
        ("tune-knn", "image_auroc")
    );
    assert!(
        files.keys().any(|name| name == "metrics/figures/best/image_auroc")
            && files["meta.yaml"].contains("status: 3")
    );
    assert!(
        mlruns.read_dir().unwrap().any(|experiment| experiment
            .unwrap()
            .path()
            .join(id)
            .join("artifacts/tuning.html")
            .exists())
    );

    let study = read(&folder.path().join("out/tuning.json"));
    let trials = below(id);
    assert_eq!(trials.len(), 4);
    let mut cells = 0;
    for (id, files) in trials {
        let number: usize = files["params/trial"].parse().unwrap();
        let trial = &study["trials"][number];
        assert_eq!(Value::from(files["params/config.metric"].as_str()), trial["settings"]["metric"]);
        let points: Vec<f64> = files["metrics/image_auroc"]
            .lines()
            .map(|line| line.split(' ').next().unwrap().parse().unwrap())
            .collect();
        let rungs = trial["rungs"].as_array().unwrap();
        assert_eq!(points, rungs.iter().map(|rung| rung["value"].as_f64().unwrap()).collect::<Vec<_>>());
        // The worse half was stopped.
        let status = if trial["state"] == "complete" { "status: 3" } else { "status: 5" };
        assert!(files["meta.yaml"].contains(status), "{}", files["meta.yaml"]);
        let own: BTreeSet<&str> = rungs
            .iter()
            .flat_map(|rung| rung["cells"].as_array().unwrap())
            .map(|id| id.as_str().unwrap())
            .collect();
        for cell in below(id).values() {
            assert!(own.contains(cell["tags/vitad.id"].as_str()) && cell["meta.yaml"].contains("status: 3"));
            cells += 1;
        }
    }
    // Each cell is within one trial, and nothing is anywhere else.
    assert_eq!(runs.len(), 1 + 4 + cells);
    assert_eq!(cells, folder.path().join("out/cells").read_dir().unwrap().count());

    // Done again nothing is told again; with more trials there are more, and the final evaluation is a run of its own.
    let without_times = |runs: BTreeMap<String, Files>| -> BTreeMap<String, Vec<String>> {
        runs.into_iter().map(|(id, files)| (id, files.into_keys().collect())).collect()
    };
    let before = without_times(runs.clone());
    succeeded(&mut search("4"));
    assert_eq!(without_times(runs_by_id(&mlruns)), before);
    succeeded(search("5").arg("--final"));
    let more = runs_by_id(&mlruns);
    assert!(before.keys().all(|id| more.contains_key(id)));
    let named = |name: &str| more.values().filter(|files| files["tags/mlflow.runName"] == name).count();
    assert_eq!((named("tune-knn"), named("trial-4"), named("knn")), (1, 1, 1));
}

/// A method that trains, in a setting of seconds.
const TRAINED: &str = r#"
description = "a student of a teacher, to be tuned"
seeds = [3]
[[entry]]
method = "transformaly"
dataset = "fashion-mnist-sample"
protocol = "unimodal"
categories = ["0"]
backbone = "dinov2-small-b9"
image_size = 28
train_limit = 24
test_limit = 20
held_out = 0.25
[entry.config]
epochs = 2
batch_size = 6
eval_every = 1
min_delta = 0.0
"#;

#[test]
fn a_loss_on_held_out_images_is_made_low_and_no_test_image_is_seen() {
    let folder = tempfile::tempdir().unwrap();
    let space = "[learning_rate]\nlow = 1e-6\nhigh = 1e-3\nlog = true\n";
    let mut command = tune(folder.path(), TRAINED, space);
    succeeded(command.args(["--trials", "3", "--batch", "3", "--metric", "held_out_loss", "--final"]));
    let out = folder.path().join("out");
    let study = read(&out.join("tuning.json"));
    let mut values = Vec::new();
    for trial in study["trials"].as_array().unwrap() {
        let rung = &trial["rungs"][0];
        let record = read(&out.join("cells").join(rung["cells"][0].as_str().unwrap()).join("result.json"));
        let curve = record["curves"]["loss on held-out images"].as_array().unwrap();
        let lowest = curve.iter().map(|point| point[1].as_f64().unwrap()).fold(f64::INFINITY, f64::min);
        assert_eq!(rung["value"].as_f64(), Some(lowest));
        assert!(
            lowest > 0.0 && record["results"]["honest"]["selection"].as_str().unwrap().contains("held-out")
        );
        values.push(lowest);
    }
    let best = study["best"].as_u64().unwrap() as usize;
    assert!(
        values.iter().all(|value| values[best] <= *value) && values.iter().any(|value| values[best] < *value),
        "{values:?}"
    );
    let tested = images(&out.join("final"), &["test"]);
    assert!(!tested.is_empty() && tested.is_disjoint(&images(&out, &["train", "held_out", "test"])));

    // A method that tells no loss.
    let other = tempfile::tempdir().unwrap();
    let output = tune(other.path(), PROFILE, SPACE)
        .args(["--trials", "1", "--metric", "held_out_loss"])
        .output()
        .unwrap();
    let told = String::from_utf8(output.stderr).unwrap();
    assert!(
        !output.status.success() && told.contains("pixel-knn tells no loss on held-out images"),
        "{told}"
    );
}

/// VT-ADL, in a setting of seconds.
const RECONSTRUCTING: &str = r#"
description = "VT-ADL with registers, to be tuned"
seeds = [3]
[[entry]]
method = "vtadl-registers"
dataset = "synthetic-textures"
protocol = "class-separated"
categories = ["wood", "tiles"]
image_size = 32
train_limit = 16
test_limit = 6
[entry.config]
epochs = 1
batch_size = 4
key_dim = 8
"#;

#[test]
fn a_search_by_the_reconstruction_of_normal_images_has_every_other_figure_too() {
    let folder = tempfile::tempdir().unwrap();
    let known = std::fs::read_to_string("../matrix/spaces/vtadl-registers.toml").unwrap();
    let mut command = tune(folder.path(), RECONSTRUCTING, &known);
    command.args(["--trials", "3", "--batch", "3", "--metric", "normal_mean/reconstruction"]);
    let mlruns = folder.path().join("mlruns");
    succeeded(command.arg("--track").arg(format!("mlflow={}", mlruns.display())));
    let out = folder.path().join("out");
    let study = read(&out.join("tuning.json"));
    let trials = study["trials"].as_array().unwrap();
    let value = |trial: &Value| trial["rungs"][0]["value"].as_f64().unwrap();
    let best = &trials[study["best"].as_u64().unwrap() as usize];
    assert!(trials.iter().all(|trial| value(best) <= value(trial)));
    let runs = runs_by_id(&mlruns);
    for trial in trials {
        let (rung, figures) = (&trial["rungs"][0], &trial["rungs"][0]["figures"]);
        let cells: Vec<Value> = rung["cells"]
            .as_array()
            .unwrap()
            .iter()
            .map(|id| read(&out.join("cells").join(id.as_str().unwrap()).join("result.json")))
            .collect();
        assert_eq!(cells.len(), 2);
        let mean = |of: fn(&Value) -> f64| cells.iter().map(of).sum::<f64>() / 2.0;
        let error =
            mean(|cell| cell["results"]["honest"]["normal_means"]["reconstruction"].as_f64().unwrap());
        let found = mean(|cell| cell["results"]["honest"]["pixel_ap"].as_f64().unwrap());
        assert!((value(trial) - error).abs() < 1e-12 && error > 0.0);
        assert!((figures["pixel_ap"].as_f64().unwrap() - found).abs() < 1e-12);
        assert_eq!(trial["settings"].as_object().unwrap().len(), 13);
        let tracked =
            runs.values().find(|files| files.get("params/trial") == Some(&trial["number"].to_string()));
        let files = tracked.unwrap();
        assert!(
            ["reconstruction", "ssim"]
                .iter()
                .all(|term| files.contains_key(&format!("metrics/normal_mean/{term}")))
        );
        assert!(files.contains_key("metrics/pixel_ap") && files.contains_key("metrics/image_auroc"));
    }
    let table = std::fs::read_to_string(out.join("tuning.md")).unwrap();
    assert!(
        table.contains("| normal_mean/reconstruction | image AUROC, % |") && table.contains("pixel AP, %"),
        "{table}"
    );

    // A term that the method does not have.
    let other = tempfile::tempdir().unwrap();
    let output = tune(other.path(), PROFILE, SPACE)
        .args(["--trials", "1", "--metric", "normal_mean/reconstruction"])
        .output()
        .unwrap();
    let told = String::from_utf8(output.stderr).unwrap();
    assert!(
        !output.status.success()
            && told.contains("pixel-knn has everywhere: ")
            && told.contains("image_auroc"),
        "{told}"
    );
}

#[test]
fn a_search_of_which_no_trial_is_complete_fails() {
    let folder = tempfile::tempdir().unwrap();
    let absent = PROFILE.replace("fashion-mnist-sample", "mvtec").replace("unimodal", "class-separated");
    let absent = absent.replace("[\"0\", \"8\"]\n", "[\"bottle\"]\nroot = \"nowhere\"\n");
    let output = tune(folder.path(), &absent, SPACE).args(["--trials", "2"]).output().unwrap();
    let told = String::from_utf8(output.stderr).unwrap();
    assert!(!output.status.success() && told.contains("no trial is complete"), "{told}");
}

#[test]
fn the_pruner_is_chosen_by_name() {
    let of = |more: &[&str]| {
        let folder = tempfile::tempdir().unwrap();
        let space =
            "[metric]\nchoice = [\"l2\", \"cosine\"]\n[image_size]\nlow = 8\nhigh = 28\nwhole = true\n";
        let mut command = tune(folder.path(), &PROFILE.replace("image_size = 28\n", ""), space);
        command.args(["--sampler", "random", "--batch", "2"]).args(more);
        let output = command.output().unwrap();
        if !output.status.success() {
            return Err(String::from_utf8(output.stderr).unwrap());
        }
        Ok(read(&folder.path().join("out/tuning.json"))["trials"].as_array().unwrap().clone())
    };
    let budget = ["--budget", "k=1,2"];
    let trials = of(&[&budget[..], &["--pruner", "none", "--trials", "2"]].concat()).unwrap();
    assert!(
        trials
            .iter()
            .all(|trial| trial["rungs"].as_array().unwrap().len() == 1 && trial["rungs"][0]["budget"] == 2)
    );
    // Once two are complete, whoever is below their median at the first budget stops.
    let trials = of(&[&budget[..], &["--pruner", "median=2", "--trials", "6"]].concat()).unwrap();
    let value = |trial: &Value| trial["rungs"][0]["value"].as_f64().unwrap();
    for (number, trial) in trials.iter().enumerate() {
        let earlier = &trials[..number / 2 * 2];
        let mut complete: Vec<f64> = earlier.iter().filter(|t| t["state"] == "complete").map(value).collect();
        complete.sort_by(f64::total_cmp);
        let middle = (complete.len() >= 2)
            .then(|| f64::midpoint(complete[(complete.len() - 1) / 2], complete[complete.len() / 2]));
        let stopped = middle.is_some_and(|middle| value(trial) < middle);
        assert_eq!(trial["state"] == "pruned", stopped, "{number}: {trials:?}");
    }
    let told = of(&["--pruner", "median", "--trials", "2"]).unwrap_err();
    assert!(told.contains("the pruner: expected a budget"), "{told}");
}
