//! A cell's images: what its method learns from, and what it is judged by.

use std::path::Path;
use std::sync::Arc;

use anomaly_core::{DataError, EvalSpec, Images, MethodError, ValidationImages, write_atomic};
use datasets::{
    CheckReport, Dataset, LoadOptions, Problem, ProblemKind, Split, SplitOptions, Task, TrainingSet,
};
use image_prep::{Mask, Preprocess, Rgb8};
use serde::{Deserialize, Serialize};

use crate::evaluate::Defects;
use crate::test_set::{Batches, TestSet};
use crate::{Error, Identity};

/// What the training images that are kept for later epochs may hold: those of small settings, which would else be decoded
/// and drawn again in each of many epochs.
const KEPT_BYTES: usize = 256 << 20;

/// A data set, opened.
#[derive(Clone)]
pub(crate) struct Source {
    pub(crate) dataset: Arc<dyn Dataset>,
    /// If problems of the data were accepted, the ids of the items that are left out for them.
    pub(crate) left_out: Option<Vec<String>>,
}

impl Source {
    /// Opens the data set registered as `name` in `root` for a cell whose plan found it sound, or accepted what is wrong
    /// with it and left these items out.
    pub(crate) fn open(name: &str, root: Option<&Path>, left_out: Option<&[String]>) -> Result<Self, Error> {
        let Some(ids) = left_out else {
            return Ok(Self { dataset: datasets::open(name, root)?.into(), left_out: None });
        };
        let dataset = datasets::without(datasets::open_unchecked(name, root)?.into(), ids);
        Ok(Self { dataset, left_out: Some(ids.to_vec()) })
    }

    /// Opens the data set registered as `name` in `root` and looks at every image, unless it did before: what was found
    /// is kept in the folder `checks` under the hash of the data set's contents.
    ///
    /// Data with faults are refused, or, with `accept`, used without the items that can't be.
    pub(crate) fn checked(
        name: &str,
        root: Option<&Path>,
        checks: Option<&Path>,
        accept: bool,
    ) -> Result<Self, Error> {
        let dataset: Arc<dyn Dataset> = datasets::open_unchecked(name, root)?.into();
        let mut report =
            CheckReport { dataset: name.to_owned(), images: 0, problems: dataset.problems().to_vec() };
        // What is part of the program was looked at when it was made.
        let lies_somewhere = datasets::ENTRIES.iter().any(|known| known.name == name && known.root.is_some());
        if lies_somewhere {
            report.problems.extend(content(&*dataset, checks)?);
        }
        for count in report.problems.iter().filter(|problem| problem.kind == ProblemKind::Counts) {
            tracing::warn!("{count}");
        }
        let faults = report.faults().count();
        if faults == 0 {
            return Ok(Self { dataset, left_out: None });
        }
        if !accept {
            let first = report.faults().next().map(ToString::to_string).unwrap_or_default();
            let root = root.map(Path::to_owned);
            return Err(Error::DataFaults { dataset: name.to_owned(), root, faults, first });
        }
        let ids = report.unusable();
        tracing::warn!(dataset = name, faults, left_out = ids.len(), "problems of the data are accepted");
        Ok(Self { dataset: datasets::without(dataset, &ids), left_out: Some(ids) })
    }

    /// The data set and the split that `identity` describes: this one's, or a rehearsal's that holds training images alone.
    pub(crate) fn of_cell(&self, identity: &Identity) -> Result<(Self, Split), Error> {
        let Task { protocol, shots } = identity.protocol.parse()?;
        let options = SplitOptions {
            shots,
            train_limit: identity.train_limit,
            test_limit: identity.test_limit,
            held_out_share: identity.held_out,
            seed: identity.seed,
        };
        let Some(rehearsal) = identity.rehearsal else {
            return Ok((self.clone(), Split::new(&*self.dataset, protocol, &identity.category, &options)?));
        };
        let split = Split::for_training(&*self.dataset, protocol, &identity.category, &options)?;
        let (dataset, mut split) = datasets::rehearsal(&self.dataset, &split, rehearsal.seed)?;
        if rehearsal.by_loss {
            // They are held-out training images, here as there.
            split.held_out = split.test_normals();
        }
        Ok((Self { dataset, left_out: self.left_out.clone() }, split))
    }
}

