//! Keeping, from one fit, the reference's choice and an honest one.
//!
//! What was kept so far lies in the cell's working folder and survives a killed process: the state file and the detector
//! it names are replaced so that at any moment they belong together. A fit that goes on from its checkpoint offers
//! epochs again that were already seen; those are passed over, because the same epoch gives the same bits.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anomaly_core::{
    Criterion, DetectorWriter, Flow, Harness, Images, Info, MethodError, Offer, Precision, Selection,
    TestMetric, TrainingFingerprint, ValidationImages, write_atomic,
};
use image_prep::Preprocess;
use report::CurvePoint;
use serde::{Deserialize, Serialize};

use crate::Error;
use crate::layout::remove_folder;

/// Images or figures that a criterion needs and only the harness has.
pub(crate) trait Evidence {
    /// The batches of the validation images, `batch` images each.
    fn validation(
        &self,
        images: ValidationImages,
        batch: usize,
    ) -> Result<Box<dyn Iterator<Item = Result<Images, MethodError>> + '_>, MethodError>;

    /// A figure of a detector over the whole test set.
    fn test_metric(
        &self,
        detector: &dyn anomaly_core::Detector,
        metric: TestMetric,
    ) -> Result<f64, MethodError>;
}

/// What is written into each detector's manifest.
#[derive(Debug, Clone)]
pub(crate) struct Imprint {
    pub(crate) info: Info,
    pub(crate) preprocess: Preprocess,
    pub(crate) precision: Precision,
    pub(crate) seed: u64,
    pub(crate) training: TrainingFingerprint,
}

impl Imprint {
    /// Saves `detector` to `folder`, in place of whatever an interrupted attempt left there.
    pub(crate) fn save(
        &self,
        detector: &dyn anomaly_core::Detector,
        folder: &Path,
    ) -> Result<(), MethodError> {
        remove_folder(folder).map_err(|e| MethodError::failed("selection", e))?;
        let mut writer = DetectorWriter::new(
            folder,
            &self.info,
            &self.preprocess,
            self.precision,
            self.seed,
            self.training.clone(),
        );
        detector.save(&mut writer)?;
        Ok(writer.finish()?)
    }
}

/// Which of the two choices.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    Faithful,
    Honest,
}

/// An offer that is kept.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub(crate) struct Kept {
    /// The epoch it was offered at, 1-based.
    pub(crate) epoch: usize,
    /// The loss or metric it was kept for.
    pub(crate) value: f64,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct State {
    /// The last epoch that was looked at.
    seen: usize,
    faithful: Option<Kept>,
    honest: Option<Kept>,
    /// What was looked at: name of the figure, epoch, value.
    history: BTreeMap<String, BTreeMap<u64, f64>>,
}

/// The harness's side of a fit's offers.
pub(crate) struct Selector<'a> {
    folder: PathBuf,
    state: State,
    criteria: Selection,
    imprint: Imprint,
    evidence: &'a dyn Evidence,
}

const STATE: &str = "selection.json";
/// The curve of the loss on held-out images.
pub(crate) const LOSS_ON_HELD_OUT: &str = "loss on held-out images";

impl<'a> Selector<'a> {
    /// A selector that keeps its state in the working folder `work`, and goes on from what is there.
    pub(crate) fn open(
        work: &Path,
        criteria: Selection,
        imprint: Imprint,
        evidence: &'a dyn Evidence,
    ) -> Result<Self, Error> {
        let path = work.join(STATE);
        let state = if path.exists() {
            let text = std::fs::read_to_string(&path).map_err(|e| Error::io(&path, "can't read", e))?;
            serde_json::from_str(&text).map_err(|source| Error::Message { what: "selection.json", source })?
        } else {
            State::default()
        };
        Ok(Self { folder: work.to_owned(), state, criteria, imprint, evidence })
    }

    /// What is kept in `role`; `None` if its criterion is [`Criterion::Last`] or nothing fitted it.
    pub(crate) fn kept(&self, role: Role) -> Option<Kept> {
        match role {
            Role::Faithful => self.state.faithful,
            Role::Honest => self.state.honest,
        }
    }

    /// The figures that choices were made by, as curves over epochs.
    pub(crate) fn history(&self) -> impl Iterator<Item = (&str, Vec<CurvePoint>)> {
        self.state.history.iter().map(|(name, points)| {
            (name.as_str(), points.iter().map(|(&epoch, &value)| CurvePoint(epoch, value)).collect())
        })
    }

