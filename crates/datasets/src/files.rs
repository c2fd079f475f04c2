//! Listing folders of image files in an order that no file system changes.

use std::path::{Path, PathBuf};

use crate::Error;

const EXTENSIONS: [&str; 7] = ["png", "jpg", "jpeg", "bmp", "tif", "tiff", "webp"];

/// An entry of a folder with its name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Entry {
    /// Its name, without the folder.
    pub(crate) name: String,
    /// Its path.
    pub(crate) path: PathBuf,
}

impl Entry {
    /// The name without its last extension.
    pub(crate) fn stem(&self) -> &str {
        self.name.rsplit_once('.').map_or(self.name.as_str(), |(stem, _)| stem)
    }
}

/// The folders in `folder`, by name; hidden ones are passed over.
pub(crate) fn folders(folder: &Path) -> Result<Vec<Entry>, Error> {
    entries(folder, |path, _| path.is_dir())
}

/// The image files in `folder`, by name; hidden and other files are passed over.
pub(crate) fn images(folder: &Path) -> Result<Vec<Entry>, Error> {
    entries(folder, |path, name| {
        let extension = name.rsplit_once('.').map(|(_, extension)| extension.to_ascii_lowercase());
        extension.is_some_and(|e| EXTENSIONS.contains(&e.as_str())) && path.is_file()
    })
}

fn entries(folder: &Path, wanted: impl Fn(&Path, &str) -> bool) -> Result<Vec<Entry>, Error> {
    let unreadable = |source| Error::Read { path: folder.to_owned(), source };
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(unreadable)? {
        let path = entry.map_err(unreadable)?.path();
        let Some(name) = path.file_name().and_then(|name| name.to_str()).map(str::to_owned) else {
            return Err(Error::content(path, "a file name in UTF-8", "another"));
        };
        if !name.starts_with('.') && wanted(&path, &name) {
            found.push(Entry { name, path });
        }
    }
    found.sort();
    Ok(found)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn only_images_are_listed_and_by_name() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["b.PNG", "a.jpeg", "c.txt", ".hidden.png", "10.png", "9.png"] {
            std::fs::write(folder.path().join(name), b"").unwrap();
        }
        std::fs::create_dir(folder.path().join("d.png")).unwrap();
        let names: Vec<_> = images(folder.path()).unwrap().into_iter().map(|e| e.name).collect();
        assert_eq!(names, ["10.png", "9.png", "a.jpeg", "b.PNG"]);
        assert_eq!(folders(folder.path()).unwrap()[0].name, "d.png");
        let message = images(&folder.path().join("none")).unwrap_err().to_string();
        assert!(message.contains("none"), "{message}");
    }
}
