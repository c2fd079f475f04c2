//! A folder of weights: `config.json`, and an index that names its shards.
#![no_main]

use pretrained::{Hub, Source, Weights};

libfuzzer_sys::fuzz_target!(|files: (&str, &str)| {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let write = |name: &str, text: &str| {
        std::fs::write(folder.path().join(name), text).expect("room for the file");
    };
    write("config.json", files.0);
    write("model.safetensors.index.json", files.1);
    let _ = Weights::open(&Source::Directory(folder.path().to_owned()), &Hub::offline());
});