    /// Where the detector of `epoch` lies, if it is kept.
    pub(crate) fn detector(work: &Path, epoch: usize) -> PathBuf {
        work.join("kept").join(format!("epoch-{epoch}"))
    }

    fn look(
        &mut self,
        epoch: usize,
        train_loss: Option<f64>,
        offer: &mut dyn Offer,
    ) -> Result<(), MethodError> {
        let mut judged = Judged::default();
        let mut next = self.state.clone();
        next.seen = epoch;
        for (role, criterion) in
            [(Role::Faithful, self.criteria.faithful), (Role::Honest, self.criteria.honest)]
        {
            let Some(value) = judged.value(criterion, train_loss, offer, self.evidence)? else { continue };
            if let Some(name) = curve(criterion)
                && value.is_finite()
            {
                next.history.entry(name.to_owned()).or_default().insert(epoch as u64, value);
            }
            if is_better(criterion, self.kept(role).map(|kept| kept.value), value) {
                let kept = Some(Kept { epoch, value });
                match role {
                    Role::Faithful => next.faithful = kept,
                    Role::Honest => next.honest = kept,
                }
            }
        }
        let folder = Self::detector(&self.folder, epoch);
        if [next.faithful, next.honest].into_iter().flatten().any(|kept| kept.epoch == epoch) {
            let detector = match judged.detector {
                Some(detector) => detector,
                None => offer.detector()?,
            };
            self.imprint.save(detector.as_ref(), &folder)?;
        }
        // The detector is whole before the state names it, and what it replaces goes only after.
        let text = serde_json::to_string(&next).map_err(|e| MethodError::failed("selection", e))?;
        write_atomic(&self.folder.join(STATE), text.as_bytes())?;
        self.state = next;
        self.remove_unkept().map_err(|e| MethodError::failed("selection", e))
    }

    fn remove_unkept(&self) -> Result<(), Error> {
        let Ok(listing) = std::fs::read_dir(self.folder.join("kept")) else { return Ok(()) };
        let needed: Vec<PathBuf> = [self.state.faithful, self.state.honest]
            .into_iter()
            .flatten()
            .map(|kept| Self::detector(&self.folder, kept.epoch))
            .collect();
        for item in listing {
            let path = item.map_err(|e| Error::io(&self.folder, "can't list kept detectors", e))?.path();
            if !needed.contains(&path) {
                remove_folder(&path)?;
            }
        }
        Ok(())
    }
}

impl Harness for Selector<'_> {
    fn offer(
        &mut self,
        epoch: usize,
        train_loss: Option<f64>,
        offer: &mut dyn Offer,
    ) -> Result<Flow, MethodError> {
        if epoch > self.state.seen {
            self.look(epoch, train_loss, offer)?;
        }
        Ok(Flow::Continue)
    }
}

/// The figures of one offer, each computed at most once.
#[derive(Default)]
struct Judged {
    losses: Vec<(ValidationImages, usize, f64)>,
    detector: Option<Box<dyn anomaly_core::Detector>>,
    metrics: Vec<(TestMetric, f64)>,
}

impl Judged {
    /// The figure that `criterion` looks at; `None` if it looks at none.
    fn value(
        &mut self,
        criterion: Criterion,
        train_loss: Option<f64>,
        offer: &mut dyn Offer,
        evidence: &dyn Evidence,
    ) -> Result<Option<f64>, MethodError> {
        match criterion {
            Criterion::LowestValidationLoss { on, batch, .. } => {
                if let Some((.., loss)) = self.losses.iter().find(|(i, b, _)| (*i, *b) == (on, batch)) {
                    return Ok(Some(*loss));
                }
                let loss = validation_loss(evidence.validation(on, batch)?, offer)?;
                self.losses.push((on, batch, loss));
                Ok(Some(loss))
            }
            Criterion::LowestTrainingLoss => {
                train_loss.map(Some).ok_or_else(|| missing("a training loss", "offers without one"))
            }
            Criterion::HighestOnTest { metric, decimals } => {
                let known = self.metrics.iter().find(|(m, _)| *m == metric).map(|(_, value)| *value);
                let value = if let Some(value) = known {
                    value
                } else {
                    let detector = match self.detector.take() {
                        Some(detector) => detector,
                        None => offer.detector()?,
                    };
                    let value = evidence.test_metric(detector.as_ref(), metric)?;
                    self.detector = Some(detector);
                    self.metrics.push((metric, value));
                    value
                };
                Ok(Some(decimals.map_or(value, |decimals| rounded(value, decimals))))
            }
            // `Last`, and criteria that a newer contract may add: those must be handled here first.
            _ => Ok(None),
        }
    }
}

