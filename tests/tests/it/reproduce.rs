//! `cargo xtask reproduce` as a program: what it leaves behind, killed, repeated, raced and failing.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use end_to_end::{root, xtask};
use serde_json::Value;

/// `reproduce` with a profile of `tests/profiles`, on the CPU, into `out`.
pub(crate) fn reproduce(profile: &str, out: &Path) -> Command {
    let mut command = xtask();
    let profile = root().join("tests/profiles").join(format!("{profile}.toml"));
    command.arg("reproduce").arg("--profile").arg(profile).arg("--out").arg(out).args(["--device", "cpu"]);
    command
}

fn output(command: &mut Command) -> Output {
    command.output().unwrap()
}

pub(crate) fn succeeded(command: &mut Command) -> String {
    let output = output(command);
    let (told, errors) =
        (String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap());
    assert!(output.status.success(), "{}\n{told}\n{errors}", output.status);
    told
}

/// All files below `folder`, by their paths from it.
fn files(folder: &Path) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let mut open = vec![folder.to_owned()];
    while let Some(next) = open.pop() {
        for item in next.read_dir().unwrap() {
            let path = item.unwrap().path();
            if path.is_dir() {
                open.push(path);
            } else {
                found.insert(path.strip_prefix(folder).unwrap().to_str().unwrap().to_owned());
            }
        }
    }
    found
}

/// Every file of every cell; of records, without what may differ between two runs that agree.
fn cells(out: &Path) -> BTreeMap<String, String> {
    let folder = out.join("cells");
    files(&folder)
        .into_iter()
        .map(|name| {
            let bytes = std::fs::read(folder.join(&name)).unwrap();
            let text = if name.ends_with("result.json") {
                let mut record: Value = serde_json::from_slice(&bytes).unwrap();
                for field in ["seconds", "peak_memory_bytes"] {
                    record.as_object_mut().unwrap().remove(field).unwrap();
                }
                // Read from the working tree, which may be edited while the test runs.
                if let Some(provenance) = record["provenance"].as_object_mut() {
                    provenance.remove("commit");
                }
                record.to_string()
            } else if name.ends_with("events.jsonl") {
                told(&bytes)
            } else {
                format!("{bytes:?}")
            };
            (name, text)
        })
        .collect()
}

/// What a log says that must not depend on times and kills: points, what the cell came to, and its end.
fn told(log: &[u8]) -> String {
    let mut lines = Vec::new();
    for line in log.split(|&byte| byte == b'\n').filter(|line| !line.is_empty()) {
        let mut line: Value = serde_json::from_slice(line).unwrap();
        line.as_object_mut().unwrap().remove("time").unwrap();
        if let Some(values) = line["values"].as_object_mut() {
            values.retain(|name, _| !name.starts_with("seconds/") && name != "peak_memory_bytes");
        }
        // An end that was not the last is that of a kill.
        lines.retain(|line: &Value| line["event"] != "end");
        if ["metric", "figures", "end"].iter().any(|kind| line["event"] == *kind) {
            lines.push(line);
        }
    }
    let lines: Vec<String> = lines.iter().map(Value::to_string).collect();
    lines.join("\n")
}

/// Finished cells, by the bytes of their records with their times.
pub(crate) fn finished(out: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let Ok(listing) = out.join("cells").read_dir() else { return BTreeMap::new() };
    let record = |item: std::io::Result<std::fs::DirEntry>| item.unwrap().path().join("result.json");
    listing.map(record).map(|path| (path.clone(), std::fs::read(path).unwrap())).collect()
}

#[test]
fn a_small_matrix_ends_with_a_table_and_a_report_and_is_not_run_twice() {
    let out = tempfile::tempdir().unwrap();
    let listing = succeeded(reproduce("kills", out.path()).arg("--dry-run"));
    assert!(listing.contains("6 cells, 0 done, 6 to run"), "{listing}");
    assert!(files(out.path()).is_empty());

    let only = "pixel-knn/*";
    let table = succeeded(reproduce("kills", out.path()).args(["--only", only, "--save-detectors"]));
    assert!(table.contains("pixel-knn") && table.contains("report.html"), "{table}");
    let summary: Value =
        serde_json::from_slice(&std::fs::read(out.path().join("summary.json")).unwrap()).unwrap();
    let [cell] = summary.as_array().unwrap().as_slice() else { panic!("one cell: {summary}") };
    assert_eq!((cell["status"].as_str(), cell["method"].as_str()), (Some("ok"), Some("pixel-knn")));
    for choice in ["faithful", "honest", "last"] {
        let auroc = cell["results"][choice]["image_auroc"].as_f64().unwrap();
        assert!(auroc > 0.5 && auroc <= 1.0, "{choice} {auroc}");
    }
    let page = std::fs::read_to_string(out.path().join("report.html")).unwrap();
    assert!(page.contains("pixel-knn") && !page.contains("src=\"http"));
    let id = cell["cell"].as_str().unwrap();
    let found = files(out.path());
    for name in [
        "result.json",
        "scores.csv",
        "split.json",
        "events.jsonl",
        "detectors/last/detector.json",
        "pictures/most-0.png",
    ] {
        assert!(found.contains(&format!("cells/{id}/{name}")), "{name} of {found:?}");
    }

    let before = finished(out.path());
    succeeded(reproduce("kills", out.path()).args(["--only", only]));
    assert_eq!(finished(out.path()), before);
    let listing = succeeded(reproduce("kills", out.path()).arg("--dry-run"));
    assert!(listing.contains("6 cells, 1 done, 5 to run"), "{listing}");
}

