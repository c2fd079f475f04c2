//! `result.json`, and the page that is made of it.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    if let Ok(cell) = serde_json::from_slice::<report::Cell>(bytes) {
        let cells = [cell];
        report::terminal_table(&cells);
        let _ = report::csv(&cells);
    }
});
