//! A detector on disk: `detector.json` and `detector.safetensors` in a directory of its own.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};

use candle_core::{Device, Tensor};
use image_prep::Preprocess;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::hex::hex;
use crate::{Error, Info, Precision, TrainingFingerprint, safetensors_file, write_atomic};

/// The newest format this crate writes and reads.
const FORMAT: u32 = 1;
const MANIFEST: &str = "detector.json";
const TENSORS: &str = "detector.safetensors";

/// The backbone a detector needs: by name for people, by hash for certainty.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BackboneRef {
    /// Catalogue name, hub id or directory it was loaded by.
    pub name: String,
    /// sha256 of its weights, in hex.
    pub sha256: String,
}

/// What `detector.json` says.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DetectorManifest {
    /// Version of this layout.
    pub format: u32,
    /// The method's name.
    pub method: String,
    /// The method's revision that trained it.
    pub revision: u32,
    /// The method's resolved configuration.
    pub config: serde_json::Value,
    /// How images must be prepared.
    pub preprocess: Preprocess,
    /// In which arithmetic it was trained.
    pub precision: Precision,
    /// The backbone it needs, if any.
    pub backbone: Option<BackboneRef>,
    /// The seed of its training.
    pub seed: u64,
    /// What it was trained on.
    pub training: TrainingFingerprint,
    /// The method's own values, in f64 where they are numbers.
    pub state: serde_json::Value,
    /// sha256 of `detector.safetensors`, in hex, so that a mixed-up pair of files is noticed.
    pub tensors_sha256: String,
}

/// Collects what a detector saves; [`DetectorWriter::finish`] writes it.
#[derive(Debug)]
pub struct DetectorWriter {
    directory: PathBuf,
    manifest: DetectorManifest,
    tensors: BTreeMap<String, Tensor>,
}

impl DetectorWriter {
    /// A writer of a detector of the method `info`, trained with `seed` on `training`, into `directory`.
    pub fn new(
        directory: &Path,
        info: &Info,
        preprocess: &Preprocess,
        precision: Precision,
        seed: u64,
        training: TrainingFingerprint,
    ) -> Self {
        let manifest = DetectorManifest {
            format: FORMAT,
            method: info.name.to_owned(),
            revision: info.revision,
            config: serde_json::Value::Null,
            preprocess: preprocess.clone(),
            precision,
            backbone: None,
            seed,
            training,
            state: serde_json::Value::Null,
            tensors_sha256: String::new(),
        };
        Self { directory: directory.to_owned(), manifest, tensors: BTreeMap::new() }
    }

    /// Keeps the resolved configuration.
    ///
    /// # Errors
    /// If it can't be written as JSON.
    pub fn config(&mut self, config: &impl Serialize) -> Result<(), Error> {
        self.manifest.config = self.json(config)?;
        Ok(())
    }

    /// Keeps the method's own values (counts, thresholds).
    ///
    /// # Errors
    /// If they can't be written as JSON.
    pub fn state(&mut self, state: &impl Serialize) -> Result<(), Error> {
        self.manifest.state = self.json(state)?;
        Ok(())
    }

    /// Refers to the backbone by name and hash.
    pub fn backbone(&mut self, name: &str, sha256: &str) {
        self.manifest.backbone = Some(BackboneRef { name: name.to_owned(), sha256: sha256.to_owned() });
    }

    /// Keeps a tensor under `name`, in its own type (f32, f64, u8, …).
    ///
    /// # Errors
    /// If it can't be read from its device.
    pub fn tensor(&mut self, name: &str, tensor: &Tensor) -> Result<(), Error> {
        let tensor = tensor.detach().to_device(&Device::Cpu)?.force_contiguous()?;
        self.tensors.insert(name.to_owned(), tensor);
        Ok(())
    }

    /// Writes the directory: first the tensors, then the manifest that names their hash, each atomically.
    ///
    /// # Errors
    /// [`Error::File`] if a file can't be written.
    pub fn finish(mut self) -> Result<(), Error> {
        std::fs::create_dir_all(&self.directory)
            .map_err(|e| Error::file(&self.directory, "can't make the directory", e))?;
        let tensors = self.directory.join(TENSORS);
        // With neither tensors nor metadata the header would be one that can't be read back.
        let metadata = HashMap::from([("format".to_owned(), format!("vitad detector {FORMAT}"))]);
        safetensors_file::write(&tensors, &self.tensors, metadata)?;
        self.manifest.tensors_sha256 = sha256_of(&tensors)?;
        let path = self.directory.join(MANIFEST);
        let mut text = serde_json::to_string_pretty(&self.manifest)
            .map_err(|e| Error::file(&path, "can't be written as JSON", e))?;
        text.push('\n');
        write_atomic(&path, text.as_bytes())
    }

