//! What became of a task.

use std::fmt;

/// What became of a task, as far as is known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// Its results are there.
    Done,
    /// It has not begun, and may.
    Waiting {
        /// Why, in Slurm's words; empty if they are none.
        reason: String,
    },
    /// It is at work.
    Running {
        /// Where.
        node: String,
    },
    /// It is over or gone, and what it wrote may not be visible here yet.
    Settling,
    /// It said that it failed.
    Failed {
        /// In its own words.
        why: String,
    },
    /// It refused to begin: its plan or its program is not what was submitted.
    Refused {
        /// In its own words.
        why: String,
    },
    /// Slurm ended it, or saw its end: `TIMEOUT`, `CANCELLED`, `NODE_FAIL`, `OUT_OF_MEMORY`, `FAILED`, ...
    Ended {
        /// Slurm's word.
        state: String,
        /// Its exit code; 0 if a signal ended it.
        code: u32,
        /// The signal that ended it; 0 if none.
        signal: u32,
        /// Where it ran; empty if it never began.
        node: String,
        /// Why, in Slurm's words.
        reason: String,
    },
    /// It waits for what will never come.
    Stuck {
        /// For what, in Slurm's words.
        reason: String,
    },
    /// Slurm says that it runs, but it gives no sign of life.
    Ghost {
        /// Where it is said to run.
        node: String,
        /// For how many seconds it gave none.
        seconds: u64,
    },
    /// Slurm no longer knows it, and it left no word.
    Lost,
}

impl Verdict {
    /// One word for tables: `done`, `waiting`, `running`, `settling`, `failed`, `refused`, Slurm's state in lower case,
    /// `stuck`, `ghost` or `lost`.
    pub fn word(&self) -> String {
        match self {
            Self::Done => "done",
            Self::Waiting { .. } => "waiting",
            Self::Running { .. } => "running",
            Self::Settling => "settling",
            Self::Failed { .. } => "failed",
            Self::Refused { .. } => "refused",
            Self::Ended { state, .. } => return state.to_lowercase(),
            Self::Stuck { .. } => "stuck",
            Self::Ghost { .. } => "ghost",
            Self::Lost => "lost",
        }
        .to_owned()
    }

    /// Whether waiting longer changes nothing.
    pub fn is_settled(&self) -> bool {
        !matches!(self, Self::Waiting { .. } | Self::Running { .. } | Self::Settling)
    }

    /// Whether Slurm still holds the task, so that it must not be submitted again.
    pub fn is_held(&self) -> bool {
        matches!(self, Self::Waiting { .. } | Self::Running { .. } | Self::Stuck { .. } | Self::Ghost { .. })
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let on = |node: &str| if node.is_empty() { String::new() } else { format!(" on {node}") };
        match self {
            Self::Done => f.write_str("done"),
            Self::Waiting { reason } if reason.is_empty() => f.write_str("waiting"),
            Self::Waiting { reason } => write!(f, "waiting ({reason})"),
            Self::Running { node } => write!(f, "running{}", on(node)),
            Self::Settling => f.write_str("over; its results are waited for"),
            Self::Failed { why } => write!(f, "failed: {why}"),
            Self::Refused { why } => write!(f, "refused: {why}"),
            Self::Ended { state, code, signal, node, reason } => {
                write!(f, "{state}{}", on(node))?;
                if *code > 0 {
                    write!(f, ", exit code {code}")?;
                }
                if *signal > 0 {
                    write!(f, ", signal {signal}")?;
                }
                if !reason.is_empty() {
                    write!(f, " ({reason})")?;
                }
                f.write_str(match state.as_str() {
                    "TIMEOUT" | "DEADLINE" => "; it needs a longer time",
                    "OUT_OF_MEMORY" => "; it needs more memory",
                    "COMPLETED" => "; but there is no result",
                    _ => "",
                })
            }
            Self::Stuck { reason } => {
                write!(f, "stuck: it will not begin ({reason}) until it is changed, released or cancelled")
            }
            Self::Ghost { node, seconds } => write!(
                f,
                "ghost: Slurm says it runs{}, but it gave no sign of life for {seconds} s; cancel it and run again",
                on(node)
            ),
            Self::Lost => f.write_str("lost: Slurm does not know it any more, and it left no word"),
        }
    }
}
