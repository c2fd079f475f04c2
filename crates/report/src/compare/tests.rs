//! Comparisons of made-up runs.
#![allow(clippy::unwrap_used)]

use std::path::Path;

use serde_json::{Value, json};

use super::{CompareOptions, Comparison, compare, comparisons_csv, comparisons_json};
use crate::merge::{Allowed, merge};
use crate::{Cell, CellFiles, RunFolder, ScoreRow, ScoreTable, Selection};

/// A good cell with a faithful image AUROC; `change` may be anything of the record.
fn cell(id: &str, category: &str, seed: u64, auroc: f64, change: &Value) -> Cell {
    let mut record = json!({
        "cell": id, "method": "toy", "dataset": "shapes", "category": category, "protocol": "unimodal", "seed": seed,
        "precision": "f32", "status": "ok", "config": {"epochs": 3, "loss": {"kind": "mse"}},
        "results": {"faithful": {"selection": "last", "image_auroc": auroc}},
        "provenance": {"commit": "0".repeat(40), "revisions": {"toy": 1}, "dataset_fingerprint": "a".repeat(64)},
    });
    merge_into(&mut record, change);
    serde_json::from_value(record).unwrap()
}

fn merge_into(record: &mut Value, change: &Value) {
    let Some(change) = change.as_object() else {
        *record = change.clone();
        return;
    };
    for (name, value) in change {
        merge_into(&mut record[name], value);
    }
}

fn run(folder: &Path, name: &str, cells: Vec<Cell>) -> RunFolder {
    let path = folder.join(name);
    for cell in cells {
        let place = path.join("cells").join(&cell.cell);
        std::fs::create_dir_all(&place).unwrap();
        CellFiles::bare(cell).write(&place).unwrap();
    }
    let read = RunFolder::read(&path).unwrap();
    RunFolder { name: name.to_owned(), ..read }
}

fn compared(first: Vec<Cell>, second: Vec<Cell>) -> Comparison {
    let folder = tempfile::tempdir().unwrap();
    let (first, second) = (run(folder.path(), "old", first), run(folder.path(), "new", second));
    compare(&first, &second, &CompareOptions::default()).unwrap()
}

#[test]
fn seeds_are_pairs_and_categories_have_a_mean() {
    let cells = |add: f64, tag: &str| {
        let mut cells = Vec::new();
        for (category, base) in [("circle", 0.8), ("square", 0.6)] {
            for seed in 0..3 {
                let auroc = base + 0.05 * seed as f64 + add * (1.0 + seed as f64);
                cells.push(cell(&format!("{tag}-{category}-{seed}"), category, seed, auroc, &json!({})));
            }
        }
        cells
    };
    let found = compared(cells(0.0, "a"), cells(0.01, "b"));
    assert_eq!(found.rows.len(), 2);
    let circle = &found.rows[0];
    assert_eq!((circle.category.as_str(), circle.pairs.len()), ("circle", 3));
    assert!((circle.difference - 0.02).abs() < 1e-12, "{circle:?}");
    let interval = circle.interval.unwrap();
    assert!(interval.low >= 0.01 - 1e-12 && interval.high <= 0.03 + 1e-12 && interval.low < interval.high);
    assert_eq!(interval.over, "pairs");
    let [mean] = &found.means[..] else { panic!("{:?}", found.means) };
    assert_eq!((mean.category.as_str(), mean.pairs.len()), ("mean", 6));
    assert!((mean.difference - 0.02).abs() < 1e-12 && found.differences.is_empty());
    let table = found.terminal_table("image_auroc");
    assert!(table.contains("+2.00") && table.contains("new against old"), "{table}");
}

