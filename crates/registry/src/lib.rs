//! The methods of vitad by name: the one place where a string becomes a method.
//!
//! For harnesses and programs that read names from profiles, command lines or saved detectors. Whoever knows at compile
//! time which method they want depends on its crate instead.
//!
//! ```
//! use anomaly_core::Precision;
//! use candle_core::Device;
//! use registry::{HubBackbones, Resources, find, methods};
//! use serde_json::json;
//!
//! let names: Vec<_> = methods().iter().map(|entry| entry.info.name).collect();
//! assert!(names.contains(&"pixel-knn"));
//!
//! let entry = find("pixel-knn")?;
//! let backbones = HubBackbones::default();
//! let resources = Resources { backbones: &backbones, backbone: None, device: Device::Cpu, precision: Precision::F32 };
//! let method = (entry.build)(&json!({"image_size": 16}), &resources)?;
//! assert_eq!(method.config()["k"], (entry.default_config)()["k"]);
//!
//! assert!(find("pixel-kn").err().ok_or("found")?.to_string().contains("did you mean `pixel-knn`?"));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod backbones;
mod entry;
mod error;
mod methods;

pub use backbones::{Backbones, HubBackbones, Resources, resnet_revision};
pub use entry::{Build, Load, MethodEntry};
pub use error::Error;
pub use methods::{find, methods};
