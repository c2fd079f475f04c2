//! This program as a contender.

use std::collections::BTreeMap;
use std::io::{BufRead, Write};
use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use super::memory::Memory;
use super::peak::Peak;
use super::protocol::{Reply, Request, Turn};
use super::work::{Case, Work};

/// Takes turns from standard input until it closes.
pub(crate) fn run_child() -> Result<ExitCode> {
    let mut ready: Option<Ready> = None;
    for line in std::io::stdin().lock().lines() {
        let line = line.context("can't read standard input")?;
        let reply = turn(&line, &mut ready)
            .map_or_else(|error| Reply::Failed { error: format!("{error:#}") }, Reply::Done);
        let mut stdout = std::io::stdout().lock();
        writeln!(stdout, "{}", serde_json::to_string(&reply)?)?;
        stdout.flush()?;
    }
    Ok(ExitCode::SUCCESS)
}

struct Ready {
    case: Case,
    work: Box<dyn Work>,
    peak: Peak,
}

fn turn(line: &str, ready: &mut Option<Ready>) -> Result<Turn> {
    let request: Request<Case> = serde_json::from_str(line).context("expected a turn on standard input")?;
    let now = if let Some(same) = ready.take().filter(|ready| ready.case == request.case) {
        ready.insert(same)
    } else {
        let mut peak = Peak::new();
        let mut work = request.case.prepare()?;
        // What is made at the first pass (tables, packed weights) is part of making ready.
        work.iterate()?;
        peak.restart();
        ready.insert(Ready { case: request.case, work, peak })
    };
    if let Some(path) = &request.outcome {
        write_outcome(path, &now.work.outcome()?)?;
    }
    let mut seconds = Vec::new();
    if request.seconds > 0.0 {
        let wanted = Duration::from_secs_f64(request.seconds);
        // Others had the caches since the last turn.
        now.work.iterate()?;
        let began = Instant::now();
        while seconds.is_empty() || began.elapsed() < wanted {
            let before = Instant::now();
            now.work.iterate()?;
            seconds.push(before.elapsed().as_secs_f64());
        }
    }
    let mut versions = BTreeMap::from([
        ("vitad".to_owned(), env!("CARGO_PKG_VERSION").to_owned()),
        ("allocator".to_owned(), crate::ALLOCATOR.to_owned()),
    ]);
    versions.append(&mut now.work.versions());
    let memory = Memory { base: now.peak.base(), peak: now.peak.total(), running: Peak::since_restart() };
    Ok(Turn { seconds, memory, versions })
}

fn write_outcome(path: &Path, values: &[f64]) -> Result<()> {
    let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
    std::fs::write(path, bytes).with_context(|| format!("can't write {}", path.display()))
}
