//! `scores.csv`: what is read is written in the same way again.
#![no_main]

libfuzzer_sys::fuzz_target!(|text: &str| {
    if let Ok(table) = report::ScoreTable::parse(text, "scores.csv") {
        let written = table.to_csv().expect("a table that was read can be written");
        assert_eq!(report::ScoreTable::parse(&written, "scores.csv").expect("our own form"), table);
    }
});
