//! What a matrix will take, before anything of it runs.
//!
//! Times come from short cells that are really run: each distinct method, backbone and image size fits a few made-up images
//! for one epoch and for three. The difference is what an epoch's training takes an image; the rest is what an image takes
//! once, however many epochs there are (frozen features, a network that is set up); scoring is measured by itself. A backbone
//! whose weights are not here yet is stood in for by the embedded one, and the times are scaled by multiplications.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::Path;

use anomaly_core::Cancellation;
use datasets::{Part, Protocol, Task};
use report::Status;
use serde_json::{Value, json};

use crate::child;
use crate::memory_needs::{least, weights_bytes};
use crate::process::{Ending, run};
use crate::{CellSpec, Error, FeatureOptions, Layout, Plan, PlannedCell};

/// What stands in for data that may not be here: it is part of the program.
const DATASET: &str = "synthetic-textures";
const CATEGORY: &str = "wood";
const PROTOCOL: &str = "class-separated";
/// What stands in for a backbone that is not here.
const BACKBONE: &str = "dinov2-small-b9";
/// How many images a probe trains on, and is tested on.
const TRAINED: usize = 8;
const TESTED: usize = 8;
const BATCH: u64 = 4;
/// How many epochs the two probes of a pair have.
const EPOCHS: [u64; 2] = [1, 3];

/// How a matrix is estimated.
#[derive(Debug, Clone)]
pub struct EstimateOptions {
    /// As [`crate::RunOptions::child`].
    pub child: Vec<OsString>,
    /// A folder for probes, which is emptied again.
    pub scratch: std::path::PathBuf,
    /// Asks to stop.
    pub cancellation: Cancellation,
}

/// What a matrix will take.
#[derive(Debug, Clone, PartialEq)]
pub struct Estimate {
    /// How many cells are selected, as far as is known: those of data that are not here are counted by what was published.
    pub cells: usize,
    /// How many of them are finished.
    pub finished: usize,
    /// Data sets that are not here: the registered name, where it was looked for, and why it can't be used.
    pub data: Vec<(String, Option<std::path::PathBuf>, String)>,
    /// Backbones whose weights are not here: the name, their bytes in f32 and their licence where they are known.
    pub weights: Vec<(String, Option<u64>, Option<&'static str>)>,
    /// Licences of the data that are here, by registered name.
    pub licences: BTreeMap<String, String>,
    /// What the unfinished cells of each pair will take.
    pub pairs: Vec<Pair>,
}

/// The unfinished cells of one method, backbone and image size.
#[derive(Debug, Clone, PartialEq)]
pub struct Pair {
    /// The method.
    pub method: String,
    /// The backbone.
    pub backbone: Option<String>,
    /// The side of its images, where it has one.
    pub image_size: Option<u64>,
    /// How many cells.
    pub cells: usize,
    /// How many of them are of data of which it is not known how many images they have; they are not in the hours.
    pub unknown: usize,
    /// Hours of one cell after the other on this machine, or why they could not be measured.
    pub hours: Result<f64, String>,
    /// The most memory that a probe took, or, if that is more, what the sizes of a whole batch come to; in bytes.
    pub memory: u64,
    /// The backbone that was measured in place of this one.
    pub stand_in: Option<&'static str>,
}

/// A method, its backbone and the side of its images.
type PairName = (String, Option<String>, Option<u64>);

/// A planned cell without a result, and the training and test images of each cell that it stands for.
type Missing<'a> = (&'a PlannedCell, Vec<(usize, usize)>);

/// What one image takes, in seconds.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Rates {
    /// Once, in a fit.
    once: f64,
    /// In each epoch of a fit.
    epoch: f64,
    /// When it is scored.
    score: f64,
}

impl Rates {
    /// From fits of so many images with [`EPOCHS`] epochs.
    fn new(fits: [f64; 2], score: f64) -> Self {
        let epoch = ((fits[1] - fits[0]) / (EPOCHS[1] - EPOCHS[0]) as f64).max(0.0);
        let once = (fits[0] - EPOCHS[0] as f64 * epoch).max(0.0);
        let images = TRAINED as f64;
        Self { once: once / images, epoch: epoch / images, score: score / TESTED as f64 }
    }

    /// The seconds of a cell: its fit, the scoring of each detector it keeps, and of each it tries on the test images.
    fn seconds(&self, train: usize, test: usize, config: &Value) -> f64 {
        let number = |name: &str| config.get(name).and_then(Value::as_f64);
        let epochs = number("epochs").unwrap_or(1.0);
        let tries = number("eval_every").map_or(0.0, |every| (epochs / every.max(1.0)).floor());
        train as f64 * (self.once + epochs * self.epoch) + test as f64 * self.score * (1.0 + tries)
    }
}

