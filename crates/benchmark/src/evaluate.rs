//! From a detector to figures: scores of all test images, then metrics.

mod defects;
#[cfg(test)]
mod on_files;

use std::collections::BTreeMap;

use anomaly_core::{Cancellation, Detector, EvalSpec, MaskRule, MethodError, Resolution, TestMetric};
use candle_core::Tensor;
use image_prep::{MapFilter, Mask, Rgb8};
use metrics::{ExactPixels, F1Max, ProReference, RankedPixels, Ranking, ScoredMap};
use report::{Evaluation, ScoreRow, ScoreTable};

pub(crate) use defects::Defects;

use crate::Error;
use crate::test_set::TestSet;

/// Images scored at once. It changes no score.
const BATCH: usize = 32;

/// False positive rates up to which AU-PRO is taken: the usual one, and a strict one.
const PRO_LIMITS: [f64; 2] = [0.3, 0.05];

/// What a detector said about every test image, in the test set's order.
///
/// Scores are rounded to f32 as `scores.csv` holds them, so that whoever computes a figure from the file finds the one
/// in the record.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Scores {
    pub(crate) totals: Vec<f32>,
    pub(crate) terms: BTreeMap<String, Vec<f32>>,
    /// One a test image, or none at all.
    pub(crate) maps: Vec<AnomalyMap>,
    /// What the method made of the images, by name: one a test image each.
    pub(crate) pictures: Vec<(String, Vec<Rgb8>)>,
}

/// A map at the method's own resolution.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct AnomalyMap {
    pub(crate) height: usize,
    pub(crate) width: usize,
    pub(crate) data: Vec<f32>,
}

/// Scores all test images. `each` is called with how many are done.
pub(crate) fn score(
    detector: &dyn Detector,
    test: &dyn TestSet,
    cancellation: &Cancellation,
    each: &mut dyn FnMut(usize),
) -> Result<Scores, MethodError> {
    let method = detector.info().name;
    let wrong = |problem: String| MethodError::failed(method, problem);
    let mut all = Scores::default();
    for images in test.batches(BATCH) {
        cancellation.check()?;
        let images = images?;
        let prediction = detector.score(&images)?;
        let (before, count) = (all.totals.len(), images.len());
        if prediction.scores.len() != count {
            return Err(wrong(format!("expected {count} scores, found {}", prediction.scores.len())));
        }
        all.totals.extend(prediction.scores.iter().map(|&score| score as f32));
        for (name, values) in prediction.terms {
            let term = all.terms.entry(name.clone()).or_default();
            if term.len() != before || values.len() != count {
                return Err(wrong(format!("expected one value of term `{name}` for every image")));
            }
            term.extend(values.iter().map(|&value| value as f32));
        }
        if let Some(maps) = prediction.maps {
            for index in 0..count {
                let data =
                    maps.get(index).ok_or_else(|| wrong(format!("expected {count} maps, found {index}")))?;
                all.maps.push(AnomalyMap { height: maps.height, width: maps.width, data: data.to_vec() });
            }
        }
        for made in prediction.pictures {
            let images = to_rgb8(&made.images).map_err(|e| MethodError::failed(method, e))?;
            match all.pictures.iter_mut().find(|(name, _)| *name == made.name) {
                Some((_, list)) => list.extend(images),
                None => all.pictures.push((made.name, images)),
            }
        }
        each(all.totals.len());
    }
    let count = test.len();
    if all.totals.len() != count || !(all.maps.is_empty() || all.maps.len() == count) {
        return Err(wrong(format!(
            "expected scores, and maps if any, of {count} images, found other numbers"
        )));
    }
    if let Some(name) = all.terms.iter().find(|(_, term)| term.len() != count).map(|(name, _)| name) {
        return Err(wrong(format!("expected a value of term `{name}` for each of {count} images")));
    }
    if let Some((name, _)) = all.pictures.iter().find(|(_, images)| images.len() != count) {
        return Err(wrong(format!("expected a picture `{name}` of each of {count} images")));
    }
    Ok(all)
}

/// Pictures `(B, 3, h, w)` with values in `[0, 1]` as 8-bit images; what lies beyond is cut.
fn to_rgb8(pictures: &Tensor) -> Result<Vec<Rgb8>, Box<dyn std::error::Error + Send + Sync>> {
    let (_, _, height, width) = pictures.dims4()?;
    let values = pictures.permute((0, 2, 3, 1))?.flatten_all()?.to_vec1::<f32>()?;
    let images = values.chunks_exact((3 * height * width).max(1));
    let levels = |values: &[f32]| values.iter().map(|v| (v.clamp(0.0, 1.0) * 255.0).round() as u8).collect();
    Ok(images.map(|values| Rgb8::new(height, width, levels(values))).collect::<Result<_, _>>()?)
}

