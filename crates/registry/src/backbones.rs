//! Where backbones come from.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use anomaly_core::{ConfigError, DetectorReader, Info, MethodError, Precision};
use candle_core::Device;
use vit_backbone::{LoadOptions, Vit};

/// Gives backbones by name.
pub trait Backbones: Send + Sync {
    /// The frozen backbone called `name`: a catalogue name, a hub id or a directory. Its products have this precision.
    ///
    /// # Errors
    /// If there is none, or it can't be fetched or read.
    fn load(&self, name: &str, precision: Precision) -> Result<Arc<Vit>, vit_backbone::Error>;
}

/// Loads backbones with [`Vit::load`] and keeps them: each name is loaded once a precision.
#[derive(Debug, Default)]
pub struct HubBackbones {
    options: LoadOptions,
    loaded: Mutex<HashMap<(String, Precision), Arc<Vit>>>,
}

impl HubBackbones {
    /// Backbones loaded with these options (device, how the hub is reached; not the precision, which each has). The default is on the CPU, without network.
    pub fn new(options: LoadOptions) -> Self {
        Self { options, loaded: Mutex::default() }
    }
}

impl Backbones for HubBackbones {
    fn load(&self, name: &str, precision: Precision) -> Result<Arc<Vit>, vit_backbone::Error> {
        let key = (name.to_owned(), precision);
        // Held while loading, so that two threads don't load one backbone twice. A panic leaves a map that is whole.
        let mut loaded = self.loaded.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(vit) = loaded.get(&key) {
            return Ok(Arc::clone(vit));
        }
        // The two crates know nothing of each other; their precisions go by one name.
        let options = LoadOptions { precision: precision.as_str().parse()?, ..self.options.clone() };
        let vit = Arc::new(Vit::load(name, &options)?);
        loaded.insert(key, Arc::clone(&vit));
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
    /// In which arithmetic a new method's frozen networks compute. A saved detector's is in its manifest.
    pub precision: Precision,
}

impl Resources<'_> {
    /// The backbone that was asked for, or the method's published one.
    pub(crate) fn needed(&self, info: &Info) -> Result<Arc<Vit>, MethodError> {
        let Some(name) = self.backbone.or(info.default_backbone) else {
            let problem = "expected the name of a backbone, found none (the method has no published one)";
            return Err(ConfigError::field(info.name, "backbone", problem).into());
        };
        self.load(name, self.precision, info)
    }

    /// The backbone that a saved detector names, or the one asked for in its place, in the precision that it was
    /// trained with.
    pub(crate) fn named_by(&self, reader: &DetectorReader, info: &Info) -> Result<Arc<Vit>, MethodError> {
        let named = &reader.backbone()?.name;
        self.load(self.backbone.unwrap_or(named), reader.manifest().precision, info)
    }

    fn load(&self, name: &str, precision: Precision, info: &Info) -> Result<Arc<Vit>, MethodError> {
        self.backbones.load(name, precision).map_err(|e| MethodError::failed(info.name, e))
    }
}
