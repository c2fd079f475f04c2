//! The scripts that Slurm keeps and runs.

use std::ffi::OsStr;

use crate::Error;

/// A script whose task runs `command` with `--index` and the task's index as last arguments.
///
/// Slurm keeps the script itself at submission; what it names is read when a task starts.
///
/// # Errors
/// [`Error::Request`] for an argument that is no text, or holds a line break or a NUL.
pub fn array_script<A: AsRef<OsStr>>(command: &[A]) -> Result<String, Error> {
    Ok(format!("#!/bin/sh\nexec {} --index \"$SLURM_ARRAY_TASK_ID\"\n", quoted(command)?))
}

/// A script that runs `command`.
///
/// # Errors
/// As [`array_script`].
pub fn single_script<A: AsRef<OsStr>>(command: &[A]) -> Result<String, Error> {
    Ok(format!("#!/bin/sh\nexec {}\n", quoted(command)?))
}

fn quoted<A: AsRef<OsStr>>(command: &[A]) -> Result<String, Error> {
    let words: Result<Vec<String>, Error> = command
        .iter()
        .map(|word| {
            let word = word.as_ref();
            let text = word.to_str().filter(|text| !text.contains(['\n', '\r', '\0']));
            let text = text.ok_or_else(|| Error::Request {
                field: "command",
                problem: format!("expected text of one line, found {}", word.display()),
            })?;
            Ok(format!("'{}'", text.replace('\'', r"'\''")))
        })
        .collect();
    Ok(words?.join(" "))
}

#[cfg(all(test, unix))]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::{array_script, single_script};

    #[test]
    fn every_argument_arrives_as_it_is() {
        let folder = tempfile::tempdir().unwrap();
        let script = folder.path().join("a script.sh");
        let nasty = "it's $HOME `x` \"y\" \\ *";
        std::fs::write(&script, array_script(&["printf", "%s|", nasty]).unwrap()).unwrap();
        let run =
            std::process::Command::new("sh").arg(&script).env("SLURM_ARRAY_TASK_ID", "7").output().unwrap();
        assert_eq!(String::from_utf8(run.stdout).unwrap(), format!("{nasty}|--index|7|"));
        assert_eq!(single_script(&["a b"]).unwrap(), "#!/bin/sh\nexec 'a b'\n");
        assert!(single_script(&["a\nb"]).is_err());
    }
}
