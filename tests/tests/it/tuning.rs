//! `tune` as a program: it searches on training images alone, goes on where it was, and looks at test data once.

use std::collections::BTreeSet;
use std::path::Path;

use end_to_end::xtask;
use serde_json::Value;

const PROFILE: &str = r#"
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

const SPACE: &str = "[k]\nlow = 1\nhigh = 8\nwhole = true\n[metric]\nchoice = [\"l2\", \"cosine\"]\n";

fn read(path: &Path) -> Value {
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
