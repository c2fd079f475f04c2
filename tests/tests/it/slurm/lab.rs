//! A Slurm of one test's own.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use end_to_end::{root, xtask};
use serde_json::Value;

/// One at a time: they look for free ports, and share the cores.
static ONE: Mutex<()> = Mutex::new(());

/// A Slurm of four nodes on loopback, until it is dropped.
pub(super) struct Lab {
    folder: tempfile::TempDir,
    /// Daemons that a test started again.
    again: Mutex<Vec<Child>>,
    _one: MutexGuard<'static, ()>,
}

impl Lab {
    pub(super) fn start() -> Self {
        let one = ONE.lock().unwrap_or_else(PoisonError::into_inner);
        let folder = tempfile::tempdir().unwrap();
        let lab = Self { folder, again: Mutex::default(), _one: one };
        let up = lab.script("up.sh").output().unwrap();
        assert!(up.status.success(), "{}", String::from_utf8_lossy(&up.stderr));
        lab
    }

    fn place(&self) -> PathBuf {
        self.folder.path().join("slurm")
    }

    fn script(&self, name: &str) -> Command {
        let mut command = Command::new("bash");
        command.arg(root().join("tests/slurm").join(name)).arg(self.place());
        command.env("SLURM_LAB_NODES", "4").env("SLURM_LAB_CPUS", "2");
        command
    }

    fn slurm(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command.env("SLURM_CONF", self.place().join("etc/slurm.conf"));
        command
    }

