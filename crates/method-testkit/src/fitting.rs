//! Fitting, saving and loading the method under test.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use anomaly_core::{
    Detector, DetectorWriter, DirectoryCheckpoints, FitContext, Harness, KeepNothing, Method, MethodError,
    Precision, TrainingData,
};

use crate::failure::{Problem, problem};
use crate::watch::{Watch, WatchedData};
use crate::{InMemoryData, Suite};

/// The seed of every fit that has no reason to use another.
pub(crate) const SEED: u64 = 1;

/// How a fit is to go.
#[derive(Clone, Copy)]
pub(crate) struct Plan<'p> {
    pub(crate) seed: u64,
    /// Cancel at this signal, counted from 1; at 0, before the fit begins.
    pub(crate) cancel_at: Option<usize>,
    /// A directory for checkpoints; in memory, and lost, if there is none.
    pub(crate) checkpoints: Option<&'p Path>,
}

impl Plan<'_> {
    /// A whole fit.
    pub(crate) const WHOLE: Self = Self { seed: SEED, cancel_at: None, checkpoints: None };
}

/// How a fit went.
pub(crate) struct Outcome {
    /// The detector; `None` if the fit was cancelled.
    pub(crate) detector: Option<Box<dyn Detector>>,
    /// How many signals the fit gave.
    pub(crate) signals: usize,
}

/// One whole fit with what belongs to it, made once a suite.
pub(crate) struct Reference {
    pub(crate) method: Box<dyn Method>,
    pub(crate) training: InMemoryData,
    /// The scene's test images.
    pub(crate) tests: InMemoryData,
    /// Which of them are defective.
    pub(crate) defective: Vec<bool>,
    pub(crate) detector: Box<dyn Detector>,
    pub(crate) files: Files,
    pub(crate) signals: usize,
}

impl Suite<'_> {
    /// A whole fit with [`SEED`].
    pub(crate) fn reference(&self) -> Result<&Reference, Problem> {
        if let Some(reference) = self.reference.get() {
            return Ok(reference);
        }
        let method = (self.build)(&self.config).map_err(|e| Problem(format!("building it failed: {e}")))?;
        let training = InMemoryData::new(&self.scene.training(), method.preprocess())?;
        let tests = self.scene.tests();
        let defective = tests.iter().map(|test| test.defective).collect();
        let images: Vec<_> = tests.into_iter().map(|test| test.image).collect();
        let tests = InMemoryData::new(&images, method.preprocess())?;
        let outcome = self.fit(&*method, &training, Plan::WHOLE, KeepNothing)?;
        let Some(detector) = outcome.detector else {
            return problem("a fit that nobody cancelled said that it was cancelled");
        };
        let files = files(&*method, &training, &*detector, SEED)?;
        let signals = outcome.signals;
        let made = Reference { method, training, tests, defective, detector, files, signals };
        Ok(self.reference.get_or_init(|| made))
    }

    /// A fit as planned.
    pub(crate) fn fit<'h>(
        &self,
        method: &dyn Method,
        data: &'h InMemoryData,
        plan: Plan<'_>,
        harness: impl Harness + 'h,
    ) -> Result<Outcome, Problem> {
        let attempt = self.attempt(method, data, plan, harness);
        attempt.map_err(|e| Problem(format!("the fit failed: {e}")))
    }

    /// A fit as planned; errors other than a cancellation as the method gave them.
    pub(crate) fn attempt<'h>(
        &self,
        method: &dyn Method,
        data: &'h InMemoryData,
        plan: Plan<'_>,
        harness: impl Harness + 'h,
    ) -> Result<Outcome, MethodError> {
        let watch = Watch::cancelling_at(plan.cancel_at);
        if plan.cancel_at == Some(0) {
            watch.cancellation.cancel();
        }
        let mut context = FitContext::new(self.device.clone(), plan.seed).with_harness(harness);
        context.observer = watch.clone();
        context.cancellation = watch.cancellation.clone();
        if let Some(directory) = plan.checkpoints {
            context.checkpoints = Box::new(DirectoryCheckpoints::new(directory));
        }
        let mut watched = WatchedData { data, watch: Arc::clone(&watch) };
        let detector = match method.fit(&mut watched, &mut context) {
            Ok(detector) => Some(detector),
            Err(e) if e.is_cancelled() => None,
            Err(e) => return Err(e),
        };
        Ok(Outcome { detector, signals: watch.signals() })
    }
}

/// A saved detector's files, by name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Files(BTreeMap<String, Vec<u8>>);

/// Saves `detector` into `directory`.
pub(crate) fn save(
    directory: &Path,
    method: &dyn Method,
    training: &InMemoryData,
    detector: &dyn Detector,
    seed: u64,
) -> Result<(), Problem> {
    let fingerprint = training.fingerprint()?;
    let precision = Precision::default();
    let mut writer =
        DetectorWriter::new(directory, method.info(), method.preprocess(), precision, seed, fingerprint);
    detector.save(&mut writer).map_err(|e| Problem(format!("saving failed: {e}")))?;
    Ok(writer.finish()?)
}

/// What `detector` saves.
pub(crate) fn files(
    method: &dyn Method,
    training: &InMemoryData,
    detector: &dyn Detector,
    seed: u64,
) -> Result<Files, Problem> {
    let directory = tempfile::tempdir()?;
    save(directory.path(), method, training, detector, seed)?;
    Files::read(directory.path())
}

impl Files {
    /// The files in `directory`.
    pub(crate) fn read(directory: &Path) -> Result<Self, Problem> {
        let mut files = BTreeMap::new();
        for entry in directory.read_dir()? {
            let entry = entry?;
            files.insert(entry.file_name().to_string_lossy().into_owned(), std::fs::read(entry.path())?);
        }
        Ok(Self(files))
    }

    /// In which tensor, or else which file, two detectors differ; `None` if all bits are the same.
    pub(crate) fn difference(&self, other: &Self) -> Result<Option<String>, Problem> {
        if self == other {
            return Ok(None);
        }
        let tensors = self.tensor_difference(other)?;
        let file = || self.0.iter().find(|(name, bytes)| other.0.get(*name) != Some(bytes));
        Ok(tensors
            .or_else(|| file().map(|(name, _)| format!("file `{name}`")))
            .or(Some("their list of files".into())))
    }

    /// In which tensor two detectors differ; `None` if all have the same bits.
    pub(crate) fn tensor_difference(&self, other: &Self) -> Result<Option<String>, Problem> {
        let (ours, theirs) = (self.tensors()?, other.tensors()?);
        let odd = |(name, tensor): (&String, &Bits)| (theirs.get(name) != Some(tensor)).then(|| name.clone());
        let missing = theirs.keys().find(|name| !ours.contains_key(*name)).cloned();
        Ok(ours.iter().find_map(odd).or(missing).map(|name| format!("tensor `{name}`")))
    }

    fn tensors(&self) -> Result<BTreeMap<String, Bits>, Problem> {
        let mut tensors = BTreeMap::new();
        for bytes in self.0.iter().filter(|(name, _)| is_tensors(name)).map(|(_, bytes)| bytes) {
            for (name, view) in candle_core::safetensors::SliceSafetensors::new(bytes)?.tensors() {
                tensors.insert(name, (view.shape().to_vec(), view.data().to_vec()));
            }
        }
        Ok(tensors)
    }
}

/// A tensor's shape and bytes.
type Bits = (Vec<usize>, Vec<u8>);

fn is_tensors(name: &str) -> bool {
    Path::new(name).extension().is_some_and(|extension| extension == "safetensors")
}
