//! One cell from images to figures.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use anomaly_core::{
    Cancellation, Criterion, Detector, DirectoryCheckpoints, Event, FitContext, Images, Method, MethodError,
    Observer, Selection, TestMetric, TrainingData, ValidationImages, write_atomic,
};
use candle_core::Device;
use report::{Cell, CellFiles, Evaluation, Results, Seconds, Status};

use crate::data::{CellImages, Source};
use crate::evaluate::{self, Scores};
use crate::journal::{Journal, JournalledCheckpoints, TimedHarness};
use crate::methods::Methods;
use crate::selection::{Evidence, Imprint, Role, Selector, words};
use crate::test_set::TestSet;
use crate::{CellSpec, DeviceChoice, Error, Layout, cell_log, memory, pictures, precision};

/// Computes the cell `spec` and puts its folder in place. Call it with the cell's lock held.
pub(crate) fn execute(
    spec: &CellSpec,
    layout: &Layout,
    cancellation: &Cancellation,
    observer: &Arc<dyn Observer>,
) -> Result<(), Error> {
    let id = spec.id();
    let work = layout.open_work(&id)?;
    let observer = &cell_log::logged(spec, layout, &work, observer);
    let (device, _) = spec.device.parse::<DeviceChoice>()?.open()?;
    let methods = Methods::new(device.clone());
    let method = methods.build(&spec.identity)?;
    let source = Source::open(&spec.registered, spec.root.as_deref(), spec.left_out.as_deref())?;
    let (source, split) = source.of_cell(&spec.identity)?;
    let images = CellImages::new(source, split, method.preprocess())?;
    let cell =
        Running { spec, work: &work, device, methods, method: &*method, images, cancellation, observer };
    let (chosen, curves, fit_seconds) = cell.fit()?;
    let files = cell.judge(&chosen, curves, fit_seconds, &Layout::finished(&work))?;
    layout.finish(&id, &files)
}

struct Running<'a> {
    spec: &'a CellSpec,
    work: &'a Path,
    device: Device,
    methods: Methods,
    method: &'a dyn Method,
    images: CellImages,
    cancellation: &'a Cancellation,
    observer: &'a Arc<dyn Observer>,
}

/// A detector on disk, and why it is there.
struct Chosen {
    folder: PathBuf,
    /// How it was chosen, in words.
    selection: String,
    /// The epoch it is from; `None` for the end of training.
    epoch: Option<usize>,
}

/// The detectors that one fit gave, in the order of `report::Selection::ALL`.
type Three = [Chosen; 3];

type Curves = std::collections::BTreeMap<String, Vec<report::CurvePoint>>;

