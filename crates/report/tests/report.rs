//! The files as a whole: what goes in comes out again, and no text from a record becomes part of a file's form.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;

use proptest::prelude::*;
use report::{
    Cell, CellFiles, CurvePoint, Error, Evaluation, Header, MadePicture, Picture, PictureGroup, Pixels,
    Provenance, Published, Results, Scale, ScoreRow, ScoreTable, Seconds, Status, Term, json,
};

/// A cell with something in every field, every text of which is `text`.
fn cell(text: &str, figure: f64) -> Cell {
    let text = text.to_owned();
    let evaluation = Evaluation {
        selection: text.clone(),
        step: Some(7),
        image_auroc: Some(figure),
        image_ap: Some(figure),
        f1_max: Some(figure),
        f1_threshold: Some(figure),
        fpr_at_95_tpr: None,
        pixel_auroc: Some(figure),
        pixel_ap: None,
        pixel_f1_max: None,
        au_pro: None,
        au_pro_05: Some(figure),
        reference_pro: Some(figure),
        au_spro_05: Some(figure),
        au_spro_05_by_kind: [(text.clone(), figure)].into(),
        normal_means: [(text.clone(), figure)].into(),
        pixels_compared: Some(text.clone()),
    };
    Cell {
        cell: text.clone(),
        method: text.clone(),
        dataset: text.clone(),
        category: text.clone(),
        protocol: text.clone(),
        seed: u64::MAX,
        backbone: Some(text.clone()),
        precision: text.clone(),
        image_size: Some(84),
        status: Status::Failed,
        error: Some(text.clone()),
        published: Some(Published {
            value: figure,
            metric: text.clone(),
            source: text.clone(),
            difference: None,
        }),
        results: Results { faithful: Some(evaluation.clone()), honest: Some(evaluation), last: None },
        terms: BTreeMap::from([(text.clone(), Term { image_auroc: Some(figure) })]),
        seconds: Some(Seconds { fit: figure, score: figure }),
        peak_memory_bytes: Some(1 << 30),
        curves: BTreeMap::from([(text.clone(), vec![CurvePoint(0, figure), CurvePoint(1, -figure)])]),
        pictures: vec![Picture {
            group: PictureGroup::MostAnomalous,
            id: text.clone(),
            anomalous: false,
            score: 0.1,
            image: "pictures/most-0.png".to_owned(),
            overlay: Some("pictures/most-0-map.png".to_owned()),
            made: vec![MadePicture { name: text.clone(), image: "pictures/most-0-made-0.png".to_owned() }],
        }],
        map_scale: Some(Scale { low: 0.1, high: 0.7 }),
        config: serde_json::json!({ "name": text, "value": 0.1 }),
        provenance: Provenance {
            commit: Some(text.clone()),
            versions: BTreeMap::from([(text.clone(), text.clone())]),
            revisions: BTreeMap::from([(text.clone(), 3)]),
            weights_sha256: Some(text.clone()),
            dataset_fingerprint: Some(text.clone()),
            split_fingerprint: Some(text.clone()),
            left_out: vec![text.clone()],
            licence: Some(text.clone()),
            precision_setting: Some(text.clone()),
            precision_error: Some(0.1),
            device: Some(text),
            train_images: Some(3),
            test_images: Some(4),
            test_anomalous: Some(2),
            train_limit: None,
            test_limit: Some(4),
        },
    }
}

fn scores(text: &str) -> ScoreTable {
    let row = |label, score: f32| ScoreRow { id: text.to_owned(), label, score, terms: vec![-score] };
    ScoreTable {
        terms: vec![format!("{text} term")],
        rows: vec![row(false, 0.1), row(true, 0.3), row(false, 0.2), row(true, 1e-7)],
    }
}

fn files(text: &str) -> CellFiles {
    let data = [10, 20, 30, 40, 50, 60];
    let picture = report::png(&Pixels { height: 1, width: 2, data: &data }).unwrap();
    CellFiles {
        cell: cell(text, 0.5),
        scores: Some(scores(text)),
        pictures: BTreeMap::from([
            ("pictures/most-0.png".to_owned(), picture.clone()),
            ("pictures/most-0-map.png".to_owned(), picture.clone()),
            ("pictures/most-0-made-0.png".to_owned(), picture),
        ]),
    }
}

fn header(text: &str) -> Header {
    Header {
        profile: text.to_owned(),
        description: Some(text.to_owned()),
        time: Some(text.to_owned()),
        facts: vec![(text.to_owned(), text.to_owned())],
    }
}

