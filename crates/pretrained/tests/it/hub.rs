//! Every fault ends in the right file, or in an error that says what to do.

use crate::server::{Reply, Request, Server};
use crate::sha256;
use pretrained::{Error, Hub, HubRefusal, Progress, Source, Token, Wait, Weights};
use proptest::prelude::*;
use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tempfile::TempDir;

const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";
const FILE: &str = "model.safetensors";

fn body() -> Vec<u8> {
    (0..200_000_u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8).collect()
}

/// What a hub's `resolve` address answers for a file in large storage.
fn resolve(request: &Request, content: &[u8]) -> Reply {
    let start = request.range_start();
    let part = &content[start.unwrap_or(0).min(content.len())..];
    let status = if start.is_some() { 206 } else { 200 };
    let mut reply = Reply::new(status)
        .header("ETag", format!("\"{}\"", sha256(content)))
        .header("X-Repo-Commit", COMMIT)
        .header("Content-Length", part.len().to_string())
        .body(part);
    if let Some(start) = start {
        reply =
            reply.header("Content-Range", format!("bytes {start}-{}/{}", content.len() - 1, content.len()));
    }
    reply
}

struct Setting {
    hub: Hub,
    waits: Arc<Mutex<Vec<Duration>>>,
    folder: TempDir,
}

/// A hub at `server` with an empty cache that notes its waits instead of waiting.
fn setting(server: &Server) -> Setting {
    let folder = tempfile::tempdir().unwrap();
    let mut hub = Hub::new(folder.path());
    hub.endpoint.clone_from(&server.url);
    hub.timeout = Duration::from_secs(20);
    let waits = Arc::new(Mutex::new(Vec::new()));
    let noted = Arc::clone(&waits);
    hub.wait = Wait::new(move |duration| noted.lock().unwrap().push(duration));
    Setting { hub, waits, folder }
}

impl Setting {
    fn repository(&self) -> PathBuf {
        self.folder.path().join("models--owner--name")
    }

    fn incomplete(&self, content: &[u8]) -> PathBuf {
        self.repository().join("blobs").join(format!("{}.incomplete", sha256(content)))
    }

    fn waits(&self) -> Vec<u64> {
        self.waits.lock().unwrap().iter().map(Duration::as_secs).collect()
    }

    fn fetch(&self) -> Result<PathBuf, Error> {
        self.hub.fetch("owner/name", None, FILE)
    }
}

fn refusal(result: Result<PathBuf, Error>) -> (HubRefusal, String) {
    let error = result.unwrap_err();
    let text = error.to_string();
    match error {
        Error::Refused { refusal, .. } => (refusal, text),
        other => panic!("expected a refusal, found {other}"),
    }
}

#[test]
fn hub_downloads_into_the_layout_of_pythons_cache() {
    let server = Server::start(|request| resolve(request, &body()));
    let setting = setting(&server);
    let path = setting.fetch().unwrap();
    assert_eq!(path, setting.repository().join("snapshots").join(COMMIT).join(FILE));
    assert_eq!(fs::read(&path).unwrap(), body());
    assert_eq!(fs::read_to_string(setting.repository().join("refs/main")).unwrap(), COMMIT);
    let blob = setting.repository().join("blobs").join(sha256(&body()));
    assert_eq!(fs::read(&blob).unwrap(), body());
    #[cfg(unix)]
    assert_eq!(fs::read_link(&path).unwrap(), Path::new("../../blobs").join(sha256(&body())));
    let requests = server.requests();
    assert!(requests.iter().all(|request| request.path == "/owner/name/resolve/main/model.safetensors"));
    // The next fetch of the branch asks whether it moved, and nothing more.
    assert_eq!(setting.fetch().unwrap(), path);
    assert_eq!((server.count("HEAD"), server.count("GET")), (2, 1));
    let leftovers = fs::read_dir(setting.repository().join("blobs")).unwrap().count();
    assert_eq!(leftovers, 1, "no temporary file is left");
}

#[test]
fn hub_links_a_file_in_a_folder() {
    let server = Server::start(|request| resolve(request, b"{}"));
    let setting = setting(&server);
    let path = setting.hub.fetch("owner/name", Some("refs/pr/1"), "deep/er/config.json").unwrap();
    assert_eq!(fs::read(path).unwrap(), b"{}");
    assert_eq!(server.requests()[0].path, "/owner/name/resolve/refs%2Fpr%2F1/deep/er/config.json");
}

