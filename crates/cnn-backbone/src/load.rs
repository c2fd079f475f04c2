//! From a name to a network.

use std::path::Path;

use candle_core::Device;
use pretrained::{Hub, Source, Weights};

use crate::catalogue::{self, Entry};
use crate::{Error, Identity, ResNet};

/// How a network is loaded. The default: CPU, no network connection.
#[derive(Debug, Clone)]
pub struct LoadOptions {
    /// Where the weights go.
    pub device: Device,
    /// How the hub is reached; [`Hub::offline`] by default, [`Hub::from_environment`] for downloads.
    pub hub: Hub,
}

impl Default for LoadOptions {
    fn default() -> Self {
        Self { device: Device::Cpu, hub: Hub::offline() }
    }
}

impl ResNet {
    /// The frozen network called `spec`: a catalogue name ([`entries`](crate::entries)), a directory or weight file
    /// (safetensors, or torchvision's `.pth`), or a hub id (`owner/name`, with `@revision` if wanted).
    ///
    /// # Errors
    /// [`Error::UnknownName`] with the nearest names; [`Error::Pretrained`] where files cannot be found, fetched or read;
    /// and those of [`ResNet::from_weights`].
    pub fn load(spec: &str, options: &LoadOptions) -> Result<Self, Error> {
        let (source, known) = find(spec)?;
        let weights = Weights::open(&source, &options.hub)?;
        let mut network = Self::from_weights(&weights, &options.device)?;
        network.describe(Identity {
            name: spec.to_owned(),
            licence: known.map_or("not stated", |entry| entry.licence).to_owned(),
            ..network.identity().clone()
        });
        tracing::debug!(name = spec, origin = %network.identity().origin, "loaded a residual network");
        Ok(network)
    }
}

fn find(spec: &str) -> Result<(Source, Option<&'static Entry>), Error> {
    if let Some(entry) = catalogue::find(spec) {
        let files = vec!["model.safetensors".to_owned()];
        return Ok((Source::Hub { repo: entry.repo.clone(), revision: None, files }, Some(entry)));
    }
    let path = Path::new(spec);
    if path.is_dir() {
        return Ok((Source::Directory(path.to_owned()), None));
    }
    if path.is_file() {
        return Ok((Source::File(path.to_owned()), None));
    }
    let (repo, revision) = match spec.split_once('@') {
        Some((repo, revision)) => (repo, Some(revision.to_owned())),
        None => (spec, None),
    };
    let is_part = |part: &str| {
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        !part.is_empty() && !part.starts_with('.') && part.chars().all(plain)
    };
    if repo.split_once('/').is_some_and(|(owner, name)| is_part(owner) && is_part(name)) {
        let known = catalogue::find(repo);
        return Ok((Source::Hub { repo: repo.to_owned(), revision, files: Vec::new() }, known));
    }
    Err(Error::UnknownName { name: spec.to_owned(), nearest: catalogue::nearest(spec, 3) })
}
