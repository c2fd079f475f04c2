//! End-to-end tests of the real binaries live in `tests/it`; this library finds what they need.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// The repository's root.
pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap_or_else(|| Path::new("."))
}

/// A command that runs the `xtask` binary in the repository's root.
///
/// The first call builds it, as `cargo xtask` would: `cargo test` builds no binaries of other packages.
///
/// # Panics
/// If it can't be built: no test can then say anything.
pub fn xtask() -> Command {
    static BINARY: OnceLock<PathBuf> = OnceLock::new();
    let binary = BINARY.get_or_init(|| {
        let mut cargo = Command::new(env!("CARGO"));
        cargo.args(["build", "--release", "--quiet", "--package", "xtask", "--message-format=json"]);
        cargo.current_dir(root());
        // They are this test's: `ring` compiles anew when they change, and with it all that needs it.
        let of_package = |name: &str| name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_MANIFEST_");
        for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_str().is_some_and(of_package)) {
            cargo.env_remove(name);
        }
        let built = cargo.output();
        let built = built.unwrap_or_else(|e| panic!("can't run cargo: {e}"));
        let messages: Vec<serde_json::Value> = String::from_utf8_lossy(&built.stdout)
            .lines()
            .filter_map(|line| serde_json::from_str(line).ok())
            .collect();
        // The compiler's words are among them, cargo's are not.
        let rendered: String = messages.iter().filter_map(|m| m["message"]["rendered"].as_str()).collect();
        assert!(built.status.success(), "{rendered}{}", String::from_utf8_lossy(&built.stderr));
        messages
            .iter()
            .find_map(|message| {
                let is_xtask = message["target"]["name"] == "xtask";
                message["executable"].as_str().filter(|_| is_xtask).map(PathBuf::from)
            })
            .unwrap_or_else(|| panic!("cargo named no executable of xtask"))
    });
    let mut command = Command::new(binary);
    command.current_dir(root());
    command
}