#[test]
fn hub_makes_no_request_for_a_cached_commit() {
    let server = Server::start(|request| resolve(request, &body()));
    let setting = setting(&server);
    let first = setting.hub.fetch("owner/name", Some(COMMIT), FILE).unwrap();
    let asked = server.requests().len();
    assert_eq!(setting.hub.fetch("owner/name", Some(COMMIT), FILE).unwrap(), first);
    assert_eq!(server.requests().len(), asked);
    assert!(!setting.repository().join("refs").exists(), "a commit needs no reference");
}

#[test]
fn hub_offline_opens_no_connection() {
    let server = Server::start(|request| resolve(request, &body()));
    let mut setting = setting(&server);
    let path = setting.fetch().unwrap();
    let asked = server.requests().len();
    setting.hub.offline = true;
    assert_eq!(setting.fetch().unwrap(), path, "by branch");
    assert_eq!(setting.hub.fetch("owner/name", Some(COMMIT), FILE).unwrap(), path, "by commit");
    for (repo, file) in [("owner/name", "other.bin"), ("owner/other", FILE)] {
        let error = setting.hub.fetch(repo, None, file).unwrap_err();
        assert!(matches!(error, Error::Offline { .. }), "{error}");
        let text = error.to_string();
        assert!(text.contains("HF_HUB_OFFLINE") && text.contains(repo) && text.contains(file), "{text}");
    }
    assert_eq!(server.requests().len(), asked, "connections while offline");
}

#[test]
fn hub_falls_back_to_the_cache_when_it_cannot_be_reached() {
    let server = Server::start(|request| resolve(request, &body()));
    let setting = setting(&server);
    let path = setting.fetch().unwrap();
    drop(server);
    assert_eq!(setting.fetch().unwrap(), path);
    assert!(setting.waits().is_empty(), "with the file at hand nobody waits for the network");
    let error = setting.hub.fetch("owner/name", None, "other.bin").unwrap_err();
    assert!(matches!(error, Error::Unreachable { attempts: 6, .. }), "{error}");
}

#[test]
fn hub_resumes_after_a_reset() {
    let cuts = [60_000, 1, 100_000];
    let server = Server::start(move |request| {
        let reply = resolve(request, &body());
        // The first request is the description.
        match cuts.get(request.number.wrapping_sub(1)) {
            Some(&cut) => reply.cut_after(cut),
            None => reply,
        }
    });
    let setting = setting(&server);
    assert_eq!(fs::read(setting.fetch().unwrap()).unwrap(), body());
    let starts: Vec<_> = server.requests().iter().skip(1).map(Request::range_start).collect();
    assert_eq!(starts, [None, Some(60_000), Some(60_001), Some(160_001)]);
    assert_eq!(setting.waits(), [1, 1, 1], "progress renews patience");
}

#[test]
fn hub_resumes_after_the_connection_itself_was_reset() {
    let server = Server::start(|request| {
        let reply = resolve(request, &body());
        if matches!(request.number, 1 | 2) { reply.reset_after(80_000) } else { reply }
    });
    let setting = setting(&server);
    assert_eq!(fs::read(setting.fetch().unwrap()).unwrap(), body());
    assert_eq!(server.count("GET"), 3);
}

#[test]
fn hub_continues_what_an_earlier_run_began() {
    let server = Server::start(|request| resolve(request, &body()));
    let setting = setting(&server);
    let incomplete = setting.incomplete(&body());
    fs::create_dir_all(incomplete.parent().unwrap()).unwrap();
    fs::write(&incomplete, &body()[..150_000]).unwrap();
    assert_eq!(fs::read(setting.fetch().unwrap()).unwrap(), body());
    assert_eq!(server.requests()[1].range_start(), Some(150_000));
}

#[test]
fn hub_starts_again_when_a_resume_is_answered_with_the_whole_file() {
    let server = Server::start(|request| {
        let whole = Request { headers: [].into(), ..request.clone() };
        let reply = resolve(&whole, &body());
        if request.number == 1 { reply.cut_after(50_000) } else { reply }
    });
    let setting = setting(&server);
    assert_eq!(fs::read(setting.fetch().unwrap()).unwrap(), body());
    assert_eq!(server.requests()[2].range_start(), Some(50_000), "a resume was asked for");
}

#[test]
fn hub_starts_again_when_a_resume_is_answered_with_another_part() {
    let server = Server::start(|request| {
        let mut request = request.clone();
        if request.number == 2 {
            request.headers.insert("range".into(), "bytes=10-".into());
        }
        let reply = resolve(&request, &body());
        if request.number == 1 { reply.cut_after(50_000) } else { reply }
    });
    let setting = setting(&server);
    assert_eq!(fs::read(setting.fetch().unwrap()).unwrap(), body());
    assert_eq!(server.requests()[3].range_start(), None);
}

