//! What holds for any input, checked on random ones with many ties.
#![allow(clippy::unwrap_used)]

use proptest::prelude::*;

use crate::regions::Regions;
use crate::{
    Channel, ChannelMap, Connectivity, Error, ProCurve, Ranking, Saturation, ScoredMap, SproCurve, aupro,
    auroc, average_precision, f1_max, fpr_at_tpr, pixel_auroc, pixel_average_precision, pixel_f1_max,
};

const HEIGHT: usize = 5;
const WIDTH: usize = 6;
const PIXELS: usize = HEIGHT * WIDTH;

/// Few levels, so that ties are frequent, or any finite number.
fn score() -> impl Strategy<Value = f32> {
    prop_oneof![3 => (-4_i8..5).prop_map(|level| f32::from(level) / 4.0), 1 => -1e30_f32..1e30]
}

/// Scores with labels of both classes.
fn labelled() -> impl Strategy<Value = (Vec<f32>, Vec<bool>)> {
    prop::collection::vec((score(), any::<bool>()), 2..60).prop_map(|pairs| {
        let (scores, mut labels): (Vec<f32>, Vec<bool>) = pairs.into_iter().unzip();
        (labels[0], labels[1]) = (true, false);
        (scores, labels)
    })
}

/// Maps with masks; the first mask has both kinds of pixels.
fn images() -> impl Strategy<Value = Vec<(Vec<f32>, Vec<u8>)>> {
    let image =
        (prop::collection::vec(score(), PIXELS), prop::collection::vec(prop::bool::weighted(0.3), PIXELS));
    prop::collection::vec(image, 1..4).prop_map(|images| {
        let mut images: Vec<(Vec<f32>, Vec<u8>)> = images
            .into_iter()
            .map(|(scores, mask)| (scores, mask.into_iter().map(u8::from).collect()))
            .collect();
        (images[0].1[0], images[0].1[1]) = (1, 0);
        images
    })
}

fn maps(images: &[(Vec<f32>, Vec<u8>)]) -> Vec<ScoredMap<'_>> {
    images.iter().map(|(scores, mask)| ScoredMap::new(HEIGHT, WIDTH, scores, Some(mask)).unwrap()).collect()
}

/// The definition, by all pairs.
fn auroc_by_pairs(scores: &[f32], labels: &[bool]) -> f64 {
    let of = |wanted| {
        scores.iter().zip(labels).filter(move |&(_, &label)| label == wanted).map(|(&score, _)| score)
    };
    let pairs = of(true)
        .flat_map(|p| of(false).map(move |n| f64::from(u8::from(p > n)) + f64::from(u8::from(p == n)) / 2.0));
    pairs.sum::<f64>() / (of(true).count() * of(false).count()) as f64
}

/// True and false positives for each score as the threshold, by counting.
fn counts(scores: &[f32], labels: &[bool]) -> Vec<(f32, f64, f64)> {
    let mut thresholds = scores.to_vec();
    thresholds.sort_by(|a, b| b.partial_cmp(a).unwrap());
    thresholds.dedup();
    let count = |t: f32, wanted| {
        scores.iter().zip(labels).filter(|&(&s, &label)| s >= t && label == wanted).count() as f64
    };
    thresholds.into_iter().map(|t| (t, count(t, true), count(t, false))).collect()
}

fn near(a: f64, b: f64) -> bool {
    (a - b).abs() < 1e-12
}

