//! A job that is to be submitted.

use std::collections::BTreeSet;
use std::path::Path;

use crate::index_list::index_list;
use crate::{Error, Resources};

/// What a job waits for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Dependency {
    /// That no other job of its name and user is there, and that these jobs are over, however they ended. With it an
    /// array that was submitted twice by accident runs one after the other, and the second finds everything done.
    Singleton {
        /// Jobs that are to be over.
        after: Vec<u64>,
    },
    /// That these jobs are over, however they ended.
    After(Vec<u64>),
}

/// A job that is to be submitted.
#[derive(Debug, Clone)]
pub struct Request<'a> {
    /// The job's name.
    pub name: &'a str,
    /// The indices of an array; empty for a plain job.
    pub indices: &'a BTreeSet<u32>,
    /// The script.
    pub script: &'a Path,
    /// The folder that gets a log a task; it must be there.
    pub logs: &'a Path,
    /// What each task is given.
    pub resources: &'a Resources,
    /// What it waits for.
    pub dependency: Dependency,
}

impl Request<'_> {
    /// The arguments of `sbatch`.
    pub(crate) fn arguments(&self) -> Result<Vec<String>, Error> {
        let plain = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
        if self.name.is_empty() || !self.name.chars().all(plain) {
            let problem = format!("expected letters, digits, `-`, `_` and `.`, found `{}`", self.name);
            return Err(Error::Request { field: "job name", problem });
        }
        let text = |path: &Path, field| {
            // Slurm replaces `%` in the names of logs.
            path.to_str()
                .filter(|text| !text.contains(['%', '\n']) && path.is_absolute())
                .map(str::to_owned)
                .ok_or_else(|| Error::Request {
                    field,
                    problem: format!("expected an absolute path without `%`, found {}", path.display()),
                })
        };
        let logs = text(self.logs, "log folder")?;
        if !self.logs.is_dir() {
            // The job would fail without a word of output.
            let problem = format!("expected a folder that is there, found {}", self.logs.display());
            return Err(Error::Request { field: "log folder", problem });
        }
        let mut arguments: Vec<String> =
            ["--parsable", "--requeue", "--open-mode=append"].map(str::to_owned).to_vec();
        arguments.push(format!("--job-name={}", self.name));
        if self.indices.is_empty() {
            arguments.push(format!("--output={logs}/%j.log"));
        } else {
            let limit = self.resources.max_parallel.map_or_else(String::new, |most| format!("%{most}"));
            arguments.push(format!("--array={}{limit}", index_list(self.indices)));
            arguments.push(format!("--output={logs}/%A_%a.log"));
        }
        arguments.push(format!("--chdir={logs}"));
        let mut waits = Vec::new();
        let (after, singleton) = match &self.dependency {
            Dependency::Singleton { after } => (after, true),
            Dependency::After(after) => (after, false),
        };
        if !after.is_empty() {
            let ids: Vec<String> = after.iter().map(u64::to_string).collect();
            waits.push(format!("afterany:{}", ids.join(":")));
        }
        if singleton {
            waits.push("singleton".to_owned());
        }
        if !waits.is_empty() {
            arguments.push(format!("--dependency={}", waits.join(",")));
        }
        arguments.extend(self.resources.flags()?);
        arguments.push(text(self.script, "script")?);
        Ok(arguments)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::collections::BTreeSet;
    use std::path::Path;

    use super::{Dependency, Request};
    use crate::Resources;

    #[test]
    fn a_request_becomes_an_argument_vector() {
        let folder = tempfile::tempdir().unwrap();
        let indices = BTreeSet::from([1, 4, 7, 8, 9]);
        let script = folder.path().join("run me.sh");
        let resources = Resources { max_parallel: Some(2), cpus: Some(4), ..Resources::default() };
        let mut request = Request {
            name: "vitad-12ab",
            indices: &indices,
            script: &script,
            logs: folder.path(),
            resources: &resources,
            dependency: Dependency::Singleton { after: vec![3, 5] },
        };
        let arguments = request.arguments().unwrap();
        let logs = folder.path().display();
        assert_eq!(
            arguments,
            [
                "--parsable".to_owned(),
                "--requeue".into(),
                "--open-mode=append".into(),
                "--job-name=vitad-12ab".into(),
                "--array=1,4,7-9%2".into(),
                format!("--output={logs}/%A_%a.log"),
                format!("--chdir={logs}"),
                "--dependency=afterany:3:5,singleton".into(),
                "--nodes=1".into(),
                "--ntasks=1".into(),
                "--cpus-per-task=4".into(),
                format!("{logs}/run me.sh"),
            ]
        );
        let none = BTreeSet::new();
        request.indices = &none;
        request.dependency = Dependency::After(Vec::new());
        let arguments = request.arguments().unwrap();
        assert!(
            !arguments.iter().any(|a| a.starts_with("--array") || a.starts_with("--dependency")),
            "{arguments:?}"
        );
        let missing = folder.path().join("missing");
        request.logs = &missing;
        assert!(request.arguments().unwrap_err().to_string().contains("missing"));
        request.logs = Path::new("logs");
        assert!(request.arguments().unwrap_err().to_string().contains("absolute"));
        request.name = "two words";
        assert!(request.arguments().unwrap_err().to_string().contains("two words"));
    }
}
