//! Predictions have the shapes they must have, are finite, and don't depend on ids.

use anomaly_core::{Prediction, TrainingData};

use crate::Suite;
use crate::failure::{Problem, problem};

/// An odd number of images.
const IMAGES: usize = 7;

pub(crate) fn check(suite: &Suite<'_>) -> Result<(), Problem> {
    let reference = suite.reference()?;
    let (method, detector) = (&reference.method, &reference.detector);
    if method.info().name != suite.name || detector.info() != method.info() {
        let (ours, theirs) = (method.info().name, detector.info().name);
        return problem(format!(
            "the suite is of `{}`, the method of `{ours}`, its detector of `{theirs}`",
            suite.name
        ));
    }
    let some: Vec<usize> = (0..IMAGES).collect();
    let prediction = detector.score(&reference.tests.get(&some)?)?;
    shapes(&prediction, method.info().makes_maps)?;

    let renamed =
        reference.tests.clone().renamed(|index| format!("{}/other.png", IMAGES - index.min(IMAGES)));
    if let Some(what) = difference(&prediction, &detector.score(&renamed.get(&some)?)?)? {
        return problem(format!("under other ids the same images are scored otherwise: {what}"));
    }
    Ok(())
}

fn shapes(prediction: &Prediction, makes_maps: bool) -> Result<(), Problem> {
    let mut columns = vec![("scores".to_owned(), &prediction.scores)];
    columns.extend(prediction.terms.iter().map(|(name, values)| (format!("term `{name}`"), values)));
    for (name, values) in columns {
        if values.len() != IMAGES {
            return problem(format!("{name}: expected ({IMAGES},), found ({},)", values.len()));
        }
        if let Some(value) = values.iter().find(|v| !v.is_finite()) {
            return problem(format!("{name} hold {value}"));
        }
    }
    match &prediction.maps {
        None if makes_maps => return problem("`info()` says that it makes maps, but there are none"),
        Some(_) if !makes_maps => return problem("`info()` says that it makes no maps, but there are some"),
        Some(maps) => {
            let (h, w) = (maps.height, maps.width);
            if maps.data.len() != IMAGES * h * w || h * w == 0 {
                return problem(format!(
                    "maps: expected ({IMAGES}, {h}, {w}), found {} values",
                    maps.data.len()
                ));
            }
            if let Some(value) = maps.data.iter().find(|v| !v.is_finite()) {
                return problem(format!("maps hold {value}"));
            }
        }
        None => {}
    }
    for picture in &prediction.pictures {
        let name = &picture.name;
        if !picture.images.dims4().is_ok_and(|(b, c, h, w)| b == IMAGES && c == 3 && h * w > 0) {
            let found = picture.images.dims();
            return problem(format!("picture `{name}`: expected ({IMAGES}, 3, h, w), found {found:?}"));
        }
        if let Some(value) = pixels(&picture.images)?.iter().find(|v| !(0.0..=1.0).contains(*v)) {
            return problem(format!("picture `{name}` holds {value}, outside 0 to 1"));
        }
    }
    Ok(())
}

fn pixels(images: &candle_core::Tensor) -> Result<Vec<f32>, Problem> {
    Ok(images.flatten_all()?.to_vec1::<f32>()?)
}

/// Where two predictions differ in any bit; `None` if nowhere.
pub(crate) fn difference(a: &Prediction, b: &Prediction) -> Result<Option<String>, Problem> {
    if let Some(what) = first_difference(&a.scores, &b.scores) {
        return Ok(Some(format!("scores: {what}")));
    }
    if a.terms.keys().ne(b.terms.keys()) {
        return Ok(Some(format!("terms {:?} and {:?}", a.terms.keys(), b.terms.keys())));
    }
    for (name, values) in &a.terms {
        if let Some(what) = first_difference(values, &b.terms[name]) {
            return Ok(Some(format!("term `{name}`: {what}")));
        }
    }
    let widen = |values: &[f32]| values.iter().map(|v| f64::from(*v)).collect::<Vec<_>>();
    match (&a.maps, &b.maps) {
        (None, None) => {}
        (Some(a), Some(b)) if (a.height, a.width) == (b.height, b.width) => {
            if let Some(what) = first_difference(&widen(&a.data), &widen(&b.data)) {
                return Ok(Some(format!("maps: {what}")));
            }
        }
        _ => return Ok(Some("maps of another size".into())),
    }
    if a.pictures.len() != b.pictures.len() {
        return Ok(Some(format!("{} and {} pictures", a.pictures.len(), b.pictures.len())));
    }
    for (a, b) in a.pictures.iter().zip(&b.pictures) {
        if let Some(what) = first_difference(&widen(&pixels(&a.images)?), &widen(&pixels(&b.images)?)) {
            return Ok(Some(format!("picture `{}`: {what}", a.name)));
        }
    }
    Ok(None)
}

fn first_difference(a: &[f64], b: &[f64]) -> Option<String> {
    if a.len() != b.len() {
        return Some(format!("{} and {} values", a.len(), b.len()));
    }
    let at = a.iter().zip(b).position(|(a, b)| a.to_bits() != b.to_bits())?;
    Some(format!("value {at} is {} and {}", a[at], b[at]))
}
