//! A profile of the matrix.
#![no_main]

libfuzzer_sys::fuzz_target!(|text: &str| {
    let file = tempfile::NamedTempFile::with_suffix(".toml").expect("a temporary file");
    std::fs::write(file.path(), text).expect("room for the file");
    let _ = benchmark::Profile::read(file.path());
});
