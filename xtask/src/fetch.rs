//! `cargo xtask fetch`: public data sets, from where their publishers put them.

use std::io::IsTerminal;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Result, bail};
use dataset_fetch::{Access, Check, Error, Fetched, Fetcher, Progress, SOURCES, Source};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// Download data sets that may be downloaded freely; for the others, say how to get them.
///
/// A download that broke off goes on where it ended. Every file is checked against the digest that its publisher or a
/// widely used loader states, otherwise against what the first fetch recorded in `fetch-lock.json`. Ends with 1 if a data
/// set is not there afterwards.
#[derive(Debug, clap::Args)]
pub(crate) struct Fetch {
    /// Names of data sets
    #[arg(value_name = "DATASET", required_unless_present = "list")]
    names: Vec<String>,
    /// The folder that gets a folder per data set
    #[arg(long, value_name = "FOLDER", default_value = "data")]
    dir: PathBuf,
    /// Ask this server instead, for files of the same names
    #[arg(long, value_name = "URL")]
    mirror: Option<String>,
    /// Keep archives beside what was unpacked from them
    #[arg(long)]
    keep_archives: bool,
    /// List the data sets and download nothing
    #[arg(long)]
    list: bool,
}

impl Fetch {
    /// Fetches.
    ///
    /// # Errors
    /// If a name is not known, or standard output is closed.
    pub(crate) fn run(self) -> Result<ExitCode> {
        if self.list {
            for source in SOURCES {
                crate::say(&describe(source))?;
            }
            return Ok(ExitCode::SUCCESS);
        }
        // All names first: a slip in the last one should not show after an hour.
        let sources: Vec<_> =
            self.names.iter().map(|name| dataset_fetch::find(name)).collect::<Result<_, _>>()?;
        if let Some(mirror) = &self.mirror
            && !(mirror.starts_with("https://") || mirror.starts_with("http://"))
        {
            bail!("--mirror: expected an address that begins with https:// or http://, found {mirror}");
        }
        let mut fetcher = Fetcher::new(&self.dir);
        fetcher.mirror = self.mirror;
        fetcher.keep_archives = self.keep_archives;
        if std::io::stderr().is_terminal() {
            fetcher.progress = Some(Arc::new(Bar::new()?));
        }
        let mut complete = true;
        for source in sources {
            match fetcher.fetch(source) {
                Ok(fetched) => tell(source, &fetched)?,
                Err(Error::Manual { steps, .. }) => {
                    complete &= fetcher.place(source).is_dir();
                    crate::say(&format!(
                        "{}: {} ({}). To get it: {steps}.",
                        source.name, source.title, source.licence
                    ))?;
                }
                Err(error) => {
                    // The others may still come.
                    complete = false;
                    crate::say(&format!("{}: {error}", source.name))?;
                }
            }
        }
        Ok(if complete { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }
}

fn describe(source: &Source) -> String {
    let way = match source.access {
        Access::Free(files) => {
            let stated = files.iter().all(|file| file.digest.is_some());
            let digests = if stated { "digests stated" } else { "digests recorded at the first fetch" };
            format!("downloaded ({} files, {digests})", files.len())
        }
        Access::Manual { .. } => "by hand (`cargo xtask fetch` says how)".to_owned(),
    };
    format!("{:14} {}; {}; {way}; {}", source.name, source.title, source.licence, source.page)
}

fn tell(source: &Source, fetched: &Fetched) -> Result<()> {
    for (file, check) in &fetched.checks {
        match check {
            Check::Stated => crate::say(&format!("{file}: as stated"))?,
            Check::Recorded => crate::say(&format!("{file}: as recorded at its first fetch"))?,
            Check::FirstFetch { sha256 } => crate::say(&format!(
                "{file}: nobody states a digest of it; its SHA-256 {sha256} is now recorded in fetch-lock.json"
            ))?,
        }
    }
    let already = if fetched.checks.is_empty() { "already there" } else { "fetched" };
    crate::say(&format!(
        "{}: {already} ({}). In a profile: dataset = \"{}\", root = \"{}\"",
        source.name,
        source.licence,
        source.name,
        fetched.root.display()
    ))
}

/// A bar on standard error.
struct Bar(ProgressBar);

impl Bar {
    fn new() -> Result<Self> {
        let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr_with_hz(5));
        bar.set_style(ProgressStyle::with_template(
            "{msg} {bytes} of {total_bytes} {wide_bar} {bytes_per_sec}, {eta} left",
        )?);
        Ok(Self(bar))
    }
}

impl Progress for Bar {
    fn started(&self, file: &str, present: u64) {
        self.0.set_message(file.to_owned());
        self.0.unset_length();
        self.0.set_position(present);
    }

    fn sized(&self, total: u64) {
        self.0.set_length(total);
    }

    fn advanced(&self, bytes: u64) {
        self.0.inc(bytes);
    }

    fn restarted(&self) {
        self.0.set_position(0);
    }

    fn finished(&self, _file: &str) {
        self.0.finish_and_clear();
    }
}

#[cfg(test)]
mod tests {
    use super::SOURCES;

    #[test]
    fn every_source_is_a_data_set_that_can_be_opened() {
        for source in SOURCES {
            let known = datasets::ENTRIES.iter().find(|entry| entry.name == source.name);
            assert!(known.is_some(), "{} is in no catalogue", source.name);
        }
    }
}