#[test]
fn hub_discards_a_damaged_beginning() {
    let server = Server::start(|request| resolve(request, &body()));
    let setting = setting(&server);
    let incomplete = setting.incomplete(&body());
    fs::create_dir_all(incomplete.parent().unwrap()).unwrap();
    for beginning in [vec![7; 1000], vec![7; body().len()], vec![7; body().len() + 1]] {
        fs::write(&incomplete, &beginning).unwrap();
        fs::remove_dir_all(setting.repository().join("snapshots")).ok();
        fs::remove_file(setting.repository().join("blobs").join(sha256(&body()))).ok();
        assert_eq!(fs::read(setting.fetch().unwrap()).unwrap(), body());
    }
}

#[test]
fn hub_refuses_a_wrong_hash() {
    let server = Server::start(|request| {
        let mut content = body();
        let description = resolve(request, &content);
        if request.method == "HEAD" {
            return description;
        }
        content[1234] ^= 1;
        resolve(request, &content)
    });
    let setting = setting(&server);
    let error = setting.fetch().unwrap_err();
    assert!(matches!(error, Error::DownloadDigest { .. }), "{error}");
    assert!(error.to_string().contains(&sha256(&body())), "{error}");
    assert_eq!(fs::read_dir(setting.repository().join("blobs")).unwrap().count(), 0, "nothing wrong is kept");
    assert!(!setting.repository().join("snapshots").exists());
}

#[test]
fn hub_refuses_a_wrong_length() {
    // Announced shorter, announced longer; unannounced and longer.
    for (length, announced) in [(199_000, true), (200_001, true), (200_001, false)] {
        let server = Server::start(move |request| {
            if request.method == "HEAD" {
                return resolve(request, &body());
            }
            let content: Vec<u8> = body().into_iter().chain([0]).take(length).collect();
            let reply = Reply::new(200).body(&content);
            if announced { reply } else { reply.unannounced() }
        });
        let setting = setting(&server);
        let error = setting.fetch().unwrap_err();
        assert!(matches!(error, Error::Length { expected: 200_000, .. }), "{length}: {error}");
        assert!(!setting.repository().join("snapshots").exists());
    }
}

#[test]
fn hub_gives_up_on_a_server_that_always_ends_early() {
    let server = Server::start(|request| {
        if request.method == "HEAD" {
            return resolve(request, &body());
        }
        // Without a length, the end of the connection looks like the end of the file.
        match request.range_start() {
            None => Reply::new(200).body(&body()[..150_000]).unannounced(),
            Some(_) => Reply::new(416),
        }
    });
    let setting = setting(&server);
    let error = setting.fetch().unwrap_err();
    assert!(matches!(error, Error::Length { .. } | Error::Unreachable { .. }), "{error}");
    assert!(server.count("GET") < 20, "{} requests", server.count("GET"));
}

#[test]
fn hub_waits_as_long_as_a_busy_server_asks() {
    for status in [429, 503] {
        let server = Server::start(move |request| match request.number {
            0 | 2 => Reply::new(status).header("Retry-After", "7"),
            3 => Reply::new(status),
            _ => resolve(request, &body()),
        });
        let setting = setting(&server);
        assert_eq!(fs::read(setting.fetch().unwrap()).unwrap(), body());
        assert_eq!(setting.waits(), [7, 7, 2]);
    }
}

#[test]
fn hub_does_not_wait_for_ever() {
    let server = Server::start(|_| Reply::new(429).header("Retry-After", "3600"));
    let setting = setting(&server);
    let error = setting.fetch().unwrap_err();
    assert!(error.to_string().contains("asks to wait 3600 s"), "{error}");
    assert!(setting.waits().is_empty());

    let server = Server::start(|_| Reply::new(500));
    let setting = self::setting(&server);
    let error = setting.fetch().unwrap_err();
    assert!(matches!(error, Error::Unreachable { attempts: 6, .. }), "{error}");
    assert!(error.to_string().contains("status 500"), "{error}");
    assert_eq!(setting.waits(), [1, 2, 4, 8, 16]);
}

