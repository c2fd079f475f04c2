//! Scoring, saving and loading.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use anomaly_core::{
    Detector, DetectorReader, DetectorWriter, Images, Info, MethodConfig, MethodError, Prediction,
};
use candle_core::{Device, Tensor};
use faer::Mat;
use vit_backbone::{Block, Vit};

use crate::density::Gaussian;
use crate::error::finite;
use crate::network::{Descriptors, of_block};
use crate::whitening::Whitening;
use crate::{Config, Error, INFO};

/// What a fit of Transformaly gives.
///
/// An image's score is minus the sum of two log densities: of its whitened pre-trained descriptor (term `pretrained`)
/// and of its teacher-student descriptor (term `teacher_student`), each under a Gaussian of the training images.
#[derive(Debug)]
pub struct TransformalyDetector {
    config: Config,
    teacher: Arc<Vit>,
    /// Of the scored blocks only.
    students: Vec<Block>,
    densities: Densities,
    /// Training descriptors for the term `knn2`, (n, D).
    neighbours: Option<Mat<f64>>,
}

/// The two Gaussians, and the whitening before the first.
#[derive(Debug)]
pub(crate) struct Densities {
    pub(crate) whitening: Whitening,
    pub(crate) pretrained: Gaussian,
    pub(crate) teacher_student: Gaussian,
}

/// The log densities of one image.
pub(crate) struct LogDensities {
    pub(crate) pretrained: f64,
    pub(crate) teacher_student: f64,
}

impl Densities {
    /// Fits both on the training images' descriptors: `(n, D)` and, of the scored blocks, `(n, l)`.
    pub(crate) fn fit(
        pretrained: &[Vec<f64>],
        teacher_student: &[Vec<f64>],
        threshold: f64,
        regularisation: f64,
    ) -> Result<Self, Error> {
        let (whitening, _) = Whitening::fit(matrix(pretrained).as_ref(), threshold)?;
        let whitened = whitening.apply(matrix(pretrained).as_ref())?;
        Ok(Self {
            pretrained: Gaussian::fit(whitened.as_ref(), regularisation)?,
            teacher_student: Gaussian::fit(matrix(teacher_student).as_ref(), regularisation)?,
            whitening,
        })
    }

    pub(crate) fn of(&self, pretrained: &[f64], teacher_student: &[f64]) -> Result<LogDensities, Error> {
        let row = Mat::from_fn(1, pretrained.len(), |_, j| pretrained[j]);
        let white = self.whitening.apply(row.as_ref())?;
        let white: Vec<f64> = (0..white.ncols()).map(|j| white[(0, j)]).collect();
        Ok(LogDensities {
            pretrained: self.pretrained.log_density(&white)?,
            teacher_student: self.teacher_student.log_density(teacher_student)?,
        })
    }
}

/// Rows of equal length as a matrix.
pub(crate) fn matrix(rows: &[Vec<f64>]) -> Mat<f64> {
    Mat::from_fn(rows.len(), rows.first().map_or(0, Vec::len), |i, j| rows[i][j])
}

/// The sum of the `k` smallest squared Euclidean distances of `row` to the rows of `training`; of all, if there are
/// fewer.
pub(crate) fn nearest(training: &Mat<f64>, row: &[f64], k: usize) -> f64 {
    let mut distances: Vec<f64> = (0..training.nrows())
        .map(|i| row.iter().enumerate().map(|(j, v)| (v - training[(i, j)]).powi(2)).sum())
        .collect();
    distances.sort_unstable_by(f64::total_cmp);
    distances.iter().take(k).sum()
}

impl TransformalyDetector {
    pub(crate) fn fit(
        config: Config,
        teacher: Arc<Vit>,
        students: Vec<Block>,
        training: &Descriptors,
    ) -> Result<Self, Error> {
        let densities = Densities::fit(
            &training.pretrained,
            &training.teacher_student,
            config.whitening_threshold,
            config.covariance_regularisation,
        )?;
        let neighbours = config.knn2.then(|| matrix(&training.pretrained));
        Ok(Self { config, teacher, students, densities, neighbours })
    }

