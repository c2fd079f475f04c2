//! Where backbones come from.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use anomaly_core::{ConfigError, DetectorReader, Info, MethodError, Precision};
use candle_core::Device;
use cnn_backbone::ResNet;
use vit_backbone::{LoadOptions, Vit};

/// Gives backbones by name.
pub trait Backbones: Send + Sync {
    /// The frozen backbone called `name`: a catalogue name, a hub id or a directory. Its products have this precision.
    ///
    /// # Errors
    /// If there is none, or it can't be fetched or read.
    fn load(&self, name: &str, precision: Precision) -> Result<Arc<Vit>, vit_backbone::Error>;

    /// The frozen residual network called `name` ([`cnn_backbone::is_resnet`]), for methods that take one. Its
    /// convolutions are in f32 always. Unless implemented, there is none.
    ///
    /// # Errors
    /// If there is none, or it can't be fetched or read.
    fn load_resnet(&self, name: &str) -> Result<Arc<ResNet>, cnn_backbone::Error> {
        Err(cnn_backbone::Error::UnknownName { name: name.to_owned(), nearest: Vec::new() })
    }

    /// SHA-256 of the weights of the backbone called `name`, of either kind, in hex.
    ///
    /// # Errors
    /// As loading it, in words.
    fn weights_sha256(&self, name: &str) -> Result<String, String> {
        if cnn_backbone::is_resnet(name) {
            let network = self.load_resnet(name).map_err(|e| e.to_string())?;
            return Ok(network.identity().sha256.clone());
        }
        // Hashes are of files: any precision will do.
        let vit = self.load(name, Precision::F32).map_err(|e| e.to_string())?;
        Ok(vit.identity().sha256.clone())
    }
}

/// A frozen network of one of the kinds that methods take.
pub(crate) enum Network {
    Vit(Arc<Vit>),
    ResNet(Arc<ResNet>),
}

/// Loads backbones with [`Vit::load`] and [`ResNet::load`] and keeps them: each name is loaded once a precision.
#[derive(Debug, Default)]
pub struct HubBackbones {
    options: LoadOptions,
    loaded: Mutex<HashMap<(String, Precision), Arc<Vit>>>,
    resnets: Mutex<HashMap<String, Arc<ResNet>>>,
}

impl HubBackbones {
    /// Backbones loaded with these options (device, how the hub is reached; not the precision, which each has). The default is on the CPU, without network.
    pub fn new(options: LoadOptions) -> Self {
        Self { options, loaded: Mutex::default(), resnets: Mutex::default() }
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

    fn load_resnet(&self, name: &str) -> Result<Arc<ResNet>, cnn_backbone::Error> {
        let mut loaded = self.resnets.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(network) = loaded.get(name) {
            return Ok(Arc::clone(network));
        }
        let LoadOptions { device, hub, .. } = self.options.clone();
        let network = Arc::new(ResNet::load(name, &cnn_backbone::LoadOptions { device, hub })?);
        loaded.insert(name.to_owned(), Arc::clone(&network));
        Ok(network)
    }
}

/// The revision of `cnn-backbone` if the backbone called `name` is one of its networks: part of the id of cells that use
/// it.
pub fn resnet_revision(name: &str) -> Option<u32> {
    cnn_backbone::is_resnet(name).then_some(cnn_backbone::REVISION)
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
        self.load(self.asked(info)?, self.precision, info)
    }

    /// The same of either kind.
    pub(crate) fn needed_network(&self, info: &Info) -> Result<Network, MethodError> {
        self.network(self.asked(info)?, self.precision, info)
    }

    fn asked(&self, info: &Info) -> Result<&str, MethodError> {
        self.backbone.or(info.default_backbone).ok_or_else(|| {
            let problem = "expected the name of a backbone, found none (the method has no published one)";
            ConfigError::field(info.name, "backbone", problem).into()
        })
    }

    /// The backbone that a saved detector names, or the one asked for in its place, in the precision that it was
    /// trained with.
    pub(crate) fn named_by(&self, reader: &DetectorReader, info: &Info) -> Result<Arc<Vit>, MethodError> {
        let named = &reader.backbone()?.name;
        self.load(self.backbone.unwrap_or(named), reader.manifest().precision, info)
    }

    /// The same of either kind.
    pub(crate) fn network_named_by(
        &self,
        reader: &DetectorReader,
        info: &Info,
    ) -> Result<Network, MethodError> {
        let named = &reader.backbone()?.name;
        self.network(self.backbone.unwrap_or(named), reader.manifest().precision, info)
    }

    fn network(&self, name: &str, precision: Precision, info: &Info) -> Result<Network, MethodError> {
        if !cnn_backbone::is_resnet(name) {
            return Ok(Network::Vit(self.load(name, precision, info)?));
        }
        let network = self.backbones.load_resnet(name).map_err(|e| MethodError::failed(info.name, e))?;
        Ok(Network::ResNet(network))
    }

    fn load(&self, name: &str, precision: Precision, info: &Info) -> Result<Arc<Vit>, MethodError> {
        self.backbones.load(name, precision).map_err(|e| MethodError::failed(info.name, e))
    }
}
