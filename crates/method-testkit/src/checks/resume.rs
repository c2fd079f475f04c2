//! A cancelled fit goes on to the bits of an uninterrupted one.

use std::path::Path;

use anomaly_core::{CheckpointStore, DirectoryCheckpoints, KeepNothing};

use crate::failure::{Problem, problem};
use crate::fitting::{Outcome, Plan, Reference, SEED, files};
use crate::{Resume, Suite};

pub(crate) fn check(suite: &Suite<'_>) -> Result<(), Problem> {
    let reference = suite.reference()?;
    let fit = |directory: &Path, cancel_at| {
        let plan = Plan { cancel_at, checkpoints: Some(directory), ..Plan::WHOLE };
        suite.fit(&*reference.method, &reference.training, plan, KeepNothing)
    };
    let fresh = tempfile::tempdir()?;
    if fit(fresh.path(), Some(0))?.detector.is_some() {
        return problem("a fit that was asked to stop before it began went on to its end");
    }

    let total = reference.signals;
    let mut moments = vec![1, total / 4, total / 2, total * 3 / 4, total * 9 / 10];
    moments.retain(|moment| *moment > 0);
    moments.dedup();
    let mut last = None;
    for moment in moments {
        let directory = tempfile::tempdir()?;
        let cancelled = fit(directory.path(), Some(moment))?;
        if cancelled.detector.is_some() {
            // It had nothing more to ask: the cancellation came too late.
            same(reference, cancelled, &format!("cancelled after signal {moment}, too late to stop"))?;
            continue;
        }
        let kept = DirectoryCheckpoints::new(directory.path()).latest(&suite.device)?.is_some();
        if moment == total / 2 {
            // Again, as soon as it goes on; it may be done before it looks.
            fit(directory.path(), Some(1))?;
        }
        let resumed = fit(directory.path(), None)?;
        last = Some((moment, kept, resumed.signals));
        same(reference, resumed, &format!("cancelled at signal {moment} of {total} and resumed"))?;
    }
    if suite.resume == Resume::StartsAgain {
        return Ok(());
    }
    match last {
        None => problem("no cancellation during the fit stopped it"),
        Some((moment, false, _)) => {
            problem(format!("cancelled at signal {moment} of {total}, it had kept no checkpoint"))
        }
        Some((moment, true, signals)) if signals >= total => problem(format!(
            "cancelled at signal {moment} of {total} with a checkpoint kept, it took {signals} more: it started again"
        )),
        Some(_) => Ok(()),
    }
}

/// The detector must have the reference's bits.
fn same(reference: &Reference, outcome: Outcome, how: &str) -> Result<(), Problem> {
    let Some(detector) = outcome.detector else {
        return problem(format!("{how}, it said that it was cancelled"));
    };
    let found = files(&*reference.method, &reference.training, &*detector, SEED)?;
    match reference.files.difference(&found)? {
        Some(what) => problem(format!("{how}, the detector differs from an uninterrupted fit's in {what}")),
        None => Ok(()),
    }
}
