//! What earlier fetches received: the only reference for files whose publisher states no digest.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::Error;

/// The file's name in the folder of all data sets.
const NAME: &str = "fetch-lock.json";

/// One received file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Record {
    pub(crate) bytes: u64,
    pub(crate) sha256: String,
}

/// Records by address.
pub(crate) struct Lock {
    path: PathBuf,
    records: BTreeMap<String, Record>,
}

impl Lock {
    pub(crate) fn read(folder: &Path) -> Result<Self, Error> {
        let path = folder.join(NAME);
        let records = match fs::read(&path) {
            Ok(bytes) => serde_json::from_slice(&bytes)
                .map_err(|error| Error::Lock { path: path.clone(), reason: error.to_string() })?,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => BTreeMap::new(),
            Err(source) => return Err(Error::Read { path, source }),
        };
        Ok(Self { path, records })
    }

    pub(crate) fn get(&self, url: &str) -> Option<&Record> {
        self.records.get(url)
    }

    pub(crate) fn set(&mut self, url: &str, record: Record) -> Result<(), Error> {
        self.records.insert(url.to_owned(), record);
        let failed = |reason: String| Error::Lock { path: self.path.clone(), reason };
        let text = serde_json::to_string_pretty(&self.records).map_err(|error| failed(error.to_string()))?;
        let beside = crate::fetcher::beside(&self.path, ".new");
        let written = fs::write(&beside, text + "\n").and_then(|()| fs::rename(&beside, &self.path));
        written.map_err(|source| Error::Write { path: self.path.clone(), source })
    }
}