/// Whether each test image is anomalous.
pub(crate) fn labels(test: &dyn TestSet) -> Vec<bool> {
    (0..test.len()).map(|index| test.anomalous(index)).collect()
}

/// The figures of `scores`.
pub(crate) fn evaluate(scores: &Scores, test: &dyn TestSet, eval: EvalSpec) -> Result<Evaluation, Error> {
    let ranking = Ranking::new(&scores.totals, &labels(test))?;
    let F1Max { value, threshold } = ranking.f1_max()?;
    let mut figures = Evaluation {
        image_auroc: Some(ranking.auroc()?),
        image_ap: Some(ranking.average_precision()?),
        f1_max: Some(value),
        f1_threshold: Some(f64::from(threshold)),
        fpr_at_95_tpr: Some(ranking.fpr_at_tpr(0.95)?),
        ..Evaluation::default()
    };
    if let Some(pixels) = pixels(scores, test, eval)? {
        let [limit, strict_limit] = PRO_LIMITS;
        let curve = pixels.pro_curve(limit)?;
        figures.pixel_auroc = Some(pixels.ranking().auroc()?);
        figures.pixel_ap = Some(pixels.ranking().average_precision()?);
        figures.pixel_f1_max = Some(pixels.ranking().f1_max()?.value);
        figures.au_pro = Some(curve.area(limit)?);
        figures.au_pro_05 = Some(curve.area(strict_limit)?);
        figures.reference_pro = reference_pro(scores, test, eval)?;
        figures.pixels_compared = Some(compared_at(eval).to_owned());
    }
    figures.au_spro_05_by_kind = defects::au_spro(scores, test)?;
    let kinds = figures.au_spro_05_by_kind.len();
    if kinds > 0 {
        figures.au_spro_05 = Some(figures.au_spro_05_by_kind.values().sum::<f64>() / kinds as f64);
    }
    figures.normal_means = normal_means(scores, test);
    Ok(figures)
}

/// The mean of each term over the normal images, where there are any and it is a number.
fn normal_means(scores: &Scores, test: &dyn TestSet) -> BTreeMap<String, f64> {
    let normal: Vec<usize> = (0..test.len()).filter(|&index| !test.anomalous(index)).collect();
    let mean = |values: &[f32]| {
        normal.iter().map(|&index| f64::from(values[index])).sum::<f64>() / normal.len() as f64
    };
    let means = scores.terms.iter().map(|(name, values)| (name.clone(), mean(values)));
    means.filter(|(_, mean)| mean.is_finite()).collect()
}

/// The image AUROC of each term alone.
pub(crate) fn terms(scores: &Scores, test: &dyn TestSet) -> Result<BTreeMap<String, report::Term>, Error> {
    let labels = labels(test);
    let term = |(name, values): (&String, &Vec<f32>)| {
        let image_auroc = Some(metrics::auroc(values, &labels)?);
        Ok((name.clone(), report::Term { image_auroc }))
    };
    scores.terms.iter().map(term).collect()
}

/// One figure alone, for a criterion that looks at the test set.
pub(crate) fn test_metric(
    scores: &Scores,
    test: &dyn TestSet,
    eval: EvalSpec,
    metric: TestMetric,
) -> Result<f64, Error> {
    match metric {
        TestMetric::ImageAuroc => Ok(metrics::auroc(&scores.totals, &labels(test))?),
        TestMetric::PixelAuroc => {
            let pixels = pixels(scores, test, eval)?.ok_or_else(|| {
                Error::unfit("selection by pixel AUROC", "maps and masks", "none of one of them")
            })?;
            Ok(pixels.ranking().auroc()?)
        }
    }
}

/// The table of `scores.csv`.
pub(crate) fn table(scores: &Scores, test: &dyn TestSet) -> ScoreTable {
    let row = |index: usize| ScoreRow {
        id: test.id(index).to_owned(),
        label: test.anomalous(index),
        score: scores.totals[index],
        terms: scores.terms.values().map(|term| term[index]).collect(),
    };
    ScoreTable { terms: scores.terms.keys().cloned().collect(), rows: (0..test.len()).map(row).collect() }
}

/// Where maps and masks meet, for people.
fn compared_at(eval: EvalSpec) -> &'static str {
    match (eval.resolution, eval.mask) {
        (Resolution::Original, _) => "original size",
        (Resolution::Network, MaskRule::LanczosNonzero) => "the network's input size, masks by Lanczos",
        (Resolution::Network, _) => "the network's input size, masks by nearest neighbour",
    }
}

