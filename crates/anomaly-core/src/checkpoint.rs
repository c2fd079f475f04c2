//! Checkpoints: all that a fit needs to go on to the same bits.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};

use candle_core::{Device, Tensor};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::{Error, safetensors_file};

/// The state of a fit between two steps.
#[derive(Debug, Clone, Default)]
pub struct Checkpoint {
    /// Named tensors: weights, optimiser moments.
    pub tensors: BTreeMap<String, Tensor>,
    /// Everything else (epoch, step, stream positions, curves), as JSON.
    pub state: serde_json::Value,
}

impl Checkpoint {
    /// A checkpoint of `tensors` and a serialisable `state`. The tensors are copied: a fit that goes on changes its
    /// variables in place.
    ///
    /// # Errors
    /// If the state can't be written as JSON or a tensor can't be read.
    pub fn new<'t>(
        tensors: impl IntoIterator<Item = (String, &'t Tensor)>,
        state: &impl Serialize,
    ) -> Result<Self, Error> {
        let state = serde_json::to_value(state)
            .map_err(|e| Error::file(Path::new("checkpoint"), "can't write the state as JSON", e))?;
        let copy = |(name, tensor): (String, &Tensor)| Ok((name, tensor.detach().force_contiguous()?));
        let tensors = tensors.into_iter().map(copy).collect::<Result<_, candle_core::Error>>()?;
        Ok(Self { tensors, state })
    }

    /// Adds `tensors`, with `prefix` in front of their names.
    ///
    /// # Errors
    /// If a tensor can't be read.
    pub fn put(
        &mut self,
        prefix: &str,
        tensors: impl IntoIterator<Item = (String, Tensor)>,
    ) -> Result<(), Error> {
        for (name, tensor) in tensors {
            self.tensors.insert(format!("{prefix}{name}"), tensor.detach().force_contiguous()?);
        }
        Ok(())
    }

    /// The tensors whose names begin with `prefix`, without it.
    pub fn part(&self, prefix: &str) -> impl Iterator<Item = (String, Tensor)> {
        self.tensors
            .iter()
            .filter_map(move |(name, tensor)| Some((name.strip_prefix(prefix)?.to_owned(), tensor.clone())))
    }

    /// The state as the fit's own type.
    ///
    /// # Errors
    /// [`Error::File`] if the checkpoint was written by something else.
    pub fn state<T: DeserializeOwned>(&self) -> Result<T, Error> {
        serde_json::from_value(self.state.clone())
            .map_err(|e| Error::file(Path::new("checkpoint"), "the state is not this method's", e))
    }

    /// Refuses a checkpoint that was written with another value of `field` than this fit's `expected`.
    ///
    /// # Errors
    /// [`Error::OtherFit`].
    pub fn require_same<T: PartialEq + std::fmt::Debug>(
        field: &'static str,
        expected: &T,
        found: &T,
    ) -> Result<(), Error> {
        if expected == found {
            return Ok(());
        }
        Err(Error::OtherFit { field, expected: format!("{expected:?}"), found: format!("{found:?}") })
    }

    /// The tensor called `name`.
    ///
    /// # Errors
    /// [`Error::Content`] if there is none.
    pub fn tensor(&self, name: &str) -> Result<&Tensor, Error> {
        self.tensors.get(name).ok_or_else(|| {
            Error::content(
                Path::new("checkpoint"),
                format!("a tensor `{name}`"),
                format!("{} others", self.tensors.len()),
            )
        })
    }
}

/// Keeps the latest checkpoint of one fit.
pub trait CheckpointStore {
    /// Keeps `checkpoint` instead of the one before.
    ///
    /// # Errors
    /// If it can't be written; the one before is then still there.
    fn save(&mut self, checkpoint: &Checkpoint) -> Result<(), Error>;

    /// The latest checkpoint, its tensors on `device`.
    ///
    /// # Errors
    /// If there is one that can't be read.
    fn latest(&self, device: &Device) -> Result<Option<Checkpoint>, Error>;
}

/// Keeps the latest checkpoint in memory.
#[derive(Debug, Clone, Default)]
pub struct MemoryCheckpoints {
    latest: Option<Checkpoint>,
}

impl CheckpointStore for MemoryCheckpoints {
    fn save(&mut self, checkpoint: &Checkpoint) -> Result<(), Error> {
        self.latest = Some(checkpoint.clone());
        Ok(())
    }