/// The unweighted mean over batches.
fn validation_loss(
    batches: Box<dyn Iterator<Item = Result<Images, MethodError>> + '_>,
    offer: &mut dyn Offer,
) -> Result<f64, MethodError> {
    let (mut sum, mut count) = (0.0, 0_usize);
    for images in batches {
        let loss = offer.validation_loss(&images?)?;
        sum += loss.ok_or_else(|| missing("a validation loss", "a method that has none"))?;
        count += 1;
    }
    if count == 0 {
        return Err(missing("validation images", "none"));
    }
    Ok(sum / count as f64)
}

fn missing(expected: &str, found: &str) -> MethodError {
    MethodError::failed("selection", format!("the method's criterion needs {expected}, found {found}"))
}

/// Whether an offer with `value` replaces a kept one with `best`. NaN never does.
fn is_better(criterion: Criterion, best: Option<f64>, value: f64) -> bool {
    match criterion {
        Criterion::LowestValidationLoss { min_delta, .. } => {
            best.unwrap_or(f64::INFINITY) - min_delta > value
        }
        Criterion::LowestTrainingLoss => best.unwrap_or(f64::INFINITY) > value,
        Criterion::HighestOnTest { .. } => best.unwrap_or(f64::NEG_INFINITY) < value,
        _ => false,
    }
}

fn rounded(value: f64, decimals: u32) -> f64 {
    let scale = 10_f64.powi(decimals.min(15) as i32);
    (value * scale).round() / scale
}

/// The curve that a criterion's figures make, unless the fit itself tells it.
fn curve(criterion: Criterion) -> Option<&'static str> {
    match criterion {
        Criterion::LowestValidationLoss { on: ValidationImages::TestNormals, .. } => {
            Some("loss on normal test images")
        }
        Criterion::LowestValidationLoss { on: ValidationImages::HeldOut, .. } => Some(LOSS_ON_HELD_OUT),
        Criterion::HighestOnTest { metric: TestMetric::ImageAuroc, .. } => Some("image AUROC on test images"),
        Criterion::HighestOnTest { metric: TestMetric::PixelAuroc, .. } => Some("pixel AUROC on test images"),
        _ => None,
    }
}