/// What is wrong with the images and masks of `dataset`: from the folder `checks` if the same contents were looked at
/// before. Of files that can't be read at all nothing can be kept.
fn content(dataset: &dyn Dataset, checks: Option<&Path>) -> Result<Vec<Problem>, Error> {
    let fingerprint = checks.and_then(|_| datasets::content_fingerprint(dataset).ok());
    let (Some(checks), Some(fingerprint)) = (checks, fingerprint) else {
        return Ok(datasets::check_content(dataset).problems);
    };
    let path = checks.join(format!("{}-{}.json", dataset.card().name, &fingerprint[..16]));
    // Whatever is there and can't be read is as good as not there.
    let kept = std::fs::read(&path).ok().and_then(|text| serde_json::from_slice::<Kept>(&text).ok());
    if let Some(kept) = kept.filter(|kept| kept.fingerprint == fingerprint) {
        return Ok(kept.report.problems);
    }
    let report = datasets::check_content(dataset);
    std::fs::create_dir_all(checks).map_err(|e| Error::io(checks, "can't make the folder", e))?;
    let kept = Kept { fingerprint, report };
    let text = serde_json::to_vec_pretty(&kept).map_err(|source| Error::Message { what: "check", source })?;
    write_atomic(&path, &text)?;
    Ok(kept.report.problems)
}

/// What was found in contents of this hash.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Kept {
    fingerprint: String,
    report: CheckReport,
}

/// The images of one cell, prepared for its method.
pub(crate) struct CellImages {
    source: Source,
    split: Split,
    preprocess: Preprocess,
    test: datasets::TestSet,
}

/// `split.json`: the ids of a cell's images, in the order the method and the metrics see them.
#[derive(Debug, Serialize)]
pub(crate) struct SplitList<'a> {
    train: Vec<&'a str>,
    held_out: Vec<&'a str>,
    test: Vec<&'a str>,
}

impl CellImages {
    /// The images of `split`, prepared by `preprocess`.
    pub(crate) fn new(source: Source, split: Split, preprocess: &Preprocess) -> Result<Self, Error> {
        let test = datasets::TestSet::new(source.dataset.clone(), &split, preprocess.clone())?;
        Ok(Self { source, split, preprocess: preprocess.clone(), test })
    }

    /// What the method learns from.
    pub(crate) fn training(&self) -> Result<TrainingSet, Error> {
        let items = self.split.train.clone();
        let set = TrainingSet::new(self.source.dataset.clone(), items, self.preprocess.clone())?;
        // Methods that train from scratch go through it hundreds of times.
        Ok(set.with_options(LoadOptions { cache_bytes: KEPT_BYTES, ..LoadOptions::default() })?)
    }

    /// Whether there are images that the fit does not see.
    pub(crate) fn has_held_out(&self) -> bool {
        !self.split.held_out.is_empty()
    }

    /// Batches of the held-out images, or of the normal test images, in order.
    pub(crate) fn validation(
        &self,
        images: ValidationImages,
        batch: usize,
    ) -> Result<Box<dyn Iterator<Item = Result<Images, MethodError>>>, MethodError> {
        let items = match images {
            ValidationImages::HeldOut => self.split.held_out.clone(),
            ValidationImages::TestNormals => self.split.test_normals(),
        };
        let chosen = Split { test: items, anomalous: Vec::new(), ..self.split.clone() };
        let images = datasets::TestSet::new(self.source.dataset.clone(), &chosen, self.preprocess.clone())
            .map_err(DataError::new)?;
        Ok(Box::new(images.batches(batch).map(|images| Ok(images.map_err(DataError::new)?))))
    }

    /// Numbers of training images, test images, and anomalous ones among these.
    pub(crate) fn counts(&self) -> (usize, usize, usize) {
        let anomalous = self.split.anomalous.iter().filter(|anomalous| **anomalous).count();
        (self.split.train.len(), self.split.test.len(), anomalous)
    }