#[test]
fn hub_survives_server_errors_between_good_answers() {
    let server = Server::start(|request| match request.number {
        0 => Reply::new(500),
        1 => Reply::new(502),
        3 => Reply::new(504),
        4 => resolve(request, &body()).cut_after(9),
        _ => resolve(request, &body()),
    });
    let setting = setting(&server);
    assert_eq!(fs::read(setting.fetch().unwrap()).unwrap(), body());
}

#[test]
fn hub_says_how_to_open_a_gated_repository() {
    for status in [401, 403] {
        let server = Server::start(move |_| Reply::new(status).header("X-Error-Code", "GatedRepo"));
        let mut setting = setting(&server);
        let (reason, text) = refusal(setting.fetch());
        let page = format!("{}/owner/name", server.url);
        assert_eq!(reason, HubRefusal::Gated { page: page.clone(), token_sent: false });
        assert!(text.contains(&page) && text.contains("HF_TOKEN") && text.contains("licence"), "{text}");

        setting.hub.token = Token::new("hf_secret");
        let (reason, text) = refusal(setting.fetch());
        assert_eq!(reason, HubRefusal::Gated { page, token_sent: true });
        assert!(text.contains("the token in use has no access") && !text.contains("hf_secret"), "{text}");
        assert_eq!(server.count("GET"), 0);
    }
}

#[test]
fn hub_says_what_a_refusal_means() {
    let cases = [
        (401, "", HubRefusal::Unauthorised { status: 401, token_sent: false }, "HF_TOKEN"),
        (403, "", HubRefusal::Unauthorised { status: 403, token_sent: false }, "HF_TOKEN"),
        (404, "EntryNotFound", HubRefusal::NoFile, "no such file"),
        (404, "RevisionNotFound", HubRefusal::NoRevision, "no such branch"),
        (404, "RepoNotFound", HubRefusal::NoRepository, "no such repository"),
        (410, "", HubRefusal::Status(410), "410"),
    ];
    for (status, code, expected, words) in cases {
        let server = Server::start(move |_| Reply::new(status).header("X-Error-Code", code));
        let setting = setting(&server);
        let (reason, text) = refusal(setting.hub.fetch("owner/name", Some("v1"), FILE));
        assert_eq!(reason, expected);
        assert!(text.starts_with("owner/name@v1/model.safetensors: ") && text.contains(words), "{text}");
        assert_eq!(server.requests().len(), 1, "asking again would change nothing");
    }
}

#[test]
fn hub_never_shows_the_token_to_another_host() {
    let storage = Server::start(|request| resolve(request, &body()));
    let address = storage.url.clone();
    let server = Server::start(move |request| match request.path.as_str() {
        // A moved repository first, then the storage host.
        "/owner/name/resolve/main/model.safetensors" => Reply::new(307).header("Location", "/new/place"),
        _ => Reply::new(302)
            .header("Location", format!("{address}/signed?key=1"))
            .header("X-Repo-Commit", COMMIT)
            .header("X-Linked-ETag", format!("\"{}\"", sha256(&body())))
            .header("X-Linked-Size", body().len().to_string())
            .header("ETag", "\"of-the-redirect\""),
    });
    let mut setting = setting(&server);
    setting.hub.token = Token::new("hf_secret");
    assert_eq!(fs::read(setting.fetch().unwrap()).unwrap(), body());
    assert!(setting.repository().join("blobs").join(sha256(&body())).is_file());
    assert!(
        server.requests().iter().all(|request| request.header("authorization") == Some("Bearer hf_secret"))
    );
    let at_storage = storage.requests();
    assert_eq!(at_storage.len(), 1);
    assert_eq!(at_storage[0].path, "/signed?key=1");
    assert_eq!(at_storage[0].header("authorization"), None, "the token was leaked");
}

#[test]
fn hub_asks_for_a_new_signed_address_when_one_has_run_out() {
    let storage =
        Server::start(
            |request| {
                if request.number == 0 { Reply::new(403) } else { resolve(request, &body()) }
            },
        );
    let address = storage.url.clone();
    let server = Server::start(move |request| {
        let reply = resolve(request, &body());
        if request.method == "HEAD" {
            reply
        } else {
            Reply::new(302).header("Location", format!("{address}/signed"))
        }
    });
    let setting = setting(&server);
    assert_eq!(fs::read(setting.fetch().unwrap()).unwrap(), body());
    assert_eq!(server.count("GET"), 2);
}

#[test]
fn hub_stops_a_circle_of_redirects() {
    let server = Server::start(|_| Reply::new(302).header("Location", "/again"));
    let setting = setting(&server);
    let error = setting.fetch().unwrap_err();
    assert!(error.to_string().contains("more than 10 redirects"), "{error}");
}