/// Estimates what is missing of `plan` in `layout`. Plan it with [`crate::PlanOptions::offline`], so that nothing is fetched.
///
/// # Errors
/// If records can't be read or a process can't be started. A probe that fails is in the estimate.
pub fn estimate(plan: &Plan, layout: &Layout, options: &EstimateOptions) -> Result<Estimate, Error> {
    let mut estimate = Estimate {
        cells: 0,
        finished: 0,
        data: Vec::new(),
        weights: Vec::new(),
        licences: BTreeMap::new(),
        pairs: Vec::new(),
    };
    let mut pairs: BTreeMap<PairName, Vec<Missing<'_>>> = BTreeMap::new();
    for cell in plan.cells.iter().filter(|cell| cell.selected) {
        let spec = &cell.spec;
        let known = cell.images.map(|images| vec![images]);
        let images = known.or_else(|| published_images(spec)).unwrap_or_default();
        let count = images.len().max(1);
        estimate.cells += count;
        if layout.is_done(&spec.id())? {
            estimate.finished += 1;
            continue;
        }
        estimate.note_missing(cell);
        let identity = &spec.identity;
        let size = identity.config.get("image_size").and_then(Value::as_u64);
        pairs
            .entry((identity.method.clone(), identity.backbone.clone(), size))
            .or_default()
            .push((cell, images));
    }
    for ((method, backbone, image_size), cells) in pairs {
        let (representative, _) = cells[0];
        let probe = probe(&representative.spec, options)?;
        let count = |images: &Vec<(usize, usize)>| images.len().max(1);
        estimate.pairs.push(Pair {
            cells: cells.iter().map(|(_, images)| count(images)).sum(),
            unknown: cells.iter().filter(|(_, images)| images.is_empty()).count(),
            hours: probe.rates.map(|rates| {
                let of = |(cell, images): &Missing<'_>| -> f64 {
                    let config = &cell.spec.identity.config;
                    images.iter().map(|&(train, test)| rates.seconds(train, test, config)).sum()
                };
                cells.iter().map(of).sum::<f64>() / 3600.0
            }),
            memory: cells.iter().map(|(cell, _)| least(&cell.spec)).max().unwrap_or(0).max(probe.memory),
            stand_in: probe.stand_in,
            method,
            backbone,
            image_size,
        });
    }
    Ok(estimate)
}

impl Estimate {
    fn note_missing(&mut self, cell: &PlannedCell) {
        let spec = &cell.spec;
        if let Some(licence) = &spec.licence {
            self.licences.insert(spec.registered.clone(), licence.clone());
        }
        if cell.images.is_none()
            && !self.data.iter().any(|(name, root, _)| *name == spec.registered && *root == spec.root)
        {
            let why = cell.problem.clone().unwrap_or_default();
            self.data.push((spec.registered.clone(), spec.root.clone(), why));
        }
        let Some(backbone) =
            spec.identity.backbone.as_ref().filter(|_| spec.identity.weights_sha256.is_none())
        else {
            return;
        };
        if !self.weights.iter().any(|(name, ..)| name == backbone) {
            let entry = vit_backbone::catalogue::find(backbone);
            let bytes = entry.map(|entry| weights_bytes(&entry.config));
            self.weights.push((backbone.clone(), bytes, entry.map(|entry| entry.licence)));
        }
    }
}

