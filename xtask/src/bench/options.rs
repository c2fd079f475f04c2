//! The options that all benchmarks share.

use std::num::NonZero;
use std::path::PathBuf;

use benchmark::DeviceChoice;

/// How to measure.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Options {
    /// How many times every contender takes its turn.
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u16).range(1..))]
    pub(crate) rounds: u16,
    /// How long a turn lasts, in seconds; at least one iteration.
    #[arg(long, value_name = "SECONDS", default_value_t = 2.0, value_parser = positive)]
    pub(crate) seconds: f64,
    /// Threads of each contender; if left out, as many as there are physical cores that this process may use.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    threads: Option<u16>,
    /// Where to compute: `auto`, `cpu`, `cuda` or `cuda:N`.
    #[arg(long, value_name = "DEVICE", default_value = "cpu")]
    pub(crate) device: DeviceChoice,
    /// The Python that runs the peers.
    #[arg(long, value_name = "PATH", default_value = "python3")]
    pub(crate) python: PathBuf,
    /// Another build of this program, as one more contender: what a change, a feature or an allocator is worth.
    #[arg(long, value_name = "PATH")]
    pub(crate) against: Option<PathBuf>,
    /// Only comparisons whose name contains this.
    #[arg(long, value_name = "TEXT")]
    pub(crate) filter: Option<String>,
    /// Print JSON instead of a table.
    #[arg(long)]
    pub(crate) json: bool,
    /// Write the JSON to this file too, anew after each comparison.
    #[arg(long, value_name = "FILE")]
    pub(crate) json_file: Option<PathBuf>,
    /// Tiny sizes: whether everything runs, not how fast.
    #[arg(long)]
    pub(crate) smoke: bool,
}

impl Options {
    /// Threads of each contender.
    pub(crate) fn threads(&self) -> usize {
        // Cores may be withheld by affinity or a control group, which only the second heeds.
        let allowed = || std::thread::available_parallelism().map_or(1, NonZero::get);
        self.threads.map_or_else(|| num_cpus::get_physical().min(allowed()), usize::from)
    }

    /// The device's name for cases, `cpu` or `cuda:N`.
    ///
    /// # Errors
    /// If it was asked for and is not there.
    pub(crate) fn device_name(&self) -> anyhow::Result<String> {
        let (device, fell_back) = self.device.resolve()?;
        if let Some(why) = fell_back {
            tracing::warn!("{why}");
        }
        Ok(device.to_string())
    }

    /// Whether a comparison of this name is wanted.
    pub(crate) fn wants(&self, name: &str) -> bool {
        self.filter.as_ref().is_none_or(|filter| name.contains(filter.as_str()))
    }
}

fn positive(text: &str) -> Result<f64, String> {
    let value: f64 = text.parse().map_err(|_| format!("expected a number, found `{text}`"))?;
    if value.is_finite() && value > 0.0 {
        Ok(value)
    } else {
        Err(format!("expected a number above 0, found {value}"))
    }
}
