//! `cargo xtask bench metrics`: figures of many pixels.

mod inputs;

use std::collections::BTreeMap;
use std::process::ExitCode;

use anyhow::{Context, Result};
use metrics::{ExactPixels, PixelFigures, ScoredMap, SpilledPixels, StreamedPixels};
use rayon::iter::{IntoParallelIterator, ParallelIterator};
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::comparison::Comparison;
use super::contender::Contender;
use super::options::Options;
use super::table;
use super::work::{self, Work};
use inputs::Inputs;

const SCRIPT: &str = "metrics_bench.py";

/// The false positive rate up to which AUPRO is taken.
const LIMIT: f64 = 0.3;

/// AUROC and AP of many pixels beside scikit-learn and torchmetrics, AUPRO beside anomalib and adeval, and all figures at
/// the scale of the MVTec AD test set by each of our engines, on maps made up with regions of several sizes.
#[derive(Debug, clap::Args)]
pub(crate) struct Metrics {
    #[command(flatten)]
    options: Options,
}

/// What one contender does.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Case {
    task: Task,
    engine: Engine,
    inputs: Inputs,
}

/// What is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Task {
    /// AUROC of all pixels.
    Auroc,
    /// Average precision of all pixels.
    AveragePrecision,
    /// AUPRO at [`LIMIT`].
    Aupro,
    /// Both, AUPRO, F1-max and FPR95.
    All,
}

/// How ours holds the pixels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Engine {
    /// Maps and masks lie in memory, as peers have them.
    Slices,
    /// Read image by image; every score is kept.
    Exact,
    /// Read image by image; counts are kept.
    Streamed,
    /// Read image by image; scores go to disk.
    Spilled,
}

impl Engine {
    fn label(self) -> &'static str {
        match self {
            Self::Slices => "ours",
            Self::Exact => "ours, exact",
            Self::Streamed => "ours, streamed",
            Self::Spilled => "ours, spilled",
        }
    }
}

/// One comparison: what is asked, of how many maps of which side, by which of ours and by whom else.
#[derive(Clone, Copy)]
struct Item {
    task: Task,
    images: usize,
    side: usize,
    engines: &'static [Engine],
    /// Label and the name of the tool that the script knows; the first is the baseline.
    peers: &'static [(&'static str, &'static str)],
}

impl Item {
    fn all(smoke: bool) -> Vec<(String, Self)> {
        let size = |images, side| if smoke { (4, 24) } else { (images, side) };
        let pixels = |task| {
            let (images, side) = size(100, 1000);
            let engines: &[_] = &[Engine::Slices, Engine::Streamed];
            let peers: &[_] = &[("scikit-learn", "scikit-learn"), ("torchmetrics", "torchmetrics")];
            Self { task, images, side, engines, peers }
        };
        let (images, side) = size(200, 256);
        let aupro = Self {
            task: Task::Aupro,
            images,
            side,
            engines: &[Engine::Slices, Engine::Streamed],
            peers: &[
                ("anomalib", "anomalib"),
                ("adeval, 1000 bins", "adeval-bins"),
                ("adeval, 100 thresholds", "adeval-thresholds"),
            ],
        };
        let (images, side) = size(1725, 512);
        let engines = &[Engine::Exact, Engine::Streamed, Engine::Spilled];
        let scale = Self { task: Task::All, images, side, engines, peers: &[] };
        [
            ("AUROC", pixels(Task::Auroc)),
            ("AP", pixels(Task::AveragePrecision)),
            ("AUPRO", aupro),
            ("all", scale),
        ]
        .into_iter()
        .map(|(what, item)| (format!("{what}, {} maps of {}²", item.images, item.side), item))
        .collect()
    }
}

impl Metrics {
    pub(crate) fn run(self) -> Result<ExitCode> {
        table::report(&self.options, Item::all(self.options.smoke), comparison)
    }
}

fn comparison(name: &str, item: Item) -> Result<(Comparison, tempfile::TempDir)> {
    let folder = tempfile::tempdir().context("can't make a folder for inputs")?;
    let Item { task, images, side, engines, peers } = item;
    let inputs = Inputs::write(folder.path(), images, side)?;
    let mut contenders = Vec::new();
    for &engine in engines {
        let case = work::Case::Metrics(Case { task, engine, inputs: inputs.clone() });
        contenders.push(Contender::ours(engine.label(), &case)?);
    }
    for &(label, tool) in peers {
        let case = json!({ "task": task, "tool": tool, "inputs": inputs });
        contenders.push(Contender::peer(label, SCRIPT, case));
    }
    let baseline = peers.first().map_or(engines[0].label(), |&(label, _)| label).to_owned();
    Ok((Comparison { name: name.to_owned(), contenders, baseline }, folder))
}

