//! A cell's process, seen from its parent.
//!
//! The child reads its cell from standard input, and the pipe stays open for as long as the parent lives: when it
//! closes, however the parent ended, the child ends too.

use std::collections::VecDeque;
use std::ffi::OsString;
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use anomaly_core::Cancellation;

use crate::Error;
use crate::message::Message;

/// How long a cell that was asked to stop may take before its process is ended.
const GRACE: Duration = Duration::from_secs(30);
/// How many of the last lines of standard error go into the record of a crash.
const LAST_LINES: usize = 20;
/// The variables by which libraries know how many threads they may use.
const THREADS: [&str; 5] =
    ["RAYON_NUM_THREADS", "CANDLE_NUM_THREADS", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"];
/// The line that asks a cell to stop.
pub(crate) const CANCEL: &str = "cancel";

/// How a cell's process ended.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Ending {
    /// The result is in place.
    Finished,
    /// It was stopped.
    Cancelled,
    /// It said why it failed; what it did so far is of no use.
    Failed(String),
    /// The process ended without a word; it may go on from its checkpoint.
    Crashed(String),
}

/// What the child's two output pipes said.
enum Said {
    Message(Message),
    /// A line of standard error, or one of standard output that is no message.
    Line(String),
}

/// Runs `command` for the cell in `spec` with `threads` threads, and waits for its end. `hear` gets its messages, `echo`
/// its other lines.
pub(crate) fn run(
    command: &[OsString],
    spec: &str,
    threads: usize,
    cancellation: &Cancellation,
    hear: &mut dyn FnMut(&Message),
    echo: &mut dyn FnMut(&str),
) -> Result<Ending, Error> {
    let mut child = start(command, threads)?;
    let said = listen(&mut child);
    let mut stdin = child.stdin.take();
    // A child that is already gone is found out below.
    tell(stdin.as_mut(), spec);
    let mut last_lines = VecDeque::new();
    let mut ending = None;
    let mut asked: Option<Instant> = None;
    loop {
        match said.recv_timeout(Duration::from_millis(100)) {
            Ok(Said::Message(Message::Finished)) => ending = Some(Ending::Finished),
            Ok(Said::Message(Message::Cancelled)) => ending = Some(Ending::Cancelled),
            Ok(Said::Message(Message::Failed { error })) => ending = Some(Ending::Failed(error)),
            Ok(Said::Message(message)) => hear(&message),
            Ok(Said::Line(line)) => {
                echo(&line);
                if last_lines.len() == LAST_LINES {
                    last_lines.pop_front();
                }
                last_lines.push_back(line);
            }
            Err(RecvTimeoutError::Timeout) => {}
            // Both pipes are closed: the child is ending.
            Err(RecvTimeoutError::Disconnected) => break,
        }
        if cancellation.is_cancelled() {
            let since = *asked.get_or_insert_with(|| {
                tell(stdin.as_mut(), CANCEL);
                Instant::now()
            });
            if since.elapsed() > GRACE {
                // It may have ended in this moment; either way it is waited for below.
                let _ = child.kill();
            }
        }
    }
    drop(stdin);
    let status = child.wait().map_err(|e| Error::io("the cell's process".as_ref(), "can't wait", e))?;
    Ok(ending.unwrap_or_else(|| match asked {
        Some(_) => Ending::Cancelled,
        None => Ending::Crashed(crash(status, &last_lines)),
    }))
}

/// Lets a process that computes keep the memory it has freed, unless the environment says otherwise: the next step needs it
/// again, and the system would have to clear every page anew. Read by mimalloc.
pub fn keep_freed_memory(command: &mut Command) {
    const VARIABLE: &str = "MIMALLOC_PURGE_DELAY";
    if std::env::var_os(VARIABLE).is_none() {
        command.env(VARIABLE, "-1");
    }
}

fn start(command: &[OsString], threads: usize) -> Result<Child, Error> {
    let (program, arguments) =
        command.split_first().map_or((OsString::new(), &[][..]), |(p, a)| (p.clone(), a));
    let threads = threads.to_string();
    let mut command = Command::new(&program);
    command
        .args(arguments)
        .envs(THREADS.map(|name| (name, &threads)))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    keep_freed_memory(&mut command);
    // Ctrl-C on a terminal reaches the parent alone, which then asks its cells to stop.
    #[cfg(unix)]
    std::os::unix::process::CommandExt::process_group(&mut command, 0);
    command.spawn().map_err(|e| Error::io(program.as_ref(), "can't start a cell's process", e))
}

