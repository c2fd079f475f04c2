//! Writes a report about made-up cells, to look at the page: `cargo run --release -p report --example synthetic DIR`.

use std::collections::BTreeMap;
use std::path::PathBuf;

use report::{
    Cell, CellFiles, CurvePoint, Evaluation, Header, Map, Picture, PictureGroup, Pixels, Provenance,
    Published, Results, Scale, ScoreRow, ScoreTable, Seconds, Status, Term, overlay, png, write_report,
};

/// Draws enough for a picture: a 64-bit linear congruential generator with Knuth's constants.
struct Draws(u64);

impl Draws {
    fn uniform(&mut self) -> f32 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 40) as f32 / (1_u32 << 24) as f32
    }

    /// Nearly normal: the sum of twelve uniforms.
    fn normal(&mut self) -> f32 {
        (0..12).map(|_| self.uniform()).sum::<f32>() - 6.0
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let folder = PathBuf::from(std::env::args().nth(1).ok_or("expected the folder to write into")?);
    std::fs::create_dir_all(&folder)?;
    let mut draws = Draws(7);
    let mut cells = Vec::new();
    for seed in 0..2 {
        for (category, gap) in [("0", 2.9), ("3", 2.2), ("8", 3.6)] {
            cells.push(trained(&mut draws, category, seed, gap)?);
        }
    }
    for (category, gap) in [("0", 1.4), ("3", 1.1), ("8", 1.2)] {
        cells.push(baseline(&mut draws, "fashion-mnist", "unimodal", category, gap)?);
    }
    for (category, gap) in [("bottle", 3.0), ("transistor", 1.6)] {
        cells.push(baseline(&mut draws, "mvtec-ad", "class-separated", category, gap)?);
    }
    let mut failed = record("transformaly", "mvtec-ad", "class-separated", "zipper", 0);
    failed.status = Status::Failed;
    failed.error = Some(
        "zipper/test/broken_teeth/004.png: expected an image, found a file that ends after 8192 of 60211 bytes \
         <truncated & unreadable>"
            .to_owned(),
    );
    cells.push(CellFiles::bare(failed));
    let header = Header {
        profile: "synthetic".to_owned(),
        description: Some(
            "Made-up cells that show every part of the page; no figure here was measured.".to_owned(),
        ),
        time: Some("2026-01-01 12:00 UTC".to_owned()),
        facts: vec![("duration".to_owned(), "4 min 12 s".to_owned())],
    };
    write_report(&folder, &header, &cells)?;
    Ok(())
}

fn record(method: &str, dataset: &str, protocol: &str, category: &str, seed: u64) -> Cell {
    Cell {
        cell: format!("{method}-{dataset}-{category}-{seed}"),
        method: method.to_owned(),
        dataset: dataset.to_owned(),
        category: category.to_owned(),
        protocol: protocol.to_owned(),
        seed,
        backbone: Some("dinov2-small-b9".to_owned()),
        precision: "f32".to_owned(),
        image_size: Some(84),
        status: Status::Ok,
        error: None,
        results: Results::default(),
        terms: BTreeMap::new(),
        seconds: None,
        peak_memory_bytes: None,
        published: None,
        curves: BTreeMap::new(),
        pictures: Vec::new(),
        map_scale: None,
        config: serde_json::json!({ "epochs": 2, "batch_size": 16, "dropout": "faithful", "blocks": [2, 8] }),
        provenance: Provenance {
            commit: Some("0123456789abcdef0123456789abcdef01234567".to_owned()),
            versions: BTreeMap::from([("vitad".to_owned(), "0.1.0".to_owned())]),
            revisions: BTreeMap::from([(method.to_owned(), 1), ("image-prep".to_owned(), 1)]),
            weights_sha256: Some(
                "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08".to_owned(),
            ),
            dataset_fingerprint: Some(
                "60303ae22b998861bce3b28f33eec1be758a213c86c93c076dbe9f558c11c752".to_owned(),
            ),
            licence: Some("MIT".to_owned()),
            device: Some("cpu".to_owned()),
            train_images: Some(200),
            test_images: Some(400),
            test_anomalous: Some(300),
            train_limit: Some(200),
            ..Provenance::default()
        },
    }
}