    fn latest(&self, device: &Device) -> Result<Option<Checkpoint>, Error> {
        let Some(latest) = &self.latest else { return Ok(None) };
        let moved = |(name, tensor): (&String, &Tensor)| Ok((name.clone(), tensor.to_device(device)?));
        let tensors = latest.tensors.iter().map(moved).collect::<Result<_, candle_core::Error>>()?;
        Ok(Some(Checkpoint { tensors, state: latest.state.clone() }))
    }
}

impl<S: CheckpointStore + ?Sized> CheckpointStore for &mut S {
    fn save(&mut self, checkpoint: &Checkpoint) -> Result<(), Error> {
        (**self).save(checkpoint)
    }

    fn latest(&self, device: &Device) -> Result<Option<Checkpoint>, Error> {
        (**self).latest(device)
    }
}

/// Keeps the latest checkpoint in one file, `checkpoint.safetensors`, replaced atomically.
#[derive(Debug, Clone)]
pub struct DirectoryCheckpoints {
    path: PathBuf,
}

const STATE: &str = "state";

impl DirectoryCheckpoints {
    /// Checkpoints in `directory`, which must exist.
    pub fn new(directory: &Path) -> Self {
        Self { path: directory.join("checkpoint.safetensors") }
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl CheckpointStore for DirectoryCheckpoints {
    fn save(&mut self, checkpoint: &Checkpoint) -> Result<(), Error> {
        let metadata = HashMap::from([(STATE.to_owned(), checkpoint.state.to_string())]);
        safetensors_file::write(&self.path, &checkpoint.tensors, metadata)
    }

    fn latest(&self, device: &Device) -> Result<Option<Checkpoint>, Error> {
        if !self.path.exists() {
            return Ok(None);
        }
        let (tensors, metadata) = safetensors_file::read(&self.path, device)?;
        let Some(state) = metadata.get(STATE) else {
            return Err(Error::content(&self.path, format!("metadata `{STATE}`"), "none"));
        };
        let state =
            serde_json::from_str(state).map_err(|e| Error::file(&self.path, "the state is not JSON", e))?;
        Ok(Some(Checkpoint { tensors, state }))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use candle_core::{Device, Tensor, Var};

    use super::{Checkpoint, CheckpointStore, DirectoryCheckpoints, MemoryCheckpoints};

    fn comes_back(store: &mut dyn CheckpointStore) {
        assert!(store.latest(&Device::Cpu).unwrap().is_none());
        let weight = Var::new(&[1.5_f32, -0.0, f32::MIN_POSITIVE], &Device::Cpu).unwrap();
        let fine = Tensor::new(&[[0.1_f64]], &Device::Cpu).unwrap();
        let named = [("weight".to_owned(), weight.as_tensor()), ("fine".to_owned(), &fine)];
        store.save(&Checkpoint::new(named, &(3, 0.1_f64)).unwrap()).unwrap();
        // What was saved is a copy: training that goes on does not reach it.
        weight.set(&Tensor::zeros(3, candle_core::DType::F32, &Device::Cpu).unwrap()).unwrap();
        let back = store.latest(&Device::Cpu).unwrap().unwrap();
        let bits = |t: &Tensor| t.to_vec1::<f32>().unwrap().iter().map(|v| v.to_bits()).collect::<Vec<_>>();
        let wanted = [1.5_f32, -0.0, f32::MIN_POSITIVE].map(f32::to_bits);
        assert_eq!(bits(back.tensor("weight").unwrap()), wanted);
        assert_eq!(back.tensor("fine").unwrap().to_vec2::<f64>().unwrap(), [[0.1]]);
        assert_eq!(back.state::<(usize, f64)>().unwrap(), (3, 0.1));
        assert!(back.tensor("other").unwrap_err().to_string().contains("`other`"));
        assert!(back.state::<String>().is_err());
    }

    #[test]
    fn memory_gives_back_what_it_was_given() {
        comes_back(&mut MemoryCheckpoints::default());
    }

    #[test]
    fn a_directory_gives_back_what_it_was_given_and_leaves_no_temporary_file() {
        let folder = tempfile::tempdir().unwrap();
        let mut store = DirectoryCheckpoints::new(folder.path());
        comes_back(&mut store);
        let names: Vec<_> = folder.path().read_dir().unwrap().map(|e| e.unwrap().file_name()).collect();
        assert_eq!(names, ["checkpoint.safetensors"]);
    }

    #[test]
    fn a_torn_file_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let store = DirectoryCheckpoints::new(folder.path());
        std::fs::write(store.path(), b"12345").unwrap();
        let message = store.latest(&Device::Cpu).unwrap_err().to_string();
        assert!(message.contains("checkpoint.safetensors"), "{message}");
    }
}