#[test]
fn hub_refuses_answers_that_are_no_hubs() {
    let answers: [fn(&Request) -> Reply; 4] = [
        |_| Reply::new(200).body(b"<html>"),
        |_| Reply::new(200).header("ETag", "\"a\""),
        |_| Reply::new(200).header("ETag", "\"../../evil\"").header("X-Repo-Commit", COMMIT),
        |_| Reply::new(200).header("ETag", "\"a\"").header("X-Repo-Commit", "../../../evil"),
    ];
    for answer in answers {
        let server = Server::start(answer);
        let setting = setting(&server);
        let error = setting.fetch().unwrap_err();
        assert!(matches!(error, Error::Protocol { .. }), "{error}");
        assert!(error.to_string().contains("HF_ENDPOINT"), "{error}");
    }
}

#[cfg(target_os = "linux")]
#[test]
fn hub_says_what_to_do_when_the_disk_is_full() {
    let server = Server::start(|request| resolve(request, &body()));
    let setting = setting(&server);
    let incomplete = setting.incomplete(&body());
    fs::create_dir_all(incomplete.parent().unwrap()).unwrap();
    // Whatever is written to this device is answered with "no space left".
    std::os::unix::fs::symlink("/dev/full", &incomplete).unwrap();
    let error = setting.fetch().unwrap_err();
    assert!(matches!(error, Error::Write { .. }), "{error}");
    let text = error.to_string();
    assert!(
        text.contains("free some space") && text.contains("HF_HOME") && text.contains(".incomplete"),
        "{text}"
    );
    assert_eq!(server.count("GET"), 1, "a full disk does not empty itself");
    // With room again, the same call succeeds.
    fs::remove_file(&incomplete).unwrap();
    assert_eq!(fs::read(setting.fetch().unwrap()).unwrap(), body());
}

#[test]
fn hub_names_cannot_leave_the_cache() {
    let server = Server::start(|request| resolve(request, &body()));
    let setting = setting(&server);
    for (repo, revision, file) in [
        ("../name", "main", FILE),
        ("a/b/c", "main", FILE),
        ("owner/name", "../main", FILE),
        ("owner/name", "main", "../../x"),
        ("owner/name", "main", "/etc/x"),
        ("owner/name", "main", "a\\b"),
        ("", "main", FILE),
    ] {
        let error = setting.hub.fetch(repo, Some(revision), file).unwrap_err();
        assert!(matches!(error, Error::HubName { .. }), "{error}");
    }
    assert!(server.requests().is_empty());
}

#[test]
fn hub_without_a_cache_folder_says_which_variables_to_set() {
    let mut hub = Hub::offline();
    hub.offline = false;
    let error = hub.fetch("owner/name", None, FILE).unwrap_err();
    assert!(error.to_string().contains("HF_HOME"), "{error}");
}

#[derive(Debug, Default)]
struct Counted {
    announced: AtomicUsize,
    received: AtomicUsize,
    restarts: AtomicUsize,
    finished: AtomicUsize,
}

impl Progress for Counted {
    fn started(&self, _file: &str, total: u64, present: u64) {
        self.announced.store((total - present) as usize, Ordering::SeqCst);
    }
    fn advanced(&self, bytes: u64) {
        self.received.fetch_add(bytes as usize, Ordering::SeqCst);
    }
    fn restarted(&self) {
        self.restarts.fetch_add(1, Ordering::SeqCst);
        self.received.store(0, Ordering::SeqCst);
    }
    fn finished(&self, _file: &str) {
        self.finished.fetch_add(1, Ordering::SeqCst);
    }
}

#[test]
fn hub_tells_how_far_it_is() {
    let server = Server::start(|request| {
        let whole = Request { headers: [].into(), ..request.clone() };
        let reply = resolve(&whole, &body());
        if request.number == 1 { reply.cut_after(50_000) } else { reply }
    });
    let mut setting = setting(&server);
    let counted = Arc::new(Counted::default());
    setting.hub.progress = Some(Arc::clone(&counted) as Arc<dyn Progress>);
    setting.fetch().unwrap();
    let value = |count: &AtomicUsize| count.load(Ordering::SeqCst);
    assert_eq!(value(&counted.announced), body().len());
    assert_eq!(value(&counted.received), body().len());
    assert_eq!((value(&counted.restarts), value(&counted.finished)), (1, 1));
}