fn evaluate(table: &ScoreTable, selection: &str, step: Option<u64>) -> Result<Evaluation, metrics::Error> {
    let (scores, labels) = (table.scores(), table.labels());
    let best = metrics::f1_max(&scores, &labels)?;
    Ok(Evaluation {
        selection: selection.to_owned(),
        step,
        image_auroc: Some(metrics::auroc(&scores, &labels)?),
        image_ap: Some(metrics::average_precision(&scores, &labels)?),
        f1_max: Some(best.value),
        f1_threshold: Some(f64::from(best.threshold)),
        ..Evaluation::default()
    })
}

fn trained(
    draws: &mut Draws,
    category: &str,
    seed: u64,
    gap: f32,
) -> Result<CellFiles, Box<dyn std::error::Error>> {
    let mut cell = record("transformaly", "fashion-mnist", "unimodal", category, seed);
    let mut table =
        ScoreTable { terms: vec!["pre-trained".into(), "teacher-student".into()], rows: Vec::new() };
    for index in 0..400 {
        let label = index % 4 != 0;
        let shift = if label { gap } else { 0.0 };
        let terms =
            vec![40.0 + 6.0 * (shift + draws.normal()), 300.0 + 25.0 * (0.7 * shift + draws.normal())];
        let score = terms.iter().sum();
        table.rows.push(ScoreRow { id: format!("test/{index:05}"), label, score, terms });
    }
    for (index, name) in table.terms.iter().enumerate() {
        let auroc = metrics::auroc(&table.term(index), &table.labels())?;
        cell.terms.insert(name.clone(), Term { image_auroc: Some(auroc) });
    }
    let evaluation = evaluate(&table, "best image AUROC on the test images, as the reference", Some(60))?;
    cell.results = Results {
        honest: Some(Evaluation {
            selection: "lowest loss on held-out normal images".to_owned(),
            step: Some(80),
            image_auroc: evaluation.image_auroc.map(|value| value - 0.004),
            ..evaluation.clone()
        }),
        last: Some(Evaluation {
            selection: "end of training".to_owned(),
            step: Some(100),
            image_auroc: evaluation.image_auroc.map(|value| value - 0.007),
            ..evaluation.clone()
        }),
        faithful: Some(evaluation),
    };
    cell.published =
        Some(Published::compared(0.9443, "image_auroc", "Cohen & Avidan 2022, table 1", &cell.results));
    let steps = || (0..=20).map(|step| step * 5);
    let falling = |draws: &mut Draws, from: f64| -> Vec<CurvePoint> {
        steps()
            .map(|step| {
                CurvePoint(step, from * (-(step as f64) / 30.0).exp() + 0.02 * f64::from(draws.uniform()))
            })
            .collect()
    };
    for block in [2, 5, 8] {
        let curve = falling(draws, 0.3 + 0.1 * f64::from(block));
        cell.curves.insert(format!("loss/block {block}"), curve);
    }
    let rising = steps().map(|step| CurvePoint(step, 0.95 - 0.2 * (-(step as f64) / 20.0).exp())).collect();
    cell.curves.insert("image_auroc".to_owned(), rising);
    cell.seconds = Some(Seconds { fit: 21.37, score: 1.8 });
    cell.peak_memory_bytes = Some(611_000_000);
    illustrate(draws, cell, table, 28, false)
}

