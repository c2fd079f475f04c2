//! Methods by name, with their backbones.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::path::Path;

use anomaly_core::{Detector, Method};
use candle_core::Device;
use registry::{Backbones, HubBackbones, Resources};
use serde_json::{Value, json};
use vit_backbone::{Hub, LoadOptions};

use crate::{Entry, Error, Identity};

/// Builds methods and loads detectors on one device; each backbone is loaded once.
pub(crate) struct Methods {
    device: Device,
    backbones: HubBackbones,
    /// Why backbones can't be had: asking the hub again for each entry would only take time.
    missing: RefCell<BTreeMap<String, String>>,
}

/// An entry of a profile with its method's defaults filled in.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Resolved {
    /// The whole configuration.
    pub(crate) config: Value,
    /// The backbone that the method uses, if it uses one.
    pub(crate) backbone: Option<String>,
    /// sha256 of its weights.
    pub(crate) weights_sha256: Option<String>,
    /// Revisions of the crates that affect numbers.
    pub(crate) revisions: BTreeMap<String, u32>,
    /// Why the weights can't be had, if they can't.
    pub(crate) problem: Option<String>,
}

impl Methods {
    /// Methods on `device`. Weights come from the hub's cache, or the hub, as the environment says.
    pub(crate) fn new(device: Device) -> Self {
        Self::reaching(device, false)
    }

    /// The same; with `offline` the hub is not asked, whatever the environment says.
    pub(crate) fn reaching(device: Device, offline: bool) -> Self {
        let mut hub = Hub::from_environment();
        hub.offline |= offline;
        let options = LoadOptions { device: device.clone(), hub, ..LoadOptions::default() };
        Self { device, backbones: HubBackbones::new(options), missing: RefCell::default() }
    }

    /// Fills in the defaults of an entry and finds its weights, fetching them if need be.
    pub(crate) fn resolve(&self, entry: &Entry) -> Result<Resolved, Error> {
        let method = registry::find(&entry.method)?;
        let mut overrides = entry.config.clone();
        if let Some(size) = entry.image_size {
            if overrides.is_null() {
                overrides = json!({});
            }
            if let Some(fields) = overrides.as_object_mut() {
                fields.insert("image_size".to_owned(), json!(size));
            }
        }
        let config = (method.check_config)(&overrides).map_err(anomaly_core::MethodError::from)?;
        let backbone = (method.backbone)(&overrides, entry.backbone.as_deref())
            .map_err(anomaly_core::MethodError::from)?
            .map(str::to_owned);
        let hash = backbone.as_deref().map(|name| self.weights_sha256(name)).transpose();
        let (weights_sha256, problem) = hash.map_or_else(|why| (None, Some(why)), |hash| (hash, None));
        let mut revisions = BTreeMap::from([
            ("anomaly-core".to_owned(), anomaly_core::REVISION),
            ("benchmark".to_owned(), crate::REVISION),
            ("datasets".to_owned(), datasets::REVISION),
            ("image-prep".to_owned(), image_prep::REVISION),
            ("metrics".to_owned(), metrics::REVISION),
            ("vit-backbone".to_owned(), vit_backbone::REVISION),
            (method.info.name.to_owned(), method.info.revision),
        ]);
        if let Some(revision) = backbone.as_deref().and_then(registry::resnet_revision) {
            revisions.insert("cnn-backbone".to_owned(), revision);
        }
        Ok(Resolved { config, backbone, weights_sha256, revisions, problem })
    }

    /// The hash of a backbone's weights, or why they can't be had.
    fn weights_sha256(&self, name: &str) -> Result<String, String> {
        if let Some(why) = self.missing.borrow().get(name) {
            return Err(why.clone());
        }
        self.backbones.weights_sha256(name).inspect_err(|why| {
            self.missing.borrow_mut().insert(name.to_owned(), why.clone());
        })
    }

    /// Builds the method that `identity` describes.
    pub(crate) fn build(&self, identity: &Identity) -> Result<Box<dyn Method>, Error> {
        let method = registry::find(&identity.method)?;
        Ok((method.build)(&identity.config, &self.resources(identity))?)
    }

    /// Loads the detector in `folder`, as its own manifest says.
    pub(crate) fn load(&self, folder: &Path, identity: &Identity) -> Result<Box<dyn Detector>, Error> {
        let method = registry::find(&identity.method)?;
        Ok((method.load)(folder, &self.resources(identity))?)
    }

    fn resources<'a>(&'a self, identity: &'a Identity) -> Resources<'a> {
        let backbone = identity.backbone.as_deref();
        let precision = identity.precision;
        Resources { backbones: &self.backbones, backbone, device: self.device.clone(), precision }
    }
}