/// The pauses before each kill, in milliseconds: drawn from a fixed seed (a linear congruential generator is enough).
fn pauses(count: usize) -> Vec<u64> {
    let mut state = 20_112_026_u64;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        300 + (state >> 33) % 4_000
    };
    (0..count).map(|_| next()).collect()
}

fn quietly(command: &mut Command) -> Child {
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
}

/// `VITAD_KILLS` kills, five if it is not set.
#[test]
fn after_any_number_of_kills_the_results_are_the_same_bytes() {
    let kills = std::env::var("VITAD_KILLS").map_or(5, |number| number.parse().unwrap());
    let straight = tempfile::tempdir().unwrap();
    succeeded(&mut reproduce("kills", straight.path()));

    let killed = tempfile::tempdir().unwrap();
    let mut done: BTreeMap<PathBuf, Vec<u8>> = BTreeMap::new();
    let mut resumed = 0;
    for pause in pauses(kills) {
        let mut run = quietly(&mut reproduce("kills", killed.path()));
        std::thread::sleep(Duration::from_millis(pause));
        // SIGKILL: nothing can be tidied up, and the cell's own process has to notice.
        run.kill().unwrap();
        run.wait().unwrap();
        let now = finished(killed.path());
        for (path, record) in &done {
            assert_eq!(now.get(path), Some(record), "{} was computed again", path.display());
        }
        done = now;
        resumed += usize::from(killed.path().join("work").exists());
        if done.len() == 6 {
            // With more kills than the matrix lasts, it begins anew.
            assert_same(straight.path(), killed.path());
            std::fs::remove_dir_all(killed.path()).unwrap();
            done.clear();
        }
    }
    succeeded(&mut reproduce("kills", killed.path()));
    for (path, record) in &done {
        assert_eq!(&std::fs::read(path).unwrap(), record, "{} was computed again", path.display());
    }
    assert!(resumed > 0, "no kill hit a cell at work");
    assert_same(straight.path(), killed.path());
    let left: BTreeSet<String> = files(killed.path());
    assert_eq!(left, files(straight.path()));
    assert!(!killed.path().join("work").exists());
}

pub(crate) fn assert_same(straight: &Path, killed: &Path) {
    let (expected, found) = (cells(straight), cells(killed));
    assert_eq!(found.keys().collect::<Vec<_>>(), expected.keys().collect::<Vec<_>>());
    for (name, content) in &expected {
        assert_eq!(&found[name], content, "{name}");
    }
}

#[test]
fn a_failing_cell_is_recorded_stops_no_other_and_shows_in_the_exit_status() {
    let out = tempfile::tempdir().unwrap();
    let output = output(&mut reproduce("failing", out.path()));
    assert!(!output.status.success());
    let told = String::from_utf8(output.stdout).unwrap();
    assert!(told.contains("1 cells failed"), "{told}");
    let summary: Value =
        serde_json::from_slice(&std::fs::read(out.path().join("summary.json")).unwrap()).unwrap();
    let [failed, well] = summary.as_array().unwrap().as_slice() else { panic!("two cells: {summary}") };
    assert_eq!((failed["status"].as_str(), well["status"].as_str()), (Some("failed"), Some("ok")));
    let error = failed["error"].as_str().unwrap();
    assert!(error.contains("`k`") && error.contains("10"), "{error}");
    assert!(!out.path().join("work").exists());
    // It is tried again, the other one is not.
    let before = finished(out.path());
    assert!(!self::output(&mut reproduce("failing", out.path())).status.success());
    let good = out.path().join("cells").join(well["cell"].as_str().unwrap()).join("result.json");
    assert_eq!(finished(out.path())[&good], before[&good]);
}

