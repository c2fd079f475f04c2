//! Named tensors from whatever file format.

use crate::directory::{self, WeightFiles};
use crate::gguf::GgufFile;
use crate::mapped::Bytes;
use crate::pickle::PickleFile;
use crate::safetensors_file::SafetensorsFile;
use crate::{Error, Hub, Source, digest};
use candle_core::{DType, Device, Tensor};
use serde_json::Value;
use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

/// A set of named tensors. Opening parses headers only; a tensor is read, dequantised and converted when it is
/// asked for.
#[derive(Debug)]
pub struct Weights {
    origin: String,
    parts: Vec<Part>,
    /// Of each tensor: which part holds it, and its shape.
    tensors: BTreeMap<String, (usize, Vec<usize>)>,
    config: Option<Value>,
    /// Hashing is put off until somebody wants the digest: it reads every byte.
    sha256: OnceLock<String>,
}

#[derive(Debug)]
enum Part {
    Safetensors(SafetensorsFile),
    Gguf(GgufFile),
    Pickle(PickleFile),
    Memory(HashMap<String, Tensor>),
}

impl Weights {
    /// Opens the weights at `source`; `hub` is used for [`Source::Hub`] only.
    ///
    /// # Errors
    /// Where the files cannot be found, fetched or parsed; see [`Error`].
    pub fn open(source: &Source, hub: &Hub) -> Result<Self, Error> {
        match source {
            Source::Embedded(embedded) => {
                let bytes = Bytes::Static(embedded.bytes);
                let config = parse_config(embedded.name, embedded.config)?;
                let weights =
                    Self::from_parts(embedded.name.into(), vec![part(embedded.name, bytes, None)?], config)?;
                weights.expect_sha256(embedded.sha256)?;
                Ok(weights)
            }
            Source::Directory(folder) => {
                Self::from_files(folder.display().to_string(), &directory::find(folder)?, None)
            }
            Source::File(path) => Self::from_file(path, None),
            Source::Checkpoint { path, key } => Self::from_file(path, Some(key)),
            Source::Hub { repo, revision, files } => {
                let revision = revision.as_deref();
                let found = hub.weight_files(repo, revision, files)?;
                let origin = format!("{repo}@{}", revision.unwrap_or("main"));
                Self::from_files(origin, &found, None)
            }
        }
    }

    /// Weights that are already in memory, for tests and conversions. The digest covers names, shapes and the `f32`
    /// values, in the order of the names.
    ///
    /// # Errors
    /// [`Error::Tensor`] where a tensor cannot be read as `f32`.
    pub fn from_tensors(tensors: HashMap<String, Tensor>) -> Result<Self, Error> {
        let origin = "tensors in memory".to_owned();
        let mut hashed = Vec::new();
        for (name, tensor) in tensors.iter().collect::<BTreeMap<_, _>>() {
            let values =
                tensor.to_dtype(DType::F32).and_then(|t| t.flatten_all()).and_then(|t| t.to_vec1::<f32>());
            let values = values.map_err(|source| tensor_error(&origin, name, source))?;
            hashed.extend_from_slice(format!("{name} {:?}\n", tensor.dims()).as_bytes());
            hashed.extend(values.iter().flat_map(|value| value.to_le_bytes()));
        }
        let weights = Self::from_parts(origin, vec![Part::Memory(tensors)], None)?;
        weights.sha256.get_or_init(|| digest::sha256([hashed.as_slice()]));
        Ok(weights)
    }