#[test]
fn configurations_and_versions_that_differ_are_named() {
    let changed = json!({
        "config": {"epochs": 5, "loss": {"kind": "l1"}},
        "provenance": {"commit": "1".repeat(40), "versions": {"candle-core": "0.12.0"}, "revisions": {"toy": 2}},
    });
    let found =
        compared(vec![cell("a", "circle", 0, 0.5, &json!({}))], vec![cell("b", "circle", 0, 0.5, &changed)]);
    let named: Vec<_> =
        found.differences.iter().map(|d| (d.what.as_str(), d.baseline.as_str(), d.run.as_str())).collect();
    let (zeros, ones) = ("0".repeat(40), "1".repeat(40));
    let expected = [
        ("commit", zeros.as_str(), ones.as_str()),
        ("config.epochs", "3", "5"),
        ("config.loss.kind", "mse", "l1"),
        ("revision.toy", "1", "2"),
        ("version.candle-core", "–", "0.12.0"),
    ];
    assert_eq!(named, expected);
    assert_eq!((found.differences[0].pairs, found.differences[0].method.as_deref()), (1, Some("toy")));
    let table = found.terminal_table("image_auroc");
    assert!(
        table.contains("config.epochs 3 → 5") && table.contains("commit 000000000000 → 111111111111"),
        "{table}"
    );
}

#[test]
fn cells_of_one_name_are_told_apart_by_id_configuration_and_setting() {
    let with = |id: &str, auroc: f64, backbone: &str, epochs: u64| {
        cell(id, "circle", 0, auroc, &json!({"backbone": backbone, "config": {"epochs": epochs}}))
    };
    let first = vec![with("x", 0.5, "small", 3), with("y", 0.6, "large", 3), with("z", 0.7, "large", 9)];
    let second = vec![with("z", 0.71, "large", 9), with("q", 0.51, "small", 4), with("r", 0.61, "large", 3)];
    let found = compared(first, second);
    let pairs: Vec<_> =
        found.rows.iter().flat_map(|row| &row.pairs).map(|pair| (pair.baseline, pair.run)).collect();
    assert_eq!(pairs, [(0.5, 0.51), (0.6, 0.61), (0.7, 0.71)]);
    assert!(found.rows.iter().all(|row| !row.setting.is_empty()));

    // Neither is nearer than the other: nothing is guessed.
    let first = vec![with("x", 0.5, "small", 3)];
    let second = vec![with("p", 0.5, "small", 4), with("q", 0.6, "small", 5)];
    let found = compared(first, second);
    assert!(found.rows.is_empty());
    assert!(found.only_in_baseline[0].reason.contains("several settings") && found.only_in_run.len() == 2);
}

#[test]
fn what_has_no_figures_or_no_partner_is_listed() {
    let failed = json!({"status": "failed", "error": "why", "results": {"faithful": null}});
    let found = compared(
        vec![cell("a", "circle", 0, 0.5, &failed), cell("b", "square", 0, 0.5, &json!({}))],
        vec![cell("c", "circle", 0, 0.5, &json!({}))],
    );
    let reasons: Vec<_> =
        found.only_in_baseline.iter().map(|it| (it.cell.as_str(), it.reason.as_str())).collect();
    assert_eq!(reasons, [("a", "failed"), ("b", "not in the other run")]);
    assert_eq!(found.only_in_run.len(), 1);
    assert!(found.terminal_table("image_auroc").contains("no pair of cells"));
}

