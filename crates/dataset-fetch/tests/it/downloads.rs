//! Good and bad servers, and bad disks.

use std::fs;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use dataset_fetch::{Check, Error, Fetched, Fetcher, Packing, Progress, Source};

use crate::sample::{content, fetcher, good, hex, source};
use crate::server::{Reply, Request, Server};

/// The outcome with a server that answers as `answer` does, and what the server was asked.
fn fetch(
    source: &Source,
    answer: impl Fn(&Request) -> Reply + Send + Sync + 'static,
) -> (tempfile::TempDir, Result<Fetched, Error>, Vec<Request>, Vec<Duration>) {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(answer);
    let (fetcher, waits) = fetcher(folder.path(), &server);
    let outcome = fetcher.fetch(source);
    let waits = waits.lock().unwrap().clone();
    (folder, outcome, server.requests(), waits)
}

fn stated() -> Source {
    source(Packing::None, None, Some(hex(&content())))
}

#[test]
fn a_file_arrives_once_and_whole() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(|request| good(&content(), request));
    let (fetcher, waits) = fetcher(folder.path(), &server);
    let fetched = fetcher.fetch(&stated()).unwrap();
    assert_eq!(fetched.checks, [("the.file".to_owned(), Check::Stated)]);
    assert_eq!(fs::read(fetched.root.join("the.file")).unwrap(), content());
    assert_eq!(server.requests()[0].path, "/the.file");
    // Again: nothing is asked.
    assert!(fetcher.fetch(&stated()).unwrap().checks.is_empty());
    assert_eq!((server.requests().len(), waits.lock().unwrap().len()), (1, 0));
    let names: Vec<_> = fs::read_dir(folder.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(names, ["sample"]);
}

#[test]
fn a_connection_that_breaks_is_continued_where_it_broke() {
    for reset in [false, true] {
        let (_folder, outcome, requests, waits) = fetch(&stated(), move |request| {
            let reply = good(&content(), request);
            match request.number {
                0 if reset => reply.reset_after(100_000),
                0 => reply.cut_after(100_000),
                1 => reply.cut_after(50_000),
                _ => reply,
            }
        });
        let fetched = outcome.unwrap();
        assert_eq!(fs::read(fetched.root.join("the.file")).unwrap(), content());
        let last = requests.last().unwrap().range_start().unwrap();
        // Of a reset connection less may have arrived than was sent.
        assert!(if reset { last > 0 } else { last == 150_000 }, "{last}");
        assert!(!waits.is_empty());
    }
}

#[test]
fn a_later_fetch_goes_on_and_a_server_without_ranges_starts_over() {
    for ranges in [true, false] {
        let folder = tempfile::tempdir().unwrap();
        let breaking = Server::start(|request| {
            good(&content(), request).cut_after(40_000 * usize::from(request.number == 0))
        });
        let (first, _) = fetcher(folder.path(), &breaking);
        let message = first.fetch(&stated()).unwrap_err().to_string();
        assert!(message.contains("gave up after 4 attempts without progress"), "{message}");
        drop(breaking);
        let server =
            Server::start(
                move |request| {
                    if ranges { good(&content(), request) } else { Reply::new(200).body(&content()) }
                },
            );
        let (second, _) = fetcher(folder.path(), &server);
        let fetched = second.fetch(&stated()).unwrap();
        assert_eq!(server.requests()[0].range_start(), Some(40_000));
        assert_eq!(fs::read(fetched.root.join("the.file")).unwrap(), content());
    }
}

#[test]
fn what_was_left_of_another_file_is_thrown_away() {
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir_all(folder.path().join("sample.partial")).unwrap();
    for left in [vec![7; 1000], vec![7; 300_000], vec![7; 400_000]] {
        fs::write(folder.path().join("sample.partial/the.file.part"), &left).unwrap();
        let server = Server::start(|request| good(&content(), request));
        let (fetcher, _) = fetcher(folder.path(), &server);
        let fetched = fetcher.fetch(&stated()).unwrap();
        assert_eq!(fs::read(fetched.root.join("the.file")).unwrap(), content());
        fs::remove_dir_all(fetched.root).unwrap();
        fs::create_dir_all(folder.path().join("sample.partial")).unwrap();
    }
}

#[test]
fn another_part_than_was_asked_for_is_not_taken() {
    let (_folder, outcome, ..) = fetch(&stated(), |request| match request.number {
        0 => good(&content(), request).cut_after(1000),
        1 => Reply::new(206).header("Content-Range", "bytes 500-299999/300000").body(&content()[500..]),
        _ => good(&content(), request),
    });
    assert_eq!(fs::read(outcome.unwrap().root.join("the.file")).unwrap(), content());
}

#[test]
fn a_wrong_digest_is_told_with_who_states_the_right_one() {
    let (folder, outcome, requests, _) =
        fetch(&source(Packing::None, None, Some(hex(b"another"))), |request| good(&content(), request));
    let message = outcome.unwrap_err().to_string();
    assert!(message.contains(&hex(b"another")) && message.contains(&hex(&content())), "{message}");
    assert!(message.contains("SHA-256") && message.contains("stated by its publisher"), "{message}");
    assert_eq!(requests.len(), 1);
    assert!(!folder.path().join("sample").exists());
    assert_eq!(fs::read_dir(folder.path().join("sample.partial")).unwrap().count(), 0);
}

