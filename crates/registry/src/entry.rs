//! What is known of a method by name.

use std::path::Path;

use anomaly_core::{
    ConfigError, Detector, DetectorReader, Info, Method, MethodConfig, MethodError, parse_config,
};
use serde_json::Value;

use crate::Resources;

/// Builds a method from overrides of its default configuration.
pub type Build = fn(&Value, &Resources<'_>) -> Result<Box<dyn Method>, MethodError>;

/// Loads a detector from its directory.
pub type Load = fn(&Path, &Resources<'_>) -> Result<Box<dyn Detector>, MethodError>;

/// A method by name: what it is, how its configuration is checked, how it is built and loaded.
#[derive(Debug, Clone, Copy)]
pub struct MethodEntry {
    /// What it is.
    pub info: &'static Info,
    /// Its default configuration, every field.
    pub default_config: fn() -> Value,
    /// Checks overrides of the default configuration and gives the whole of it; no backbone is loaded.
    pub check_config: fn(&Value) -> Result<Value, ConfigError>,
    /// The name of the backbone that it would load with these overrides, given the one that was asked for; `None` if
    /// it would load none.
    pub backbone: for<'n> fn(&Value, Option<&'n str>) -> Result<Option<&'n str>, ConfigError>,
    /// Builds it from overrides of the default configuration.
    pub build: Build,
    /// Loads a detector of it from its directory. The backbone is the one that the detector names, unless
    /// [`Resources::backbone`] says where else it is found; its hash must be the same.
    pub load: Load,
}

/// The entry of a method crate of the usual shape: `INFO`, `Config`, a type with `new(Config, backbone)`.
///
/// `needed`: the backbone is an `Arc<Vit>`, and the detector's type has `load(&DetectorReader, Arc<Vit>)`.
/// `optional`: it is an `Option<Arc<Vit>>`, `Config::needs_backbone()` says whether there must be one, and the crate has
/// `load(&DetectorReader, Option<Arc<Vit>>, &Device)`.
///
/// `alone`: there is none; the type has `new(Config)`, the detector's `load(&DetectorReader, &Device)`.
///
/// `either`: as `needed`, but the backbone is the crate's own `Backbone`, made from an `Arc<Vit>` or an `Arc<ResNet>`.
macro_rules! entry {
    (alone, $method:ident, $type:ident, $detector:ident) => {
        $crate::entry::MethodEntry {
            info: &$method::INFO,
            default_config: $crate::entry::default_config::<$method::Config>,
            check_config: $crate::entry::check_config::<$method::Config>,
            backbone: |overrides, _| {
                anomaly_core::parse_config::<$method::Config>(overrides)?;
                Ok(None)
            },
            build: |overrides, _| {
                let config = anomaly_core::parse_config::<$method::Config>(overrides)?;
                Ok(Box::new($method::$type::new(config)?))
            },
            load: |directory, resources| {
                let reader = $crate::entry::open(directory, resources, &$method::INFO)?;
                Ok(Box::new($method::$detector::load(&reader, &resources.device)?))
            },
        }
    };
    (needed, $method:ident, $type:ident, $detector:ident) => {
        $crate::entry::MethodEntry {
            info: &$method::INFO,
            default_config: $crate::entry::default_config::<$method::Config>,
            check_config: $crate::entry::check_config::<$method::Config>,
            backbone: |overrides, asked| {
                anomaly_core::parse_config::<$method::Config>(overrides)?;
                Ok(asked.or($method::INFO.default_backbone))
            },
            build: |overrides, resources| {
                let config = anomaly_core::parse_config::<$method::Config>(overrides)?;
                let vit = resources.needed(&$method::INFO)?;
                Ok(Box::new($method::$type::new(config, vit)?))
            },
            load: |directory, resources| {
                let reader = $crate::entry::open(directory, resources, &$method::INFO)?;
                let vit = resources.named_by(&reader, &$method::INFO)?;
                Ok(Box::new($method::$detector::load(&reader, vit)?))
            },
        }
    };
    (either, $method:ident, $type:ident, $detector:ident) => {
        $crate::entry::MethodEntry {
            info: &$method::INFO,
            default_config: $crate::entry::default_config::<$method::Config>,
            check_config: $crate::entry::check_config::<$method::Config>,
            backbone: |overrides, asked| {
                anomaly_core::parse_config::<$method::Config>(overrides)?;
                Ok(asked.or($method::INFO.default_backbone))
            },
            build: |overrides, resources| {
                let config = anomaly_core::parse_config::<$method::Config>(overrides)?;
                let network = resources.needed_network(&$method::INFO)?;
                Ok(Box::new($method::$type::new(config, $crate::entry::either!($method, network))?))
            },
            load: |directory, resources| {
                let reader = $crate::entry::open(directory, resources, &$method::INFO)?;
                let network = resources.network_named_by(&reader, &$method::INFO)?;
                Ok(Box::new($method::$detector::load(&reader, $crate::entry::either!($method, network))?))
            },
        }
    };
    (optional, $method:ident, $type:ident) => {
        $crate::entry::MethodEntry {
            info: &$method::INFO,
            default_config: $crate::entry::default_config::<$method::Config>,
            check_config: $crate::entry::check_config::<$method::Config>,
            backbone: |overrides, asked| {
                let config = anomaly_core::parse_config::<$method::Config>(overrides)?;
                Ok(asked.or($method::INFO.default_backbone).filter(|_| config.needs_backbone()))
            },
            build: |overrides, resources| {
                let config = anomaly_core::parse_config::<$method::Config>(overrides)?;
                let vit = config.needs_backbone().then(|| resources.needed(&$method::INFO)).transpose()?;
                Ok(Box::new($method::$type::new(config, vit)?))
            },
            load: |directory, resources| {
                let reader = $crate::entry::open(directory, resources, &$method::INFO)?;
                let named = reader.manifest().backbone.is_some();
                let vit = named.then(|| resources.named_by(&reader, &$method::INFO)).transpose()?;
                $method::load(&reader, vit, &resources.device)
            },
        }
    };
}
pub(crate) use entry;

/// A method's own backbone type of a network.
macro_rules! either {
    ($method:ident, $network:ident) => {
        match $network {
            $crate::backbones::Network::Vit(vit) => $method::Backbone::from(vit),
            $crate::backbones::Network::ResNet(network) => $method::Backbone::from(network),
        }
    };
}
pub(crate) use either;

pub(crate) fn default_config<C: MethodConfig>() -> Value {
    // A configuration is a struct of plain values: it always has a JSON form.
    serde_json::to_value(C::default()).unwrap_or_default()
}

pub(crate) fn check_config<C: MethodConfig>(overrides: &Value) -> Result<Value, ConfigError> {
    let config: C = parse_config(overrides)?;
    serde_json::to_value(config).map_err(|e| ConfigError::field(C::METHOD, "(all)", e.to_string()))
}

/// Opens a detector and refuses one of another method before a backbone is loaded for it.
pub(crate) fn open(
    directory: &Path,
    resources: &Resources<'_>,
    info: &Info,
) -> Result<DetectorReader, MethodError> {
    let reader = DetectorReader::open(directory, &resources.device)?;
    reader.expect_method(info.name)?;
    Ok(reader)
}
