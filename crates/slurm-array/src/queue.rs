//! What the queue says about one task.

use crate::Error;

/// The columns that [`Entry::parse`] reads, as `squeue -O` takes them: wide enough that nothing is cut off.
pub(crate) const COLUMNS: &str =
    "ArrayJobID:24|,ArrayTaskID:24|,JobID:24|,State:24|,exit_code:12|,Reason:160|,NodeList:64|";

/// States in which a task has not begun, or is to begin again.
const WAITING: [&str; 7] =
    ["PENDING", "CONFIGURING", "REQUEUED", "REQUEUE_HOLD", "REQUEUE_FED", "SPECIAL_EXIT", "RESV_DEL_HOLD"];
/// States in which it is at work. All others, also words that are not known here, are ends.
const RUNNING: [&str; 7] =
    ["RUNNING", "COMPLETING", "SUSPENDED", "STOPPED", "SIGNALING", "STAGE_OUT", "RESIZING"];

/// How far a task is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// It has not begun, or is to begin again.
    Waiting,
    /// It is at work.
    Running,
    /// It is over.
    Ended,
}

/// One line of the queue.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Entry {
    /// The array's id.
    pub array: u64,
    /// The task's index; `None` for what is left of an array whose tasks were cancelled before they began.
    pub task: Option<u32>,
    /// Slurm's word for how it is: `PENDING`, `RUNNING`, `TIMEOUT`, ...
    pub state: String,
    /// The wait status: 256 times the exit code, or the signal.
    pub exit: u32,
    /// Why it is so, in Slurm's words.
    pub reason: String,
    /// The node it runs or ran on; empty if none.
    pub node: String,
}

impl Entry {
    /// Reads one line of the columns array, task, job, state, wait status, reason, nodes.
    ///
    /// # Errors
    /// [`Error::Answer`].
    pub fn parse(line: &str) -> Result<Self, Error> {
        let wrong = || Error::Answer {
            program: "squeue",
            expected: "array|task|job|state|exit code|reason|nodes|",
            found: line.to_owned(),
        };
        let fields: Vec<&str> = line.split('|').map(str::trim).collect();
        let [array, task, _job, state, exit, reason, node, ..] = fields.as_slice() else {
            return Err(wrong());
        };
        if state.is_empty() {
            return Err(wrong());
        }
        let task = if *task == "N/A" { None } else { Some(task.parse().map_err(|_| wrong())?) };
        let plain =
            |word: &str| if word == "None" || word == "N/A" { String::new() } else { word.to_owned() };
        Ok(Self {
            array: array.parse().map_err(|_| wrong())?,
            task,
            state: (*state).to_owned(),
            exit: exit.parse().map_err(|_| wrong())?,
            reason: plain(reason),
            node: plain(node),
        })
    }

    /// All lines of an answer.
    pub(crate) fn parse_all(answer: &str) -> Result<Vec<Self>, Error> {
        answer.lines().filter(|line| !line.trim().is_empty()).map(Self::parse).collect()
    }

    /// How far the task is.
    pub fn phase(&self) -> Phase {
        if WAITING.contains(&self.state.as_str()) {
            Phase::Waiting
        } else if RUNNING.contains(&self.state.as_str()) {
            Phase::Running
        } else {
            Phase::Ended
        }
    }

    /// Why it will never begin unless somebody does something; `None` if it may.
    pub fn never(&self) -> Option<&str> {
        let reason = self.reason.as_str();
        let known = [
            "PartitionConfig",
            "PartitionTimeLimit",
            "PartitionNodeLimit",
            "PartitionDown",
            "PartitionInactive",
            "BadConstraints",
            "InvalidAccount",
            "InvalidQOS",
            "AccountNotAllowed",
            "QOSNotAllowed",
            "DependencyNeverSatisfied",
            "JobHoldMaxRequeue",
            "NodeDown",
        ];
        let starts = ["JobHeld", "launch failed", "launch_failed", "ReqNodeNotAvail"];
        // A single job over a limit stays over it; limits on sums come free again.
        let ends = ["PerJobLimit", "PerJob"];
        let never = known.contains(&reason)
            || starts.iter().any(|start| reason.starts_with(start))
            || ends.iter().any(|end| reason.ends_with(end));
        (self.phase() == Phase::Waiting && never).then_some(reason)
    }

    /// The task as Slurm's programs take it: `ARRAY_TASK`.
    pub fn address(&self) -> String {
        self.task.map_or_else(|| self.array.to_string(), |task| format!("{}_{task}", self.array))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::{Entry, Phase};

    #[test]
    fn lines_of_a_real_queue_are_read() {
        let text = "\
2                       |N/A                     |2       |CANCELLED    |0     |Dependency      |              |
1                       |3                       |1       |FAILED       |768   |NonZeroExitCode |n1            |

1                       |2                       |5       |PENDING      |0     |launch failed requeued held|    |
1                       |4                       |5       |RUNNING      |0     |None            |n2            |
";
        let entries = Entry::parse_all(text).unwrap();
        assert_eq!((entries[0].task, entries[0].phase()), (None, Phase::Ended));
        assert_eq!((entries[1].task, entries[1].exit, entries[1].node.as_str()), (Some(3), 768, "n1"));
        assert_eq!(entries[2].never(), Some("launch failed requeued held"));
        assert_eq!(
            (entries[3].phase(), entries[3].reason.as_str(), entries[3].never()),
            (Phase::Running, "", None)
        );
        assert_eq!(entries[3].address(), "1_4");
        for wrong in
            ["1|2|3|RUNNING|0", "x|2|3|RUNNING|0|None|n|", "1|2|3||0|None|n|", "1|2-5|3|PENDING|0|None||"]
        {
            assert!(Entry::parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn words_that_are_not_known_are_ends() {
        for (state, phase) in [
            ("PENDING", Phase::Waiting),
            ("REQUEUED", Phase::Waiting),
            ("COMPLETING", Phase::Running),
            ("COMPLETED", Phase::Ended),
            ("OUT_OF_MEMORY", Phase::Ended),
            ("LAUNCHED_INTO_SPACE", Phase::Ended),
        ] {
            assert_eq!(Entry::parse(&format!("1|2|3|{state}|0|x||")).unwrap().phase(), phase, "{state}");
        }
    }

    #[test]
    fn only_what_cannot_pass_by_itself_is_never() {
        let never = |reason| Entry::parse(&format!("1|2|3|PENDING|0|{reason}||")).unwrap().never().is_some();
        for reason in
            ["PartitionTimeLimit", "JobHeldUser", "QOSMaxCpuPerJobLimit", "AssocMaxWallDurationPerJobLimit"]
        {
            assert!(never(reason), "{reason}");
        }
        for reason in
            ["Resources", "Priority", "Dependency", "JobArrayTaskLimit", "BeginTime", "QOSGrpCpuLimit"]
        {
            assert!(!never(reason), "{reason}");
        }
    }
}
