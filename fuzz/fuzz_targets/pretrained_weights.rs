//! A weight file: every tensor of whatever opens must be readable or refused.
#![no_main]

use candle_core::Device;
use pretrained::{Hub, Source, Weights};

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let Some((kind, bytes)) = bytes.split_first() else { return };
    let extension = ["safetensors", "gguf", "pth", "bin"][usize::from(kind % 4)];
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join(format!("weights.{extension}"));
    std::fs::write(&path, bytes).expect("room for the file");
    if let Ok(weights) = Weights::open(&Source::File(path), &Hub::offline()) {
        for name in weights.names() {
            let _ = weights.get(name, &Device::Cpu);
        }
    }
});