/// The training and test images of each cell that a cell of data that are not here stands for, as published.
fn published_images(spec: &CellSpec) -> Option<Vec<(usize, usize)>> {
    let counts = datasets::published_counts(&spec.registered);
    let Task { protocol, shots } = spec.identity.protocol.parse().ok()?;
    let mut classes: Vec<&str> = counts.iter().filter_map(|count| count.class).collect();
    classes.dedup();
    let sum = |part: Part, class: Option<&str>| -> usize {
        let fits = |count: &&datasets::PublishedCount| {
            // Defects are never trained on.
            let good = part != Part::Train || count.defective != Some(true);
            count.class.is_some()
                && count.part == part
                && class.is_none_or(|class| count.class == Some(class))
                && good
        };
        counts.iter().filter(fits).map(|count| count.images).sum()
    };
    if classes.is_empty() {
        return None;
    }
    let images = |class: &str| {
        let (train, test) = match protocol {
            Protocol::Unimodal => (sum(Part::Train, Some(class)), sum(Part::Test, None)),
            Protocol::Multimodal | Protocol::OneClassAbnormal => {
                (sum(Part::Train, None) - sum(Part::Train, Some(class)), sum(Part::Test, None))
            }
            Protocol::MultiClass => (sum(Part::Train, None), sum(Part::Test, Some(class))),
            // One category by itself.
            _ => (sum(Part::Train, Some(class)), sum(Part::Test, Some(class))),
        };
        let train = shots.map_or(train, |shots| train.min(shots.count));
        (limited(train, spec.identity.train_limit), limited(test, spec.identity.test_limit))
    };
    match spec.identity.category.as_str() {
        "all" if protocol == Protocol::MultiClass => {
            Some(vec![(sum(Part::Train, None), sum(Part::Test, None))])
        }
        "all" => Some(classes.into_iter().map(images).collect()),
        // Where a name of a class stands for its key, sizes are those of any class.
        class => Some(vec![images(classes.iter().find(|known| **known == class).unwrap_or(&classes[0]))]),
    }
}

fn limited(images: usize, limit: Option<usize>) -> usize {
    limit.map_or(images, |limit| images.min(limit))
}

struct Probe {
    rates: Result<Rates, String>,
    memory: u64,
    stand_in: Option<&'static str>,
}

/// Measures what a cell's method takes on this machine.
fn probe(spec: &CellSpec, options: &EstimateOptions) -> Result<Probe, Error> {
    let mut scaled = 1.0;
    let mut stand_in = None;
    let mut small = spec.clone();
    if let Some(backbone) = spec.identity.backbone.as_ref().filter(|_| spec.identity.weights_sha256.is_none())
    {
        let known = (vit_backbone::catalogue::find(backbone), vit_backbone::catalogue::find(BACKBONE));
        let (Some(wanted), Some(there)) = known else {
            let rates =
                Err("its weights are not here, and it is no transformer that another could stand in for"
                    .to_owned());
            return Ok(Probe { rates, memory: 0, stand_in });
        };
        scaled = multiplications(&wanted.config, spec) / multiplications(&there.config, spec);
        stand_in = Some(BACKBONE);
        small.identity.backbone = Some(BACKBONE.to_owned());
    }
    let mut fits = [0.0; 2];
    let (mut score, mut memory) = (0.0, 0);
    for (fit, epochs) in fits.iter_mut().zip(EPOCHS) {
        match measure(&shortened(&small, epochs), options)? {
            Ok(measured) => {
                *fit = measured.0;
                score = measured.1;
                memory = memory.max(measured.2);
            }
            Err(why) => return Ok(Probe { rates: Err(why), memory, stand_in }),
        }
    }
    let Rates { once, epoch, score } = Rates::new(fits, score);
    let rates = Ok(Rates { once: once * scaled, epoch: epoch * scaled, score: score * scaled });
    Ok(Probe { rates, memory, stand_in })
}

/// The multiplications that an image of the cell's size takes in a network, up to a factor.
fn multiplications(config: &vit_backbone::VitConfig, spec: &CellSpec) -> f64 {
    let size = spec.identity.config.get("image_size").and_then(Value::as_f64).unwrap_or(224.0);
    let (dim, hidden) = (config.dim as f64, config.mlp_hidden as f64);
    let tokens = (size / config.patch.0 as f64) * (size / config.patch.1 as f64);
    config.depth as f64 * tokens * (4.0 * dim * dim + 2.0 * dim * hidden + 2.0 * tokens * dim)
}

/// The cell with a few made-up images and these epochs.
fn shortened(spec: &CellSpec, epochs: u64) -> CellSpec {
    let mut short = spec.clone();
    DATASET.clone_into(&mut short.registered);
    (short.root, short.left_out, short.published) = (None, None, None);
    short.save_detectors = false;
    short.features = FeatureOptions { folder: None, ..short.features };
    let identity = &mut short.identity;
    DATASET.clone_into(&mut identity.dataset);
    CATEGORY.clone_into(&mut identity.category);
    PROTOCOL.clone_into(&mut identity.protocol);
    (identity.dataset_fingerprint, identity.split, identity.held_out) = (None, None, 0.0);
    (identity.train_limit, identity.test_limit) = (Some(TRAINED), Some(TESTED));
    if let Value::Object(fields) = &mut identity.config {
        for (name, value) in [("epochs", epochs), ("eval_every", epochs)] {
            if fields.contains_key(name) {
                fields.insert(name.to_owned(), json!(value));
            }
        }
        if let Some(batch) = fields.get("batch_size").and_then(Value::as_u64) {
            fields.insert("batch_size".to_owned(), json!(batch.min(BATCH)));
        }
    }
    short
}