/// All pixels of all test images, maps and masks brought together by `eval`; `None` without maps or without masks.
fn pixels(scores: &Scores, test: &dyn TestSet, eval: EvalSpec) -> Result<Option<RankedPixels>, Error> {
    if scores.maps.is_empty() || !test.has_masks() {
        return Ok(None);
    }
    let mut all = ExactPixels::default();
    for (index, map) in scores.maps.iter().enumerate() {
        let (map, mask) = brought_together(map, index, test, eval)?;
        all.add(&ScoredMap::new(mask.height, mask.width, &map, Some(&mask.data))?)?;
    }
    Ok(Some(all.rank()?))
}

/// A map at its mask's size, and the mask.
fn brought_together(
    map: &AnomalyMap,
    index: usize,
    test: &dyn TestSet,
    eval: EvalSpec,
) -> Result<(Vec<f32>, Mask), Error> {
    let mask = test.mask(index, eval)?;
    let (from, to) = ((map.height, map.width), (mask.height, mask.width));
    Ok((image_prep::upsample_maps(&map.data, from, to, MapFilter::Bilinear)?, mask))
}

/// The references' PRO where `eval` asks for it and it is defined: a rate below its limit may not occur among its thresholds.
fn reference_pro(scores: &Scores, test: &dyn TestSet, eval: EvalSpec) -> Result<Option<f64>, Error> {
    let Some(square) = eval.reference_pro_square else { return Ok(None) };
    let both = scores.maps.iter().enumerate().map(|(index, map)| brought_together(map, index, test, eval));
    let both: Vec<(Vec<f32>, Mask)> = both.collect::<Result<_, _>>()?;
    let maps = both.iter().map(|(map, mask)| ScoredMap::new(mask.height, mask.width, map, Some(&mask.data)));
    match ProReference::new(square.get()).area(&maps.collect::<Result<Vec<_>, _>>()?) {
        Ok(area) => Ok(Some(area)),
        Err(e @ metrics::Error::Undefined { .. }) => {
            tracing::warn!("no reference PRO: {e}");
            Ok(None)
        }
        Err(e) => Err(e.into()),
    }
}

#[cfg(test)]
pub(crate) mod tests {
    #![allow(clippy::unwrap_used)]
    use anomaly_core::{
        Cancellation, DataError, Detector, DetectorWriter, EvalSpec, Images, Info, Maps, MethodError,
        Prediction, TestMetric,
    };
    use candle_core::{Device, Tensor};
    use image_prep::{Mask, Rgb8};

    use super::{evaluate, score, table, terms, test_metric, to_rgb8};
    use crate::test_set::{Batches, TestSet};

    const INFO: Info = Info {
        name: "toy",
        title: "Toy",
        paper: None,
        makes_maps: true,
        default_backbone: None,
        revision: 1,
    };

    /// Images of 2 x 2 pixels whose brightness is their number; the odd ones are anomalous, at their first pixel.
    pub(crate) struct Bright(pub(crate) Vec<String>);

    impl Bright {
        pub(crate) fn of(count: usize) -> Self {
            Self((0..count).map(|index| format!("image-{index}")).collect())
        }
    }