    /// The ids of all images.
    pub(crate) fn list(&self) -> SplitList<'_> {
        let ids =
            |items: &[usize]| items.iter().map(|&i| self.source.dataset.items()[i].id.as_str()).collect();
        SplitList {
            train: ids(&self.split.train),
            held_out: ids(&self.split.held_out),
            test: ids(&self.split.test),
        }
    }
}

impl TestSet for CellImages {
    fn len(&self) -> usize {
        self.test.len()
    }

    fn id(&self, index: usize) -> &str {
        self.test.truth().id(index)
    }

    fn anomalous(&self, index: usize) -> bool {
        self.split.anomalous[index]
    }

    fn batches(&self, batch: usize) -> Batches<'_> {
        Box::new(self.test.batches(batch).map(|images| images.map_err(DataError::new)))
    }

    fn original(&self, index: usize) -> Result<Rgb8, DataError> {
        self.source.dataset.image(self.split.test[index]).map_err(DataError::new)
    }

    fn has_masks(&self) -> bool {
        self.test.truth().has_masks()
    }

    fn mask(&self, index: usize, eval: EvalSpec) -> Result<Mask, DataError> {
        self.test.truth().mask(index, &eval).map_err(DataError::new)
    }

    fn graded_defect(&self, index: usize) -> Option<String> {
        if self.test.truth().saturations(index).is_empty() {
            return None;
        }
        self.source.dataset.items()[self.split.test[index]].defect.clone()
    }

    fn defects(&self, index: usize) -> Result<Option<Defects>, DataError> {
        let truth = self.test.truth();
        let table = truth.saturations(index);
        if table.is_empty() {
            return Ok(None);
        }
        let size = truth.size(index).map_err(DataError::new)?;
        let stored = truth.stored_masks(index).map_err(DataError::new)?;
        Defects::new(size, self.graded_defect(index), &stored, table).map(Some)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::path::Path;

    use super::Source;

    fn write(root: &Path, name: &str, level: u8) {
        let path = root.join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        // A grey picture of 1 x 1 as a bitmap: two headers, a palette of one colour, one padded row.
        let mut bytes = b"BM".to_vec();
        bytes.extend([62_u32, 0, 58, 40, 1, 1].iter().flat_map(|v| v.to_le_bytes()));
        bytes.extend([1_u16, 8].iter().flat_map(|v| v.to_le_bytes()));
        bytes.extend([0_u32, 4, 0, 0, 1, 0].iter().flat_map(|v| v.to_le_bytes()));
        bytes.extend([level, level, level, 0, 0, 0, 0, 0]);
        std::fs::write(path, bytes).unwrap();
    }

    #[test]
    fn a_run_starts_on_data_that_passed_or_were_accepted() {
        let root = tempfile::tempdir().unwrap();
        let checks = tempfile::tempdir().unwrap();
        for (at, name) in ["train/good/0", "train/good/1", "test/good/0", "test/cut/0"].iter().enumerate() {
            write(root.path(), &format!("nut/{name}.bmp"), at as u8);
        }
        let source = |accept| Source::checked("mvtec", Some(root.path()), Some(checks.path()), accept);
        assert_eq!(source(false).unwrap().left_out, None);
        let kept = || std::fs::read_dir(checks.path()).unwrap().count();
        assert_eq!(kept(), 1);
        source(false).unwrap();
        assert_eq!(kept(), 1);

        std::fs::write(root.path().join("nut/train/good/1.bmp"), b"BM").unwrap();
        write(root.path(), "nut/test/good/7.bmp", 0);
        let message = source(false).map(|_| ()).unwrap_err().to_string();
        assert!(message.contains("faults") && message.contains("--accept-data-problems"), "{message}");
        assert_eq!(kept(), 2);
        let accepted = source(true).unwrap();
        assert_eq!(accepted.left_out.as_deref(), Some(&["nut/train/good/1.bmp".to_owned()][..]));
        assert_eq!(accepted.dataset.items().len(), 4);
        let again = Source::open("mvtec", Some(root.path()), accepted.left_out.as_deref()).unwrap();
        assert_eq!(again.dataset.items(), accepted.dataset.items());
        assert!(Source::open("mvtec", Some(root.path()), None).is_err());
    }
}