#[test]
fn hub_downloads_once_for_many_threads() {
    let server = Server::start(|request| resolve(request, &body()));
    let setting = setting(&server);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| assert_eq!(fs::read(setting.fetch().unwrap()).unwrap(), body()));
        }
    });
    assert_eq!(server.count("GET"), 1);
}

/// A repository with two shards, an index and a configuration.
fn sharded(request: &Request) -> Reply {
    let tensor = |name: &str, value: f32| {
        let tensor = candle_core::Tensor::new(&[value, value], &candle_core::Device::Cpu).unwrap();
        safetensors::serialize([(name.to_owned(), tensor)], None).unwrap()
    };
    let file = request.path.rsplit('/').next().unwrap();
    let content = match file {
        "model-1.safetensors" => tensor("a", 1.0),
        "model-2.safetensors" => tensor("b", 2.0),
        "model.safetensors.index.json" => {
            br#"{"weight_map": {"a": "model-1.safetensors", "b": "model-2.safetensors"}}"#.to_vec()
        }
        "config.json" => br#"{"hidden_size": 2}"#.to_vec(),
        _ => {
            return Reply::new(404).header("X-Error-Code", "EntryNotFound").header("X-Repo-Commit", COMMIT);
        }
    };
    resolve(request, &content)
}

#[test]
fn hub_weights_are_all_of_one_commit_and_then_need_no_request() {
    let server = Server::start(sharded);
    let mut setting = setting(&server);
    let weights = Weights::open(&Source::hub("owner/name"), &setting.hub).unwrap();
    assert_eq!(weights.names().collect::<Vec<_>>(), ["a", "b"]);
    let value = weights.get("b", &candle_core::Device::Cpu).unwrap().to_vec1::<f32>().unwrap();
    assert_eq!(value, [2.0, 2.0]);
    assert_eq!(weights.config().unwrap()["hidden_size"], 2);
    let by_commit = |request: &Request| request.path.contains(&format!("/resolve/{COMMIT}/"));
    assert!(server.requests().iter().filter(|request| request.path.contains("model-")).all(by_commit));

    // The commit's missing `model.safetensors` is remembered too.
    let asked = server.requests().len();
    let pinned = Source::Hub { repo: "owner/name".into(), revision: Some(COMMIT.into()), files: Vec::new() };
    let again = Weights::open(&pinned, &setting.hub).unwrap();
    assert_eq!(again.sha256(), weights.sha256());
    assert_eq!(server.requests().len(), asked);
    setting.hub.offline = true;
    assert_eq!(Weights::open(&Source::hub("owner/name"), &setting.hub).unwrap().sha256(), weights.sha256());
}

#[test]
fn hub_weights_by_file_name() {
    let server = Server::start(sharded);
    let setting = setting(&server);
    let source =
        Source::Hub { repo: "owner/name".into(), revision: None, files: vec!["model-2.safetensors".into()] };
    let weights = Weights::open(&source, &setting.hub).unwrap();
    assert_eq!(weights.names().collect::<Vec<_>>(), ["b"]);
    let missing = Source::Hub { repo: "owner/name".into(), revision: None, files: vec!["x.gguf".into()] };
    let (reason, _) = refusal(Weights::open(&missing, &setting.hub).map(|_| PathBuf::new()));
    assert_eq!(reason, HubRefusal::NoFile);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever the first answers are, the result is the right file or an error; never a wrong file.
    #[test]
    fn hub_gives_the_right_file_or_an_error(faults in prop::collection::vec((0_usize..7, 0_usize..200_000), 0..6)) {
        let faults: HashMap<usize, (usize, usize)> = faults.into_iter().enumerate().collect();
        let server = Server::start(move |request| {
            let whole = Request { headers: [].into(), ..request.clone() };
            let reply = resolve(request, &body());
            match faults.get(&request.number) {
                Some((0, cut)) if request.method == "GET" => reply.cut_after(cut % (body().len() - request.range_start().unwrap_or(0))),
                Some((1, cut)) => resolve(&whole, &body()).cut_after(*cut),
                Some((2, _)) => Reply::new(503),
                Some((3, cut)) if request.method == "GET" => Reply::new(200).body(&body()[..*cut]).unannounced(),
                Some((4, _)) => Reply::new(416),
                Some((5, cut)) if request.method == "GET" => Reply::new(200).body(&vec![9; *cut]).unannounced(),
                _ => reply,
            }
        });
        let setting = setting(&server);
        if let Ok(path) = setting.fetch() {
            prop_assert_eq!(fs::read(path).unwrap(), body());
        }
        prop_assert!(server.requests().len() < 60);
    }
}
