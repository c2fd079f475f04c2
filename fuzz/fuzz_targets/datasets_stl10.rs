#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| datasets::fuzzing::stl10(bytes));