#[test]
fn one_pair_has_the_interval_of_its_images() {
    let folder = tempfile::tempdir().unwrap();
    let table = |noise: f32| {
        let row = |at: usize| {
            let label = at.is_multiple_of(3);
            let score = (at * 7919 % 100) as f32 / 100.0 + f32::from(u8::from(label)) * 0.5;
            let wobble = (at * 104_729 % 17) as f32 / 17.0 * noise;
            ScoreRow { id: format!("{at}.png"), label, score: score + wobble, terms: vec![] }
        };
        ScoreTable { terms: vec![], rows: (0..150).map(row).collect() }
    };
    let mut runs = Vec::new();
    for (name, noise) in [("old", 0.0), ("new", 0.6)] {
        let scores = table(noise);
        let auroc = metrics::auroc(&scores.scores(), &scores.labels()).unwrap();
        runs.push(run(folder.path(), name, vec![cell("same", "circle", 0, auroc, &json!({}))]));
        // The honest choice is another detector: its scores are not these.
        scores.write(&runs.last().unwrap().path.join("cells/same/scores.csv")).unwrap();
        table(0.1).write(&runs.last().unwrap().path.join("cells/same/scores-honest.csv")).unwrap();
    }
    let found = compare(&runs[0], &runs[1], &CompareOptions::default()).unwrap();
    let row = &found.rows[0];
    let interval = row.interval.unwrap();
    assert_eq!(interval.over, "test images");
    assert!(
        interval.low <= row.difference && row.difference <= interval.high && interval.low < interval.high
    );
    let honest = runs[0].scores("same", Selection::Honest).unwrap().unwrap();
    assert_eq!(honest, table(0.1));

    let json: Value = serde_json::from_str(&comparisons_json(std::slice::from_ref(&found)).unwrap()).unwrap();
    assert_eq!(json[0]["rows"][0]["interval"]["over"], "test images");
    let csv = comparisons_csv(&[found]).unwrap();
    assert!(csv.starts_with("baseline,run,selection,method") && csv.contains("test images"), "{csv}");
}

fn merged(first: Vec<Cell>, second: Vec<Cell>, allowed: Allowed) -> Result<Vec<CellFiles>, String> {
    let folder = tempfile::tempdir().unwrap();
    let runs = [run(folder.path(), "one", first), run(folder.path(), "two", second)];
    merge(&runs, allowed).map_err(|e| e.to_string())
}

#[test]
fn runs_merge_and_a_good_record_replaces_a_bad_one() {
    let failed = json!({"status": "failed", "error": "why", "results": {"faithful": null}});
    let first = vec![cell("a", "circle", 0, 0.5, &failed), cell("b", "square", 0, 0.6, &json!({}))];
    let second = vec![
        cell("a", "circle", 0, 0.5, &json!({})),
        cell("b", "square", 0, 0.6, &json!({})),
        cell("c", "ring", 0, 0.7, &json!({})),
    ];
    let cells = merged(first, second, Allowed::default()).unwrap();
    let ids: Vec<_> =
        cells.iter().map(|files| (files.cell.cell.as_str(), files.cell.status.word())).collect();
    assert_eq!(ids, [("a", "ok"), ("b", "ok"), ("c", "ok")]);
}

#[test]
fn records_that_do_not_belong_together_are_refused_unless_it_is_said() {
    let one = || vec![cell("a", "circle", 0, 0.5, &json!({}))];
    let cases: [(Cell, &str, Allowed); 3] = [
        (
            cell("a", "circle", 0, 0.6, &json!({})),
            "cell a has other figures in one than in two",
            Allowed { conflicting_figures: true, ..Allowed::default() },
        ),
        (
            cell("b", "circle", 1, 0.5, &json!({"provenance": {"revisions": {"toy": 2}}})),
            "the number revision of toy is 1 in one, 2 in two",
            Allowed { mixed_revisions: true, ..Allowed::default() },
        ),
        (
            cell("b", "circle", 1, 0.5, &json!({"provenance": {"dataset_fingerprint": "b".repeat(64)}})),
            "the data of shapes, unimodal, circle is aaaaaaaaaaaa in one, bbbbbbbbbbbb in two",
            Allowed { mixed_data: true, ..Allowed::default() },
        ),
    ];
    for (other, expected, allowed) in cases {
        let error = merged(one(), vec![other.clone()], Allowed::default()).unwrap_err();
        assert!(error.contains(expected), "{error}");
        let cells = merged(one(), vec![other], allowed).unwrap();
        // The first run's figures, where both have them.
        assert_eq!(cells[0].cell.results.faithful.as_ref().unwrap().image_auroc, Some(0.5));
    }
}

#[test]
fn a_folder_without_records_is_no_run() {
    let folder = tempfile::tempdir().unwrap();
    let error = RunFolder::read(folder.path()).unwrap_err().to_string();
    assert!(
        error.contains("records in `cells`") && error.contains(folder.path().to_str().unwrap()),
        "{error}"
    );
}
