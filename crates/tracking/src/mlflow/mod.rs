//! MLflow: its file layout, and a server.

mod files;
#[cfg(feature = "server")]
mod http;
mod plan;
#[cfg(feature = "server")]
mod server;

pub use files::MlflowFiles;
#[cfg(feature = "server")]
pub use server::MlflowServer;
