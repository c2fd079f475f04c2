//! From a profile to cells.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use candle_core::Device;
use globset::GlobBuilder;
use report::{Header, Status};
use vit_backbone::PrecisionSetting;

use crate::data::Source;
use crate::methods::Methods;
use crate::precision::resolve_precision;
use crate::{
    CellSpec, DeviceChoice, Entry, Error, FeatureOptions, Identity, Layout, Profile, PublishedFigures,
    Rehearsal,
};

/// What a plan depends on besides the profile.
#[derive(Debug, Clone, Default)]
pub struct PlanOptions {
    /// Where cells compute: resolved, not `Auto`.
    pub device: DeviceChoice,
    /// How frozen networks multiply; cells have what it comes to on the device.
    pub precision: PrecisionSetting,
    /// Only cells whose name fits this pattern; `*` also stands for slashes.
    pub only: Option<String>,
    /// Whether detectors are kept beside results.
    pub save_detectors: bool,
    /// Where frozen features are kept.
    pub features: FeatureOptions,
    /// The folder where it is kept what was found in data sets; every image is looked at anew if `None`.
    pub checks: Option<PathBuf>,
    /// If cells are judged by a rehearsal in place of test images.
    pub rehearsal: Option<Rehearsal>,
    /// Whether data with faults are used, without the items that can't be.
    pub accept_data_problems: bool,
    /// Whether weights that are not there are left where they are instead of being fetched.
    pub offline: bool,
    /// The commit the program was built from.
    pub commit: Option<String>,
    /// Versions for records.
    pub versions: BTreeMap<String, String>,
}

/// The cells of a profile.
#[derive(Debug, Clone, PartialEq)]
pub struct Plan {
    /// The profile's name.
    pub profile: String,
    /// What it is for.
    pub description: String,
    /// In the profile's order: entries, then categories, then seeds.
    pub cells: Vec<PlannedCell>,
}

/// A cell that is to be run, or can't be.
#[derive(Debug, Clone, PartialEq)]
pub struct PlannedCell {
    /// What its process will be told.
    pub spec: CellSpec,
    /// Why it can't be run, if that is known already: its data or its weights can't be had.
    pub problem: Option<String>,
    /// How many images it trains on and is tested on, where its data are there.
    pub images: Option<(usize, usize)>,
    /// Whether `--only` lets it through.
    pub selected: bool,
}

impl Plan {
    /// Plans `profile`: opens its data sets, resolves configurations, hashes what ids are made of. Weights that are not
    /// there yet are fetched.
    ///
    /// Data or weights that can't be had are the cells' problem; a profile that can't be meant is an error.
    ///
    /// # Errors
    /// [`Error::Profile`] with the entry's line for an unknown method, field, value, data set, protocol or category;
    /// [`Error::Only`] for a pattern that can't be used or fits no cell.
    pub fn new(
        profile: &Profile,
        published: &PublishedFigures,
        options: &PlanOptions,
    ) -> Result<Self, Error> {
        // Only to find and hash weights: cells load them again, on their device.
        let methods = Methods::reaching(Device::Cpu, options.offline);
        let mut planner =
            Planner { published, options, methods, sources: BTreeMap::new(), cells: Vec::new() };
        for entry in &profile.entries {
            planner.entry(entry)?;
        }
        let mut cells = planner.cells;
        let mut seen = BTreeSet::new();
        cells.retain(|cell| seen.insert(cell.spec.id()));
        if let Some(pattern) = &options.only {
            select(&mut cells, pattern)?;
        }
        Ok(Self { profile: profile.name.clone(), description: profile.description.clone(), cells })
    }

    /// A line for every cell: how it stands in `layout`, its name, its id.
    ///
    /// # Errors
    /// [`Error::Report`] if a record can't be read.
    pub fn listing(&self, layout: &Layout) -> Result<String, Error> {
        let mut lines = Vec::new();
        let (mut done, mut selected) = (0, 0);
        for cell in self.cells.iter().filter(|cell| cell.selected) {
            let id = cell.spec.id();
            let record = layout.record(&id)?;
            let state = match (&record, &cell.problem) {
                (Some(record), _) if record.status == Status::Ok => "done",
                (_, Some(_)) => "blocked",
                (Some(record), None) => record.status.word(),
                (None, None) => "missing",
            };
            selected += 1;
            done += usize::from(state == "done");
            lines.push(format!("{state:<9} {}  {id}", cell.spec.identity.name()));
            if let Some(problem) = cell.problem.as_ref().filter(|_| state == "blocked") {
                lines.push(format!("          {problem}"));
            }
        }
        lines.push(format!("{selected} cells, {done} done, {} to run\n", selected - done));
        Ok(lines.join("\n"))
    }

    /// The head of the run's report.
    pub fn header(&self) -> Header {
        Header {
            profile: self.profile.clone(),
            description: Some(self.description.clone()),
            time: None,
            facts: Vec::new(),
        }
    }
}

struct Planner<'a> {
    published: &'a PublishedFigures,
    options: &'a PlanOptions,
    methods: Methods,
    /// Data sets by name and root, opened once, or why they can't be.
    sources: BTreeMap<(String, Option<PathBuf>), Result<Source, String>>,
    cells: Vec<PlannedCell>,
}

