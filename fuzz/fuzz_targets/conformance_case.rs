//! A numeric case.
#![no_main]

use std::path::Path;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    if let Ok(case) = conformance::Case::parse(Path::new("case.safetensors"), bytes) {
        // An unexpected or missing output is a verdict, never a panic.
        let _ = conformance::compare(&case, &conformance::Outputs::new());
    }
});