    /// The names of all tensors, sorted.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.tensors.keys().map(String::as_str)
    }

    /// Whether there is a tensor of this name.
    pub fn contains(&self, name: &str) -> bool {
        self.tensors.contains_key(name)
    }

    /// The shape of a tensor, without reading it; `None` if it is not there.
    pub fn shape(&self, name: &str) -> Option<&[usize]> {
        self.tensors.get(name).map(|(_, shape)| shape.as_slice())
    }

    /// The tensor as plain contiguous `f32` on `device`: quantised and half-precision values are converted on the
    /// host, so that every device starts from the same bits.
    ///
    /// # Errors
    /// [`Error::Missing`] with the nearest names, or [`Error::Tensor`].
    pub fn get(&self, name: &str, device: &Device) -> Result<Tensor, Error> {
        let (part, shape) = self.tensors.get(name).ok_or_else(|| self.missing(name))?;
        let tensor = match &self.parts[*part] {
            Part::Safetensors(file) => file.read(name),
            Part::Gguf(file) => file.read(name),
            Part::Pickle(file) => file.read(name),
            Part::Memory(tensors) => tensors.get(name).cloned().ok_or_else(|| self.missing(name)).map(Ok)?,
        };
        let tensor = tensor.and_then(|tensor| {
            tensor.detach().to_dtype(DType::F32)?.reshape(shape.as_slice())?.contiguous()?.to_device(device)
        });
        tensor.map_err(|source| tensor_error(&self.origin, name, source))
    }

    /// As [`get`](Self::get), and refuses another shape before reading anything.
    ///
    /// # Errors
    /// [`Error::Shape`] besides those of [`get`](Self::get).
    pub fn get_shaped(&self, name: &str, shape: &[usize], device: &Device) -> Result<Tensor, Error> {
        let found = self.shape(name).ok_or_else(|| self.missing(name))?;
        if found != shape {
            return Err(Error::Shape {
                origin: self.origin.clone(),
                name: name.to_owned(),
                expected: shape.to_vec(),
                found: found.to_vec(),
            });
        }
        self.get(name, device)
    }

    /// SHA-256 of the weight files' bytes, one after the other in sorted order; 64 lower-case hexadecimal digits.
    /// Reads every byte the first time.
    pub fn sha256(&self) -> &str {
        self.sha256.get_or_init(|| digest::sha256(self.parts.iter().map(Part::bytes)))
    }

    /// The `config.json` that came with the weights.
    pub fn config(&self) -> Option<&Value> {
        self.config.as_ref()
    }

    /// Where the weights came from, for messages and records: a path, a name, or `owner/name@revision`.
    pub fn origin(&self) -> &str {
        &self.origin
    }

    /// Refuses weights with another digest than the recorded one.
    ///
    /// # Errors
    /// [`Error::Digest`] with both.
    pub fn expect_sha256(&self, expected: &str) -> Result<(), Error> {
        let found = self.sha256();
        if found.eq_ignore_ascii_case(expected) {
            return Ok(());
        }
        let (expected, found) = (expected.to_owned(), found.to_owned());
        Err(Error::Digest { origin: self.origin.clone(), expected, found })
    }

    fn from_file(path: &Path, key: Option<&str>) -> Result<Self, Error> {
        let config = path.with_file_name(directory::CONFIG);
        let files = WeightFiles {
            weights: vec![path.to_owned()],
            index: None,
            config: config.is_file().then_some(config),
        };
        Self::from_files(path.display().to_string(), &files, key)
    }

    fn from_files(origin: String, files: &WeightFiles, key: Option<&str>) -> Result<Self, Error> {
        let open = |path: &PathBuf| {
            let bytes = Bytes::map(path)?;
            part(&path.display().to_string(), bytes, Some((path, key)))
        };
        let parts = files.weights.iter().map(open).collect::<Result<Vec<_>, _>>()?;
        let config = files.config.as_deref().map(directory::json).transpose()?;
        let weights = Self::from_parts(origin, parts, config)?;
        if let Some(index) = &files.index {
            weights.check_index(index)?;
        }
        Ok(weights)
    }

    fn from_parts(origin: String, parts: Vec<Part>, config: Option<Value>) -> Result<Self, Error> {
        let mut tensors = BTreeMap::new();
        for (number, part) in parts.iter().enumerate() {
            for (name, shape) in part.shapes() {
                if tensors.contains_key(&name) {
                    let reason = format!("tensor {name} is in more than one file");
                    return Err(Error::Malformed { origin, format: "sharded weight", reason });
                }
                tensors.insert(name, (number, shape));
            }
        }
        Ok(Self { origin, parts, tensors, config, sha256: OnceLock::new() })
    }

    /// A shard that lost a tensor should be noticed when opened.
    fn check_index(&self, index: &Path) -> Result<(), Error> {
        for (name, shard) in directory::weight_map(index)? {
            if !self.contains(&name) {
                return Err(Error::Malformed {
                    origin: index.display().to_string(),
                    format: "safetensors index",
                    reason: format!("tensor {name} should be in {shard} and is in no shard"),
                });
            }
        }
        Ok(())
    }

    fn missing(&self, name: &str) -> Error {
        let mut names: Vec<(f64, &str)> = self
            .names()
            .map(|known| (strsim::normalized_damerau_levenshtein(name, known), known))
            .filter(|(likeness, _)| *likeness > 0.5)
            .collect();
        names.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(b.1)));
        let nearest = names.into_iter().take(3).map(|(_, known)| known.to_owned()).collect();
        Error::Missing { origin: self.origin.clone(), name: name.to_owned(), nearest }
    }
}

