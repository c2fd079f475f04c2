//! The bundle's script on a machine that is made up: a program, `ldd` and `nvidia-smi` that only say something.
#![allow(clippy::unwrap_used)]

use std::path::PathBuf;
use std::process::{Command, Output};

use super::bundle::Bundle;
use crate::cuda_toolkit::make_executable;

/// Tells what it is told, and asks the peers' Python where that looks for libraries.
const PROGRAM: &str = r#"#!/bin/sh
echo "told: $*"
echo "a warning" >&2
echo "libraries: $LD_LIBRARY_PATH"
while [ $# -gt 0 ]; do
    [ "$1" = --python ] && "$2" -c libraries
    [ "$1" = --json-file ] && echo '{}' >"$2"
    shift
done
[ "$device" != broken ] || exit 1
echo "the last line"
"#;

/// `python3` that tells where it looks for libraries.
const PYTHON: &str =
    "#!/bin/sh\n[ \"$2\" = libraries ] && echo \"peers' libraries: ($LD_LIBRARY_PATH)\"\nexit 0\n";

/// A bundle and the programs of its machine.
struct Machine {
    folder: tempfile::TempDir,
}

impl Machine {
    /// `ldd` says `libraries`.
    fn new(libraries: &str) -> Self {
        let machine = Self { folder: tempfile::tempdir().unwrap() };
        let at = |name: &str| machine.folder.path().join(name);
        std::fs::create_dir_all(at("programs")).unwrap();
        std::fs::create_dir_all(at("cases")).unwrap();
        let ldd = format!("#!/bin/sh\necho '{libraries}'\n");
        let card = "#!/bin/sh\necho '0, A Card, 580.1'\n";
        let programs = [("xtask", PROGRAM), ("python3", PYTHON), ("ldd", ldd.as_str()), ("nvidia-smi", card)];
        for (name, text) in programs {
            let path = at("programs").join(name);
            std::fs::write(&path, text).unwrap();
            make_executable(&path).unwrap();
        }
        let (folder, cases) = (machine.bundle(), at("cases"));
        let bundle = Bundle::new(&folder, &cases).unwrap();
        bundle.fill(&at("programs/xtask"), "c0ffee").unwrap();
        machine
    }

    fn bundle(&self) -> PathBuf {
        self.folder.path().join("bundle")
    }

    fn result(&self, name: &str) -> String {
        std::fs::read_to_string(self.bundle().join("results").join(name)).unwrap()
    }

    /// Runs the script.
    fn run(&self, device: &str) -> Output {
        let mut path = self.folder.path().join("programs").into_os_string();
        path.push(":");
        path.push(std::env::var_os("PATH").unwrap());
        let mut script = Command::new("sh");
        script
            .arg(self.bundle().join("run.sh"))
            .arg(device)
            .env("PATH", path)
            .env("device", device)
            .env("LD_LIBRARY_PATH", "/given");
        script.env_remove("PYTHON").output().unwrap()
    }
}

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

#[test]
fn figures_go_into_files_of_their_own_and_the_peers_run() {
    let machine = Machine::new("libc.so.6 => /lib/libc.so.6");
    let beside = "cuda/lib/python3.13/site-packages/nvidia/cu13/lib";
    std::fs::create_dir_all(machine.bundle().join(beside)).unwrap();
    let output = machine.run("cuda:1");
    assert!(output.status.success(), "{}", text(&output));
    for what in ["ops", "backbone", "train-step", "optimizers"] {
        assert_eq!(machine.result(&format!("bench-{what}.json")), "{}\n");
        let told = machine.result(&format!("bench-{what}.txt"));
        assert!(told.contains(&format!("told: bench {what} --device cuda:1 --python ")), "{told}");
        // Ours has the libraries beside the script, the peers those that were there.
        assert!(told.contains("libraries: /given:") && told.contains(beside), "{told}");
        assert!(told.contains("peers' libraries: (/given)") && told.contains("a warning"), "{told}");
    }
    let summary = machine.result("summary.txt");
    assert_eq!(summary.matches("ok").count(), 6, "{summary}");
    assert!(summary.contains("the last line"), "{summary}");
    let about = machine.result("machine.txt");
    assert!(about.contains("commit c0ffee") && about.contains("A Card, 580.1"), "{about}");

    let output = machine.run("broken");
    assert!(!output.status.success());
    assert_eq!(machine.result("summary.txt").matches("FAILED").count(), 6);
}

#[test]
fn what_was_unpacked_by_half_is_unpacked_again() {
    let machine = Machine::new("");
    let archive = machine.bundle().join("payload.tar.xz");
    let whole = std::fs::read(&archive).unwrap();
    std::fs::write(&archive, &whole[..whole.len() / 2]).unwrap();
    // Without a Python that could unpack it instead.
    std::fs::write(machine.folder.path().join("programs/python3"), "#!/bin/sh\nexit 1\n").unwrap();
    let output = machine.run("cuda:0");
    assert!(!output.status.success() && text(&output).contains("can't unpack"), "{}", text(&output));
    assert!(!machine.bundle().join("payload").exists());
    std::fs::write(&archive, whole).unwrap();
    let output = machine.run("cuda:0");
    assert!(output.status.success(), "{}", text(&output));
    assert!(machine.bundle().join("payload/bin/peers/bench_torch.py").is_file());
}

#[test]
fn only_missing_libraries_are_asked_for_and_not_in_pytorch_s_place() {
    let machine = Machine::new("libnvrtc.so.13 => not found");
    let output = machine.run("cuda:0");
    assert!(!output.status.success());
    let told = text(&output);
    assert!(told.contains("-m venv") && told.contains("nvidia-cuda-nvrtc==13.0.88"), "{told}");
    assert!(!told.contains("nvidia-cublas") && !told.contains("driver"), "{told}");

    let told = text(&Machine::new("libcuda.so.1 => not found").run("cuda:0"));
    assert!(told.contains("driver") && !told.contains("-m venv"), "{told}");
}