fn baseline(
    draws: &mut Draws,
    dataset: &str,
    protocol: &str,
    category: &str,
    gap: f32,
) -> Result<CellFiles, Box<dyn std::error::Error>> {
    let mut cell = record("pixel-knn", dataset, protocol, category, 0);
    let maps = dataset == "mvtec-ad";
    let mut table = ScoreTable::default();
    for index in 0..if maps { 83 } else { 400 } {
        let label = index % 4 != 0;
        let score = 5.0 + (if label { gap } else { 0.0 }) + draws.normal();
        table.rows.push(ScoreRow {
            id: format!("test/part/{index:03}.png"),
            label,
            score,
            terms: Vec::new(),
        });
    }
    let mut evaluation = evaluate(&table, "the only one: nothing is trained", None)?;
    evaluation.pixel_auroc = maps.then_some(0.941);
    cell.results = Results {
        faithful: Some(evaluation.clone()),
        honest: Some(evaluation.clone()),
        last: Some(evaluation),
    };
    cell.config = serde_json::json!({ "neighbours": 3, "features": "pixels" });
    cell.seconds = Some(Seconds { fit: 0.041, score: 0.6 });
    cell.peak_memory_bytes = Some(188_000_000);
    illustrate(draws, cell, table, if maps { 120 } else { 28 }, maps)
}

/// Adds the four most and least anomalous images, with maps where `maps`.
fn illustrate(
    draws: &mut Draws,
    mut cell: Cell,
    table: ScoreTable,
    side: usize,
    maps: bool,
) -> Result<CellFiles, Box<dyn std::error::Error>> {
    let mut order: Vec<&ScoreRow> = table.rows.iter().collect();
    order.sort_by(|a, b| b.score.total_cmp(&a.score));
    let count = order.len();
    let mut files = BTreeMap::new();
    let groups = [
        (PictureGroup::MostAnomalous, &order[..5], "most"),
        (PictureGroup::LeastAnomalous, &order[count - 5..], "least"),
    ];
    let scale = Scale { low: 0.2, high: 1.0 };
    for (group, rows, name) in groups {
        for (rank, row) in rows.iter().enumerate() {
            let (data, map) = drawing(draws, side, row.label);
            let image = Pixels { height: side, width: side, data: &data };
            let file = format!("pictures/{name}-{rank}.png");
            files.insert(file.clone(), png(&image)?);
            let mut laid_over = None;
            if maps {
                let name = format!("pictures/{name}-{rank}-map.png");
                files.insert(
                    name.clone(),
                    overlay(&image, &Map { height: 15, width: 15, data: &map }, scale)?,
                );
                laid_over = Some(name);
            }
            cell.pictures.push(Picture {
                group,
                id: row.id.clone(),
                anomalous: row.label,
                score: row.score,
                image: file,
                overlay: laid_over,
                made: Vec::new(),
            });
        }
    }
    cell.map_scale = maps.then_some(scale);
    Ok(CellFiles { cell, scores: Some(table), pictures: files })
}

/// A grained disc, with a dark spot if it is to be anomalous, and a map that knows where the spot is.
fn drawing(draws: &mut Draws, side: usize, spot: bool) -> (Vec<u8>, Vec<f32>) {
    let centre = (0.3 + 0.4 * draws.uniform(), 0.3 + 0.4 * draws.uniform());
    let near = |x: f32, y: f32| spot && (x - centre.0).hypot(y - centre.1) < 0.11;
    let mut data = Vec::new();
    for index in 0..side * side {
        let place = |index: usize, side: usize| ((index as f32) + 0.5) / side as f32;
        let (x, y) = (place(index % side, side), place(index / side, side));
        let disc = (x - 0.5).hypot(y - 0.5) < 0.42;
        let light = if near(x, y) {
            60.0
        } else if disc {
            200.0
        } else {
            35.0
        } + 18.0 * draws.uniform();
        data.extend([light as u8, (light * 0.96) as u8, (light * 0.85) as u8]);
    }
    let map = (0..225)
        .map(|index| {
            let (x, y) = (((index % 15) as f32 + 0.5) / 15.0, ((index / 15) as f32 + 0.5) / 15.0);
            if near(x, y) { 1.0 } else { 0.2 * draws.uniform() }
        })
        .collect();
    (data, map)
}