/// Maps and masks that lie in memory, or are read each time, and what was found of them.
struct Judging {
    case: Case,
    /// Maps and masks of all images.
    loaded: Option<(Vec<f32>, Vec<u8>)>,
    found: Vec<f64>,
    bound: f64,
}

impl Case {
    pub(super) fn prepare(&self) -> Result<impl Work + use<>> {
        let loaded = (self.engine == Engine::Slices).then(|| self.inputs.load()).transpose()?;
        Ok(Judging { case: self.clone(), loaded, found: Vec::new(), bound: 0.0 })
    }
}

impl Judging {
    fn of_slices(&self, scores: &[f32], masks: &[u8]) -> Result<Vec<f64>> {
        let side = self.case.inputs.side;
        let images = scores.chunks_exact(side * side).zip(masks.chunks_exact(side * side));
        let images: Vec<ScoredMap<'_>> = images
            .map(|(map, mask)| ScoredMap::new(side, side, map, Some(mask)))
            .collect::<Result<_, metrics::Error>>()?;
        Ok(match self.case.task {
            Task::Auroc => vec![metrics::pixel_auroc(&images)?],
            Task::AveragePrecision => vec![metrics::pixel_average_precision(&images)?],
            Task::Aupro => vec![metrics::aupro(&images, LIMIT)?],
            Task::All => {
                let mut pixels = ExactPixels::default();
                images.iter().try_for_each(|image| pixels.add(image))?;
                figures(&pixels.rank()?.figures(&[LIMIT])?)
            }
        })
    }

    fn of_files(&self) -> Result<PixelFigures> {
        let inputs = &self.case.inputs;
        let threads = rayon::current_num_threads();
        let share = inputs.images.div_ceil(threads);
        let ranges = (0..threads)
            .into_par_iter()
            .map(|thread| (thread * share).min(inputs.images)..((thread + 1) * share).min(inputs.images));
        Ok(match self.case.engine {
            Engine::Slices | Engine::Exact => {
                let parts = ranges.map(|range| {
                    let mut pixels = ExactPixels::default();
                    inputs.each(range, |image| Ok(pixels.add(image)?)).map(|()| pixels)
                });
                let all = parts.try_reduce_with(|mut a, b| {
                    a.merge(b);
                    Ok(a)
                });
                all.context("no threads")??.rank()?.figures(&[LIMIT])?
            }
            Engine::Streamed => {
                let parts = ranges.map(|range| {
                    let mut pixels = StreamedPixels::default();
                    inputs.each(range, |image| Ok(pixels.add(image)?)).map(|()| pixels)
                });
                let all = parts.try_reduce_with(|mut a, b| {
                    a.merge(&b)?;
                    Ok(a)
                });
                all.context("no threads")??.figures(&[LIMIT])?
            }
            Engine::Spilled => {
                let folder = tempfile::tempdir().context("can't make a folder for scores")?;
                let parts = ranges.map(|range| {
                    let mut pixels = SpilledPixels::new(folder.path())?;
                    inputs.each(range, |image| Ok(pixels.add(image)?)).map(|()| pixels)
                });
                let all = parts.try_reduce_with(|mut a, b| {
                    a.merge(b);
                    Ok(a)
                });
                all.context("no threads")??.figures(&[LIMIT])?
            }
        })
    }
}

fn figures(of: &PixelFigures) -> Vec<f64> {
    let aupro = of.aupro.iter().map(|aupro| aupro.area.value);
    [of.auroc, of.average_precision, of.f1_max, of.fpr_at_95_tpr]
        .into_iter()
        .map(|figure| figure.value)
        .chain(aupro)
        .collect()
}

fn widest_bound(of: &PixelFigures) -> f64 {
    let aupro = of.aupro.iter().map(|aupro| aupro.area.error);
    [of.auroc, of.average_precision, of.f1_max, of.fpr_at_95_tpr]
        .into_iter()
        .map(|figure| figure.error)
        .chain(aupro)
        .fold(0.0, f64::max)
}

impl Work for Judging {
    fn iterate(&mut self) -> Result<()> {
        self.found = if let Some((scores, masks)) = &self.loaded {
            self.of_slices(scores, masks)?
        } else {
            let found = self.of_files()?;
            self.bound = widest_bound(&found);
            let all = figures(&found);
            match self.case.task {
                Task::Auroc => all[..1].to_vec(),
                Task::AveragePrecision => all[1..2].to_vec(),
                Task::Aupro => all[4..].to_vec(),
                Task::All => all,
            }
        };
        Ok(())
    }

    fn outcome(&mut self) -> Result<Vec<f64>> {
        Ok(self.found.clone())
    }

    fn versions(&self) -> BTreeMap<String, String> {
        BTreeMap::from([("widest bound".to_owned(), format!("{:.1e}", self.bound))])
    }
}
