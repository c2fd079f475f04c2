//! Under what conditions figures were taken.

use serde::Serialize;

use super::options::Options;

/// Instruction sets that kernels here or elsewhere choose by, as Linux calls them.
const FEATURES: [&str; 10] = [
    "avx2",
    "fma",
    "f16c",
    "avx512f",
    "avx512bw",
    "avx512_vnni",
    "avx512_bf16",
    "avx512_fp16",
    "amx_tile",
    "amx_bf16",
];

/// Beside a program that left its sources: the commit it was built from.
pub(crate) const COMMIT_FILE: &str = "commit.txt";

/// The machine and the settings.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Conditions {
    /// UTC, year-month-day.
    pub(crate) date: String,
    /// The commit, with `+` if files differ from it.
    pub(crate) commit: Option<String>,
    /// The processor's name.
    pub(crate) processor: String,
    /// Which of the instruction sets that matter it has.
    pub(crate) features: Vec<String>,
    /// Physical cores of the machine.
    pub(crate) cores: usize,
    /// Threads of each contender.
    pub(crate) threads: usize,
    /// Where the work was done.
    pub(crate) device: String,
    /// The machine's GPUs with their drivers, if the work was done on one and `nvidia-smi` tells.
    pub(crate) gpus: Vec<String>,
    /// How many times each contender took its turn.
    pub(crate) rounds: u16,
    /// How long a turn lasted, in seconds; `None` where it was one whole piece of work.
    pub(crate) turn_seconds: Option<f64>,
}

impl Conditions {
    /// Those of this machine, now.
    pub(crate) fn here(options: &Options) -> anyhow::Result<Self> {
        Ok(Self::of(options.threads(), options.device_name()?, options.rounds, Some(options.seconds)))
    }

    /// Those of this machine, now, for work with these settings.
    pub(crate) fn of(threads: usize, device: String, rounds: u16, turn_seconds: Option<f64>) -> Self {
        // Linux only; elsewhere the architecture has to do.
        let described = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let (processor, features) = described_by(&described);
        Self {
            date: time::OffsetDateTime::now_utc().date().to_string(),
            commit: carried_commit().or_else(|| crate::reproduce::commit(&crate::reproduce::root())),
            processor: processor.unwrap_or_else(|| std::env::consts::ARCH.to_owned()),
            features,
            cores: num_cpus::get_physical(),
            threads,
            gpus: if is_gpu(&device) { gpus() } else { Vec::new() },
            device,
            rounds,
            turn_seconds,
        }
    }

    /// Whether the work was done on a GPU.
    pub(crate) fn on_gpu(&self) -> bool {
        is_gpu(&self.device)
    }

    /// In two lines, and one for each GPU.
    pub(crate) fn text(&self) -> String {
        let plural = |n: usize, what: &str| format!("{n} {what}{}", if n == 1 { "" } else { "s" });
        let text = format!(
            "{} ({}; {}), {} each, device {}\n{}, commit {}, {}{}",
            self.processor,
            plural(self.cores, "core"),
            if self.features.is_empty() { "features not known".to_owned() } else { self.features.join(" ") },
            plural(self.threads, "thread"),
            self.device,
            self.date,
            self.commit.as_deref().unwrap_or("unknown"),
            plural(usize::from(self.rounds), "round"),
            self.turn_seconds.map_or_else(String::new, |seconds| format!(" of {seconds} s")),
        );
        self.gpus.iter().fold(text, |text, gpu| text + "\nGPU " + gpu)
    }
}

fn is_gpu(device: &str) -> bool {
    device.starts_with("cuda")
}

/// What [`COMMIT_FILE`] says.
fn carried_commit() -> Option<String> {
    let program = std::env::current_exe().ok()?;
    let commit = std::fs::read_to_string(program.with_file_name(COMMIT_FILE)).ok()?;
    Some(commit.trim().to_owned())
}

/// A line for each GPU: number, name, driver.
fn gpus() -> Vec<String> {
    let mut command = std::process::Command::new("nvidia-smi");
    let output = command.args(["--query-gpu=index,name,driver_version", "--format=csv,noheader"]).output();
    let told = output.ok().filter(|output| output.status.success()).map(|output| output.stdout);
    String::from_utf8_lossy(&told.unwrap_or_default()).lines().map(str::to_owned).collect()
}

/// Name and features out of the text of `/proc/cpuinfo`.
fn described_by(text: &str) -> (Option<String>, Vec<String>) {
    let field = |name: &str| {
        text.lines()
            .filter_map(|line| line.split_once(':'))
            .find(|(key, _)| key.trim() == name)
            .map(|(_, value)| value.trim().to_owned())
    };
    let flags = field("flags").unwrap_or_default();
    let has = |feature: &str| flags.split_whitespace().any(|flag| flag == feature);
    let found = FEATURES.into_iter().filter(|feature| has(feature)).map(str::to_owned);
    (field("model name"), found.collect())
}

#[cfg(test)]
mod tests {
    use super::described_by;

    #[test]
    fn name_and_features_are_found() {
        let text = "processor\t: 0\nmodel name\t: A Processor\nflags\t\t: fpu avx2 avx512f amx_tiles\n\n";
        let (name, features) = described_by(text);
        assert_eq!(name.as_deref(), Some("A Processor"));
        assert_eq!(features, ["avx2", "avx512f"]);
        assert_eq!(described_by(""), (None, Vec::new()));
    }
}
