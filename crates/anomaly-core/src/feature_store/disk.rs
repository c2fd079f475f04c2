//! Features in a folder, shared by processes.

use std::collections::HashMap;
use std::fs::OpenOptions;
use std::io::{ErrorKind, Read, Seek, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use candle_core::{DType, Device, Tensor};
use memmap2::Mmap;
use safetensors::{Dtype, SafeTensors, View};
use sha2::{Digest, Sha256};

use super::{FeatureKey, FeaturePrecision, FeatureStore, mapped};
use crate::Error;
use crate::hex::hex;

/// Keeps features in a folder up to a budget, one file each, named by the hash of its key.
///
/// Several processes may use one folder at a time: a file appears whole, by a rename, and is never written again, and
/// the count of bytes is kept in a file of its own under a lock. A file is memory-mapped when it is first asked for and
/// checked against the hash in its header; one that is damaged is removed with a warning and counts as not kept.
///
/// Nothing else may write into the folder. To clear it, remove it while nobody uses it.
#[derive(Debug)]
pub struct DiskFeatureStore {
    folder: PathBuf,
    budget: u64,
    precision: FeaturePrecision,
    /// Files that were checked.
    open: Mutex<HashMap<String, Arc<Mmap>>>,
    told_full: AtomicBool,
}

/// A process may hold about 65 000 mappings; other parts of the program need some.
const MOST_OPEN: usize = 16_384;
/// The one tensor of a file.
const FEATURE: &str = "feature";
/// In its header: the hash of the tensor's bytes.
const SHA256: &str = "sha256";
const ENDING: &str = "safetensors";
const USAGE: &str = "bytes-used";
const TEMPORARY: &str = ".feature-";
/// What a file's header takes, more or less.
const HEADER_BYTES: u64 = 256;
/// No process takes so long to write one file.
const ABANDONED: Duration = Duration::from_secs(3600);

impl DiskFeatureStore {
    /// A store in `folder`, which is made if it isn't there, of at most `budget` bytes. What is there already is used.
    ///
    /// # Errors
    /// [`Error::File`] if the folder can't be made or read.
    pub fn open(folder: &Path, budget: u64, precision: FeaturePrecision) -> Result<Self, Error> {
        std::fs::create_dir_all(folder).map_err(|e| Error::file(folder, "can't make the folder", e))?;
        let store = Self {
            folder: folder.to_owned(),
            budget,
            precision,
            open: Mutex::default(),
            told_full: AtomicBool::new(false),
        };
        store.with_usage(|store, used| {
            *used = store.count(true)?;
            Ok(())
        })?;
        Ok(store)
    }

    /// The folder.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// How many bytes lie in the folder, those of other processes among them.
    ///
    /// # Errors
    /// [`Error::File`] if the count can't be read.
    pub fn bytes(&self) -> Result<u64, Error> {
        self.with_usage(|_, used| Ok(*used))
    }

    fn path(&self, digest: &str) -> PathBuf {
        // A folder with a hundred thousand entries is slow on some systems.
        self.folder.join(&digest[..2]).join(format!("{digest}.{ENDING}"))
    }

    /// Lends the count of bytes, locked against other processes.
    fn with_usage<T>(&self, f: impl FnOnce(&Self, &mut u64) -> Result<T, Error>) -> Result<T, Error> {
        let path = self.folder.join(USAGE);
        let failed = |e: std::io::Error| Error::file(&path, "can't count the bytes used", e);
        let mut file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .read(true)
            .write(true)
            .open(&path)
            .map_err(failed)?;
        // Released with the descriptor, however the process ends.
        file.lock().map_err(failed)?;
        let mut text = String::new();
        file.read_to_string(&mut text).map_err(failed)?;
        let before = match text.trim().parse() {
            Ok(used) => used,
            // New, or torn by a crash of the machine.
            Err(_) => self.count(false)?,
        };
        let mut used = before;
        let result = f(self, &mut used)?;
        if used != before || text.is_empty() {
            file.rewind().map_err(failed)?;
            file.set_len(0).map_err(failed)?;
            file.write_all(used.to_string().as_bytes()).map_err(failed)?;
        }
        Ok(result)
    }

    /// The bytes of all files. With `clean`, what processes left that were killed while they wrote is removed.
    fn count(&self, clean: bool) -> Result<u64, Error> {
        let mut bytes = 0;
        for folder in listing(&self.folder)? {
            if !folder.path().is_dir() {
                continue;
            }
            for file in listing(&folder.path())? {
                let Ok(metadata) = file.metadata() else { continue };
                if !file.file_name().to_string_lossy().starts_with(TEMPORARY) {
                    bytes += metadata.len();
                } else if clean
                    && metadata.modified().is_ok_and(|at| at.elapsed().is_ok_and(|age| age > ABANDONED))
                {
                    // Somebody else may have removed it first.
                    std::fs::remove_file(file.path()).ok();
                }
            }
        }
        Ok(bytes)
    }

    /// Takes `bytes` of what is left; `false` if there is not so much.
    fn reserve(&self, bytes: u64) -> Result<bool, Error> {
        self.with_usage(|store, used| {
            if *used + bytes > store.budget {
                // What killed processes took and never wrote is given back.
                *used = store.count(false)?;
            }
            let fits = *used + bytes <= store.budget;
            if fits {
                *used += bytes;
            }
            Ok(fits)
        })
    }

    fn release(&self, bytes: u64) -> Result<(), Error> {
        self.with_usage(|_, used| {
            *used = used.saturating_sub(bytes);
            Ok(())
        })
    }

    /// The file `digest`, checked; `None` if there is none, or one that is damaged, which is then removed.
    fn mapped(&self, digest: &str) -> Result<Option<Arc<Mmap>>, Error> {
        // A panic while the lock was held leaves a map that is whole.
        let open = || self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(map) = open().get(digest) {
            return Ok(Some(Arc::clone(map)));
        }
        let path = self.path(digest);
        let map = match mapped::map(&path) {
            Ok(Some(map)) => Arc::new(map),
            Ok(None) => return Ok(None),
            // Nothing in it can't be mapped.
            Err(e) if e.kind() == ErrorKind::InvalidInput => return self.discard(&path, "it is empty"),
            Err(e) => return Err(Error::file(&path, "can't read", e)),
        };
        if let Err(problem) = check(&map) {
            return self.discard(&path, &problem);
        }
        let mut open = open();
        if open.len() >= MOST_OPEN {
            open.clear();
        }
        open.insert(digest.to_owned(), Arc::clone(&map));
        Ok(Some(map))
    }

    fn discard(&self, path: &Path, problem: &str) -> Result<Option<Arc<Mmap>>, Error> {
        tracing::warn!(path = %path.display(), problem, "a kept feature is damaged; it is computed again");
        let bytes = path.metadata().map_or(0, |metadata| metadata.len());
        match std::fs::remove_file(path) {
            Ok(()) => self.release(bytes)?,
            Err(e) if e.kind() == ErrorKind::NotFound => {}
            Err(e) => return Err(Error::file(path, "can't remove the damaged file", e)),
        }
        Ok(None)
    }

    /// Says once that there is no more room.
    fn full(&self, why: &str) {
        if !self.told_full.swap(true, Ordering::Relaxed) {
            let folder = self.folder.display();
            tracing::warn!(%folder, "no more features are kept: {why}; the others are computed anew every time");
        }
    }

    /// Puts `bytes` in place under `path`; `false` if somebody else was faster.
    fn write(path: &Path, bytes: &[u8]) -> std::io::Result<bool> {
        let folder = path.parent().unwrap_or_else(|| Path::new("."));
        std::fs::create_dir_all(folder)?;
        let mut file = tempfile::Builder::new().prefix(TEMPORARY).suffix(".tmp").tempfile_in(folder)?;
        // Not flushed to the disk: what a crash of the machine spoils is noticed by its hash.
        file.write_all(bytes)?;
        match file.persist_noclobber(path) {
            Ok(_) => Ok(true),
            Err(e) if e.error.kind() == ErrorKind::AlreadyExists => Ok(false),
            Err(e) => Err(e.error),
        }
    }
}

impl FeatureStore for DiskFeatureStore {
    fn get(&self, key: &FeatureKey) -> Result<Option<Tensor>, Error> {
        let digest = key.digest(self.precision);
        let Some(map) = self.mapped(&digest)? else { return Ok(None) };
        let path = self.path(&digest);
        let broken =
            |e: safetensors::SafeTensorError| Error::file(&path, "is not a whole safetensors file", e);
        let file = SafeTensors::deserialize(&map).map_err(broken)?;
        let view = file.tensor(FEATURE).map_err(broken)?;
        let dtype = DType::try_from(view.dtype())?;
        let kept = Tensor::from_raw_buffer(view.data(), dtype, view.shape(), &Device::Cpu)?;
        Ok(Some(self.precision.given(&kept)?))
    }

    fn put(&self, key: FeatureKey, feature: &Tensor) -> Result<bool, Error> {
        let digest = key.digest(self.precision);
        let path = self.path(&digest);
        if path.exists() {
            return Ok(true);
        }
        let kept = self.precision.kept(feature)?.to_device(&Device::Cpu)?;
        let expected = (kept.elem_count() * kept.dtype().size_in_bytes()) as u64 + HEADER_BYTES;
        if expected > self.budget || self.told_full.load(Ordering::Relaxed) && self.room()? < expected {
            self.full("the budget is used up");
            return Ok(false);
        }
        let header = HashMap::from([(SHA256.to_owned(), sha256(&View::data(&&kept)))]);
        let bytes = safetensors::serialize([(FEATURE, &kept)], Some(header))
            .map_err(|e| Error::file(&path, "can't encode", e))?;
        let size = bytes.len() as u64;
        if !self.reserve(size)? {
            self.full("the budget is used up");
            return Ok(false);
        }
        match Self::write(&path, &bytes) {
            Ok(true) => Ok(true),
            Ok(false) => {
                self.release(size)?;
                Ok(true)
            }
            Err(e) => {
                self.release(size)?;
                if matches!(e.kind(), ErrorKind::StorageFull | ErrorKind::QuotaExceeded) {
                    self.full(&e.to_string());
                    return Ok(false);
                }
                Err(Error::file(&path, "can't write", e))
            }
        }
    }

    fn room(&self) -> Result<u64, Error> {
        Ok(self.budget.saturating_sub(self.bytes()?))
    }

    fn precision(&self) -> FeaturePrecision {
        self.precision
    }
}

fn listing(folder: &Path) -> Result<Vec<std::fs::DirEntry>, Error> {
    match std::fs::read_dir(folder) {
        Ok(entries) => entries.collect::<Result<_, _>>(),
        Err(e) if e.kind() == ErrorKind::NotFound => Ok(Vec::new()),
        Err(e) => Err(e),
    }
    .map_err(|e| Error::file(folder, "can't list", e))
}

fn sha256(bytes: &[u8]) -> String {
    let digest: [u8; 32] = Sha256::digest(bytes).into();
    hex(&digest)
}

/// Says what is wrong with a file of the store.
fn check(bytes: &[u8]) -> Result<(), String> {
    let (_, header) = SafeTensors::read_metadata(bytes).map_err(|e| e.to_string())?;
    let file = SafeTensors::deserialize(bytes).map_err(|e| e.to_string())?;
    let view = file.tensor(FEATURE).map_err(|e| e.to_string())?;
    if !matches!(view.dtype(), Dtype::F16 | Dtype::F32 | Dtype::F64) {
        return Err(format!("it holds {:?}", view.dtype()));
    }
    let stated = header.metadata().as_ref().and_then(|metadata| metadata.get(SHA256));
    let found = sha256(view.data());
    if stated == Some(&found) {
        return Ok(());
    }
    Err(format!("expected sha256 {}, found {found}", stated.map_or("(none)", String::as_str)))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::path::{Path, PathBuf};

    use candle_core::{DType, Device, Tensor};

    use super::{DiskFeatureStore, TEMPORARY, USAGE};
    use crate::feature_store::tests::{bits, feature, gives_back_what_it_says, key};
    use crate::feature_store::{FeaturePrecision, FeatureStore};

    fn open(folder: &Path) -> DiskFeatureStore {
        DiskFeatureStore::open(folder, 1 << 20, FeaturePrecision::F32).unwrap()
    }

    fn files(folder: &Path) -> Vec<PathBuf> {
        let folders = folder.read_dir().unwrap().map(|e| e.unwrap().path()).filter(|p| p.is_dir());
        folders.flat_map(|f| f.read_dir().unwrap().map(|e| e.unwrap().path()).collect::<Vec<_>>()).collect()
    }

    #[test]
    fn both_precisions_give_back_what_they_say_also_to_the_next_process() {
        for precision in [FeaturePrecision::F32, FeaturePrecision::F16] {
            let folder = tempfile::tempdir().unwrap();
            let store = DiskFeatureStore::open(folder.path(), 1 << 20, precision).unwrap();
            gives_back_what_it_says(&store);
            let (first, used) = (store.get(&key(1)).unwrap().unwrap(), store.bytes().unwrap());
            drop(store);
            let again = DiskFeatureStore::open(folder.path(), 1 << 20, precision).unwrap();
            assert_eq!(bits(&again.get(&key(1)).unwrap().unwrap()), bits(&first));
            assert_eq!(again.bytes().unwrap(), used);
            let on_disk: u64 = files(folder.path()).iter().map(|f| f.metadata().unwrap().len()).sum();
            assert_eq!(used, on_disk);
        }
    }

    #[test]
    fn one_precision_does_not_see_the_other_s_files() {
        let folder = tempfile::tempdir().unwrap();
        open(folder.path()).put(key(1), &feature()).unwrap();
        let half = DiskFeatureStore::open(folder.path(), 1 << 20, FeaturePrecision::F16).unwrap();
        assert!(half.get(&key(1)).unwrap().is_none());
    }

    #[test]
    fn every_kind_of_damage_is_noticed_and_the_feature_can_be_kept_again() {
        let damage: [fn(&mut Vec<u8>); 5] = [
            |bytes| *bytes.last_mut().unwrap() ^= 1,
            |bytes| bytes.truncate(bytes.len() - 3),
            Vec::clear,
            |bytes| bytes[3] ^= 0x40,
            |bytes| {
                let at = bytes.windows(6).position(|w| w == b"sha256").unwrap();
                bytes[at + 12] = if bytes[at + 12] == b'0' { b'1' } else { b'0' };
            },
        ];
        for spoil in damage {
            let folder = tempfile::tempdir().unwrap();
            open(folder.path()).put(key(1), &feature()).unwrap();
            let file = files(folder.path()).remove(0);
            let mut bytes = std::fs::read(&file).unwrap();
            spoil(&mut bytes);
            std::fs::write(&file, &bytes).unwrap();
            let store = open(folder.path());
            assert!(store.get(&key(1)).unwrap().is_none());
            assert_eq!(store.bytes().unwrap(), 0);
            assert!(store.put(key(1), &feature()).unwrap());
            assert_eq!(bits(&store.get(&key(1)).unwrap().unwrap()), bits(&feature()));
        }
    }

    #[test]
    fn a_full_store_keeps_no_more_and_keeps_what_it_has() {
        let folder = tempfile::tempdir().unwrap();
        let store = DiskFeatureStore::open(folder.path(), 700, FeaturePrecision::F32).unwrap();
        let kept: Vec<bool> = (0..6).map(|i| store.put(key(i), &feature()).unwrap()).collect();
        let fit = kept.iter().filter(|kept| **kept).count();
        assert!((2..5).contains(&fit) && kept[..fit].iter().all(|k| *k), "{kept:?}");
        assert!(store.bytes().unwrap() <= 700);
        assert!(store.put(key(0), &feature()).unwrap());
        for at in 0..6 {
            assert_eq!(store.get(&key(at)).unwrap().is_some(), kept[usize::from(at)]);
        }
        let large = Tensor::zeros(1000, DType::F32, &Device::Cpu).unwrap();
        assert!(!store.put(key(9), &large).unwrap());
    }

    #[test]
    fn several_writers_and_readers_share_a_folder() {
        let folder = tempfile::tempdir().unwrap();
        // Each has a store of its own, as processes have.
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    let store = open(folder.path());
                    for round in 0..2 {
                        for at in 0..20 {
                            let values = Tensor::full(f32::from(at), 50, &Device::Cpu).unwrap();
                            if let Some(found) = store.get(&key(at)).unwrap() {
                                assert_eq!(bits(&found), bits(&values));
                            } else {
                                assert_eq!(round, 0);
                                assert!(store.put(key(at), &values).unwrap());
                            }
                        }
                    }
                });
            }
        });
        let found = files(folder.path());
        assert_eq!(found.len(), 20);
        let on_disk: u64 = found.iter().map(|f| f.metadata().unwrap().len()).sum();
        assert_eq!(open(folder.path()).bytes().unwrap(), on_disk);
    }

    #[test]
    fn a_torn_count_is_counted_again_and_what_is_being_written_stays() {
        let folder = tempfile::tempdir().unwrap();
        let store = open(folder.path());
        store.put(key(1), &feature()).unwrap();
        let used = store.bytes().unwrap();
        let half_written = files(folder.path())[0].with_file_name(format!("{TEMPORARY}x.tmp"));
        std::fs::write(&half_written, [0; 99]).unwrap();
        std::fs::write(folder.path().join(USAGE), "what").unwrap();
        assert_eq!(store.bytes().unwrap(), used);
        open(folder.path());
        assert!(half_written.exists());
    }
}
