//! One piece of work, and how its contenders did.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde::Serialize;

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
    /// The largest difference of its result from the baseline's, as a share of the baseline's largest value.
    pub(crate) difference: Option<f64>,
    /// Libraries and settings.
    pub(crate) versions: BTreeMap<String, String>,
}

/// A contender on its way.
struct Taking<'a> {
    contender: &'a Contender,
    state: Result<Running, String>,
    rounds: Vec<Vec<f64>>,
    standing: Standing,
    outcome: Vec<f64>,
}

impl Comparison {
    /// Lets all contenders take their turns, round after round.
    ///
    /// # Errors
    /// If one of ours fails, at any time; or a peer after it was ready.
    pub(crate) fn measure(&self, options: &Options) -> Result<Measured> {
        let mut others = Vec::new();
        if let Some(path) = &options.against {
            let ours = self.contenders.iter().filter(|contender| contender.program == Program::Ours);
            others.extend(ours.map(|contender| contender.in_build(path)));
        }
        let mut taking = Vec::new();
        for contender in self.contenders.iter().chain(&others) {
            tracing::info!("{}: {} makes ready", self.name, contender.label);
            let state = contender.start(options);
            let standing = Standing { contender: contender.label.clone(), ..Standing::default() };
            let state = match (state, &contender.program) {
                (Ok(running), _) => Ok(running),
                (Err(error), Program::Peer(_)) => Err(format!("{error:#}")),
                (Err(error), _) => return Err(error).with_context(|| self.place(&contender.label)),
            };
            taking.push(Taking { contender, state, rounds: Vec::new(), standing, outcome: Vec::new() });
        }
        for round in 1..=options.rounds {
            tracing::info!("{}: round {round} of {}", self.name, options.rounds);
            for one in &mut taking {
                let Ok(running) = &mut one.state else { continue };
                std::thread::sleep(PAUSE);
                let turn =
                    running.turn(options.seconds, None).with_context(|| self.place(&one.contender.label))?;
                one.rounds.push(turn.seconds);
                one.standing.memory = turn.memory;
                one.standing.versions = turn.versions;
            }
        }
        let folder = tempfile::tempdir().context("can't make a folder for results")?;
        for (index, one) in taking.iter_mut().enumerate() {
            let Ok(running) = &mut one.state else { continue };
            let path = folder.path().join(format!("{index}.f64"));
            running.turn(0.0, Some(&path)).with_context(|| self.place(&one.contender.label))?;
            one.outcome = read_outcome(&path)?;
        }
        Ok(self.judge(taking, options.device_name()?.starts_with("cuda")))
    }

    fn place(&self, label: &str) -> String {
        format!("{}: {label}", self.name)
    }

    fn judge(&self, taking: Vec<Taking<'_>>, on_gpu: bool) -> Measured {
        // Without the peer, another build is what there is to compare with.
        let runs = |one: &&Taking<'_>| one.state.is_ok();
        let baseline =
            taking.iter().filter(runs).find(|one| one.contender.label == self.baseline).or_else(|| {
                taking.iter().filter(runs).find(|one| matches!(one.contender.program, Program::Build(_)))
            });
        let label = baseline.map(|baseline| baseline.contender.label.clone());
        let base = baseline.map(|one| (one.rounds.clone(), one.outcome.clone(), one.standing.memory));
        let standings = taking.into_iter().map(|one| {
            let mut standing = one.standing;
            standing.left_out = one.state.err();
            standing.seconds = Figures::of(&one.rounds);
            if let Some((rounds, outcome, memory)) =
                base.as_ref().filter(|_| label.as_deref() != Some(standing.contender.as_str()))
            {
                standing.ratio = Ratio::of(&one.rounds, rounds);
                standing.difference = difference(&one.outcome, outcome);
                standing.memory_ratio = MemoryRatio::of(&standing.memory, memory).filter(|_| !on_gpu);
            }
            standing
        });
        Measured { name: self.name.clone(), standings: standings.collect(), baseline: label }
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