    /// The detector in an open directory, with `teacher` as its backbone. Its scores are those of the one that was
    /// saved, to the bit, on the same device.
    ///
    /// # Errors
    /// If the directory holds a detector of another method or backbone (both by name), or a part of it is missing or
    /// of another shape.
    pub fn load(reader: &DetectorReader, teacher: Arc<Vit>) -> Result<Self, MethodError> {
        reader.expect_method(INFO.name)?;
        reader.expect_backbone(&teacher.identity().name, &teacher.identity().sha256)?;
        let config: Config = reader.config()?;
        config.validate()?;
        let students: HashMap<String, Tensor> = reader
            .tensors()
            .iter()
            .filter_map(|(name, t)| Some((name.strip_prefix(STUDENT)?.to_owned(), t.clone())))
            .collect();
        let students = (config.skip_blocks..teacher.depth())
            .map(|index| {
                let moved = of_block(&students, index)
                    .into_iter()
                    .map(|(name, t)| Ok((name, t.to_device(teacher.device())?)))
                    .collect::<Result<_, Error>>()?;
                Ok(Block::from_tensors(*teacher.block(index)?.config(), &moved)?)
            })
            .collect::<Result<Vec<_>, Error>>()?;
        let vector = |name: &str| -> Result<Vec<f64>, MethodError> {
            Ok(reader.tensor(name)?.to_vec1::<f64>().map_err(Error::from)?)
        };
        let rows = |name: &str| -> Result<Mat<f64>, MethodError> {
            Ok(matrix(&reader.tensor(name)?.to_vec2::<f64>().map_err(Error::from)?))
        };
        let gaussian = |name: &str| -> Result<Gaussian, MethodError> {
            let mean = vector(&format!("{name}.mean"))?;
            let covariance = rows(&format!("{name}.covariance"))?;
            same_length(mean.len(), covariance.nrows())?;
            same_length(mean.len(), covariance.ncols())?;
            Ok(Gaussian::new(mean, covariance)?)
        };
        let whitening = Whitening {
            mean: vector("whitening.mean")?,
            components: rows("whitening.components")?,
            variances: vector("whitening.variances")?,
        };
        same_length(teacher.dim(), whitening.mean.len())?;
        same_length(teacher.dim(), whitening.components.ncols())?;
        same_length(whitening.variances.len(), whitening.components.nrows())?;
        let densities = Densities {
            pretrained: gaussian("pretrained")?,
            teacher_student: gaussian("teacher_student")?,
            whitening,
        };
        same_length(densities.whitening.variances.len(), densities.pretrained.mean.len())?;
        same_length(students.len(), densities.teacher_student.mean.len())?;
        let neighbours = if config.knn2 { Some(rows("neighbours")?) } else { None };
        Ok(Self { config, teacher, students, densities, neighbours })
    }

    /// The settings it was trained with.
    pub fn config(&self) -> &Config {
        &self.config
    }

    fn check_size(&self, images: &Images) -> Result<(), Error> {
        let (_, _, height, width) = images.pixels().dims4()?;
        let expected = self.config.image_size;
        if (height, width) == (expected, expected) {
            Ok(())
        } else {
            Err(Error::ImageSize { expected, height, width })
        }
    }
}

fn same_length(expected: usize, found: usize) -> Result<(), Error> {
    if expected == found { Ok(()) } else { Err(Error::Width { expected, found }) }
}

/// In front of the students' tensors: `student.<block>.<name>`.
const STUDENT: &str = "student.";

impl Detector for TransformalyDetector {
    fn info(&self) -> &Info {
        &INFO
    }

    fn score(&self, images: &Images) -> Result<Prediction, MethodError> {
        images.require_finite()?;
        self.check_size(images)?;
        let (mut scores, mut pretrained, mut teacher_student, mut knn2) = (vec![], vec![], vec![], vec![]);
        let found = if images.is_empty() {
            Descriptors::default()
        } else {
            Descriptors::of(&self.teacher, &self.students, images.pixels())?
        };
        for ((id, z_p), z_t) in images.ids().iter().zip(&found.pretrained).zip(&found.teacher_student) {
            let log = self.densities.of(z_p, z_t)?;
            // The reference scores normality; here higher is more anomalous.
            pretrained.push(-log.pretrained);
            teacher_student.push(-log.teacher_student);
            scores.push(finite(
                || format!("the score of image `{id}`"),
                -(log.pretrained + log.teacher_student),
            )?);
            if let Some(training) = &self.neighbours {
                knn2.push(nearest(training, z_p, 2));
            }
        }
        let mut terms = BTreeMap::from([
            ("pretrained".to_owned(), pretrained),
            ("teacher_student".to_owned(), teacher_student),
        ]);
        if self.neighbours.is_some() {
            terms.insert("knn2".to_owned(), knn2);
        }
        Ok(Prediction { terms, ..Prediction::from_scores(scores) })
    }

    fn save(&self, writer: &mut DetectorWriter) -> Result<(), MethodError> {
        writer.config(&self.config)?;
        let identity = self.teacher.identity();
        writer.backbone(&identity.name, &identity.sha256);
        for (offset, student) in self.students.iter().enumerate() {
            let index = self.config.skip_blocks + offset;
            for (name, tensor) in student.named_tensors().map_err(Error::from)? {
                writer.tensor(&format!("{STUDENT}{index}.{name}"), &tensor)?;
            }
        }
        let vector = |values: &[f64]| Ok::<_, Error>(Tensor::new(values, &Device::Cpu)?);
        let rows = |matrix: &Mat<f64>| {
            let values: Vec<f64> =
                (0..matrix.nrows()).flat_map(|i| (0..matrix.ncols()).map(move |j| matrix[(i, j)])).collect();
            Ok::<_, Error>(Tensor::from_vec(values, (matrix.nrows(), matrix.ncols()), &Device::Cpu)?)
        };
        let Densities { whitening, pretrained, teacher_student } = &self.densities;
        writer.tensor("whitening.mean", &vector(&whitening.mean)?)?;
        writer.tensor("whitening.components", &rows(&whitening.components)?)?;
        writer.tensor("whitening.variances", &vector(&whitening.variances)?)?;
        for (name, gaussian) in [("pretrained", pretrained), ("teacher_student", teacher_student)] {
            writer.tensor(&format!("{name}.mean"), &vector(&gaussian.mean)?)?;
            writer.tensor(&format!("{name}.covariance"), &rows(&gaussian.covariance)?)?;
        }
        if let Some(training) = &self.neighbours {
            writer.tensor("neighbours", &rows(training)?)?;
        }
        Ok(())
    }
}
