//! Public image data sets, fetched from where their publishers put them.
//!
//! For the folders that the crate `datasets` opens. What may be downloaded freely is downloaded by [`Fetcher::fetch`]:
//! continued where an earlier attempt ended, checked, and unpacked into a folder that appears only when it is complete.
//! What needs a licence or a login is told by [`Access::Manual`] in words. Nothing is downloaded unasked.
//!
//! ```
//! use dataset_fetch::{Access, SOURCES, find};
//!
//! assert!(SOURCES.iter().any(|source| source.name == "visa"));
//! let mvtec = find("mvtec")?;
//! let Access::Manual { steps, .. } = mvtec.access else { panic!("MVTec's licence is accepted on their page") };
//! assert!(steps.contains("mvtec.com"));
//! assert!(find("cifar").unwrap_err().to_string().contains("did you mean `cifar10`?"));
//! # Ok::<(), dataset_fetch::Error>(())
//! ```

mod digest;
mod download;
mod error;
mod fetcher;
mod lock;
mod sources;
mod unpack;

pub use digest::{Algorithm, Digest, StatedBy};
pub use error::Error;
pub use fetcher::{Check, Fetched, Fetcher, Progress};
pub use sources::{Access, Packing, Remote, SOURCES, Source, find};