fn listen(child: &mut Child) -> Receiver<Said> {
    let (sender, receiver) = channel();
    let errors = sender.clone();
    if let Some(stdout) = child.stdout.take() {
        std::thread::spawn(move || {
            for line in lines(stdout) {
                let said = serde_json::from_str(&line).map_or_else(|_| Said::Line(line), Said::Message);
                if sender.send(said).is_err() {
                    break;
                }
            }
        });
    }
    if let Some(stderr) = child.stderr.take() {
        std::thread::spawn(move || {
            for line in lines(stderr) {
                if errors.send(Said::Line(line)).is_err() {
                    break;
                }
            }
        });
    }
    receiver
}

/// The lines of a pipe until it closes or breaks; bytes that are no UTF-8 are replaced.
fn lines(pipe: impl std::io::Read) -> impl Iterator<Item = String> {
    let ended = |line: &std::io::Result<Vec<u8>>| line.is_ok();
    let text = |line: std::io::Result<Vec<u8>>| Some(String::from_utf8_lossy(&line.ok()?).into_owned());
    BufReader::new(pipe).split(b'\n').take_while(ended).filter_map(text)
}

/// Writes a line to the child. That it is gone shows when it is waited for.
fn tell(stdin: Option<&mut ChildStdin>, line: &str) {
    if let Some(stdin) = stdin {
        let _ = stdin.write_all(format!("{line}\n").as_bytes()).and_then(|()| stdin.flush());
    }
}

fn crash(status: ExitStatus, last_lines: &VecDeque<String>) -> String {
    let mut text = format!("the cell's process ended without a result ({status})");
    if !last_lines.is_empty() {
        text.push_str("; its last lines:");
        for line in last_lines {
            text.push('\n');
            text.push_str(line);
        }
    }
    text
}

#[cfg(all(test, unix))]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::ffi::OsString;

    use anomaly_core::Cancellation;

    use super::{Ending, run};
    use crate::message::Message;

    fn shell(script: &str, cancellation: &Cancellation) -> (Ending, Vec<Message>, Vec<String>) {
        let command: Vec<OsString> = ["sh", "-c", script].map(OsString::from).to_vec();
        let (mut heard, mut echoed) = (Vec::new(), Vec::new());
        let ending = run(
            &command,
            "the cell",
            3,
            cancellation,
            &mut |message| heard.push(message.clone()),
            &mut |line| echoed.push(line.to_owned()),
        );
        (ending.unwrap(), heard, echoed)
    }

    #[test]
    fn a_child_reads_its_cell_and_is_heard() {
        let script = r#"read cell; [ "$cell" = "the cell" ] || exit 9; echo "$RAYON_NUM_THREADS threads"; echo "purge ${MIMALLOC_PURGE_DELAY:-never set}";
            echo '{"event":"step","step":4}'; echo '{"event":"finished"}'"#;
        let (ending, heard, echoed) = shell(script, &Cancellation::default());
        assert_eq!(ending, Ending::Finished);
        assert_eq!(heard, [Message::Step { step: 4 }]);
        let purge = std::env::var("MIMALLOC_PURGE_DELAY").unwrap_or_else(|_| "-1".to_owned());
        assert_eq!(echoed, ["3 threads".to_owned(), format!("purge {purge}")]);
    }

    #[test]
    fn a_crash_is_told_with_its_cause_and_last_words() {
        let (ending, ..) = shell("read cell; echo first >&2; kill -9 $$", &Cancellation::default());
        let Ending::Crashed(text) = ending else { panic!("{ending:?}") };
        assert!(text.contains("signal: 9") && text.ends_with("its last lines:\nfirst"), "{text}");
    }

    #[test]
    fn a_failure_is_told_in_its_own_words() {
        let script = r#"read cell; echo '{"event":"failed","error":"no such class"}'; exit 1"#;
        assert_eq!(shell(script, &Cancellation::default()).0, Ending::Failed("no such class".into()));
    }

    #[test]
    fn a_cell_is_asked_to_stop() {
        let cancellation = Cancellation::default();
        cancellation.cancel();
        let script = r#"read cell; read word; [ "$word" = cancel ] && echo '{"event":"cancelled"}'"#;
        assert_eq!(shell(script, &cancellation).0, Ending::Cancelled);
    }
}