#[test]
fn a_wrong_length_is_told() {
    let source = source(Packing::None, Some(300_001), None);
    let (_folder, outcome, ..) = fetch(&source, |request| good(&content(), request));
    let message = outcome.unwrap_err().to_string();
    assert!(message.contains("expected 300001 bytes, found 300000"), "{message}");
    // An announced length that the body exceeds is no HTTP answer; without one, the stated length bounds it.
    let short = self::source(Packing::None, Some(1000), None);
    let (_folder, outcome, ..) = fetch(&short, |_| Reply::new(200).body(&content()).unannounced());
    assert!(matches!(outcome, Err(Error::Length { expected: 1000, .. })), "{outcome:?}");
}

#[test]
fn refusals_name_the_page_and_busy_servers_are_waited_for() {
    let (_folder, outcome, requests, _) = fetch(&stated(), |_| Reply::new(404));
    let message = outcome.unwrap_err().to_string();
    assert!(message.contains("status 404") && message.contains("https://example.org/sample"), "{message}");
    assert_eq!(requests.len(), 1);

    let (_folder, outcome, _, waits) = fetch(&stated(), |request| match request.number {
        0 => Reply::new(429).header("Retry-After", "7"),
        1 => Reply::new(503),
        _ => good(&content(), request),
    });
    outcome.unwrap();
    assert_eq!(waits, [Duration::from_secs(7), Duration::from_secs(2)]);

    let (_folder, outcome, _, waits) = fetch(&stated(), |_| Reply::new(429).header("Retry-After", "86400"));
    let message = outcome.unwrap_err().to_string();
    assert!(message.contains("86400 s of patience") && waits.is_empty(), "{message}");
}

#[test]
fn without_a_stated_digest_the_first_fetch_is_recorded_and_later_ones_are_held_to_it() {
    let folder = tempfile::tempdir().unwrap();
    let content = Arc::new(Mutex::new(content()));
    let served = Arc::clone(&content);
    let server = Server::start(move |request| good(&served.lock().unwrap(), request));
    let (fetcher, _) = fetcher(folder.path(), &server);
    let source = source(Packing::None, None, None);
    let sha256 = hex(&content.lock().unwrap());
    let first = fetcher.fetch(&source).unwrap();
    assert_eq!(first.checks[0].1, Check::FirstFetch { sha256: sha256.clone() });
    let lock = fs::read_to_string(folder.path().join("fetch-lock.json")).unwrap();
    assert!(lock.contains(&sha256) && lock.contains("http://127.0.0.1:9/where/the.file"), "{lock}");
    fs::remove_dir_all(&first.root).unwrap();
    assert_eq!(fetcher.fetch(&source).unwrap().checks[0].1, Check::Recorded);
    fs::remove_dir_all(&first.root).unwrap();
    content.lock().unwrap()[5] ^= 1;
    let message = fetcher.fetch(&source).unwrap_err().to_string();
    assert!(message.contains("recorded at its first fetch"), "{message}");
    fs::write(folder.path().join("fetch-lock.json"), "{").unwrap();
    let message = fetcher.fetch(&source).unwrap_err().to_string();
    assert!(message.contains("fetch-lock.json") && message.contains("remove it"), "{message}");
}

#[test]
fn somebody_elses_folder_is_left_alone_and_licences_are_told() {
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir(folder.path().join("sample")).unwrap();
    let server = Server::start(|request| good(&content(), request));
    let (sample, _) = fetcher(folder.path(), &server);
    sample.fetch(&stated()).unwrap();
    fs::create_dir_all(folder.path().join("visa/candle")).unwrap();
    let message = sample.fetch(dataset_fetch::find("visa").unwrap()).unwrap_err().to_string();
    assert!(message.contains("visa") && message.contains("was not fetched by this program"), "{message}");
    let message = Fetcher::new("data").fetch(dataset_fetch::find("mvtec").unwrap()).unwrap_err().to_string();
    assert!(
        message.contains("accept the licence") && message.contains("data/mvtec/bottle/train/good"),
        "{message}"
    );
    assert_eq!(server.requests().len(), 1);
}

#[test]
fn progress_adds_up_to_the_file() {
    #[derive(Default)]
    struct Sum(Mutex<(u64, usize, usize)>);
    impl Progress for Sum {
        fn started(&self, file: &str, present: u64) {
            assert_eq!((file, present), ("the.file", 0));
        }
        fn sized(&self, total: u64) {
            assert_eq!(total, 300_000);
        }
        fn advanced(&self, bytes: u64) {
            self.0.lock().unwrap().0 += bytes;
        }
        fn restarted(&self) {
            let mut sum = self.0.lock().unwrap();
            sum.0 = 0;
            sum.1 += 1;
        }
        fn finished(&self, _file: &str) {
            self.0.lock().unwrap().2 += 1;
        }
    }
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(|request| match request.number {
        0 => good(&content(), request).cut_after(1000),
        _ => Reply::new(200).body(&content()),
    });
    let (mut fetcher, _) = fetcher(folder.path(), &server);
    let sum = Arc::new(Sum::default());
    fetcher.progress = Some(sum.clone());
    fetcher.fetch(&stated()).unwrap();
    assert_eq!(*sum.0.lock().unwrap(), (300_000, 1, 1));
}

/// Linux has a file that a full disk can be had from.
#[cfg(target_os = "linux")]
#[test]
fn a_full_disk_is_told_with_the_file() {
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir_all(folder.path().join("sample.partial")).unwrap();
    std::os::unix::fs::symlink("/dev/full", folder.path().join("sample.partial/the.file.part")).unwrap();
    let server = Server::start(|request| good(&content(), request));
    let (fetcher, _) = fetcher(folder.path(), &server);
    let message = fetcher.fetch(&stated()).unwrap_err().to_string();
    assert!(message.contains("cannot write") && message.contains("the.file.part"), "{message}");
    assert!(message.contains("No space left"), "{message}");
}
