//! Three passes over single images give what all maps at once give, and their states survive bytes and merging.
#![allow(clippy::unwrap_used)]

use proptest::prelude::*;

use super::{Pimo, PimoCurve, PimoRange, PimoRates};
use crate::{Error, ScoredMap};

/// Width, scores and mask; heights are 3.
type Image = (usize, Vec<f32>, Option<Vec<u8>>);

const HEIGHT: usize = 3;

fn score() -> impl Strategy<Value = f32> {
    prop_oneof![3 => (-4_i8..5).prop_map(|level| f32::from(level) / 4.0), 1 => -10_f32..10.0, 1 => Just(-0.0)]
}

fn image() -> impl Strategy<Value = Image> {
    (2_usize..5, any::<bool>()).prop_flat_map(|(width, is_anomalous)| {
        let scores = prop::collection::vec(score(), HEIGHT * width);
        let mask = prop::collection::vec(prop::bool::weighted(0.3).prop_map(u8::from), HEIGHT * width);
        (Just(width), scores, mask.prop_map(move |mask| is_anomalous.then_some(mask)))
    })
}

/// At least one normal image with two scores, and one that is anomalous.
fn images() -> impl Strategy<Value = Vec<Image>> {
    prop::collection::vec(image(), 0..6).prop_map(|mut images| {
        images.insert(0, (2, vec![-1.0, 1.0, 0.0, 0.3, 0.2, 0.1], None));
        images.push((2, vec![-1.0, 1.0, 0.0, 0.3, 0.2, 0.9], Some(vec![0, 1, 0, 1, 0, 1])));
        images
    })
}

fn maps(images: &[Image]) -> Vec<ScoredMap<'_>> {
    let maps =
        images.iter().map(|(width, scores, mask)| ScoredMap::new(HEIGHT, *width, scores, mask.as_deref()));
    maps.collect::<Result<_, _>>().unwrap()
}

fn range(maps: &[ScoredMap<'_>]) -> PimoRange {
    let mut range = PimoRange::default();
    for map in maps {
        range.add(map).unwrap();
    }
    PimoRange::from_bytes(&range.to_bytes()).unwrap()
}

fn rates(range: &PimoRange, thresholds: usize, maps: &[ScoredMap<'_>]) -> PimoRates {
    let mut rates = range.rates(thresholds).unwrap();
    for map in maps {
        rates.add(map).unwrap();
    }
    PimoRates::from_bytes(&rates.to_bytes()).unwrap()
}

/// The definition: for each threshold and image the share of the pixels that reach it.
fn by_definition(maps: &[ScoredMap<'_>], thresholds: &[f32]) -> Vec<f64> {
    let normal: Vec<_> = maps.iter().filter(|map| !map.is_anomalous()).collect();
    let share = |map: &ScoredMap<'_>, threshold: f32| {
        map.scores().iter().filter(|&&score| score >= threshold).count() as f64 / map.scores().len() as f64
    };
    let mean =
        |&threshold: &f32| normal.iter().map(|map| share(map, threshold)).sum::<f64>() / normal.len() as f64;
    thresholds.iter().map(mean).collect()
}

proptest! {
    #[test]
    fn single_images_give_what_all_maps_give(
        images in images(), thresholds in 2_usize..200, cut in 0_usize..8, bounds in (0.01_f64..0.5, 0.5_f64..1.0),
    ) {
        let maps = maps(&images);
        let (left, right) = maps.split_at(cut.min(maps.len()));
        let mut first = range(left);
        first.merge(&range(right));
        prop_assert_eq!(&first, &range(&maps));
        let mut second = rates(&first, thresholds, right);
        second.merge(&rates(&first, thresholds, left)).unwrap();
        prop_assert_eq!(&second, &rates(&first, thresholds, &maps));
        let curve: PimoCurve = second.curve().unwrap();

        let at_once = Pimo::new(&maps, thresholds).unwrap();
        prop_assert_eq!(curve.thresholds(), at_once.thresholds());
        prop_assert_eq!(curve.shared_fpr(), at_once.shared_fpr());
        let defined = by_definition(&maps, curve.thresholds());
        prop_assert!(defined.iter().zip(curve.shared_fpr()).all(|(a, b)| (a - b).abs() < 1e-12));
        match (curve.window(bounds.0, bounds.1, true), at_once.area(bounds.0, bounds.1, true)) {
            (Ok(window), Ok(areas)) => {
                let per_image = maps.iter().map(|map| window.area(map).unwrap()).collect();
                prop_assert_eq!(window.summary(per_image).unwrap(), areas);
            }
            (window, areas) => prop_assert_eq!(window.unwrap_err(), areas.unwrap_err()),
        }
    }

    #[test]
    fn damaged_states_are_refused_or_whole(images in images(), at in any::<usize>(), value in any::<u8>(), cut in 0_usize..40) {
        let maps = maps(&images);
        let first = range(&maps);
        let mut bytes = rates(&first, 9, &maps).to_bytes();
        let at = at % bytes.len();
        bytes[at] = value;
        bytes.truncate(bytes.len() - cut.saturating_sub(20));
        if let Ok(state) = PimoRates::from_bytes(&bytes) {
            prop_assert_eq!(state.to_bytes(), bytes);
        }
        let mut bytes = first.to_bytes();
        let at = at % bytes.len();
        bytes[at] = value;
        if let Ok(state) = PimoRange::from_bytes(&bytes) {
            prop_assert_eq!(state.to_bytes(), bytes);
        }
    }
}

#[test]
fn a_second_pass_over_other_images_is_refused() {
    let scores = [[0.0, 0.1, 0.2, 0.3], [0.0, 0.1, 0.2, 0.4]];
    let normal = |scores| ScoredMap::new(2, 2, scores, None).unwrap();
    let anomalous = ScoredMap::new(2, 2, &scores[0], Some(&[0, 0, 1, 1])).unwrap();
    let first = range(&[normal(&scores[0]), anomalous]);
    let fewer = rates(&first, 9, &[normal(&scores[0])]);
    let message = fewer.curve().unwrap_err().to_string();
    assert_eq!(
        message,
        "PIMO: the second pass saw other images than the first: 1 normal images with scores from 0 to 0.3 and 1 \
         anomalous ones, then 1 normal images with scores from 0 to 0.3 and 0 anomalous ones"
    );
    let other = rates(&first, 9, &[normal(&scores[1]), anomalous]);
    assert!(matches!(other.clone().curve(), Err(Error::OtherImages { .. })));
    let mut merged = rates(&range(&[normal(&scores[1]), anomalous]), 9, &[]);
    assert!(matches!(merged.merge(&other), Err(Error::OtherImages { .. })));
    assert!(matches!(
        first.rates(8).unwrap().merge(&other),
        Err(Error::Option { name: "num_thresholds", .. })
    ));
    let nan = [f32::NAN; 4];
    let mut range = PimoRange::default();
    assert_eq!(
        range.add(&normal(&nan)).unwrap_err().to_string(),
        "image 0, pixel 0: expected a finite score, found NaN"
    );
    assert_eq!(range, PimoRange::default());
}