/// Runs a cell by itself: the seconds of its fit and of scoring, and its memory; or why it failed.
#[allow(clippy::type_complexity, reason = "three figures or a reason")]
fn measure(spec: &CellSpec, options: &EstimateOptions) -> Result<Result<(f64, f64, u64), String>, Error> {
    let out = options.scratch.join("probe");
    let layout = Layout::new(&out);
    remove(&out)?;
    let task = child::Task { cell: spec.clone(), out: out.clone(), attempt: None };
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let ending =
        run(&options.child, &task.to_line()?, threads, &options.cancellation, &mut |_| (), &mut |_| ())?;
    let record = layout.record(&spec.id())?;
    remove(&out)?;
    Ok(match (ending, record) {
        (Ending::Finished, Some(record)) if record.status == Status::Ok => {
            let seconds = record.seconds.map_or((0.0, 0.0), |seconds| (seconds.fit, seconds.score));
            Ok((seconds.0, seconds.1, record.peak_memory_bytes.unwrap_or(0)))
        }
        (Ending::Failed(why) | Ending::Crashed(why), _) => Err(why),
        _ => Err("stopped before it was measured".to_owned()),
    })
}

fn remove(folder: &Path) -> Result<(), Error> {
    crate::layout::remove_folder(folder)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use serde_json::json;

    use super::{Rates, published_images, shortened};
    use crate::CellSpec;
    use crate::spec::tests::spec;

    #[test]
    fn rates_come_from_two_lengths_and_are_never_negative() {
        // 8 images: 4 s once and 2 s an epoch; 8 scored in 1.6 s.
        let rates = Rates::new([6.0, 10.0], 1.6);
        let seconds = rates.seconds(80, 40, &json!({"epochs": 10, "eval_every": 5}));
        // 10 times as many images: 40 + 10 x 20; 40 images at 0.2 s, three times.
        assert!((seconds - (40.0 + 200.0 + 24.0)).abs() < 1e-9, "{seconds}");
        assert!((rates.seconds(80, 40, &json!({})) - (40.0 + 20.0 + 8.0)).abs() < 1e-9);
        let noisy = Rates::new([6.0, 5.0], 0.0);
        assert_eq!((noisy.epoch, noisy.once), (0.0, 0.75));
    }

    fn of(dataset: &str, protocol: &str, category: &str) -> CellSpec {
        let mut spec = spec();
        spec.registered = dataset.into();
        spec.identity.protocol = protocol.into();
        spec.identity.category = category.into();
        (spec.identity.train_limit, spec.identity.test_limit) = (None, None);
        spec
    }

    #[test]
    fn cells_of_data_that_are_not_here_are_counted_as_published() {
        let mvtec = published_images(&of("mvtec", "class-separated", "all")).unwrap();
        assert_eq!(mvtec.len(), 15);
        assert_eq!((mvtec[0], mvtec.iter().map(|images| images.0).sum::<usize>()), ((209, 83), 3629));
        assert_eq!(published_images(&of("mvtec", "class-separated", "zipper")).unwrap(), [(240, 151)]);
        assert_eq!(published_images(&of("cifar10", "unimodal", "all")).unwrap(), [(5000, 10_000); 10]);
        assert_eq!(published_images(&of("cifar10", "multimodal", "3")).unwrap(), [(45_000, 10_000)]);
        assert_eq!(published_images(&of("mvtec", "class-separated-4-shot", "bottle")).unwrap(), [(4, 83)]);
        assert_eq!(published_images(&of("stanford-cars", "unimodal", "all")), None);
    }

    #[test]
    fn a_probe_is_short_and_needs_nothing_that_may_be_missing() {
        let mut long = of("mvtec", "class-separated", "bottle");
        long.root = Some("/nowhere".into());
        long.identity.config = json!({"epochs": 400, "eval_every": 10, "batch_size": 32, "rate": 0.5});
        let short = shortened(&long, 3);
        assert_eq!(
            short.identity.config,
            json!({"epochs": 3, "eval_every": 3, "batch_size": 4, "rate": 0.5})
        );
        assert_eq!((short.root, short.registered.as_str()), (None, "synthetic-textures"));
        assert_ne!(shortened(&long, 1).id(), shortened(&long, 3).id());
    }
}
