//! The state of counted pixels, damaged: it is refused, or it is another state that is written in the same way, merges,
//! and has figures or none.
#![no_main]

use metrics::{ScoredMap, StreamedPixels};

libfuzzer_sys::fuzz_target!(|input: (Vec<(u32, bool)>, Vec<(u32, u8)>, u32)| {
    let (pixels, damage, cut) = input;
    let scores: Vec<f32> = pixels.iter().map(|&(bits, _)| f32::from_bits(bits)).collect();
    let mask: Vec<u8> = pixels.iter().map(|&(_, anomalous)| anomalous.into()).collect();
    let mut state = StreamedPixels::default();
    if let Ok(image) = ScoredMap::new(1, scores.len(), &scores, Some(&mask)) {
        let _ = state.add(&image);
    }
    let mut bytes = state.to_bytes();
    for (at, value) in damage {
        let len = bytes.len();
        bytes[at as usize % len] = value;
    }
    // Mostly whole.
    bytes.truncate(bytes.len() - (cut as usize).saturating_sub(u32::MAX as usize - bytes.len()));

    let Ok(mut state) = StreamedPixels::from_bytes(&bytes) else { return };
    assert_eq!(state.to_bytes(), bytes);
    if let Ok(figures) = state.figures(&[0.05, 0.3, 1.0]) {
        let areas = figures.aupro.iter().map(|aupro| aupro.area);
        for figure in [figures.auroc, figures.average_precision, figures.f1_max, figures.fpr_at_95_tpr]
            .into_iter()
            .chain(areas)
        {
            assert!(figure.value >= -1e-9 && figure.value <= 1.0 + 1e-9 && figure.error >= 0.0, "{figure:?}");
        }
    }
    let twin = state.clone();
    let _ = state.merge(&twin);
});