    fn json(&self, value: &impl Serialize) -> Result<serde_json::Value, Error> {
        serde_json::to_value(value)
            .map_err(|e| Error::file(&self.directory.join(MANIFEST), "can't be written as JSON", e))
    }
}

/// A detector's directory, checked and open.
#[derive(Debug)]
pub struct DetectorReader {
    directory: PathBuf,
    manifest: DetectorManifest,
    tensors: BTreeMap<String, Tensor>,
}

impl DetectorReader {
    /// Opens `directory`, its tensors on `device`.
    ///
    /// # Errors
    /// [`Error::File`] if a file is missing or broken; [`Error::Content`] for a newer format, or tensors that are not
    /// those the manifest was written with.
    pub fn open(directory: &Path, device: &Device) -> Result<Self, Error> {
        let path = directory.join(MANIFEST);
        let text = std::fs::read_to_string(&path).map_err(|e| Error::file(&path, "can't read", e))?;
        let not_ours = |e| Error::file(&path, "is not a detector's manifest", e);
        let raw: serde_json::Value = serde_json::from_str(&text).map_err(not_ours)?;
        // The version comes first: a newer format may hold fields that this one does not know.
        let format = raw.get("format").and_then(serde_json::Value::as_u64);
        if format != Some(u64::from(FORMAT)) {
            let found = format.map_or_else(|| "none".to_owned(), |f| f.to_string());
            let expected = format!("format {FORMAT} (a newer one needs a newer version of this program)");
            return Err(Error::content(&path, expected, format!("format {found}")));
        }
        let manifest: DetectorManifest = serde_json::from_value(raw).map_err(not_ours)?;
        let tensors_path = directory.join(TENSORS);
        let sha256 = sha256_of(&tensors_path)?;
        if sha256 != manifest.tensors_sha256 {
            let expected = format!("sha256 {} as {MANIFEST} says", manifest.tensors_sha256);
            return Err(Error::content(&tensors_path, expected, sha256));
        }
        let (tensors, _) = safetensors_file::read(&tensors_path, device)?;
        Ok(Self { directory: directory.to_owned(), manifest, tensors })
    }

    /// What `detector.json` says.
    pub fn manifest(&self) -> &DetectorManifest {
        &self.manifest
    }

    /// Refuses a detector of another method, by name.
    ///
    /// # Errors
    /// [`Error::Content`].
    pub fn expect_method(&self, name: &str) -> Result<(), Error> {
        if self.manifest.method == name {
            return Ok(());
        }
        Err(self.other(format!("a detector of `{name}`"), format!("one of `{}`", self.manifest.method)))
    }

    /// The backbone the detector needs.
    ///
    /// # Errors
    /// [`Error::Content`] if it names none.
    pub fn backbone(&self) -> Result<&BackboneRef, Error> {
        self.manifest.backbone.as_ref().ok_or_else(|| self.other("a backbone", "none"))
    }

    /// Refuses another backbone than the one the detector was trained with.
    ///
    /// # Errors
    /// [`Error::Content`] with both hashes.
    pub fn expect_backbone(&self, name: &str, sha256: &str) -> Result<(), Error> {
        let wanted = self.backbone()?;
        if wanted.sha256 == sha256 {
            return Ok(());
        }
        let expected = format!("backbone `{}` with sha256 {}", wanted.name, wanted.sha256);
        Err(self.other(expected, format!("`{name}` with sha256 {sha256}")))
    }

    /// The method's configuration as its own type.
    ///
    /// # Errors
    /// [`Error::File`] if it isn't one.
    pub fn config<T: DeserializeOwned>(&self) -> Result<T, Error> {
        self.parse(&self.manifest.config, "the configuration is not this method's")
    }

    /// The method's own values as its own type.
    ///
    /// # Errors
    /// [`Error::File`] if they aren't.
    pub fn state<T: DeserializeOwned>(&self) -> Result<T, Error> {
        self.parse(&self.manifest.state, "the state is not this method's")
    }

    /// The tensor called `name`.
    ///
    /// # Errors
    /// [`Error::Content`] if there is none.
    pub fn tensor(&self, name: &str) -> Result<&Tensor, Error> {
        self.tensors.get(name).ok_or_else(|| {
            let found: Vec<&str> = self.tensors.keys().map(String::as_str).collect();
            Error::content(&self.directory.join(TENSORS), format!("a tensor `{name}`"), found.join(", "))
        })
    }

    /// All tensors by name.
    pub fn tensors(&self) -> &BTreeMap<String, Tensor> {
        &self.tensors
    }

    fn parse<T: DeserializeOwned>(
        &self,
        value: &serde_json::Value,
        problem: &'static str,
    ) -> Result<T, Error> {
        serde_json::from_value(value.clone())
            .map_err(|e| Error::file(&self.directory.join(MANIFEST), problem, e))
    }

