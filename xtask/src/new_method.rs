//! `cargo xtask new-method`: a method crate that compiles and passes the testkit, to be made into a real one.

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use anyhow::{Context, Result, bail, ensure};
use cargo_metadata::MetadataCommand;

use crate::say;

/// Write a new method crate with its tests, its line in the registry and a profile of its own.
#[derive(Debug, clap::Args)]
pub(crate) struct NewMethod {
    /// Its name in kebab case: the crate's, and the one that profiles use.
    name: String,
}

/// What goes into the crate: file, template.
const CRATE_FILES: &[(&str, &str)] = &[
    ("Cargo.toml", include_str!("../templates/new-method/Cargo.toml.template")),
    ("README.md", include_str!("../templates/new-method/README.md.template")),
    ("src/lib.rs", include_str!("../templates/new-method/lib.rs.template")),
    ("src/config.rs", include_str!("../templates/new-method/config.rs.template")),
    ("src/error.rs", include_str!("../templates/new-method/error.rs.template")),
    ("src/network.rs", include_str!("../templates/new-method/network.rs.template")),
    ("src/fit.rs", include_str!("../templates/new-method/fit.rs.template")),
    ("src/detector.rs", include_str!("../templates/new-method/detector.rs.template")),
    ("tests/{{crate}}.rs", include_str!("../templates/new-method/test.rs.template")),
];
const PROFILE: &str = include_str!("../templates/new-method/profile.toml.template");

/// The line in the registry that new entries stand below.
const MARKER: &str = "`cargo xtask new-method` adds its line below this one";

/// Words that can't be a crate's name: those of the language, and crates that are always there.
const RESERVED: &str = "abstract alloc as async await become box break const continue core crate do dyn else enum extern \
    false final fn for gen if impl in let loop macro match mod move mut override priv proc-macro pub ref \
    return self static std struct super test trait true try type typeof unsafe unsized use virtual where \
    while yield";

impl NewMethod {
    /// Writes the crate into the workspace of the current directory; nothing is written if anything stands in the way.
    pub(crate) fn run(self) -> Result<ExitCode> {
        let name = Name::parse(&self.name)?;
        let metadata = MetadataCommand::new().no_deps().exec().context("can't run cargo metadata")?;
        let root = metadata.workspace_root.as_std_path();
        if metadata.packages.iter().any(|package| package.name.as_str() == name.kebab) {
            bail!("there is a crate called `{}` already", name.kebab);
        }
        let new = new_files(&name);
        for (path, _) in &new {
            ensure!(!root.join(path).exists(), "{} exists already", path.display());
        }
        let folder = Path::new("crates").join(&name.kebab);
        ensure!(!root.join(&folder).exists(), "{} exists already", folder.display());

        // All edits are made in memory before the first file is touched.
        let mut changed = Vec::new();
        for (path, edit) in EDITS {
            let text =
                std::fs::read_to_string(root.join(path)).with_context(|| format!("can't read {path}"))?;
            let text = edit(&text, &name).with_context(|| format!("{path} is not as expected"))?;
            changed.push((PathBuf::from(path), text));
        }
        for (path, text) in new.iter().chain(&changed) {
            write(&root.join(path), text)?;
        }
        format(root, &name.kebab);

        let Name { kebab, .. } = &name;
        say(&format!("crates/{kebab}: a method that works, to be replaced file by file (see its README)"))?;
        say(&format!("matrix/{kebab}.toml: its profile; cargo xtask reproduce --profile {kebab}"))?;
        say(&format!("changed: {}", EDITS.map(|(path, _)| path).join(", ")))?;
        say(&format!("its tests: cargo test --release -p {kebab}"))?;
        Ok(ExitCode::SUCCESS)
    }
}

/// A method's name in the forms it is written in.
#[derive(Debug, PartialEq, Eq)]
struct Name {
    /// `my-method`.
    kebab: String,
    /// `my_method`.
    snake: String,
    /// `MyMethod`.
    pascal: String,
}