/// Texts that would do harm where they are not escaped, among any others.
fn hostile() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        Just("<script>alert(1)</script>".to_owned()),
        Just("</style></pre></details>".to_owned()),
        Just("<!-- ".to_owned()),
        Just("\" onload=\"x".to_owned()),
        Just("' a='".to_owned()),
        Just("]]>&lt;&amp;&".to_owned()),
        Just("|a\\|b|".to_owned()),
        Just("\r\n\"\",,;\n".to_owned()),
        Just("\u{1b}[31m\u{202e}".to_owned()),
        Just("`code` [x](y) ![z](w) *a* _b_ # c".to_owned()),
        any::<String>(),
    ];
    proptest::collection::vec(piece, 1..4).prop_map(|pieces| pieces.concat())
}

/// The names of a page's tags in order, end tags with their slash. Script and style are taken over whole.
fn tags(page: &str) -> Vec<String> {
    let mut tags = Vec::new();
    let mut rest = page;
    while let Some(start) = rest.find('<') {
        rest = &rest[start + 1..];
        let name: String = rest.chars().take_while(|&c| !c.is_whitespace() && c != '>').collect();
        let mut quoted = false;
        let end = rest.find(|c| {
            quoted ^= c == '"';
            c == '>' && !quoted
        });
        rest = &rest[end.expect("a tag ends")..];
        if name == "script" || name == "style" {
            let end = rest.find(&format!("</{name}>")).expect("a script or style ends");
            rest = &rest[end..];
        }
        tags.push(name);
    }
    tags
}

/// Whether every element that needs an end tag has it, properly nested.
fn is_balanced(tags: &[String]) -> bool {
    let mut open: Vec<&str> = Vec::new();
    for tag in tags {
        match tag.strip_prefix('/') {
            Some(name) if open.last() == Some(&name) => {
                open.pop();
            }
            Some(_) => return false,
            None if ["!DOCTYPE", "meta", "link", "img", "input"].contains(&tag.as_str()) => {}
            None => open.push(tag),
        }
    }
    open.is_empty()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn no_text_changes_the_form_of_the_page(text in hostile()) {
        let plain = tags(&report::page(&header("plain"), &[files("plain"), files("plain")]).unwrap());
        prop_assert!(is_balanced(&plain));
        let page = report::page(&header(&text), &[files(&text), files(&text)]).unwrap();
        prop_assert_eq!(tags(&page), plain);
    }

    #[test]
    fn no_text_changes_the_form_of_the_markdown(text in hostile()) {
        let shape = |text: &str| -> Vec<usize> {
            let markdown = report::markdown(&header(text), &[cell(text, 0.5)]);
            assert!(!markdown.contains('<') && !markdown.chars().any(|c| c.is_control() && c != '\n'));
            let bare = markdown.replace("\\\\", "").replace("\\|", "");
            bare.lines().map(|line| line.matches('|').count()).collect()
        };
        prop_assert_eq!(shape(&text), shape("plain"));
    }

    #[test]
    fn the_terminal_gets_no_control_characters(text in hostile()) {
        let table = report::terminal_table(&[cell(&text, 0.5)]);
        prop_assert!(table.chars().all(|c| c == '\n' || !c.is_control()));
        prop_assert_eq!(table.lines().count(), report::terminal_table(&[cell("plain", 0.5)]).lines().count());
    }

    #[test]
    fn csv_gives_the_same_texts_back(text in hostile(), figure in -1e300..1e300_f64) {
        let csv = report::csv(&[cell(&text, figure), cell("plain", 0.25)]).unwrap();
        let mut reader = csv::Reader::from_reader(csv.as_bytes());
        let columns = reader.headers().unwrap().clone();
        let lines: Vec<csv::StringRecord> = reader.records().collect::<Result<_, _>>().unwrap();
        prop_assert_eq!(lines.len(), 2);
        let field = |name: &str| lines[0].get(columns.iter().position(|column| column == name).unwrap()).unwrap();
        for name in ["cell", "method", "category", "error", "honest_selection", "published_source"] {
            prop_assert_eq!(field(name), &text);
        }
        let read: f64 = field("faithful_image_ap").parse().unwrap();
        prop_assert_eq!(read.to_bits(), figure.to_bits());
        prop_assert_eq!(field("faithful_au_pro"), "");
        prop_assert_eq!(field("last_image_auroc"), "");
    }

    #[test]
    fn json_gives_the_same_records_back(
        text in any::<String>(),
        bits in any::<u64>().prop_filter("finite", |&bits| f64::from_bits(bits).is_finite()),
        score in any::<u32>().prop_filter("finite", |&bits| f32::from_bits(bits).is_finite()),
    ) {
        let mut one = cell(&text, f64::from_bits(bits));
        one.pictures[0].score = f32::from_bits(score);
        let cells = vec![one, cell("plain", -0.0)];
        let read = json::parse_summary(&json::summary(&cells).unwrap(), "summary.json").unwrap();
        prop_assert_eq!(&read, &cells);
        let figure = |cells: &[Cell]| cells[0].results.honest.as_ref().unwrap().image_ap.unwrap().to_bits();
        prop_assert_eq!(figure(&read), bits);
        prop_assert_eq!(read[0].pictures[0].score.to_bits(), score);
        prop_assert_eq!(json::parse_result(&json::result(&cells[0]).unwrap(), "result.json").unwrap(), read[0].clone());
    }

    #[test]
    fn scores_give_the_same_rows_and_bytes_back(
        names in proptest::collection::btree_set(any::<String>(), 0..3),
        rows in proptest::collection::vec((any::<String>(), any::<bool>(), -3e38..3e38_f32, -1.0..1.0_f32), 0..20),
    ) {
        let terms: Vec<String> = names.into_iter().filter(|name| !["id", "label", "score"].contains(&name.as_str())).collect();
        let rows = rows
            .into_iter()
            .map(|(id, label, score, term)| ScoreRow { id, label, score, terms: vec![term; terms.len()] })
            .collect();
        let table = ScoreTable { terms, rows };
        let csv = table.to_csv().unwrap();
        let read = ScoreTable::parse(&csv, "scores.csv").unwrap();
        prop_assert_eq!(&read, &table);
        prop_assert_eq!(read.to_csv().unwrap(), csv);
    }
}

