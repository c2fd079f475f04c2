#![allow(clippy::unwrap_used)]

use std::path::Path;

use datasets::{Protocol, Split, SplitOptions};
use image_prep::{Filter, Mask, Preprocess};
use metrics::Saturation;

use super::{Defects, au_spro};
use crate::data::{CellImages, Source};
use crate::evaluate::{AnomalyMap, Scores, evaluate};
use crate::test_set::TestSet;

fn row(pixel_value: u8, saturation_threshold: f64, relative_saturation: bool) -> datasets::Saturation {
    datasets::Saturation {
        defect_name: "cut".to_owned(),
        pixel_value,
        saturation_threshold,
        relative_saturation,
    }
}

#[test]
fn every_value_of_every_mask_is_a_defect() {
    let stored = [Mask::new(1, 3, vec![7, 0, 9]).unwrap(), Mask::new(1, 3, vec![0, 9, 0]).unwrap()];
    let table = [row(7, 0.5, true), row(9, 12.0, false)];
    let defects = Defects::new((1, 3), Some("logical".to_owned()), &stored, &table).unwrap();
    let found: Vec<(&[u8], Saturation)> =
        defects.regions.iter().map(|region| (&region.mask.data[..], region.saturation)).collect();
    let expected: [(&[u8], Saturation); 3] = [
        (&[1, 0, 0], Saturation::Relative(0.5)),
        (&[0, 0, 1], Saturation::Absolute(12.0)),
        (&[0, 1, 0], Saturation::Absolute(12.0)),
    ];
    assert_eq!(found, expected);
    let error = Defects::new((1, 3), None, &stored, &table[..1]).unwrap_err().to_string();
    assert!(error.contains("the value 9") && error.contains("config.json: 7"), "{error}");
}

/// The tree that another tool wrote: two images of either kind of defect and two good ones.
fn loco() -> CellImages {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../datasets/tests/trees/mvtec-loco");
    let source = Source::open("mvtec-loco", Some(&root), None).unwrap();
    let split = Split::new(&*source.dataset, Protocol::ClassSeparated, "pushpins", &SplitOptions::default());
    CellImages::new(source, split.unwrap(), &Preprocess::square(8, Filter::Nearest, [0.0; 3], [1.0; 3]))
        .unwrap()
}

/// Maps from each image's defects: 1 in regions of `kinds`, 0 elsewhere.
fn scores(images: &CellImages, kinds: &[&str]) -> Scores {
    let map = |index| {
        let defects = images.defects(index).unwrap().unwrap();
        let seen = defects.kind.as_ref().is_some_and(|kind| kinds.contains(&kind.as_str()));
        let mut data = vec![0.0; defects.height * defects.width];
        for region in defects.regions.iter().filter(|_| seen) {
            data.iter_mut().zip(&region.mask.data).for_each(|(score, &m)| *score = f32::from(m).max(*score));
        }
        AnomalyMap { height: defects.height, width: defects.width, data }
    };
    let maps: Vec<AnomalyMap> = (0..images.len()).map(map).collect();
    let totals = maps.iter().map(|map| map.data.iter().sum()).collect();
    Scores { totals, maps, ..Scores::default() }
}

#[test]
fn each_kind_of_defect_is_judged_with_all_good_images() {
    let images = loco();
    let both = ["logical_anomalies", "structural_anomalies"];
    let figures = evaluate(&scores(&images, &both), &images, anomaly_core::EvalSpec::default()).unwrap();
    assert!((figures.au_spro_05.unwrap() - 1.0).abs() < 1e-12, "{figures:?}");
    assert_eq!(figures.au_spro_05_by_kind.keys().collect::<Vec<_>>(), both);

    // A detector that is blind to structure finds all of the other kind. For the blind kind all scores tie, so that its
    // curve is the straight line from (0, 0) to (1, 1): 0.025 on average up to 0.05.
    let half = au_spro(&scores(&images, &both[..1]), &images).unwrap();
    assert!((half[both[0]] - 1.0).abs() < 1e-12, "{half:?}");
    assert!((half[both[1]] - 0.025).abs() < 1e-12, "{half:?}");
}

#[test]
fn without_maps_there_is_none() {
    let images = loco();
    let blind = Scores { totals: vec![0.0; images.len()], ..Scores::default() };
    assert!(au_spro(&blind, &images).unwrap().is_empty());
}