/// A criterion in words, for records.
pub(crate) fn words(criterion: Criterion) -> String {
    match criterion {
        Criterion::Last => "the end of training".to_owned(),
        Criterion::LowestValidationLoss { on, min_delta, .. } => {
            let images = match on {
                ValidationImages::TestNormals => "the normal test images (an oracle)",
                ValidationImages::HeldOut => "held-out training images",
            };
            let margin = if min_delta == 0.0 { String::new() } else { format!(", by more than {min_delta}") };
            format!("the lowest loss on {images}{margin}")
        }
        Criterion::LowestTrainingLoss => "the lowest training loss".to_owned(),
        Criterion::HighestOnTest { metric, decimals } => {
            let metric = match metric {
                TestMetric::ImageAuroc => "image AUROC",
                TestMetric::PixelAuroc => "pixel AUROC",
            };
            let rounding = decimals.map_or(String::new(), |d| format!(", rounded to {d} decimals"));
            format!("the highest {metric} on the test images{rounding} (an oracle)")
        }
        other => format!("{other:?}"),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::cell::Cell;
    use std::collections::BTreeSet;
    use std::path::Path;

    use anomaly_core::{
        Criterion, Detector, DetectorReader, DetectorWriter, Harness, Images, Info, MethodError, Offer,
        Precision, Prediction, Selection, TestMetric, TrainingFingerprint, ValidationImages,
    };
    use candle_core::{DType, Device, Tensor};
    use image_prep::{Filter, HALF, Preprocess};
    use report::CurvePoint;

    use super::{Evidence, Imprint, Role, Selector};

    const INFO: Info = Info {
        name: "toy",
        title: "Toy",
        paper: None,
        makes_maps: false,
        default_backbone: None,
        revision: 1,
    };

    struct Toy(f64);

    impl Detector for Toy {
        fn info(&self) -> &Info {
            &INFO
        }
        fn score(&self, _: &Images) -> Result<Prediction, MethodError> {
            Ok(Prediction::from_scores(vec![self.0]))
        }
        fn save(&self, writer: &mut DetectorWriter) -> Result<(), MethodError> {
            writer.tensor("value", &Tensor::new(&[self.0], &Device::Cpu).unwrap())?;
            Ok(writer.state(&self.0)?)
        }
    }

    /// Offers whose loss on a batch is its number of images times `loss`, and whose detector holds `loss`.
    struct ToyOffer {
        loss: f64,
        detectors: usize,
    }

    impl Offer for ToyOffer {
        fn validation_loss(&mut self, images: &Images) -> Result<Option<f64>, MethodError> {
            Ok(Some(self.loss * images.len() as f64))
        }
        fn detector(&mut self) -> Result<Box<dyn Detector>, MethodError> {
            self.detectors += 1;
            Ok(Box::new(Toy(self.loss)))
        }
    }

    /// Three validation images; a test metric of one minus what the detector holds.
    #[derive(Default)]
    struct ToyEvidence {
        asked: Cell<usize>,
    }

    impl Evidence for ToyEvidence {
        fn validation(
            &self,
            _: ValidationImages,
            batch: usize,
        ) -> Result<Box<dyn Iterator<Item = Result<Images, MethodError>> + '_>, MethodError> {
            self.asked.set(self.asked.get() + 1);
            let sizes: Vec<usize> = [0, 1, 2].chunks(batch).map(<[i32]>::len).collect();
            Ok(Box::new(sizes.into_iter().map(|n| {
                let pixels = Tensor::zeros((n, 3, 1, 1), DType::F32, &Device::Cpu).unwrap();
                Ok(Images::new((0..n).map(|i| i.to_string()).collect(), pixels).unwrap())
            })))
        }
        fn test_metric(&self, detector: &dyn Detector, _: TestMetric) -> Result<f64, MethodError> {
            let image = Tensor::zeros((1, 3, 1, 1), DType::F32, &Device::Cpu).unwrap();
            Ok(1.0 - detector.score(&Images::new(vec!["i".into()], image)?)?.scores[0])
        }
    }

    fn imprint() -> Imprint {
        Imprint {
            info: INFO,
            preprocess: Preprocess::square(32, Filter::Bilinear, HALF, HALF),
            precision: Precision::F32,
            seed: 0,
            training: TrainingFingerprint { images: 1, sha256: "ab".into() },
        }
    }

    fn validation(batch: usize, min_delta: f64) -> Criterion {
        Criterion::LowestValidationLoss { on: ValidationImages::TestNormals, batch, min_delta }
    }

    /// Offers `losses` at epochs 1, 2, … and gives the epochs kept for the faithful and the honest choice.
    fn kept(faithful: Criterion, honest: Criterion, losses: &[f64]) -> [Option<usize>; 2] {
        let work = tempfile::tempdir().unwrap();
        let evidence = ToyEvidence::default();
        let mut selector =
            Selector::open(work.path(), Selection { faithful, honest }, imprint(), &evidence).unwrap();
        for (index, &loss) in losses.iter().enumerate() {
            selector.offer(index + 1, Some(loss), &mut ToyOffer { loss, detectors: 0 }).unwrap();
        }
        let roles = [Role::Faithful, Role::Honest].map(|role| selector.kept(role).map(|kept| kept.epoch));
        assert_eq!(folders(work.path()), roles.iter().flatten().copied().collect::<BTreeSet<_>>());
        for epoch in roles.into_iter().flatten() {
            let reader = DetectorReader::open(&Selector::detector(work.path(), epoch), &Device::Cpu).unwrap();
            assert_eq!(reader.state::<f64>().unwrap(), losses[epoch - 1]);
        }
        roles
    }

    fn folders(work: &Path) -> BTreeSet<usize> {
        let Ok(listing) = work.join("kept").read_dir() else { return BTreeSet::new() };
        let name =
            |item: std::io::Result<std::fs::DirEntry>| item.unwrap().file_name().into_string().unwrap();
        listing.map(|item| name(item).strip_prefix("epoch-").unwrap().parse().unwrap()).collect()
    }

    #[test]
    fn an_improvement_below_the_margin_does_not_count() {
        // Batches of 1: the loss is the offer's own. 0.5 -> 0.4995 is below the margin, 0.4985 from 0.5 is above it.
        let losses = [0.5, 0.4995, 0.4985, 0.499, f64::NAN, 0.4985];
        assert_eq!(kept(validation(1, 0.001), Criterion::Last, &losses), [Some(3), None]);
        assert_eq!(kept(validation(1, 0.0), Criterion::LowestTrainingLoss, &losses), [Some(3), Some(3)]);
        // Exactly the margin is not enough (binary fractions, so the difference is exact).
        assert_eq!(kept(validation(1, 0.25), Criterion::Last, &[1.0, 0.75]), [Some(1), None]);
        assert_eq!(kept(validation(1, 0.25), Criterion::Last, &[1.0, 0.75, 0.625]), [Some(3), None]);
    }

    #[test]
    fn a_loss_is_the_unweighted_mean_over_batches() {
        // Batches of 2 and 1 image: (2 + 1) / 2 times the offer's loss.
        let work = tempfile::tempdir().unwrap();
        let evidence = ToyEvidence::default();
        let criteria = Selection { faithful: validation(2, 0.0), honest: validation(2, 0.0) };
        let mut selector = Selector::open(work.path(), criteria, imprint(), &evidence).unwrap();
        let mut offer = ToyOffer { loss: 0.5, detectors: 0 };
        selector.offer(1, None, &mut offer).unwrap();
        assert_eq!(selector.kept(Role::Faithful).unwrap().value, 0.75);
        // Two criteria that look at the same figure cost one pass and one detector.
        assert_eq!((evidence.asked.get(), offer.detectors), (1, 1));
    }

    #[test]
    fn nothing_finite_keeps_nothing() {
        assert_eq!(kept(validation(1, 0.001), Criterion::LowestTrainingLoss, &[f64::NAN; 2]), [None, None]);
    }

    #[test]
    fn the_metric_is_rounded_before_it_is_compared_and_must_be_higher() {
        let metric = |decimals| Criterion::HighestOnTest { metric: TestMetric::ImageAuroc, decimals };
        let losses = [0.3, 0.2, 0.2, 0.1999];
        assert_eq!(kept(metric(None), metric(Some(3)), &losses), [Some(4), Some(2)]);
    }

    #[test]
    fn a_killed_fit_goes_on_with_what_it_kept_and_passes_over_what_it_saw() {
        let work = tempfile::tempdir().unwrap();
        let evidence = ToyEvidence::default();
        let criteria = Selection { faithful: validation(1, 0.0), honest: Criterion::LowestTrainingLoss };
        let mut first = Selector::open(work.path(), criteria, imprint(), &evidence).unwrap();
        for (epoch, loss) in [(1, 0.5), (2, 0.375)] {
            first.offer(epoch, Some(loss), &mut ToyOffer { loss, detectors: 0 }).unwrap();
        }
        // Killed here, while the detector of epoch 3 was being written: it is not named by the state.
        imprint().save(&Toy(0.1), &Selector::detector(work.path(), 3)).unwrap();
        let mut second = Selector::open(work.path(), criteria, imprint(), &evidence).unwrap();
        let asked = evidence.asked.get();
        let mut again = ToyOffer { loss: 0.375, detectors: 0 };
        second.offer(2, Some(0.375), &mut again).unwrap();
        assert_eq!((evidence.asked.get(), again.detectors), (asked, 0));
        second.offer(3, Some(0.125), &mut ToyOffer { loss: 0.125, detectors: 0 }).unwrap();
        second.offer(4, Some(0.25), &mut ToyOffer { loss: 0.25, detectors: 0 }).unwrap();
        assert_eq!(second.kept(Role::Faithful).map(|kept| kept.epoch), Some(3));
        assert_eq!(folders(work.path()), [3].into());
        let history: Vec<_> = second.history().collect();
        let points =
            [(1, 0.5), (2, 0.375), (3, 0.125), (4, 0.25)].map(|(epoch, loss)| CurvePoint(epoch, loss));
        assert_eq!(history, [("loss on normal test images", points.to_vec())]);
    }

    #[test]
    fn an_offer_without_the_figure_that_is_asked_for_is_an_error() {
        let work = tempfile::tempdir().unwrap();
        let evidence = ToyEvidence::default();
        let criteria = Selection { faithful: Criterion::LowestTrainingLoss, honest: Criterion::Last };
        let mut selector = Selector::open(work.path(), criteria, imprint(), &evidence).unwrap();
        let error =
            selector.offer(1, None, &mut ToyOffer { loss: 0.1, detectors: 0 }).unwrap_err().to_string();
        assert!(error.contains("needs a training loss"), "{error}");
    }
}