    /// A folder for results.
    pub(super) fn out(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// `reproduce` with a profile of `tests/profiles` on this cluster, in short steps.
    pub(super) fn reproduce(&self, profile: &str, out: &Path) -> Command {
        let profile = root().join("tests/profiles").join(format!("{profile}.toml"));
        let mut command = self.command("reproduce", out);
        command.arg("--profile").arg(profile);
        command
    }

    /// A command of the project's that runs cells on this cluster, in short steps.
    pub(super) fn command(&self, name: &str, out: &Path) -> Command {
        let mut command = xtask();
        command.arg(name).arg("--out").arg(out).args(["--device", "cpu"]);
        command.args(["--executor", "slurm", "--poll", "0.5", "--heartbeat", "1", "--grace", "10"]);
        command.env("SLURM_CONF", self.place().join("etc/slurm.conf"));
        // What a login shell may hold, and what must not matter.
        command.env("SBATCH_ARRAY_INX", "0-3").env("SQUEUE_FORMAT", "%i").env("SLURM_JOB_ID", "1");
        command
    }

    /// Waits until something holds.
    pub(super) fn until(&self, what: &str, holds: impl Fn() -> bool) {
        let since = Instant::now();
        while !holds() {
            let log = || std::fs::read_to_string(self.place().join("log/slurmctld.log")).unwrap_or_default();
            assert!(since.elapsed() < Duration::from_secs(240), "not: {what}\n{}", log());
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// The folder of the plan that `out` is computed by.
    pub(super) fn plan(out: &Path) -> PathBuf {
        let bytes = std::fs::read(out.join("slurm/current.json")).unwrap();
        let names: Vec<String> = serde_json::from_slice(&bytes).unwrap();
        assert_eq!(names.len(), 1);
        out.join("slurm").join(&names[0])
    }

    /// What the attempts at a task wrote when they began, in their order.
    fn started(out: &Path, task: u32) -> Vec<Value> {
        if !out.join("slurm/current.json").exists() {
            return Vec::new();
        }
        let Ok(listing) = Self::plan(out).join(format!("tasks/{task}")).read_dir() else { return Vec::new() };
        let mut found: Vec<PathBuf> = listing.map(|item| item.unwrap().path()).collect();
        found.retain(|path| path.to_string_lossy().ends_with(".started.json"));
        found.sort();
        found.iter().map(|path| serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()).collect()
    }

    pub(super) fn attempts(out: &Path, task: u32) -> usize {
        Self::started(out, task).len()
    }

    /// The process of the last attempt at a task.
    pub(super) fn process(out: &Path, task: u32) -> u32 {
        u32::try_from(Self::started(out, task).last().unwrap()["process"].as_u64().unwrap()).unwrap()
    }

    /// The process of the cell that the last attempt at a task computes.
    pub(super) fn cell_process(out: &Path, task: u32) -> Option<u32> {
        if Self::attempts(out, task) == 0 {
            return None;
        }
        let process = Self::process(out, task);
        let children = std::fs::read_to_string(format!("/proc/{process}/task/{process}/children")).ok()?;
        children.split_whitespace().next()?.parse().ok()
    }

    pub(super) fn node(out: &Path, task: u32) -> String {
        Self::started(out, task).last().unwrap()["node"].as_str().unwrap().to_owned()
    }

    /// The last attempt at a task as Slurm's programs take it.
    pub(super) fn address(out: &Path, task: u32) -> String {
        let array = |folder: &str| {
            let listing = Self::plan(out).join(folder).read_dir().ok()?;
            let name =
                |item: std::io::Result<std::fs::DirEntry>| item.unwrap().file_name().into_string().unwrap();
            listing.filter_map(|item| name(item).strip_suffix(".json")?.parse::<u64>().ok()).max()
        };
        format!("{}_{task}", array("submissions").unwrap())
    }

    /// Whether a task's cell has written a checkpoint.
    pub(super) fn has_checkpoint(out: &Path, task: u32) -> bool {
        if Self::attempts(out, task) == 0 {
            return false;
        }
        let attempt = format!("@{}.0", Self::address(out, task));
        let Ok(listing) = out.join("work").read_dir() else { return false };
        let folders = listing.map(|item| item.unwrap().path());
        folders
            .filter(|path| path.to_string_lossy().ends_with(&attempt))
            .any(|path| path.join("journal.json").exists())
    }

    /// Slurm's word for how a task is; empty if it does not know it.
    pub(super) fn state(&self, out: &Path, task: u32) -> String {
        let address = Self::address(out, task);
        let output =
            self.slurm("squeue").args(["-h", "-t", "all", "-j", &address, "-o", "%T"]).output().unwrap();
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    }

    pub(super) fn records(out: &Path) -> Vec<Value> {
        let listing = out.join("cells").read_dir().unwrap();
        let path = |item: std::io::Result<std::fs::DirEntry>| item.unwrap().path().join("result.json");
        listing.map(|item| serde_json::from_slice(&std::fs::read(path(item)).unwrap()).unwrap()).collect()
    }

    pub(super) fn try_scontrol(&self, arguments: &[&str]) -> bool {
        self.slurm("scontrol").args(arguments).stderr(Stdio::null()).status().unwrap().success()
    }

    pub(super) fn scontrol(&self, arguments: &[&str]) {
        assert!(self.try_scontrol(arguments), "scontrol {arguments:?}");
    }

    pub(super) fn scancel(&self, address: &str) {
        assert!(self.slurm("scancel").arg(address).status().unwrap().success());
    }

    /// The process of one of the lab's daemons.
    pub(super) fn daemon(&self, name: &str) -> u32 {
        let pids = std::fs::read_to_string(self.place().join("pids")).unwrap();
        let line = pids.lines().find(|line| line.split(' ').next() == Some(name)).unwrap();
        line.split(' ').nth(1).unwrap().parse().unwrap()
    }

    /// The daemon of a task's step: the parent of its process.
    pub(super) fn step_daemon(&self, address: &str) -> u32 {
        let output = self.slurm("scontrol").args(["-o", "show", "job", address]).output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        let id = text.split_whitespace().find_map(|word| word.strip_prefix("JobId=")).unwrap();
        let title = format!("slurmstepd: [{id}.batch]");
        let is_it = |process: &u32| {
            std::fs::read_to_string(format!("/proc/{process}/cmdline"))
                .is_ok_and(|line| line.starts_with(&title))
        };
        let processes = Path::new("/proc").read_dir().unwrap();
        let number =
            |item: std::io::Result<std::fs::DirEntry>| item.unwrap().file_name().to_str()?.parse().ok();
        processes.filter_map(number).find(is_it).unwrap_or_else(|| panic!("no process is called {title}"))
    }

    /// SIGKILL, to a process of this lab.
    pub(super) fn kill(&self, process: u32) {
        self.signal("-KILL", process);
    }

    /// Ctrl-C.
    pub(super) fn interrupt(&self, child: &Child) {
        self.signal("-INT", child.id());
    }

    /// Stands a process still until [`Lab::release`], so that a test may take its time.
    pub(super) fn hold(&self, process: u32) {
        self.signal("-STOP", process);
    }

    pub(super) fn release(&self, process: u32) {
        self.signal("-CONT", process);
    }

    fn signal(&self, signal: &str, process: u32) {
        let status = Command::new("kill").args([signal, &process.to_string()]).status().unwrap();
        assert!(status.success(), "{:?}", self.folder);
    }

    /// Waits until the controller has written down what it knows by now: killed before, it would take tasks that it
    /// started just now for strangers, and end them.
    pub(super) fn until_it_is_written_down(&self, address: &str) {
        let now = std::time::SystemTime::now();
        let state = self.place().join("state/job_state");
        // It writes some seconds after something changed.
        self.scontrol(&["update", &format!("jobid={address}"), "Comment=seen"]);
        self.until("the controller has written down its state", || {
            state.metadata().and_then(|data| data.modified()).is_ok_and(|written| written > now)
        });
    }

    /// Starts the controller again after it was killed.
    pub(super) fn start_controller(&self) {
        let mut command = self.slurm("slurmctld");
        command.arg("-D").arg("-f").arg(self.place().join("etc/slurm.conf"));
        command
            .env("PATH", path_with_daemons())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        self.again.lock().unwrap().push(command.spawn().unwrap());
    }
}

/// Daemons are in folders that a user's `PATH` may not have.
fn path_with_daemons() -> String {
    format!("{}:/usr/sbin:/sbin", std::env::var("PATH").unwrap_or_default())
}

impl Drop for Lab {
    fn drop(&mut self) {
        // Jobs end through the controller, so it goes last.
        let _ = self.slurm("scancel").arg("--me").status();
        let down = self.script("down.sh").output();
        for child in self.again.lock().unwrap_or_else(PoisonError::into_inner).iter_mut() {
            let _ = child.kill();
            let _ = child.wait();
        }
        let well = down.is_ok_and(|down| down.status.success());
        // In a test that fails already a second panic would end the program.
        assert!(well || std::thread::panicking(), "the lab's processes did not end");
    }
}
