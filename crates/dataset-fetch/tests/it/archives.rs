//! Archives as they should be, and as nobody should make them.

use std::fs;
use std::io::Write;
use std::path::Path;

use dataset_fetch::{Error, Fetched, Packing};
use flate2::Compression;
use flate2::write::GzEncoder;
use proptest::prelude::*;
use tar::{EntryType, Header};
use zip::write::SimpleFileOptions;

use crate::sample::{fetcher, good, hex, source};
use crate::server::Server;

/// What becomes of an archive of these bytes, with at most `most` bytes allowed.
fn unpack(packing: Packing, bytes: Vec<u8>, most: u64) -> (tempfile::TempDir, Result<Fetched, Error>) {
    let folder = tempfile::tempdir().unwrap();
    let source = source(packing, None, Some(hex(&bytes)));
    let server = Server::start(move |request| good(&bytes, request));
    let (mut fetcher, _) = fetcher(&folder.path().join("data"), &server);
    fetcher.most_unpacked = most;
    let outcome = fetcher.fetch(&source);
    (folder, outcome)
}

fn refused(packing: Packing, bytes: Vec<u8>) -> String {
    let (folder, outcome) = unpack(packing, bytes, 1 << 20);
    let message = outcome.unwrap_err().to_string();
    // Nothing next to the folder of data sets, and no data set in it.
    assert_eq!(names(folder.path()), ["data"]);
    assert!(!names(&folder.path().join("data")).contains(&"sample".to_owned()));
    message
}

fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<_> =
        fs::read_dir(folder).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

/// A tar entry with a name that the crate's own writer would refuse.
fn entry(kind: EntryType, name: &str, link: Option<&str>, content: &[u8]) -> Vec<u8> {
    let mut header = Header::new_gnu();
    header.set_entry_type(kind);
    header.set_size(content.len() as u64);
    header.set_mode(0o644);
    header.as_mut_bytes()[..name.len()].copy_from_slice(name.as_bytes());
    if let Some(link) = link {
        header.set_link_name(link).unwrap();
    }
    header.set_cksum();
    let mut bytes = header.as_bytes().to_vec();
    bytes.extend(content);
    bytes.resize(bytes.len().next_multiple_of(512), 0);
    bytes
}

fn tar(entries: &[Vec<u8>]) -> Vec<u8> {
    let mut bytes = entries.concat();
    bytes.extend([0; 1024]);
    bytes
}

fn gz(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn zip(entries: &[(&str, &[u8])]) -> Vec<u8> {
    let mut writer = zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
    for (name, content) in entries {
        writer.start_file(*name, SimpleFileOptions::default()).unwrap();
        writer.write_all(content).unwrap();
    }
    writer.finish().unwrap().into_inner()
}

#[test]
fn archives_of_all_kinds_become_folders() {
    let long = "d".repeat(120);
    let mut builder = tar::Builder::new(Vec::new());
    for (name, content) in [("set/train/a.png", &b"one"[..]), (&format!("set/{long}/b.png"), b"two")] {
        let mut header = Header::new_gnu();
        header.set_size(3);
        header.set_mode(0o644);
        builder.append_data(&mut header, name, content).unwrap();
    }
    let plain = builder.into_inner().unwrap();
    let zipped = zip(&[("set/train/a.png", b"one"), (&format!("set/{long}/b.png"), b"two")]);
    for (packing, bytes) in
        [(Packing::Tar, plain.clone()), (Packing::TarGz, gz(&plain)), (Packing::Zip, zipped)]
    {
        let (_folder, outcome) = unpack(packing, bytes, 6);
        let root = outcome.unwrap().root;
        assert_eq!(fs::read(root.join("set/train/a.png")).unwrap(), b"one", "{packing:?}");
        assert_eq!(fs::read(root.join("set").join(&long).join("b.png")).unwrap(), b"two");
        // The archive itself is gone.
        assert_eq!(names(&root), [".fetched", "set"]);
    }
}

#[test]
fn entries_that_leave_the_folder_are_refused() {
    for name in ["../outside", "a/../../outside", "/tmp/outside", "..", "C:\\outside", "a\\..\\..\\b"] {
        let message = refused(Packing::Tar, tar(&[entry(EntryType::Regular, name, None, b"x")]));
        assert!(message.contains(name) && message.contains("sample.partial/the.file"), "{message}");
        let message = refused(Packing::Zip, zip(&[(name, b"x")]));
        assert!(
            message.contains("outside") || message.contains("folder") || message.contains("path"),
            "{message}"
        );
    }
}

#[test]
fn links_and_devices_are_refused() {
    for (kind, what) in [
        (EntryType::Symlink, "Symlink"),
        (EntryType::Link, "Link"),
        (EntryType::Fifo, "Fifo"),
        (EntryType::Char, "Char"),
    ] {
        // A link out of the folder and a file through it.
        let link = entry(kind, "way-out", Some("../.."), b"");
        let message =
            refused(Packing::TarGz, gz(&tar(&[link, entry(EntryType::Regular, "way-out/x", None, b"x")])));
        assert!(
            message.contains("`way-out`: expected a file or a folder") && message.contains(what),
            "{message}"
        );
    }
    let mut writer = zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
    writer.add_symlink("way-out", "../..", SimpleFileOptions::default()).unwrap();
    let message = refused(Packing::Zip, writer.finish().unwrap().into_inner());
    assert!(message.contains("found a link"), "{message}");
}

#[test]
fn bombs_doubles_and_broken_archives_are_refused() {
    let zeros = vec![0; 2 << 20];
    let message = refused(Packing::TarGz, gz(&tar(&[entry(EntryType::Regular, "zeros", None, &zeros)])));
    assert!(message.contains("`zeros`: takes the archive beyond the size"), "{message}");
    let message = refused(Packing::Zip, zip(&[("zeros", &zeros)]));
    assert!(message.contains("`zeros`: takes the archive beyond the size"), "{message}");

    let one = entry(EntryType::Regular, "a/b", None, b"1");
    let message = refused(Packing::Tar, tar(&[one.clone(), one.clone()]));
    assert!(message.contains("`a/b`: comes twice"), "{message}");

    let large = entry(EntryType::Regular, "large", None, &[1; 5000]);
    let cut = &tar(&[one, large])[..3000];
    for (packing, bytes) in
        [(Packing::Tar, cut.to_vec()), (Packing::TarGz, gz(cut)), (Packing::Zip, b"no zip".to_vec())]
    {
        let message = refused(packing, bytes);
        assert!(message.contains("the.file: entry"), "{message}");
    }
    let whole = gz(&tar(&[entry(EntryType::Regular, "x", None, &[7; 3000])]));
    let message = refused(Packing::TarGz, whole[..whole.len() / 2].to_vec());
    assert!(message.contains("the.file: entry"), "{message}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn damaged_archives_write_nothing_outside(
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..12),
        packing in prop::sample::select(vec![Packing::Tar, Packing::Zip]),
    ) {
        let mut bytes = match packing {
            Packing::Zip => zip(&[("a/b", b"some content"), ("c", b"more of it")]),
            _ => tar(&[entry(EntryType::Regular, "a/b", None, b"some content"), entry(EntryType::Directory, "c", None, b"")]),
        };
        for (at, value) in damage {
            let at = at.index(bytes.len());
            bytes[at] = value;
        }
        let (folder, _outcome) = unpack(packing, bytes, 1 << 20);
        prop_assert_eq!(names(folder.path()), ["data"]);
    }
}