    fn other(&self, expected: impl Into<String>, found: impl Into<String>) -> Error {
        Error::content(&self.directory.join(MANIFEST), expected, found)
    }
}

fn sha256_of(path: &Path) -> Result<String, Error> {
    use sha2::{Digest, Sha256};
    let mut file = std::fs::File::open(path).map_err(|e| Error::file(path, "can't read", e))?;
    let mut hash = Sha256::new();
    let mut chunk = vec![0_u8; 1 << 16];
    loop {
        let read =
            std::io::Read::read(&mut file, &mut chunk).map_err(|e| Error::file(path, "can't read", e))?;
        if read == 0 {
            break;
        }
        hash.update(&chunk[..read]);
    }
    let digest: [u8; 32] = hash.finalize().into();
    Ok(hex(&digest))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use candle_core::{Device, Tensor};
    use image_prep::{Filter, HALF, Preprocess};

    use super::{DetectorReader, DetectorWriter};
    use crate::{Info, Precision, TrainingFingerprint};

    const INFO: Info = Info {
        name: "toy",
        title: "Toy",
        paper: None,
        makes_maps: false,
        default_backbone: None,
        revision: 4,
    };

    fn written(folder: &std::path::Path) {
        let training = TrainingFingerprint { images: 2, sha256: "ab".into() };
        let preprocess = Preprocess::square(32, Filter::Bilinear, HALF, HALF);
        let mut writer = DetectorWriter::new(folder, &INFO, &preprocess, Precision::F32, 7, training);
        writer.config(&("k", 2)).unwrap();
        writer.state(&0.1_f64).unwrap();
        writer.backbone("tiny", "cd");
        let column = Tensor::new(&[[1_f64, 2.], [3., 4.]], &Device::Cpu).unwrap().t().unwrap();
        writer.tensor("covariance", &column).unwrap();
        writer.finish().unwrap();
    }

    #[test]
    fn what_is_written_is_read() {
        let folder = tempfile::tempdir().unwrap();
        written(folder.path());
        let reader = DetectorReader::open(folder.path(), &Device::Cpu).unwrap();
        reader.expect_method("toy").unwrap();
        reader.expect_backbone("tiny", "cd").unwrap();
        assert_eq!(reader.config::<(String, usize)>().unwrap(), ("k".into(), 2));
        assert_eq!(reader.state::<f64>().unwrap(), 0.1);
        assert_eq!(reader.tensor("covariance").unwrap().to_vec2::<f64>().unwrap(), [[1., 3.], [2., 4.]]);
        assert_eq!((reader.manifest().seed, reader.manifest().revision), (7, 4));
    }

    #[test]
    fn a_detector_without_tensors_is_read_too() {
        let folder = tempfile::tempdir().unwrap();
        let training = TrainingFingerprint { images: 0, sha256: String::new() };
        let preprocess = Preprocess::square(32, Filter::Bilinear, HALF, HALF);
        let writer = DetectorWriter::new(folder.path(), &INFO, &preprocess, Precision::F32, 0, training);
        writer.finish().unwrap();
        let reader = DetectorReader::open(folder.path(), &Device::Cpu).unwrap();
        assert!(reader.tensors().is_empty());
        assert!(reader.backbone().unwrap_err().to_string().contains("none"));
    }

    #[test]
    fn another_method_hash_format_or_file_is_refused_by_name() {
        let folder = tempfile::tempdir().unwrap();
        let message = DetectorReader::open(folder.path(), &Device::Cpu).unwrap_err().to_string();
        assert!(message.contains("detector.json"), "{message}");
        written(folder.path());
        let reader = DetectorReader::open(folder.path(), &Device::Cpu).unwrap();
        let message = reader.expect_method("other").unwrap_err().to_string();
        assert!(message.contains("`other`") && message.contains("`toy`"), "{message}");
        let message = reader.expect_backbone("tiny", "ef").unwrap_err().to_string();
        assert!(message.contains("cd") && message.contains("ef"), "{message}");
        assert!(reader.tensor("mean").unwrap_err().to_string().contains("covariance"));

        let manifest = folder.path().join("detector.json");
        let text = std::fs::read_to_string(&manifest).unwrap();
        std::fs::write(&manifest, text.replace("\"format\": 1", "\"format\": 2")).unwrap();
        let message = DetectorReader::open(folder.path(), &Device::Cpu).unwrap_err().to_string();
        assert!(message.contains("format 1") && message.contains("format 2"), "{message}");

        std::fs::write(&manifest, &text).unwrap();
        std::fs::write(folder.path().join("detector.safetensors"), b"other").unwrap();
        let message = DetectorReader::open(folder.path(), &Device::Cpu).unwrap_err().to_string();
        assert!(message.contains("detector.safetensors") && message.contains("sha256"), "{message}");
    }
}