#[test]
fn two_runs_on_one_folder_share_the_work() {
    let out = tempfile::tempdir().unwrap();
    let mut runs = [0, 1].map(|_| quietly(&mut reproduce("kills", out.path())));
    for run in &mut runs {
        assert!(run.wait().unwrap().success());
    }
    let summary: Value =
        serde_json::from_slice(&std::fs::read(out.path().join("summary.json")).unwrap()).unwrap();
    let cells = summary.as_array().unwrap();
    assert_eq!(cells.len(), 6);
    assert!(cells.iter().all(|cell| cell["status"] == "ok"), "{summary}");
    assert!(!out.path().join("work").exists(), "{:?}", files(out.path()));
}

#[test]
#[cfg(unix)]
fn an_interrupted_run_ends_cleanly_and_goes_on() {
    let out = tempfile::tempdir().unwrap();
    let only = ["--only", "transformaly/*/0/*"];
    let mut run = quietly(reproduce("kills", out.path()).args(only));
    let work = out.path().join("work");
    // Until the cell is at work; it then has most of its time before it.
    while !work.read_dir().is_ok_and(|mut items| items.any(|item| item.unwrap().path().is_dir())) {
        assert!(run.try_wait().unwrap().is_none(), "the run ended before its cell began");
        std::thread::sleep(Duration::from_millis(20));
    }
    let pid = run.id().to_string();
    assert!(Command::new("kill").args(["-INT", &pid]).status().unwrap().success());
    assert!(!run.wait().unwrap().success());
    let summary: Value =
        serde_json::from_slice(&std::fs::read(out.path().join("summary.json")).unwrap()).unwrap();
    assert_eq!(summary[0]["status"], "cancelled", "{summary}");
    succeeded(reproduce("kills", out.path()).args(only));
    let summary: Value =
        serde_json::from_slice(&std::fs::read(out.path().join("summary.json")).unwrap()).unwrap();
    assert_eq!(summary[0]["status"], "ok", "{summary}");
    assert!(!work.exists());
}

#[test]
fn what_cannot_be_meant_is_refused_with_its_line() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("out");
    let good =
        "description = \"d\"\n\n[[entry]]\nmethod = \"pixel-knn\"\ndataset = \"fashion-mnist-sample\"\n";
    let cases = [
        (
            good.replace("pixel-knn", "pixel-kn"),
            "mine.toml:3: no method is called `pixel-kn`, did you mean `pixel-knn`?",
        ),
        (
            good.replace("-sample", "-sampel"),
            "mine.toml:3: unknown data set `fashion-mnist-sampel`, did you mean",
        ),
        (
            format!("{good}protocol = \"unimodel\"\n"),
            "mine.toml:3: unknown protocol `unimodel`, did you mean `unimodal`?",
        ),
        (
            format!("{good}categories = [\"12\"]\n"),
            "mine.toml:3: data set `fashion-mnist-sample` has no category `12`",
        ),
        (
            format!("{good}config = {{ kk = 2 }}\n"),
            "mine.toml:3: pixel-knn: unknown field `kk`, did you mean `k`?",
        ),
        (format!("{good}epoch = 3\n"), "mine.toml:6: unknown field `entry.epoch`"),
    ];
    for (text, expected) in cases {
        let file = folder.path().join("mine.toml");
        std::fs::write(&file, text).unwrap();
        let output = output(xtask().arg("reproduce").arg("--profile").arg(&file).arg("--out").arg(&out));
        assert!(!output.status.success());
        let errors = String::from_utf8(output.stderr).unwrap();
        assert!(errors.contains(expected), "expected {expected}\nfound    {errors}");
        assert!(!out.exists());
    }
}

#[test]
fn profiles_of_the_project_can_be_planned() {
    for (name, cells) in [
        ("quick", "26 cells"),
        ("smoke", "14 cells"),
        ("paper", " cells"),
        ("paper-anogan-trans", " cells"),
        ("paper-generalad", " cells"),
        ("paper-generalad-few-shot", " cells"),
        ("paper-transformaly", " cells"),
        ("paper-advit-gmdn", " cells"),
        ("advit-gmdn-noise", " cells"),
        ("advit-gmdn-gaussians", " cells"),
        ("paper-vtadl-registers", " cells"),
        ("vtadl-registers-serious", " cells"),
    ] {
        let out = tempfile::tempdir().unwrap();
        let mut command = xtask();
        command
            .args(["reproduce", "--profile", name, "--dry-run", "--device", "cpu", "--out"])
            .arg(out.path());
        // The published backbone is not there; its absence is the cells' problem, not the plan's.
        command.env("HF_HUB_OFFLINE", "1").env("HF_HOME", out.path());
        let listing = succeeded(&mut command);
        assert!(listing.contains(cells), "{listing}");
    }
}
