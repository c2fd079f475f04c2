#![no_main]

use image_prep::DecodeOptions;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    for apply_orientation in [false, true] {
        let _ = image_prep::decode(bytes, &DecodeOptions { apply_orientation });
    }
    let _ = image_prep::decode_mask(bytes);
});