impl Running<'_> {
    /// Fits the method, and leaves the chosen detectors in the working folder.
    fn fit(&self) -> Result<(Three, Curves, f64), Error> {
        let mut training = self.images.training()?;
        let imprint = Imprint {
            info: *self.method.info(),
            preprocess: self.method.preprocess().clone(),
            precision: self.spec.identity.precision,
            seed: self.spec.identity.seed,
            training: training.fingerprint()?,
        };
        let criteria = self.criteria();
        let mut selector = Selector::open(self.work, criteria, imprint.clone(), self)?;
        let journal = Arc::new(Journal::open(self.work)?);
        let last = {
            let harness = TimedHarness { journal: &journal, harness: &mut selector };
            let mut context = FitContext::new(self.device.clone(), imprint.seed).with_harness(harness);
            context.precision = imprint.precision;
            context.cancellation = self.cancellation.clone();
            context.features = self.spec.features.store();
            context.checkpoints = Box::new(JournalledCheckpoints {
                journal: &journal,
                checkpoints: DirectoryCheckpoints::new(self.work),
            });
            context.observer = Arc::new(Listener { journal: journal.clone(), next: self.observer.clone() });
            self.method.fit(&mut training, &mut context)?
        };
        let fit_seconds = journal.fit_seconds();
        let folder = self.work.join("last");
        imprint.save(&*last, &folder)?;
        let end = || Chosen { folder: folder.clone(), selection: words(Criterion::Last), epoch: None };
        let of = |role, criterion| self.chosen(&selector, role, criterion, &end);
        let faithful = of(Role::Faithful, criteria.faithful)?;
        let mut honest = of(Role::Honest, criteria.honest)?;
        if self.method.selection().honest != criteria.honest {
            honest.selection.push_str(" (no images were held out to choose by)");
        }
        let mut curves = journal.curves();
        curves.extend(selector.history().map(|(name, points)| (name.to_owned(), points)));
        Ok(([faithful, honest, end()], curves, fit_seconds))
    }

    /// The method's criteria, as far as there are images for them.
    fn criteria(&self) -> Selection {
        let mut criteria = self.method.selection();
        let needs_held_out =
            matches!(criteria.honest, Criterion::LowestValidationLoss { on: ValidationImages::HeldOut, .. });
        if needs_held_out && !self.images.has_held_out() {
            criteria.honest = Criterion::Last;
        }
        criteria
    }

    fn chosen(
        &self,
        selector: &Selector<'_>,
        role: Role,
        criterion: Criterion,
        end: &dyn Fn() -> Chosen,
    ) -> Result<Chosen, Error> {
        if criterion == Criterion::Last {
            return Ok(end());
        }
        // Without a word, the first offer would stand for the best if every loss were NaN.
        let kept = selector.kept(role).ok_or_else(|| {
            Error::unfit(format!("{role:?} choice"), "an offer with a finite figure", "none")
        })?;
        let folder = Selector::detector(self.work, kept.epoch);
        Ok(Chosen { folder, selection: words(criterion), epoch: Some(kept.epoch) })
    }

    /// Scores the test images with each of the detectors, as loaded from disk, and makes the record.
    fn judge(&self, chosen: &Three, curves: Curves, fit: f64, finished: &Path) -> Result<CellFiles, Error> {
        std::fs::create_dir_all(finished).map_err(|e| Error::io(finished, "can't make the folder", e))?;
        let started = Instant::now();
        let mut judged: Vec<(&Path, Scores, Evaluation)> = Vec::new();
        let mut evaluations = Vec::new();
        for one in chosen {
            let mut known = None;
            for (at, (folder, ..)) in judged.iter().enumerate() {
                if is_same_detector(folder, &one.folder)? {
                    known = Some(at);
                }
            }
            let at = if let Some(at) = known {
                at
            } else {
                let detector = self.methods.load(&one.folder, &self.spec.identity)?;
                let scores = self.score(&*detector)?;
                let figures = evaluate::evaluate(&scores, &self.images, self.spec.identity.eval)?;
                judged.push((&one.folder, scores, figures));
                judged.len() - 1
            };
            let (selection, step) = (one.selection.clone(), one.epoch.map(|epoch| epoch as u64));
            evaluations.push((at, Evaluation { selection, step, ..judged[at].2.clone() }));
        }
        // One detector's worth: what it takes to use the result.
        let score = started.elapsed().as_secs_f64() / judged.len() as f64;
        for (selection, (at, _)) in report::Selection::ALL.into_iter().zip(&evaluations).skip(1) {
            if *at != evaluations[0].0 {
                let path = finished.join(format!("scores-{}.csv", selection.word()));
                evaluate::table(&judged[*at].1, &self.images).write(&path)?;
            }
        }
        self.keep_detectors(chosen, finished)?;
        let list = serde_json::to_string(&self.images.list())
            .map_err(|source| Error::Message { what: "split.json", source })?;
        write_atomic(&finished.join("split.json"), list.as_bytes())?;

        let scores = &judged[evaluations[0].0].1;
        let pictures = pictures::pictures(scores, &self.images)?;
        let mut evaluations = evaluations.into_iter().map(|(_, evaluation)| evaluation);
        let results =
            Results { faithful: evaluations.next(), honest: evaluations.next(), last: evaluations.next() };
        let (train, test, anomalous) = self.images.counts();
        let mut cell = Cell {
            terms: evaluate::terms(scores, &self.images)?,
            seconds: Some(Seconds { fit, score }),
            peak_memory_bytes: memory::peak_bytes(),
            published: self.spec.published.as_ref().map(|figure| figure.beside(&results)),
            results,
            curves,
            pictures: pictures.shown,
            map_scale: pictures.scale,
            ..self.spec.record(Status::Ok, None)
        };
        cell.provenance.precision_error =
            Some(precision::measured_error(self.spec.identity.precision, &self.device)?);
        cell.provenance.train_images = Some(train);
        cell.provenance.test_images = Some(test);
        cell.provenance.test_anomalous = Some(anomalous);
        Ok(CellFiles { cell, scores: Some(evaluate::table(scores, &self.images)), pictures: pictures.files })
    }

    fn score(&self, detector: &dyn Detector) -> Result<Scores, MethodError> {
        let steps = Some(self.images.len());
        self.observer.event(&Event::Phase { name: "score".to_owned(), steps });
        let mut each = |done: usize| self.observer.event(&Event::Step { step: done.saturating_sub(1) });
        evaluate::score(detector, &self.images, self.cancellation, &mut each)
    }

    /// Keeps the detectors beside the result if that was asked for; equal ones are kept under each of their names.
    fn keep_detectors(&self, chosen: &Three, finished: &Path) -> Result<(), Error> {
        if !self.spec.save_detectors {
            return Ok(());
        }
        for (selection, one) in report::Selection::ALL.into_iter().zip(chosen) {
            let to = finished.join("detectors").join(selection.word());
            std::fs::create_dir_all(&to).map_err(|e| Error::io(&to, "can't make the folder", e))?;
            let listing =
                std::fs::read_dir(&one.folder).map_err(|e| Error::io(&one.folder, "can't list", e))?;
            for item in listing {
                let item = item.map_err(|e| Error::io(&one.folder, "can't list", e))?;
                let path = to.join(item.file_name());
                std::fs::copy(item.path(), &path).map_err(|e| Error::io(&path, "can't write", e))?;
            }
        }
        Ok(())
    }
}

/// Whether two folders hold one detector: their manifests agree, the hash of the tensors among it.
fn is_same_detector(a: &Path, b: &Path) -> Result<bool, Error> {
    let manifest = |folder: &Path| {
        let path = folder.join("detector.json");
        std::fs::read(&path).map_err(|e| Error::io(&path, "can't read", e))
    };
    Ok(a == b || manifest(a)? == manifest(b)?)
}

impl Evidence for Running<'_> {
    fn validation(
        &self,
        images: ValidationImages,
        batch: usize,
    ) -> Result<Box<dyn Iterator<Item = Result<Images, MethodError>> + '_>, MethodError> {
        self.images.validation(images, batch)
    }

    fn test_metric(&self, detector: &dyn Detector, metric: TestMetric) -> Result<f64, MethodError> {
        let scores = evaluate::score(detector, &self.images, self.cancellation, &mut |_| ())?;
        evaluate::test_metric(&scores, &self.images, self.spec.identity.eval, metric)
            .map_err(|e| MethodError::failed("selection", e))
    }
}

/// Notes what a fit says in the journal, and passes it on.
struct Listener {
    journal: Arc<Journal>,
    next: Arc<dyn Observer>,
}

impl Observer for Listener {
    fn event(&self, event: &Event) {
        self.journal.note(event);
        self.next.event(event);
    }
}
