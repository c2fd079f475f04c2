//! Where backbones come from.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use anomaly_core::{ConfigError, DetectorReader, Info, MethodError};
use candle_core::Device;
use vit_backbone::{LoadOptions, Vit};

/// Gives backbones by name.
pub trait Backbones: Send + Sync {
    /// The frozen backbone called `name`: a catalogue name, a hub id or a directory.
    ///
    /// # Errors
    /// If there is none, or it can't be fetched or read.
    fn load(&self, name: &str) -> Result<Arc<Vit>, vit_backbone::Error>;
}

/// Loads backbones with [`Vit::load`] and keeps them: each name is loaded once.
#[derive(Debug, Default)]
pub struct HubBackbones {
    options: LoadOptions,
    loaded: Mutex<HashMap<String, Arc<Vit>>>,
}

impl HubBackbones {
    /// Backbones loaded with these options (device, how the hub is reached). The default is on the CPU, without network.
    pub fn new(options: LoadOptions) -> Self {
        Self { options, loaded: Mutex::default() }
    }
}

impl Backbones for HubBackbones {
    fn load(&self, name: &str) -> Result<Arc<Vit>, vit_backbone::Error> {
        // Held while loading, so that two threads don't load one backbone twice. A panic leaves a map that is whole.
        let mut loaded = self.loaded.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(vit) = loaded.get(name) {
            return Ok(Arc::clone(vit));
        }
        let vit = Arc::new(Vit::load(name, &self.options)?);
        loaded.insert(name.to_owned(), Arc::clone(&vit));
        Ok(vit)
    }
}

/// What a method may need besides its configuration.
#[derive(Clone)]
pub struct Resources<'a> {
    /// Gives backbones.
    pub backbones: &'a dyn Backbones,
    /// The backbone that was asked for; the method's published one if none.
    pub backbone: Option<&'a str>,
    /// Where to compute.
    pub device: Device,
}

impl Resources<'_> {
    /// The backbone that was asked for, or the method's published one.
    pub(crate) fn needed(&self, info: &Info) -> Result<Arc<Vit>, MethodError> {
        let Some(name) = self.backbone.or(info.default_backbone) else {
            let problem = "expected the name of a backbone, found none (the method has no published one)";
            return Err(ConfigError::field(info.name, "backbone", problem).into());
        };
        self.load(name, info)
    }

    /// The backbone that a saved detector names, or the one asked for in its place.
    pub(crate) fn named_by(&self, reader: &DetectorReader, info: &Info) -> Result<Arc<Vit>, MethodError> {
        let named = &reader.backbone()?.name;
        self.load(self.backbone.unwrap_or(named), info)
    }

    fn load(&self, name: &str, info: &Info) -> Result<Arc<Vit>, MethodError> {
        self.backbones.load(name).map_err(|e| MethodError::failed(info.name, e))
    }
}
