//! Any map and mask: figures or a named error, and the three ways to hold pixels agree.
#![no_main]

use metrics::{ExactPixels, ScoredMap, SpilledPixels, StreamedPixels};

const LIMITS: [f64; 2] = [0.3, 1.0];

libfuzzer_sys::fuzz_target!(|input: (u8, Vec<(u32, bool)>)| {
    let (width, pixels) = input;
    let width = usize::from(width);
    let height = pixels.len() / width.max(1);
    let pixels = &pixels[..height * width];
    let scores: Vec<f32> = pixels.iter().map(|&(bits, _)| f32::from_bits(bits)).collect();
    let mask: Vec<u8> = pixels.iter().map(|&(_, anomalous)| anomalous.into()).collect();
    let Ok(image) = ScoredMap::new(height, width, &scores, Some(&mask)) else { return };
    let images = [image];
    let _ = metrics::pro_reference_generalad(&images, 1 + width % 7);
    let _ = metrics::pixel_fpr_at_tpr(&images, 0.95);

    let (mut exact, mut streamed) = (ExactPixels::default(), StreamedPixels::default());
    let folder = std::env::temp_dir();
    let mut spilled = SpilledPixels::with_memory(folder, 16).expect("a temporary folder");
    let added = [exact.add(&image), streamed.add(&image), spilled.add(&image)].map(|added| added.is_ok());
    assert!(added == [true; 3] || added == [false; 3]);
    if added[0] {
        let exact = exact.rank().expect("an image was added").figures(&LIMITS);
        let others = [streamed.figures(&LIMITS), spilled.figures(&LIMITS)];
        let Ok(exact) = exact else {
            return assert!(others.iter().all(Result::is_err));
        };
        for found in others.map(|found| found.expect("figures where the exact ones are")) {
            assert!(found.auroc.contains(exact.auroc.value));
            assert!(found.average_precision.contains(exact.average_precision.value));
            assert!(found.f1_max.contains(exact.f1_max.value));
            assert!(found.fpr_at_95_tpr.contains(exact.fpr_at_95_tpr.value));
            for (found, exact) in found.aupro.iter().zip(&exact.aupro) {
                assert!(found.area.contains(exact.area.value));
            }
        }
    }
});
