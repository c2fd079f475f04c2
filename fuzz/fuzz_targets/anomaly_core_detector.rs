//! A detector's directory.
#![no_main]

use anomaly_core::DetectorReader;
use candle_core::Device;

libfuzzer_sys::fuzz_target!(|files: (&str, &[u8])| {
    let folder = tempfile::tempdir().expect("a temporary folder");
    std::fs::write(folder.path().join("detector.json"), files.0).expect("room for the file");
    std::fs::write(folder.path().join("detector.safetensors"), files.1).expect("room for the file");
    let _ = DetectorReader::open(folder.path(), &Device::Cpu);
});