proptest! {
    #[test]
    fn figures_agree_with_their_definitions((scores, labels) in labelled()) {
        prop_assert!(near(auroc(&scores, &labels).unwrap(), auroc_by_pairs(&scores, &labels)));
        let counts = counts(&scores, &labels);
        let (_, positives, negatives) = counts[counts.len() - 1];
        let mut before = 0.0;
        let mut precision = 0.0;
        for &(_, tp, fp) in &counts {
            precision += (tp - before) / positives * tp / (tp + fp);
            before = tp;
        }
        prop_assert!(near(average_precision(&scores, &labels).unwrap(), precision));
        let fpr = counts.iter().find(|(_, tp, _)| tp / positives >= 0.95).unwrap().2 / negatives;
        prop_assert_eq!(fpr_at_tpr(&scores, &labels, 0.95).unwrap(), fpr);
        let f1 = |&(_, tp, fp): &(f32, f64, f64)| 2.0 * tp / (positives + tp + fp);
        let best = f1_max(&scores, &labels).unwrap();
        let highest = counts.iter().map(f1).fold(0.0, f64::max);
        prop_assert_eq!(best.value, highest);
        // Equal fractions of integers this small give equal quotients.
        prop_assert_eq!(best.threshold, counts.iter().rfind(|step| f1(step) == highest).unwrap().0);
    }

    #[test]
    fn the_roc_curve_has_the_area((scores, labels) in labelled()) {
        let ranking = Ranking::new(&scores, &labels).unwrap();
        let curve = ranking.roc_curve().unwrap();
        let area: f64 = curve
            .windows(2)
            .map(|w| {
                let width = w[1].false_positive_rate - w[0].false_positive_rate;
                width * (w[0].true_positive_rate + w[1].true_positive_rate) / 2.0
            })
            .sum();
        prop_assert!(near(area, ranking.auroc().unwrap()));
        let last = curve[curve.len() - 1];
        prop_assert_eq!((last.false_positive_rate, last.true_positive_rate), (1.0, 1.0));
        let precision = ranking.pr_curve().unwrap();
        prop_assert!(precision.windows(2).all(|w| w[0].recall <= w[1].recall));
        let rate = ranking.equal_error_rate().unwrap();
        prop_assert!((0.0..=1.0).contains(&rate));
        let crosses = curve.windows(2).any(|w| {
            let within = |a: f64, b: f64, x: f64| a - 1e-12 <= x && x <= b + 1e-12;
            within(w[0].false_positive_rate, w[1].false_positive_rate, rate)
                && within(1.0 - w[1].true_positive_rate, 1.0 - w[0].true_positive_rate, rate)
        });
        prop_assert!(crosses);
    }

    #[test]
    fn negated_scores_give_the_rest((scores, labels) in labelled()) {
        let negated: Vec<f32> = scores.iter().map(|s| -s).collect();
        prop_assert!(near(auroc(&scores, &labels).unwrap(), 1.0 - auroc(&negated, &labels).unwrap()));
    }

    #[test]
    fn rising_maps_and_order_change_nothing((scores, labels) in labelled(), turn in 0_usize..60) {
        let doubled: Vec<f32> = scores.iter().map(|s| s * 2.0).collect();
        let wide: Vec<f64> = scores.iter().map(|&s| s.into()).collect();
        let (mut turned, mut turned_labels) = (scores.clone(), labels.clone());
        turned.rotate_left(turn % scores.len());
        turned_labels.rotate_left(turn % scores.len());
        let figures = |ranking: Ranking<f32>| {
            let best = ranking.f1_max().unwrap();
            (ranking.auroc().unwrap(), ranking.average_precision().unwrap(), best.value, ranking.fpr_at_tpr(0.95).unwrap())
        };
        let plain = figures(Ranking::new(&scores, &labels).unwrap());
        prop_assert_eq!(plain, figures(Ranking::new(&doubled, &labels).unwrap()));
        prop_assert_eq!(plain, figures(Ranking::new(&turned, &turned_labels).unwrap()));
        prop_assert_eq!(plain.0, auroc(&wide, &labels).unwrap());
    }

    #[test]
    fn perfect_separation_is_perfect(normal in prop::collection::vec(-1.0_f32..0.5, 1..30), anomalous in prop::collection::vec(0.6_f32..2.0, 1..30)) {
        let scores: Vec<f32> = normal.iter().chain(&anomalous).copied().collect();
        let labels: Vec<bool> = (0..scores.len()).map(|i| i >= normal.len()).collect();
        let ranking = Ranking::new(&scores, &labels).unwrap();
        prop_assert_eq!(ranking.auroc().unwrap(), 1.0);
        prop_assert!(near(ranking.average_precision().unwrap(), 1.0));
        prop_assert_eq!(ranking.f1_max().unwrap().value, 1.0);
        prop_assert_eq!(ranking.fpr_at_tpr(0.95).unwrap(), 0.0);
        prop_assert_eq!(ranking.equal_error_rate().unwrap(), 0.0);
    }

    #[test]
    fn pixels_are_pooled(images in images()) {
        let maps = maps(&images);
        let scores: Vec<f32> = images.iter().flat_map(|(scores, _)| scores.clone()).collect();
        let labels: Vec<bool> = images.iter().flat_map(|(_, mask)| mask.iter().map(|&m| m > 0)).collect();
        prop_assert_eq!(pixel_auroc(&maps).unwrap(), auroc(&scores, &labels).unwrap());
        prop_assert_eq!(pixel_average_precision(&maps).unwrap(), average_precision(&scores, &labels).unwrap());
        prop_assert_eq!(pixel_f1_max(&maps).unwrap(), f1_max(&scores, &labels).unwrap());
        let mut backwards = maps.clone();
        backwards.reverse();
        prop_assert_eq!(pixel_auroc(&maps).unwrap(), pixel_auroc(&backwards).unwrap());
        prop_assert!(near(aupro(&maps, 0.3).unwrap(), aupro(&backwards, 0.3).unwrap()));
    }

    #[test]
    fn aupro_ignores_scale_and_never_falls_with_the_limit(images in images()) {
        let doubled: Vec<(Vec<f32>, Vec<u8>)> =
            images.iter().map(|(s, m)| (s.iter().map(|s| s * 2.0).collect(), m.clone())).collect();
        let whole = ProCurve::new(&maps(&images), 1.0).unwrap();
        let mut before = 0.0;
        for limit in [0.01, 0.05, 0.1, 0.3, 0.7, 1.0] {
            let area = whole.area(limit).unwrap();
            prop_assert!(area >= before - 1e-12 && area <= 1.0 + 1e-12);
            // A curve made for this limit only leaves out what lies beyond.
            prop_assert!(near(area, aupro(&maps(&images), limit).unwrap()));
            prop_assert!(near(area, aupro(&maps(&doubled), limit).unwrap()));
            before = area;
        }
        let last = whole.points().last().unwrap();
        prop_assert!(last.0 == 1.0 && near(last.1, 1.0));
    }

    #[test]
    fn a_quiet_normal_image_never_lowers_aupro(images in images(), limit in 0.01_f64..1.0) {
        let before = aupro(&maps(&images), limit).unwrap();
        let lowest = images.iter().flat_map(|(scores, _)| scores).copied().fold(f32::INFINITY, f32::min);
        let quiet = vec![lowest - lowest.abs() - 1.0; PIXELS];
        let mut more = maps(&images);
        more.push(ScoredMap::new(HEIGHT, WIDTH, &quiet, None).unwrap());
        prop_assert!(aupro(&more, limit).unwrap() >= before - 1e-12);
    }

    #[test]
    fn spro_of_whole_components_is_pro(images in images()) {
        let split: Vec<Vec<Vec<u8>>> = images
            .iter()
            .map(|(_, mask)| {
                let regions = Regions::of_mask(mask, HEIGHT, WIDTH, Connectivity::Eight);
                let one = |number: usize| regions.labels.iter().map(|&l| u8::from(l as usize == number)).collect();
                (1..=regions.sizes.len()).map(one).collect()
            })
            .collect();
        let channelled: Vec<ChannelMap<'_>> = images
            .iter()
            .zip(&split)
            .map(|((scores, _), masks)| {
                let channels = masks.iter().map(|mask| Channel { mask, saturation: Saturation::Relative(1.0) });
                ChannelMap::new(HEIGHT, WIDTH, scores, channels.collect()).unwrap()
            })
            .collect();
        let (pro, spro) = (ProCurve::new(&maps(&images), 1.0).unwrap(), SproCurve::new(&channelled, 1.0).unwrap());
        for limit in [0.05, 0.3, 1.0] {
            prop_assert!(near(pro.area(limit).unwrap(), spro.area(limit).unwrap()));
        }
    }

    #[test]
    fn bad_scores_are_named((mut scores, labels) in labelled(), at in 0_usize..60, infinite in any::<bool>()) {
        let at = at % scores.len();
        scores[at] = if infinite { f32::INFINITY } else { f32::NAN };
        let is_named = |error| matches!(error, Error::NotFinite { index, .. } if index == at);
        prop_assert!(is_named(auroc(&scores, &labels).unwrap_err()));
        prop_assert!(is_named(f1_max(&scores, &labels).unwrap_err()));
    }
}

