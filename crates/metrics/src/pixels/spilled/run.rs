//! A sorted run in a file, and several of them merged.

use std::collections::BinaryHeap;
use std::fs::{File, OpenOptions};
use std::io::{BufReader, BufWriter, ErrorKind, Read, Write};
use std::marker::PhantomData;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use crate::Error;

/// What a run holds.
pub(super) trait Record: Ord + Copy {
    type Bytes: AsRef<[u8]> + AsMut<[u8]> + Default;
    fn to_bytes(self) -> Self::Bytes;
    fn from_bytes(bytes: Self::Bytes) -> Self;
}

impl Record for u32 {
    type Bytes = [u8; 4];
    fn to_bytes(self) -> [u8; 4] {
        self.to_le_bytes()
    }
    fn from_bytes(bytes: [u8; 4]) -> Self {
        Self::from_le_bytes(bytes)
    }
}

impl Record for u64 {
    type Bytes = [u8; 8];
    fn to_bytes(self) -> [u8; 8] {
        self.to_le_bytes()
    }
    fn from_bytes(bytes: [u8; 8]) -> Self {
        Self::from_le_bytes(bytes)
    }
}

/// A file of records, from the highest down; removed when this is dropped.
#[derive(Debug)]
pub(super) struct Run<R> {
    path: PathBuf,
    records: PhantomData<R>,
}

impl<R> Drop for Run<R> {
    fn drop(&mut self) {
        // Whoever gave the folder finds the file there if it can't be removed; there is nobody to tell here.
        std::fs::remove_file(&self.path).ok();
    }
}

fn failed(path: &Path, action: &'static str, problem: &std::io::Error) -> Error {
    Error::Storage { path: path.to_path_buf(), action, problem: problem.to_string() }
}

/// A new file of a name that nobody else uses.
fn create(folder: &Path) -> Result<(File, PathBuf), Error> {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    loop {
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = folder.join(format!("scores-{}-{number}.run", std::process::id()));
        match OpenOptions::new().write(true).create_new(true).open(&path) {
            Ok(file) => return Ok((file, path)),
            Err(problem) if problem.kind() == ErrorKind::AlreadyExists => {}
            Err(problem) => return Err(failed(&path, "create it", &problem)),
        }
    }
}

impl<R: Record> Run<R> {
    /// Writes records that are in rising order.
    pub(super) fn write(folder: &Path, sorted: &[R]) -> Result<Self, Error> {
        let (file, path) = create(folder)?;
        // From here on the file is removed whatever happens.
        let run = Self { path, records: PhantomData };
        let mut writer = BufWriter::with_capacity(1 << 16, file);
        let written = sorted.iter().rev().try_for_each(|record| writer.write_all(record.to_bytes().as_ref()));
        written.and_then(|()| writer.flush()).map_err(|problem| failed(&run.path, "write it", &problem))?;
        Ok(run)
    }
}

/// Reads a run.
struct Reader<'a> {
    file: BufReader<File>,
    path: &'a Path,
}

impl Reader<'_> {
    fn next<R: Record>(&mut self) -> Result<Option<R>, Error> {
        let failed = |problem: &std::io::Error| failed(self.path, "read it", problem);
        let mut bytes = R::Bytes::default();
        let (first, rest) = bytes.as_mut().split_at_mut(1);
        loop {
            match self.file.read(first) {
                Ok(0) => return Ok(None),
                Ok(_) => break,
                Err(problem) if problem.kind() == ErrorKind::Interrupted => {}
                Err(problem) => return Err(failed(&problem)),
            }
        }
        self.file.read_exact(rest).map_err(|problem| failed(&problem))?;
        Ok(Some(R::from_bytes(bytes)))
    }
}

/// The records of several runs, from the highest down.
pub(super) struct Descending<'a, R> {
    readers: Vec<Reader<'a>>,
    /// The next record of each run that has one.
    heads: BinaryHeap<(R, usize)>,
}

impl<'a, R: Record> Descending<'a, R> {
    pub(super) fn new(runs: &'a [Run<R>]) -> Result<Self, Error> {
        let mut readers = Vec::with_capacity(runs.len());
        let mut heads = BinaryHeap::with_capacity(runs.len());
        for (number, run) in runs.iter().enumerate() {
            let file = File::open(&run.path).map_err(|problem| failed(&run.path, "open it", &problem))?;
            let mut reader = Reader { file: BufReader::with_capacity(1 << 16, file), path: &run.path };
            heads.extend(reader.next()?.map(|record| (record, number)));
            readers.push(reader);
        }
        Ok(Self { readers, heads })
    }

    /// The next record.
    pub(super) fn next_one(&self) -> Option<R> {
        self.heads.peek().map(|&(record, _)| record)
    }

    /// Goes on to the one after it.
    pub(super) fn advance(&mut self) -> Result<(), Error> {
        let Some(mut head) = self.heads.peek_mut() else { return Ok(()) };
        match self.readers[head.1].next()? {
            Some(record) => head.0 = record,
            None => {
                std::collections::binary_heap::PeekMut::pop(head);
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn runs_merge_and_their_files_go() {
        let folder = tempfile::tempdir().unwrap();
        let runs: Vec<Run<u32>> = [&[1, 4, 4][..], &[2, 4], &[9]]
            .into_iter()
            .map(|sorted| Run::write(folder.path(), sorted).unwrap())
            .collect();
        let mut merged = Descending::new(&runs).unwrap();
        let mut found = Vec::new();
        while let Some(record) = merged.next_one() {
            found.push(record);
            merged.advance().unwrap();
        }
        assert_eq!(found, [9, 4, 4, 4, 2, 1]);
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 3);
        drop(merged);
        drop(runs);
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_file_cut_short_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let run = Run::write(folder.path(), &[1_u32, 2]).unwrap();
        File::options().write(true).open(&run.path).unwrap().set_len(7).unwrap();
        let runs = [run];
        let mut merged = Descending::new(&runs).unwrap();
        assert_eq!(merged.next_one(), Some(2));
        assert!(matches!(merged.advance(), Err(Error::Storage { action: "read it", .. })));
    }
}