#[test]
fn an_unknown_field_is_refused_with_its_place() {
    let text = json::summary(&[cell("plain", 0.5)]).unwrap().replace("\"image_ap\"", "\"image_pa\"");
    let error = json::parse_summary(&text, "summary.json").unwrap_err().to_string();
    assert!(
        error.starts_with("summary.json: field `[0].results.faithful.image_pa`: unknown field"),
        "{error}"
    );
    let text = json::result(&cell("plain", 0.5)).unwrap() + "{}";
    assert!(matches!(json::parse_result(&text, "result.json"), Err(Error::Record { .. })));
}

#[test]
fn a_number_that_is_not_finite_is_refused_with_its_place() {
    for value in [f64::NAN, f64::INFINITY] {
        let mut bad = cell("plain", 0.5);
        bad.results.honest.as_mut().unwrap().image_ap = Some(value);
        let cells = [cell("plain", 0.5), bad.clone()];
        let error = json::summary(&cells).unwrap_err().to_string();
        assert!(
            error.contains("[1].results.honest.image_ap") && error.contains(&value.to_string()),
            "{error}"
        );
        assert!(report::csv(&cells).is_err());
        assert!(report::page(&header("plain"), &[CellFiles::bare(bad)]).is_err());
    }
    let mut bad = cell("plain", 0.5);
    bad.curves.insert("loss".to_owned(), vec![CurvePoint(0, 1.0), CurvePoint(1, f64::NAN)]);
    let error = json::result(&bad).unwrap_err().to_string();
    assert!(error.contains("curves.loss[1]"), "{error}");
}

#[test]
fn scores_that_do_not_fit_are_refused_with_their_line() {
    let refused = |csv: &str| ScoreTable::parse(csv, "scores.csv").unwrap_err().to_string();
    assert_eq!(
        refused("id,label\n"),
        "scores.csv: line 1: expected a header starting with `id,label,score`, found `id,label`"
    );
    assert_eq!(
        refused("id,label,score\na,2,1\n"),
        "scores.csv: line 2: field `label`: expected 0 or 1, found `2`"
    );
    assert_eq!(
        refused("id,label,score,sum\na,1,1,2\nb,0,1,inf\n"),
        "scores.csv: line 3: field `sum`: expected a finite number, found `inf`"
    );
    assert!(refused("id,label,score\na,1\n").starts_with("scores.csv: "));
    assert!(refused("id,label,score,sum,sum\n").contains("`sum` twice"));
    let mut table = scores("plain");
    table.rows[2].terms.clear();
    assert_eq!(table.to_csv().unwrap_err().to_string(), "scores: line 4: expected 1 terms, found 0");
    table.rows[2].terms = vec![f32::NAN];
    assert!(table.to_csv().is_err());
}

#[test]
fn scores_are_written_in_their_shortest_form() {
    let csv = scores("a").to_csv().unwrap();
    assert_eq!(csv, "id,label,score,a term\na,0,0.1,-0.1\na,1,0.3,-0.3\na,0,0.2,-0.2\na,1,1e-7,-1e-7\n");
}

#[test]
fn a_cells_folder_gives_the_same_cell_back() {
    let folder = tempfile::tempdir().unwrap();
    let cell = files("plain");
    cell.write(folder.path()).unwrap();
    assert_eq!(CellFiles::read(folder.path()).unwrap(), cell);
    let bare = tempfile::tempdir().unwrap();
    let mut failed = self::cell("plain", 0.5);
    failed.pictures.clear();
    CellFiles::bare(failed.clone()).write(bare.path()).unwrap();
    assert_eq!(CellFiles::read(bare.path()).unwrap(), CellFiles::bare(failed));
}

