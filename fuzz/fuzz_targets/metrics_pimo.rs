//! Images in two passes for PIMO, with the second state damaged on the way: it is refused, or it is another state that is
//! written in the same way, merges, and has a curve or a named error.
#![no_main]

use metrics::{PimoRange, PimoRates, ScoredMap};

libfuzzer_sys::fuzz_target!(|input: (Vec<(u32, bool)>, Vec<(u32, bool)>, u8, Vec<(u32, u8)>)| {
    let (first, second, thresholds, damage) = input;
    let parts = [first, second].map(|pixels| -> (Vec<f32>, Vec<u8>) {
        pixels.iter().map(|&(bits, anomalous)| (f32::from_bits(bits), u8::from(anomalous))).unzip()
    });
    let maps: Vec<ScoredMap<'_>> = parts
        .iter()
        .filter_map(|(scores, mask)| ScoredMap::new(1, scores.len(), scores, Some(mask)).ok())
        .collect();
    let mut range = PimoRange::default();
    for map in &maps {
        let _ = range.add(map);
    }
    assert_eq!(PimoRange::from_bytes(&range.to_bytes()).as_ref(), Ok(&range));
    let Ok(mut rates) = range.rates(thresholds.into()) else { return };
    for map in &maps {
        let _ = rates.add(map);
    }
    let curve = rates.clone().curve().expect("the same images twice");
    assert!(curve.thresholds().is_sorted() && curve.shared_fpr().is_sorted_by(|a, b| a >= b));
    if let Ok(window) = curve.window(0.01, 0.5, true) {
        for area in maps.iter().filter_map(|map| window.area(map).ok()).flatten() {
            assert!((0.0..=1.0).contains(&area));
        }
    }
    let mut bytes = rates.to_bytes();
    for (at, value) in damage {
        let len = bytes.len();
        bytes[at as usize % len] = value;
    }
    let Ok(mut damaged) = PimoRates::from_bytes(&bytes) else { return };
    assert_eq!(damaged.to_bytes(), bytes);
    let _ = damaged.merge(&rates);
    let _ = damaged.curve();
});
