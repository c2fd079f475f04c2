//! Runs beside each other and together: `compare` and `report` as programs.

use std::path::Path;

use end_to_end::{root, xtask};
use serde_json::Value;

/// Runs `xtask` and gives its status, output and errors.
fn xtask_with(arguments: &[&str]) -> (bool, String, String) {
    let output = xtask().args(arguments).output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.success(), text(output.stdout), text(output.stderr))
}

fn reproduce(out: &str) {
    let profile = root().join("tests/profiles/kills.toml");
    let profile = profile.to_str().unwrap();
    let only = ["--only", "pixel-knn/*", "--device", "cpu"];
    let (well, _, errors) =
        xtask_with(&[&["reproduce", "--profile", profile, "--out", out], &only[..]].concat());
    assert!(well, "{errors}");
}

fn read(path: &Path) -> Value {
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

#[test]
fn two_runs_are_compared_and_merged_and_refused_where_they_differ() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let (one, two, both) = (path("one"), path("two"), path("both"));
    reproduce(&one);
    reproduce(&two);
    let summary = |run: &str| read(&Path::new(run).join("summary.json"));

    let json = path("comparison.json");
    let csv = path("comparison.csv");
    let (well, table, errors) = xtask_with(&["compare", &one, &two, "--json", &json, "--csv", &csv]);
    assert!(well, "{errors}");
    assert!(
        table.contains("pixel-knn") && table.contains("0.00") && table.contains("test images"),
        "{table}"
    );
    let compared = read(json.as_ref());
    let row = &compared[0]["rows"][0];
    assert_eq!((row["difference"].as_f64(), row["metric"].as_str()), (Some(0.0), Some("image_auroc")));
    assert!(std::fs::read_to_string(&csv).unwrap().lines().count() > 1);

    // Rebuilt from its records, a run's report has the same table.
    let before = summary(&one);
    for name in ["summary.json", "summary.csv", "summary.md", "report.html"] {
        std::fs::remove_file(Path::new(&one).join(name)).unwrap();
    }
    assert!(xtask_with(&["report", &one]).0);
    assert_eq!(summary(&one), before);
    assert!(Path::new(&one).join("report.html").is_file());

    let (well, _, errors) = xtask_with(&["report", &one, &two]);
    assert!(!well && errors.contains("--out"), "{errors}");
    assert!(xtask_with(&["report", &one, &two, "--out", &both]).0);
    assert_eq!(summary(&both).as_array().unwrap().len(), 1);

    // Another figure under the same id.
    let id = before[0]["cell"].as_str().unwrap().to_owned();
    let record = Path::new(&two).join("cells").join(&id).join("result.json");
    let mut changed = read(&record);
    changed["results"]["last"]["image_auroc"] = 0.5.into();
    std::fs::write(&record, changed.to_string()).unwrap();
    let (well, _, errors) = xtask_with(&["report", &one, &two, "--out", &both]);
    assert!(!well && errors.contains(&id) && errors.contains("other figures"), "{errors}");
    assert!(xtask_with(&["report", &one, &two, "--out", &both, "--prefer-first"]).0);
    assert_eq!(summary(&both)[0]["results"], before[0]["results"]);
    let (_, table, _) = xtask_with(&["compare", &one, &two, "--selection", "last"]);
    assert!(table.contains("50.00"), "{table}");
}