impl Planner<'_> {
    fn entry(&mut self, entry: &Entry) -> Result<(), Error> {
        let resolved = self.methods.resolve(entry).map_err(|e| wrong(entry, e))?;
        let source = self.source(entry)?;
        let usual = datasets::ENTRIES.iter().find(|known| known.name == entry.dataset);
        let usual = usual.map(|known| known.protocol.name().to_owned());
        let protocol_name = entry.protocol.clone().or(usual).unwrap_or_default();
        protocol_name.parse::<datasets::Task>().map_err(|e| wrong(entry, e))?;
        let categories = categories(entry, source.as_ref().ok())?;
        for category in categories {
            for &seed in &entry.seeds {
                let identity = Identity {
                    method: entry.method.clone(),
                    config: resolved.config.clone(),
                    backbone: resolved.backbone.clone(),
                    weights_sha256: resolved.weights_sha256.clone(),
                    dataset: entry.named.clone().unwrap_or_else(|| entry.dataset.clone()),
                    protocol: protocol_name.clone(),
                    category: category.clone(),
                    dataset_fingerprint: None,
                    split: None,
                    train_limit: entry.train_limit,
                    test_limit: entry.test_limit,
                    held_out: entry.held_out,
                    eval: entry.eval,
                    precision: resolve_precision(self.options.precision, self.options.device)?,
                    features: self.options.features.precision,
                    rehearsal: self.options.rehearsal,
                    seed,
                    revisions: resolved.revisions.clone(),
                };
                let cell = self.cell(entry, identity, &source, resolved.problem.clone());
                self.cells.push(cell);
            }
        }
        Ok(())
    }

    fn cell(
        &self,
        entry: &Entry,
        mut identity: Identity,
        source: &Result<Source, String>,
        problem: Option<String>,
    ) -> PlannedCell {
        let mut images = None;
        let print = source.as_ref().map_err(Clone::clone).and_then(|source| {
            let (source, split) = source.of_cell(&identity).map_err(|e| e.to_string())?;
            images = Some((split.train.len(), split.test.len()));
            split.fingerprint(&*source.dataset).map_err(|e| e.to_string())
        });
        let mut problem = problem;
        match print {
            Ok(print) => {
                identity.dataset_fingerprint = Some(print.content);
                identity.split = Some(print.split);
            }
            Err(e) => problem = problem.or(Some(e)),
        }
        let spec = CellSpec {
            // What was published is of test images.
            published: self.published.find(&identity).filter(|_| identity.rehearsal.is_none()).cloned(),
            identity,
            registered: entry.dataset.clone(),
            root: entry.root.clone(),
            device: self.options.device.to_string(),
            precision_setting: self.options.precision.to_string(),
            save_detectors: self.options.save_detectors,
            features: self.options.features.clone(),
            commit: self.options.commit.clone(),
            versions: self.options.versions.clone(),
            left_out: source.as_ref().ok().and_then(|source| source.left_out.clone()),
            licence: source.as_ref().ok().map(|source| source.dataset.card().licence.clone()),
        };
        PlannedCell { spec, problem, images, selected: true }
    }

    /// The entry's data set; the outer error is the profile's fault, the inner one the machine's.
    fn source(&mut self, entry: &Entry) -> Result<Result<Source, String>, Error> {
        let key = (entry.dataset.clone(), entry.root.clone());
        if let Some(source) = self.sources.get(&key) {
            return Ok(source.clone());
        }
        let (checks, accept) = (self.options.checks.as_deref(), self.options.accept_data_problems);
        let source = match Source::checked(&entry.dataset, entry.root.as_deref(), checks, accept) {
            Ok(source) => Ok(source),
            Err(
                e @ Error::Dataset(
                    datasets::Error::UnknownDataset { .. } | datasets::Error::UnusedRoot { .. },
                ),
            ) => {
                return Err(wrong(entry, e));
            }
            Err(e) => Err(e.to_string()),
        };
        self.sources.insert(key, source.clone());
        Ok(source)
    }
}

/// The keys of the entry's categories. Without the data set, those it names are taken at their word.
fn categories(entry: &Entry, source: Option<&Source>) -> Result<Vec<String>, Error> {
    let Some(source) = source else {
        return Ok(entry.categories.clone().unwrap_or_else(|| vec!["all".to_owned()]));
    };
    let classes = source.dataset.classes();
    let Some(wanted) = &entry.categories else {
        return Ok(classes.iter().map(|class| class.key.clone()).collect());
    };
    let key = |name: &String| {
        if name == datasets::ALL && entry.protocol.as_deref().is_some_and(is_multi_class) {
            return Ok(name.clone());
        }
        let index = source.dataset.class_index(name).map_err(|e| wrong(entry, e))?;
        Ok(classes[index].key.clone())
    };
    wanted.iter().map(key).collect()
}

fn wrong(entry: &Entry, problem: impl std::fmt::Display) -> Error {
    Error::Profile { path: entry.path.clone(), line: entry.line, problem: problem.to_string() }
}

/// Whether a protocol's name is of one model for all categories.
fn is_multi_class(name: &str) -> bool {
    name.parse::<datasets::Task>().is_ok_and(|task| task.protocol == datasets::Protocol::MultiClass)
}

fn select(cells: &mut [PlannedCell], pattern: &str) -> Result<(), Error> {
    let wrong = |problem: String| Error::Only { pattern: pattern.to_owned(), problem };
    let glob = GlobBuilder::new(pattern)
        .literal_separator(false)
        .build()
        .map_err(|e| wrong(e.kind().to_string()))?
        .compile_matcher();
    for cell in cells.iter_mut() {
        cell.selected = glob.is_match(cell.spec.identity.name());
    }
    if cells.iter().any(|cell| cell.selected) {
        return Ok(());
    }
    let example = cells.first().map_or_else(String::new, |cell| cell.spec.identity.name());
    Err(wrong(format!("fits none of {} cells; the first is called {example}", cells.len())))
}
