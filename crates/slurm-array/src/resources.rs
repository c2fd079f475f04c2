//! What each task of an array is given.

use crate::Error;

/// Flags that are the array's own: others under these names would break its bookkeeping.
const OWN: [&str; 24] = [
    "--array",
    "-a",
    "--job-name",
    "-J",
    "--output",
    "-o",
    "--error",
    "-e",
    "--dependency",
    "-d",
    "--parsable",
    "--wrap",
    "--open-mode",
    "--requeue",
    "--chdir",
    "-D",
    "--wait",
    "-W",
    "--nodes",
    "-N",
    "--ntasks",
    "-n",
    "--clusters",
    "-M",
];

/// What each task of an array is given. What is `None` is the cluster's default.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Resources {
    /// How many tasks run at a time at most.
    pub max_parallel: Option<u32>,
    /// CPUs a task.
    pub cpus: Option<u32>,
    /// Memory a task, as Slurm writes it: `16G`.
    pub memory: Option<String>,
    /// GPUs a task.
    pub gpus: Option<u32>,
    /// The longest a task may take, as Slurm writes it: `4:00:00`, `2-0`.
    pub time: Option<String>,
    /// The partition.
    pub partition: Option<String>,
    /// Further flags of `sbatch`, one each: `--account=vision`.
    pub extra: Vec<String>,
}

impl Resources {
    /// The flags of `sbatch`, without the limit on tasks at a time, which belongs to the list of indices.
    pub(crate) fn flags(&self) -> Result<Vec<String>, Error> {
        let mut flags = vec!["--nodes=1".to_owned(), "--ntasks=1".to_owned()];
        let mut add =
            |name: &str, value: Option<String>| flags.extend(value.map(|v| format!("--{name}={v}")));
        add("cpus-per-task", self.cpus.map(|n| n.to_string()));
        add("mem", self.memory.clone());
        add("gres", self.gpus.filter(|&n| n > 0).map(|n| format!("gpu:{n}")));
        add("time", self.time.clone());
        add("partition", self.partition.clone());
        for flag in &self.extra {
            let name = flag.split('=').next().unwrap_or_default();
            let short_with_value = flag.len() > 2 && !flag.starts_with("--");
            let is_own = OWN.contains(&name)
                || (short_with_value && flag.get(..2).is_some_and(|short| OWN.contains(&short)));
            if !flag.starts_with('-') || is_own {
                let problem =
                    format!("expected a flag of sbatch that is not the array's own, found `{flag}`");
                return Err(Error::Request { field: "extra flag", problem });
            }
            flags.push(flag.clone());
        }
        Ok(flags)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::Resources;

    #[test]
    fn what_is_asked_for_becomes_flags_and_what_is_not_is_left_to_the_cluster() {
        assert_eq!(Resources::default().flags().unwrap(), ["--nodes=1", "--ntasks=1"]);
        let all = Resources {
            max_parallel: Some(3),
            cpus: Some(4),
            memory: Some("16G".into()),
            gpus: Some(1),
            time: Some("2-0".into()),
            partition: Some("gpu".into()),
            extra: vec!["--account=vision".into(), "-C a100".into()],
        };
        assert_eq!(
            all.flags().unwrap()[2..],
            [
                "--cpus-per-task=4",
                "--mem=16G",
                "--gres=gpu:1",
                "--time=2-0",
                "--partition=gpu",
                "--account=vision",
                "-C a100"
            ]
        );
    }

    #[test]
    fn flags_that_would_break_the_bookkeeping_are_refused() {
        for flag in ["--array=0-3", "-Jother", "-J", "--wrap", "train.sh", ""] {
            let extra = vec![flag.to_owned()];
            let message = Resources { extra, ..Resources::default() }.flags().unwrap_err().to_string();
            assert!(message.contains("array's own"), "{flag}: {message}");
        }
    }
}
