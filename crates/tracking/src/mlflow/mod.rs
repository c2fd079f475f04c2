//! MLflow: its file layout, and a server.

#[cfg(feature = "server")]
mod access;
mod files;
#[cfg(feature = "server")]
mod http;
mod plan;
#[cfg(feature = "server")]
mod server;

#[cfg(feature = "server")]
pub use access::ServerAccess;
pub use files::MlflowFiles;
#[cfg(feature = "server")]
pub use server::MlflowServer;