impl Name {
    fn parse(name: &str) -> Result<Self> {
        let word = |word: &str| {
            !word.is_empty() && word.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit())
        };
        let starts = name.bytes().next().is_some_and(|b| b.is_ascii_lowercase());
        ensure!(
            starts && name.split('-').all(word),
            "a method's name is in kebab case: small letters, digits, single hyphens, a letter first; found {name:?}"
        );
        ensure!(name.len() <= 40, "a method's name has at most 40 letters, found {}", name.len());
        ensure!(
            !RESERVED.split(' ').any(|word| word == name),
            "{name:?} can't be a crate's name: Rust keeps it for itself"
        );
        let capitalised = |word: &str| {
            let (first, rest) = word.split_at(1);
            first.to_uppercase() + rest
        };
        Ok(Self {
            kebab: name.to_owned(),
            snake: name.replace('-', "_"),
            pascal: name.split('-').map(capitalised).collect(),
        })
    }

    fn fill(&self, template: &str) -> String {
        template
            .replace("{{name}}", &self.kebab)
            .replace("{{crate}}", &self.snake)
            .replace("{{Type}}", &self.pascal)
    }
}

/// The files that are new, by their path below the root.
fn new_files(name: &Name) -> Vec<(PathBuf, String)> {
    let folder = Path::new("crates").join(&name.kebab);
    let mut files: Vec<_> =
        CRATE_FILES.iter().map(|(path, text)| (folder.join(name.fill(path)), name.fill(text))).collect();
    files.push((Path::new("matrix").join(format!("{}.toml", name.kebab)), name.fill(PROFILE)));
    files
}

/// A change to the text of a file that exists.
type Edit = fn(&str, &Name) -> Result<String>;

const EDITS: [(&str, Edit); 3] = [
    ("Cargo.toml", add_to_workspace),
    ("crates/registry/Cargo.toml", add_to_registry_manifest),
    ("crates/registry/src/methods.rs", add_to_registry),
];

/// The crate among the workspace's own in `[workspace.dependencies]`.
fn add_to_workspace(text: &str, name: &Name) -> Result<String> {
    let kebab = &name.kebab;
    let taken =
        |line: &str| line.strip_prefix(kebab.as_str()).is_some_and(|rest| rest.starts_with([' ', '.', '=']));
    ensure!(!text.lines().any(taken), "`{kebab}` is the name of a dependency");
    insert_sorted(
        text,
        |line| line.contains(" = { path = \"crates/"),
        &format!("{kebab} = {{ path = \"crates/{kebab}\" }}"),
    )
}

/// The crate as a dependency of the registry, with its `cuda` forwarded.
fn add_to_registry_manifest(text: &str, name: &Name) -> Result<String> {
    let kebab = &name.kebab;
    let (before, dependencies) = text.split_once("[dependencies]\n").context("no [dependencies]")?;
    let (start, rest) = before.split_once("cuda = [").context("no feature `cuda`")?;
    let (list, end) = rest.split_once(']').context("the feature `cuda` has no end")?;
    let new = format!("\"{kebab}/cuda\"");
    let mut forwarded: Vec<&str> = list.split(',').map(str::trim).filter(|item| !item.is_empty()).collect();
    forwarded.push(&new);
    forwarded.sort_unstable();
    let is_dependency = |line: &str| line.ends_with(".workspace = true");
    let dependencies = insert_sorted(dependencies, is_dependency, &format!("{kebab}.workspace = true"))?;
    Ok(format!("{start}cuda = [{}]{end}[dependencies]\n{dependencies}", forwarded.join(", ")))
}

/// The line in the registry.
fn add_to_registry(text: &str, name: &Name) -> Result<String> {
    let marker =
        text.lines().find(|line| line.contains(MARKER)).with_context(|| format!("no line {MARKER:?}"))?;
    let entry = format!("    entry!(needed, {}, {}, {}Detector),", name.snake, name.pascal, name.pascal);
    Ok(text.replacen(marker, &format!("{marker}\n{entry}"), 1))
}

