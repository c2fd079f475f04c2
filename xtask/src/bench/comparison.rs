//! One piece of work, and how its contenders did.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde::{Serialize, Serializer};

use super::contender::{Contender, Program, Running};
use super::figures::{Figures, Ratio, difference};
use super::memory::{Memory, MemoryRatio};
use super::options::Options;

/// Between two turns: the threads of the contender before may still be spinning.
const PAUSE: Duration = Duration::from_millis(250);

/// One piece of work and who does it.
#[derive(Debug)]
pub(crate) struct Comparison {
    /// What the work is.
    pub(crate) name: String,
    /// Who does it, ours first.
    pub(crate) contenders: Vec<Contender>,
    /// The label of the contender that ratios are of.
    pub(crate) baseline: String,
}

/// What came out of a comparison.
#[derive(Debug, Serialize)]
pub(crate) struct Measured {
    /// What the work is.
    pub(crate) name: String,
    /// The label of the contender that ratios are of; `None` if it was left out.
    pub(crate) baseline: Option<String>,
    /// One for each contender.
    pub(crate) standings: Vec<Standing>,
}

/// How one contender did.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Standing {
    /// Who.
    pub(crate) contender: String,
    /// Whether it must not be left out.
    #[serde(skip)]
    pub(crate) required: bool,
    /// Why there are no figures.
    pub(crate) left_out: Option<String>,
    /// Times in seconds.
    pub(crate) seconds: Option<Figures>,
    /// Its times by the baseline's.
    pub(crate) ratio: Option<Ratio>,
    /// What its process took.
    #[serde(flatten)]
    pub(crate) memory: Memory,
    /// The same by the baseline's; `None` on a GPU, whose own memory it leaves out.
    pub(crate) memory_ratio: Option<MemoryRatio>,
    /// The largest difference of its result from the baseline's, as a share of the baseline's largest value; the text
    /// `infinite` if one of them is not a number.
    #[serde(serialize_with = "or_infinite")]
    pub(crate) difference: Option<f64>,
    /// Libraries and settings.
    pub(crate) versions: BTreeMap<String, String>,
}

/// JSON has no infinite numbers, and `null` is for what was not compared.
// serde gives a reference to the field.
#[allow(clippy::ref_option)]
fn or_infinite<S: Serializer>(difference: &Option<f64>, serializer: S) -> Result<S::Ok, S::Error> {
    match difference {
        Some(difference) if difference.is_infinite() => serializer.serialize_str("infinite"),
        _ => difference.serialize(serializer),
    }
}

/// A contender on its way.
struct Taking<'a> {
    contender: &'a Contender,
    /// Its process, or why it has none.
    state: Result<Running, String>,
    /// What its turns told so far.
    told: Told,
}

/// What the turns of a contender told.
#[derive(Default)]
struct Told {
    rounds: Vec<Vec<f64>>,
    memory: Memory,
    versions: BTreeMap<String, String>,
    outcome: Vec<f64>,
}

impl<'a> Taking<'a> {
    fn start(contender: &'a Contender, options: &Options) -> Self {
        let state = contender.start(options).map_err(|error| format!("{error:#}"));
        Self { contender, state, told: Told::default() }
    }

    /// A turn, unless it has failed before; when it fails, nothing that it told counts.
    fn attempt(&mut self, turn: impl FnOnce(&mut Running, &mut Told) -> Result<()>) {
        let Ok(running) = &mut self.state else { return };
        if let Err(error) = turn(running, &mut self.told) {
            self.state = Err(format!("{error:#}"));
            self.told = Told::default();
        }
    }

    /// A turn that is timed.
    fn time(&mut self, seconds: f64) {
        self.attempt(|running, told| {
            std::thread::sleep(PAUSE);
            let turn = running.turn(seconds, None)?;
            told.rounds.push(turn.seconds);
            (told.memory, told.versions) = (turn.memory, turn.versions);
            Ok(())
        });
    }

    /// A turn that writes what the work computes to `path`.
    fn compute(&mut self, path: &Path) {
        self.attempt(|running, told| {
            running.turn(0.0, Some(path))?;
            told.outcome = read_outcome(path)?;
            Ok(())
        });
    }
}

impl Comparison {
    /// Lets all contenders take their turns, round after round. One that fails is left out with its reason. On a GPU
    /// memory has no ratio, because the GPU's own is not known.
    ///
    /// # Errors
    /// If there is no place for results.
    pub(crate) fn measure(&self, options: &Options, on_gpu: bool) -> Result<Measured> {
        let mut others = Vec::new();
        if let Some(path) = &options.against {
            let ours = self.contenders.iter().filter(|contender| contender.program == Program::Ours);
            others.extend(ours.map(|contender| contender.in_build(path)));
        }
        let mut taking = Vec::new();
        for contender in self.contenders.iter().chain(&others) {
            tracing::info!("{}: {} makes ready", self.name, contender.label);
            taking.push(Taking::start(contender, options));
        }
        for round in 1..=options.rounds {
            tracing::info!("{}: round {round} of {}", self.name, options.rounds);
            for one in &mut taking {
                one.time(options.seconds);
            }
        }
        let folder = tempfile::tempdir().context("can't make a folder for results")?;
        for (index, one) in taking.iter_mut().enumerate() {
            one.compute(&folder.path().join(format!("{index}.f64")));
        }
        Ok(self.judge(&taking, on_gpu))
    }

    fn judge(&self, taking: &[Taking<'_>], on_gpu: bool) -> Measured {
        // Without the peer, another build is what there is to compare with.
        let mut runs = taking.iter().filter(|one| one.state.is_ok());
        let is_build = |one: &&Taking<'_>| matches!(one.contender.program, Program::Build(_));
        let baseline =
            runs.clone().find(|one| one.contender.label == self.baseline).or_else(|| runs.find(is_build));
        let standings = taking.iter().map(|one| {
            let (contender, told) = (one.contender, &one.told);
            let base = baseline.filter(|base| base.contender.label != contender.label).map(|base| &base.told);
            Standing {
                contender: contender.label.clone(),
                required: contender.required,
                left_out: one.state.as_ref().err().cloned(),
                seconds: Figures::of(&told.rounds),
                ratio: base.and_then(|base| Ratio::of(&told.rounds, &base.rounds)),
                memory: told.memory,
                memory_ratio: base
                    .filter(|_| !on_gpu)
                    .and_then(|base| MemoryRatio::of(&told.memory, &base.memory)),
                difference: base.and_then(|base| difference(&told.outcome, &base.outcome)),
                versions: told.versions.clone(),
            }
        });
        Measured {
            name: self.name.clone(),
            standings: standings.collect(),
            baseline: baseline.map(|baseline| baseline.contender.label.clone()),
        }
    }
}

fn read_outcome(path: &Path) -> Result<Vec<f64>> {
    let bytes = std::fs::read(path).with_context(|| format!("can't read {}", path.display()))?;
    let (values, rest) = bytes.as_chunks::<8>();
    if !rest.is_empty() {
        bail!("{} is no list of f64", path.display());
    }
    Ok(values.iter().map(|value| f64::from_le_bytes(*value)).collect())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::Standing;

    #[test]
    fn a_result_that_is_no_number_is_told_from_one_that_was_not_compared() {
        let written = |difference| {
            let standing = Standing { difference, ..Standing::default() };
            serde_json::to_value(standing).unwrap()["difference"].clone()
        };
        assert_eq!(written(Some(f64::INFINITY)), "infinite");
        assert_eq!(written(Some(0.5)), 0.5);
        assert!(written(None).is_null());
    }
}