#[test]
fn one_class_has_the_figures_that_are_defined() {
    let normal = Ranking::new(&[1.0_f32, 2.0], &[false, false]).unwrap();
    assert_eq!(normal.auroc().unwrap_err(), Error::NoPositives { metric: "AUROC" });
    assert!(
        normal.average_precision().is_err() && normal.f1_max().is_err() && normal.aupr_trapezoid().is_err()
    );
    assert_eq!(normal.adaptive_threshold().unwrap(), 2.0);
    let anomalous = Ranking::new(&[1.0_f32, 2.0], &[true, true]).unwrap();
    assert_eq!(anomalous.auroc().unwrap_err(), Error::NoNegatives { metric: "AUROC" });
    assert!(anomalous.fpr_at_tpr(0.95).is_err() && anomalous.equal_error_rate().is_err());
    assert_eq!(anomalous.average_precision().unwrap(), 1.0);
    assert_eq!(anomalous.f1_max().unwrap().threshold, 1.0);
    assert_eq!(anomalous.adaptive_threshold().unwrap(), 1.0);
    assert_eq!(auroc::<f32>(&[], &[]).unwrap_err(), Error::Empty { what: "scores" });
    assert!(matches!(auroc(&[1.0_f32], &[]), Err(Error::LengthMismatch { .. })));
    assert!(matches!(fpr_at_tpr(&[1.0_f32, 2.0], &[true, false], 1.5), Err(Error::Option { .. })));
}

#[test]
fn trapezoids_flatter_where_scores_tie() {
    let constant = Ranking::new(&[1.0_f32; 4], &[true, false, false, false]).unwrap();
    assert_eq!(constant.average_precision().unwrap(), 0.25);
    assert_eq!(constant.aupr_trapezoid().unwrap(), 0.625);
    assert_eq!(constant.auroc().unwrap(), 0.5);
    assert_eq!(constant.fpr_at_tpr(0.95).unwrap(), 1.0);
    assert_eq!(constant.equal_error_rate().unwrap(), 0.5);
}