impl Part {
    fn shapes(&self) -> BTreeMap<String, Vec<usize>> {
        match self {
            Self::Safetensors(file) => file.shapes(),
            Self::Gguf(file) => file.shapes(),
            Self::Pickle(file) => file.shapes(),
            Self::Memory(tensors) => {
                tensors.iter().map(|(name, tensor)| (name.clone(), tensor.dims().to_vec())).collect()
            }
        }
    }

    fn bytes(&self) -> &[u8] {
        match self {
            Self::Safetensors(file) => file.bytes(),
            Self::Gguf(file) => file.bytes(),
            Self::Pickle(file) => file.bytes(),
            // `from_tensors` sets the digest itself.
            Self::Memory(_) => &[],
        }
    }
}

fn tensor_error(origin: &str, name: &str, source: candle_core::Error) -> Error {
    Error::Tensor { origin: origin.to_owned(), name: name.to_owned(), source: Box::new(source) }
}

/// Parses one file by its first bytes: names lie more often than contents do. A pickle is read by path, so it
/// needs `file`.
fn part(origin: &str, bytes: Bytes, file: Option<(&PathBuf, Option<&str>)>) -> Result<Part, Error> {
    if GgufFile::recognises(&bytes) {
        return GgufFile::parse(origin, bytes).map(Part::Gguf);
    }
    if PickleFile::recognises(&bytes)
        && let Some((path, key)) = file
    {
        return PickleFile::open(path, bytes, key).map(Part::Pickle);
    }
    let named_safetensors = Path::new(origin).extension().is_some_and(|kind| kind == "safetensors");
    if named_safetensors || SafetensorsFile::recognises(&bytes) {
        return SafetensorsFile::parse(origin, bytes).map(Part::Safetensors);
    }
    Err(Error::UnknownFormat { origin: origin.to_owned(), found: describe(&bytes) })
}

/// What a file that is none of ours seems to be.
fn describe(bytes: &[u8]) -> String {
    if bytes.is_empty() {
        return "an empty file".into();
    }
    if bytes.starts_with(b"version https://git-lfs") {
        return "a Git LFS pointer: fetch the file itself with `git lfs pull`".into();
    }
    if bytes.starts_with(&[0x80, 0x02]) {
        return "a checkpoint of PyTorch before 1.6: load it there and save it again".into();
    }
    if bytes.starts_with(b"<") {
        return "a web page: the download failed".into();
    }
    format!("the bytes {}", digest::hex(&bytes[..bytes.len().min(8)]))
}

fn parse_config(origin: &str, text: &str) -> Result<Option<Value>, Error> {
    let malformed = |error: serde_json::Error| Error::Malformed {
        origin: origin.to_owned(),
        format: "JSON",
        reason: error.to_string(),
    };
    serde_json::from_str(text).map(Some).map_err(malformed)
}