    impl TestSet for Bright {
        fn len(&self) -> usize {
            self.0.len()
        }
        fn id(&self, index: usize) -> &str {
            &self.0[index]
        }
        fn anomalous(&self, index: usize) -> bool {
            index % 2 == 1
        }
        fn batches(&self, batch: usize) -> Batches<'_> {
            let indices: Vec<usize> = (0..self.len()).collect();
            let chunks: Vec<Vec<usize>> = indices.chunks(batch).map(<[usize]>::to_vec).collect();
            Box::new(chunks.into_iter().map(|chunk| {
                let values: Vec<f32> = chunk.iter().flat_map(|&i| vec![i as f32; 12]).collect();
                let pixels = Tensor::from_vec(values, (chunk.len(), 3, 2, 2), &Device::Cpu).unwrap();
                let ids = chunk.iter().map(|&i| self.0[i].clone()).collect();
                Images::new(ids, pixels).map_err(DataError::new)
            }))
        }
        fn original(&self, index: usize) -> Result<Rgb8, DataError> {
            Ok(Rgb8::filled(2, 2, [index as u8; 3]))
        }
        fn has_masks(&self) -> bool {
            true
        }
        fn mask(&self, index: usize, _: EvalSpec) -> Result<Mask, DataError> {
            let first = u8::from(self.anomalous(index));
            Mask::new(2, 2, vec![first, 0, 0, 0]).map_err(DataError::new)
        }
    }

    /// Its score is the brightness, its only term the negative, and its map has the score at the first pixel.
    struct Toy;

    impl Detector for Toy {
        fn info(&self) -> &Info {
            &INFO
        }
        fn score(&self, images: &Images) -> Result<Prediction, MethodError> {
            let mean = images.pixels().mean((1, 2, 3)).unwrap().to_vec1::<f32>().unwrap();
            let scores: Vec<f64> = mean.iter().copied().map(f64::from).collect();
            let data = mean.iter().flat_map(|&m| [m, 0.0, 0.0, 0.0]).collect();
            let terms = [("dark".to_owned(), scores.iter().map(|s| -s).collect())].into();
            let maps = Some(Maps { height: 2, width: 2, data });
            Ok(Prediction { maps, terms, ..Prediction::from_scores(scores) })
        }
        fn save(&self, _: &mut DetectorWriter) -> Result<(), MethodError> {
            Ok(())
        }
    }

    #[test]
    fn figures_of_a_known_case() {
        let test = Bright::of(70);
        let mut done = Vec::new();
        let scores = score(&Toy, &test, &Cancellation::default(), &mut |count| done.push(count)).unwrap();
        assert_eq!(done, [32, 64, 70]);
        let eval = EvalSpec::default();
        let figures = evaluate(&scores, &test, eval).unwrap();
        // Of the 35 * 35 pairs, the anomalous image 2 k + 1 is above the k + 1 normal ones 0, 2, …, 2 k.
        let auroc = f64::from((1..=35).sum::<i32>()) / (35.0 * 35.0);
        assert!((figures.image_auroc.unwrap() - auroc).abs() < 1e-12, "{figures:?}");
        assert_eq!(
            test_metric(&scores, &test, eval, TestMetric::ImageAuroc).unwrap(),
            figures.image_auroc.unwrap()
        );
        // Anomalous pixels: 1, 3, …, 69. Others: 0, 2, …, 68 and 70 * 3 zeros, below all of them.
        let pixel = (f64::from((1..=35).sum::<i32>()) + 35.0 * 210.0) / (35.0 * 245.0);
        assert!((figures.pixel_auroc.unwrap() - pixel).abs() < 1e-12, "{figures:?}");
        // Each anomalous pixel is a region. Downwards a region and a normal pixel take turns 34 times, then comes the
        // last region, then zeros; 30 % of the 245 normal pixels are 73.5.
        let area = (1..=34).map(f64::from).map(|found| found / 35.0).sum::<f64>() + (73.5 - 34.0);
        assert!((figures.au_pro.unwrap() - area / 73.5).abs() < 1e-12, "{figures:?}");
        assert_eq!(figures.pixels_compared.as_deref(), Some("original size"));
        assert_eq!(figures.reference_pro, None);
        // Minus the mean of 0, 2, …, 68.
        assert_eq!(figures.normal_means, [("dark".to_owned(), -34.0)].into());
        // Only what lies above the lowest score counts there: 34 false alarms, before the k-th of which k regions are found.
        let asked = EvalSpec { reference_pro_square: std::num::NonZeroUsize::new(1), ..eval };
        let pro = evaluate(&scores, &test, asked).unwrap().reference_pro.unwrap();
        assert!((pro - (1..=34).map(f64::from).sum::<f64>() / 35.0 / 34.0).abs() < 1e-12, "{pro}");
        let dark = terms(&scores, &test).unwrap()["dark"].image_auroc.unwrap();
        assert!((dark - (1.0 - auroc)).abs() < 1e-12);
        let csv = table(&scores, &test).to_csv().unwrap();
        assert!(csv.starts_with("id,label,score,dark\nimage-0,0,0.0,-0.0\nimage-1,1,1.0,-1.0\n"), "{csv}");
    }

    #[test]
    fn pictures_become_8_bit_images() {
        let planes = [0.0_f32, 1.0, 0.5, -3.0, 2.0, 0.25];
        let pictures = Tensor::from_vec(planes.to_vec(), (1, 3, 1, 2), &Device::Cpu).unwrap();
        let images = to_rgb8(&pictures).unwrap();
        assert_eq!(images, [Rgb8::new(1, 2, vec![0, 128, 255, 255, 0, 64]).unwrap()]);
    }

    #[test]
    fn a_cancelled_scoring_stops() {
        let cancellation = Cancellation::default();
        cancellation.cancel();
        let error = score(&Toy, &Bright::of(3), &cancellation, &mut |_| ()).unwrap_err();
        assert!(error.is_cancelled());
    }
}