#[test]
fn pictures_outside_the_folder_are_refused() {
    for name in ["../secret.png", "/secret.png", "a/../../b.png", "..\\b.png", ""] {
        let folder = tempfile::tempdir().unwrap();
        let mut cell = cell("plain", 0.5);
        cell.pictures[0].image = name.to_owned();
        json::write_result(&folder.path().join("result.json"), &cell).unwrap();
        assert!(matches!(CellFiles::read(folder.path()), Err(Error::PictureName { .. })), "{name}");
        let mut files = files("plain");
        files.pictures.insert(name.to_owned(), Vec::new());
        assert!(matches!(files.write(folder.path()), Err(Error::PictureName { .. })), "{name}");
    }
}

#[test]
fn a_picture_that_is_no_png_is_refused() {
    let mut cell = files("plain");
    cell.pictures.insert("pictures/most-0.png".to_owned(), b"<svg onload=alert(1)>".to_vec());
    let error = report::page(&header("plain"), &[cell]).unwrap_err().to_string();
    assert_eq!(error, "cell plain: picture `pictures/most-0.png`: expected a PNG file, found other bytes");
}

#[test]
fn the_report_is_four_files_always_the_same() {
    let read = |folder: &std::path::Path| -> BTreeMap<String, Vec<u8>> {
        let entries = std::fs::read_dir(folder).unwrap().map(Result::unwrap);
        entries.map(|it| (it.file_name().into_string().unwrap(), std::fs::read(it.path()).unwrap())).collect()
    };
    let folder = tempfile::tempdir().unwrap();
    let cells = [files("one"), files("two")];
    report::write_report(folder.path(), &header("profile"), &cells).unwrap();
    let first = read(folder.path());
    report::write_report(folder.path(), &header("profile"), &cells).unwrap();
    assert_eq!(read(folder.path()), first);
    let names: Vec<&str> = first.keys().map(String::as_str).collect();
    assert_eq!(names, ["report.html", "summary.csv", "summary.json", "summary.md"]);
    let records = json::read_summary(&folder.path().join("summary.json")).unwrap();
    assert_eq!(records, cells.map(|files| files.cell));
}

#[test]
fn a_failed_report_leaves_the_old_one() {
    let folder = tempfile::tempdir().unwrap();
    report::write_report(folder.path(), &header("old"), &[files("one")]).unwrap();
    let before = std::fs::read(folder.path().join("summary.md")).unwrap();
    let mut bad = files("one");
    bad.scores.as_mut().unwrap().rows[0].score = f32::NAN;
    assert!(report::write_report(folder.path(), &header("new"), &[bad]).is_err());
    assert_eq!(std::fs::read(folder.path().join("summary.md")).unwrap(), before);
    let error = report::write_atomic(&folder.path().join("missing/file"), b"x").unwrap_err().to_string();
    assert!(error.contains("missing"), "{error}");
}

#[test]
fn a_failed_cell_and_missing_figures_are_shown_as_such() {
    let mut failed = cell("zipper", 0.5);
    failed.results = Results::default();
    failed.terms.clear();
    failed.error = Some("out of memory".to_owned());
    let page = report::page(&header("profile"), &[CellFiles::bare(failed.clone())]).unwrap();
    assert!(page.contains("1 of 1 cells ended without figures") && page.contains("out of memory"));
    let table = report::terminal_table(&[failed.clone()]);
    assert!(table.contains("failed zipper: out of memory") && table.contains('–'), "{table}");
    assert!(report::markdown(&header("profile"), &[failed]).contains("| – | – | – |"));
}

#[test]
fn the_page_needs_nothing_from_outside() {
    let page = report::page(&header("profile"), &[files("one")]).unwrap();
    assert!(page.contains("default-src 'none'"));
    for outside in ["http://", "https://", "src=\"/", "@import", "url("] {
        assert!(!page.contains(outside), "{outside}");
    }
    assert!(page.contains("data:image/png;base64,iVBORw0KGgo"));
    // Both classes: the ROC curves of the score and of its term, and a threshold with its counts.
    assert_eq!(page.matches("data-points=").count(), 1);
    assert!(page.contains("0.1000") && page.contains("of 2 anomalous"));
}

#[test]
fn one_class_alone_has_a_histogram_and_no_curve() {
    let mut cell = files("one");
    cell.scores.as_mut().unwrap().rows.retain(|row| !row.label);
    let page = report::page(&header("profile"), &[cell]).unwrap();
    assert!(page.contains("No ROC curve") && page.contains("normal (2)"));
    assert!(!page.contains("data-points="));
}
