//! From what is seen of a task to what became of it.

use std::time::Duration;

use crate::{Beat, Ended, Ending, Entry, Phase, Verdict};

/// How long nothing may happen before it means something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// A task that runs and gives no sign of life for so long is a ghost.
    pub stale: Duration,
    /// How long files that were written on a node may take to be visible here.
    pub grace: Duration,
}

impl Default for Limits {
    /// Three minutes, and one.
    fn default() -> Self {
        Self { stale: Duration::from_secs(180), grace: Duration::from_secs(60) }
    }
}

/// What the queue said about a task.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Poll {
    /// It could not be asked.
    #[default]
    Unknown,
    /// The task is not in it.
    Absent,
    /// The task is in it, or ended so recently that it is not forgotten yet.
    Listed(Entry),
}

/// All that is seen of a task at one time.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Sight {
    /// Whether its results are there.
    pub done: bool,
    /// Its last attempt's last word.
    pub ended: Option<Ended>,
    /// Its last attempt's last sign of life.
    pub beat: Option<Beat>,
    /// What the queue says.
    pub poll: Poll,
}

/// Makes a verdict of what is seen of one submitted task.
///
/// It compares only what it saw itself, by its own clock: those of the nodes may differ.
#[derive(Debug, Clone)]
pub struct Tracker {
    limits: Limits,
    verdict: Verdict,
    /// The last end that Slurm told.
    end: Option<Entry>,
    /// Since when it is over or gone, and in how many polls.
    gone: Option<(Duration, u32)>,
    /// The last sign of life, and when it was new.
    beat: Option<(Option<Beat>, Duration)>,
    /// In how many polls in a row it waited for what never comes.
    never: u32,
}

impl Tracker {
    /// A task that was just submitted.
    pub fn new(limits: Limits) -> Self {
        let verdict = Verdict::Waiting { reason: String::new() };
        Self { limits, verdict, end: None, gone: None, beat: None, never: 0 }
    }

    /// A task whose end Slurm told once, and may have forgotten.
    pub fn with_end(limits: Limits, end: Option<Entry>) -> Self {
        Self { end, ..Self::new(limits) }
    }

    /// The end that Slurm told, if it did: to be kept, since Slurm forgets it.
    pub fn end(&self) -> Option<&Entry> {
        self.end.as_ref()
    }

    /// The verdict at the time `now` of any clock that only goes forward.
    pub fn observe(&mut self, now: Duration, sight: &Sight) -> Verdict {
        self.verdict = self.judge(now, sight);
        self.verdict.clone()
    }

    fn judge(&mut self, now: Duration, sight: &Sight) -> Verdict {
        if sight.done {
            return Verdict::Done;
        }
        let entry = match &sight.poll {
            Poll::Unknown => return self.verdict.clone(),
            Poll::Absent => None,
            Poll::Listed(entry) => Some(entry),
        };
        if entry.is_none_or(|entry| entry.never().is_none()) {
            self.never = 0;
        }
        if entry.is_none_or(|entry| entry.phase() != Phase::Running) {
            self.beat = None;
        }
        match entry.map(|entry| (entry, entry.phase())) {
            Some((entry, Phase::Waiting)) => {
                (self.end, self.gone) = (None, None);
                self.waiting(entry)
            }
            Some((entry, Phase::Running)) => {
                (self.end, self.gone) = (None, None);
                self.running(now, entry, sight.beat.as_ref())
            }
            Some((entry, Phase::Ended)) => {
                self.end = Some(entry.clone());
                self.over(now, sight)
            }
            None => self.over(now, sight),
        }
    }

    fn waiting(&mut self, entry: &Entry) -> Verdict {
        let reason = entry.reason.clone();
        if entry.never().is_some() {
            self.never += 1;
        }
        // Once may be while the scheduler makes up its mind.
        if self.never >= 2 { Verdict::Stuck { reason } } else { Verdict::Waiting { reason } }
    }

    fn running(&mut self, now: Duration, entry: &Entry, beat: Option<&Beat>) -> Verdict {
        let since = match &self.beat {
            Some((last, since)) if last.as_ref() == beat => *since,
            _ => now,
        };
        self.beat = Some((beat.cloned(), since));
        let silent = now.saturating_sub(since);
        let node = entry.node.clone();
        if silent >= self.limits.stale {
            Verdict::Ghost { node, seconds: silent.as_secs() }
        } else {
            Verdict::Running { node }
        }
    }

    /// The task is over, or the queue does not know it.
    fn over(&mut self, now: Duration, sight: &Sight) -> Verdict {
        let (since, polls) = self.gone.map_or((now, 1), |(since, polls)| (since, polls + 1));
        self.gone = Some((since, polls));
        let own = sight.ended.as_ref();
        if let Some(ended) = own.filter(|ended| ended.ending == Ending::Refused) {
            return Verdict::Refused { why: ended.why.clone() };
        }
        // What Slurm did to it counts more than what it could say about that.
        let by_slurm = self.end.as_ref().filter(|end| end.state != "COMPLETED" && end.state != "FAILED");
        if let Some(end) = by_slurm {
            return ended(end);
        }
        if let Some(own) = own.filter(|own| own.ending == Ending::Failed) {
            return Verdict::Failed { why: own.why.clone() };
        }
        if let Some(end) = self.end.as_ref().filter(|end| end.state == "FAILED") {
            return ended(end);
        }
        if polls < 2 || now.saturating_sub(since) < self.limits.grace {
            return Verdict::Settling;
        }
        match (&self.end, own) {
            (Some(end), _) => ended(end),
            (None, Some(own)) if own.ending == Ending::Stopped => Verdict::Failed { why: own.why.clone() },
            (None, _) => Verdict::Lost,
        }
    }
}

fn ended(end: &Entry) -> Verdict {
    Verdict::Ended {
        // Who cancelled it may follow: `CANCELLED by 1000`.
        state: end.state.split(' ').next().unwrap_or_default().to_owned(),
        code: end.exit / 256,
        signal: end.exit % 128,
        node: end.node.clone(),
        reason: end.reason.clone(),
    }
}