/// `text` with `line` in its alphabetical place in the first run of lines that `belongs` accepts.
fn insert_sorted(text: &str, belongs: impl Fn(&str) -> bool, line: &str) -> Result<String> {
    let mut lines: Vec<&str> = text.lines().collect();
    let first = lines.iter().position(|line| belongs(line)).context("no list to add to")?;
    let run = lines[first..].iter().take_while(|line| belongs(line)).count();
    let before = lines[first..first + run].iter().take_while(|other| **other < line).count();
    lines.insert(first + before, line);
    Ok(lines.join("\n") + "\n")
}

fn write(path: &Path, text: &str) -> Result<()> {
    let folder = path.parent().unwrap_or(Path::new("."));
    std::fs::create_dir_all(folder).with_context(|| format!("can't make {}", folder.display()))?;
    std::fs::write(path, text).with_context(|| format!("can't write {}", path.display()))
}

/// How lines break depends on the length of the name. A crate that is not formatted works all the same.
fn format(root: &Path, kebab: &str) {
    let formatted =
        Command::new("cargo").args(["fmt", "-p", kebab, "-p", "registry"]).current_dir(root).status();
    if !formatted.is_ok_and(|status| status.success()) {
        tracing::warn!("cargo fmt is not there or failed: format crates/{kebab} before you commit it");
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::{EDITS, Name, add_to_registry_manifest, add_to_workspace, insert_sorted, new_files};

    #[test]
    fn names_are_in_kebab_case_and_free_for_crates() {
        let name = Name::parse("patch-core2").unwrap();
        assert_eq!((name.snake.as_str(), name.pascal.as_str()), ("patch_core2", "PatchCore2"));
        for wrong in
            ["", "Patch", "patch_core", "-a", "a-", "a--b", "2a", "a b", "é", "self", "test", &"a".repeat(41)]
        {
            assert!(Name::parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn no_placeholder_is_left() {
        for (path, text) in new_files(&Name::parse("patch-core").unwrap()) {
            let shown = format!("{}\n{text}", path.display());
            assert!(!shown.contains("{{") && !shown.contains("}}"), "{shown}");
        }
    }

    #[test]
    fn lines_go_to_their_alphabetical_place() {
        let text = "# ours\na = 1\nc = 3\n\nb = 9\n";
        let is_one = |line: &str| line.contains(" = ");
        assert_eq!(insert_sorted(text, is_one, "b = 2").unwrap(), "# ours\na = 1\nb = 2\nc = 3\n\nb = 9\n");
        assert_eq!(insert_sorted(text, is_one, "d = 4").unwrap(), "# ours\na = 1\nc = 3\nd = 4\n\nb = 9\n");
        assert!(insert_sorted("# none\n", is_one, "b = 2").is_err());
    }

    #[test]
    fn the_repository_s_own_files_take_the_edits() {
        let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        let name = Name::parse("patch-core").unwrap();
        let mut texts = EDITS.map(|(path, edit)| {
            let text = std::fs::read_to_string(root.join(path)).unwrap();
            let edited = edit(&text, &name).unwrap();
            let added: Vec<String> = edited
                .lines()
                .filter(|line| !text.lines().any(|old| old == *line))
                .map(str::to_owned)
                .collect();
            added
        });
        texts[1].sort();
        assert_eq!(texts[0], ["patch-core = { path = \"crates/patch-core\" }"]);
        assert_eq!(texts[1].len(), 2, "{:?}", texts[1]);
        assert!(
            texts[1][0].starts_with("cuda = [") && texts[1][0].contains("\"patch-core/cuda\""),
            "{:?}",
            texts[1]
        );
        assert_eq!(texts[1][1], "patch-core.workspace = true");
        assert_eq!(texts[2], ["    entry!(needed, patch_core, PatchCore, PatchCoreDetector),"]);
    }

    #[test]
    fn the_name_of_a_dependency_is_refused() {
        let text = "a = { path = \"crates/a\" }\nserde = \"1\"\ntracing-subscriber = \"0.3\"\n";
        let add = |name: &str| add_to_workspace(text, &Name::parse(name).unwrap());
        assert!(add("serde").unwrap_err().to_string().contains("dependency"));
        assert!(add("tracing").is_ok());
        assert!(add_to_registry_manifest("[dependencies]\n", &Name::parse("b").unwrap()).is_err());
    }
}
