use conformance::{Case, HostTensor, Outputs, UnitError};

use super::config::CaseConfig;
use super::{columns, integers, put, rows, table, vector};
use crate::density::Gaussian;
use crate::detector::{Densities, matrix, nearest};
use crate::whitening::Whitening;

pub(super) fn whiten_pca(case: &Case) -> Result<Outputs, UnitError> {
    let config = CaseConfig::of(case)?;
    let (train, test) = (rows(case.input("in.train")?)?, rows(case.input("in.test")?)?);
    config.check_rows(train.len())?;
    if train.first().map(Vec::len) != Some(config.dim()?) {
        return Err(format!("dim: is {}, but the rows are of another width", config.dim()?).into());
    }
    let (mut whitening, spectrum) = Whitening::fit(matrix(&train).as_ref(), config.threshold()?)?;
    // The cases store each direction with its largest entry positive.
    for i in 0..whitening.components.nrows() {
        let width = whitening.components.ncols();
        let largest = (0..width)
            .map(|j| whitening.components[(i, j)])
            .fold(0.0_f64, |a, b| if b.abs() > a.abs() { b } else { a });
        for j in 0..width {
            whitening.components[(i, j)] *= largest.signum();
        }
    }
    let kept = whitening.variances.len();
    let white = |rows: &[Vec<f64>]| -> Result<Vec<Vec<f64>>, UnitError> {
        let white = whitening.apply(matrix(rows).as_ref())?;
        Ok((0..white.nrows()).map(|i| (0..kept).map(|j| white[(i, j)]).collect()).collect())
    };
    let (white_train, white_test) = (white(&train)?, white(&test)?);
    let gaussian = Gaussian::fit(matrix(&white_train).as_ref(), config.reg_covar()?)?;
    let density = white_test.iter().map(|row| gaussian.log_density(row)).collect::<Result<Vec<_>, _>>()?;
    let width = whitening.mean.len();
    let directions: Vec<Vec<f64>> =
        (0..kept).map(|i| (0..width).map(|j| whitening.components[(i, j)]).collect()).collect();

    let mut out = Outputs::new();
    put(&mut out, "cumulative_ratio", vector(&spectrum.cumulative_share));
    put(&mut out, "n_components", integers([kept]));
    put(&mut out, "mean", vector(&whitening.mean));
    put(&mut out, "components", table(&directions, width));
    put(&mut out, "explained_variance", vector(&whitening.variances));
    put(&mut out, "train_whitened", table(&white_train, kept));
    put(&mut out, "test_whitened", table(&white_test, kept));
    put(&mut out, "test_loglik", vector(&density));
    Ok(out)
}

pub(super) fn gauss_ts_features(case: &Case) -> Result<Outputs, UnitError> {
    let config = CaseConfig::of(case)?;
    let wanted = config.use_layers()?;
    let all = rows(case.input("in.ts_train")?)?;
    config.check_rows(all.len())?;
    let train = columns(&all, &wanted)?;
    let test = columns(&rows(case.input("in.ts_test")?)?, &wanted)?;
    let gaussian = Gaussian::fit(matrix(&train).as_ref(), config.reg_covar()?)?;
    let distances =
        test.iter().map(|row| gaussian.mahalanobis_squared(row)).collect::<Result<Vec<_>, _>>()?;
    let densities = test.iter().map(|row| gaussian.log_density(row)).collect::<Result<Vec<_>, _>>()?;
    let width = wanted.len();
    let covariance: Vec<Vec<f64>> =
        (0..width).map(|i| (0..width).map(|j| gaussian.covariance[(i, j)]).collect()).collect();

    let mut out = Outputs::new();
    put(&mut out, "mean", vector(&gaussian.mean));
    put(&mut out, "covariance", table(&covariance, width));
    put(&mut out, "mahalanobis_sq", vector(&distances));
    put(&mut out, "loglik", vector(&densities));
    Ok(out)
}

pub(super) fn combine(case: &Case) -> Result<Outputs, UnitError> {
    let config = CaseConfig::of(case)?;
    let input = |name: &str| rows(case.input(name)?);
    let labels = case.input("in.test_labels")?.to_usize_vec()?;
    let mut out = Outputs::new();
    scores(
        &config,
        (&input("in.pre_train")?, &input("in.pre_test")?),
        (&input("in.ts_train")?, &input("in.ts_test")?),
        &labels,
        &mut out,
    )?;
    Ok(out)
}

/// Both log densities, their sum and what they are worth, from descriptors of normal training and all test images.
pub(super) fn scores(
    config: &CaseConfig,
    pretrained: (&[Vec<f64>], &[Vec<f64>]),
    teacher_student: (&[Vec<f64>], &[Vec<f64>]),
    labels: &[usize],
    out: &mut Outputs,
) -> Result<(), UnitError> {
    let wanted = config.use_layers()?;
    let (ts_train, ts_test) = (columns(teacher_student.0, &wanted)?, columns(teacher_student.1, &wanted)?);
    let densities = Densities::fit(pretrained.0, &ts_train, config.threshold()?, config.reg_covar()?)?;
    let (mut first, mut second, mut sum) = (vec![], vec![], vec![]);
    for (z_p, z_t) in pretrained.1.iter().zip(&ts_test) {
        let log = densities.of(z_p, z_t)?;
        first.push(log.pretrained);
        second.push(log.teacher_student);
        sum.push(log.pretrained + log.teacher_student);
    }
    // Log densities are scores of normality: normal is the positive class here.
    let mut normal = vec![false; labels.len()];
    for at in config.select(&[], labels)?.validation {
        normal[at] = true;
    }
    let auroc = [&first, &second, &sum]
        .into_iter()
        .map(|scores| metrics::auroc(scores, &normal))
        .collect::<Result<Vec<f64>, _>>()?;
    put(out, "n_components", integers([densities.whitening.variances.len()]));
    put(out, "targets_normal_is_1", integers(normal.into_iter().map(usize::from)));
    put(out, "loglik_pretrained", vector(&first));
    put(out, "loglik_ts", vector(&second));
    put(out, "score", vector(&sum));
    put(out, "auroc", vector(&auroc));
    Ok(())
}

pub(super) fn knn2_baseline(case: &Case) -> Result<Outputs, UnitError> {
    let config = CaseConfig::of(case)?;
    let training = matrix(&rows(case.input("in.train")?)?);
    let test = rows(case.input("in.test")?)?;
    let k = config.k()?;
    let scores: Vec<f64> = test.iter().map(|row| nearest(&training, row, k)).collect();
    let anomalous: Vec<bool> =
        case.input("in.targets_anomaly_is_1")?.to_i64_vec()?.into_iter().map(|target| target == 1).collect();
    let auroc = metrics::auroc(&scores, &anomalous)?;
    let mut out = Outputs::new();
    put(&mut out, "score", vector(&scores));
    put(&mut out, "auroc", HostTensor::f64([1], vec![auroc]));
    Ok(out)
}
