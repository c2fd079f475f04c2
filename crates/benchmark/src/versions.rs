//! Versions of what numbers depend on.

use std::collections::BTreeMap;
use std::path::Path;

use crate::Error;
use crate::toml_file::TomlFile;

/// Crates outside the project that figures are computed with.
const NUMERIC: [&str; 6] = ["candle-core", "candle-nn", "faer", "gemm", "image", "rand_chacha"];

/// The versions that the lock file at `path` has for this crate and for the numeric ones it depends on.
///
/// # Errors
/// [`Error::Io`] if the file can't be read; [`Error::Profile`] with the line if it is no lock file.
pub fn locked_versions(path: &Path) -> Result<BTreeMap<String, String>, Error> {
    let file = TomlFile::read(path)?;
    let parsed = file.parse()?;
    let mut versions = BTreeMap::from([("vitad".to_owned(), env!("CARGO_PKG_VERSION").to_owned())]);
    for package in file.root(&parsed).need("package")?.elements()? {
        let package = package.table("package.")?;
        let name = package.need("name")?.string()?;
        if NUMERIC.contains(&name) {
            versions.insert(name.to_owned(), package.need("version")?.string()?.to_owned());
        }
    }
    Ok(versions)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::locked_versions;

    #[test]
    fn numeric_crates_are_found_and_others_left_out() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let lock = "version = 4\n[[package]]\nname = \"candle-core\"\nversion = \"0.11.1\"\n\
                    [[package]]\nname = \"serde\"\nversion = \"1.0.0\"\n";
        std::fs::write(file.path(), lock).unwrap();
        let versions = locked_versions(file.path()).unwrap();
        assert_eq!(versions["candle-core"], "0.11.1");
        assert_eq!(versions.keys().collect::<Vec<_>>(), ["candle-core", "vitad"]);
    }
}
