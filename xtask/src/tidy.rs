//! `cargo xtask tidy`: checks that need the whole workspace in view.
//!
//! Who may depend on whom, that `cuda` is forwarded, that each crate has its room furniture (README, lints), that no
//! dependency needs a newer compiler than is stated, and that no file has a name that says nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context, Result};
use cargo_metadata::{DependencyKind, Metadata, MetadataCommand, Package};

/// Crates below the methods, and what of ours each may depend on (docs/architecture.md).
const LAYERS: &[(&str, &[&str])] = &[
    ("random-streams", &[]),
    ("metrics", &[]),
    ("image-prep", &[]),
    ("conformance", &[]),
    ("kernel-launch", &[]),
    ("optim", &["kernel-launch"]),
    ("pretrained", &[]),
    ("vit-ops", &["random-streams", "kernel-launch"]),
    ("density-heads", &["vit-ops", "random-streams"]),
    ("anomaly-core", &["image-prep", "random-streams"]),
    ("cnn-backbone", &["vit-ops", "pretrained", "image-prep", "random-streams"]),
    ("vit-backbone", &["vit-ops", "pretrained", "image-prep", "random-streams"]),
    ("dataset-fetch", &[]),
    ("datasets", &["anomaly-core", "image-prep"]),
    ("report", &["metrics"]),
    ("tracking", &["anomaly-core"]),
    ("slurm-array", &[]),
    ("method-testkit", &["anomaly-core", "vit-backbone", "image-prep"]),
    (
        "benchmark",
        &[
            "registry",
            "datasets",
            "metrics",
            "report",
            "tracking",
            "slurm-array",
            "anomaly-core",
            "image-prep",
            "vit-backbone",
        ],
    ),
];

/// What a method crate may depend on: anything that is no method, no data set, no metric and no report.
const METHOD_MAY: &[&str] = &[
    "anomaly-core",
    "vit-backbone",
    "cnn-backbone",
    "vit-ops",
    "density-heads",
    "optim",
    "image-prep",
    "pretrained",
    "random-streams",
];

/// What the feature `conformance` may add.
const CONFORMANCE_MAY: &[&str] = &["conformance", "metrics", "datasets"];

/// Crates that may depend on anything of ours.
const TOP: &[&str] = &["xtask", "end-to-end"];

/// The crates that name every method.
const REGISTRY: &str = "registry";

const EMPTY_NAMES: &[&str] = &["utils", "util", "common", "helpers", "helper", "misc"];

/// Checks the workspace's structure and says what is wrong with it.
pub(crate) fn run() -> Result<ExitCode> {
    let metadata = MetadataCommand::new().exec().context("can't run cargo metadata")?;
    let mut problems = check_rust_versions(&metadata);
    let ours: BTreeMap<&str, &Package> =
        metadata.workspace_packages().iter().map(|p| (p.name.as_str(), *p)).collect();
    for package in ours.values() {
        problems.extend(check_direction(package, &ours));
        problems.extend(check_cuda(package, &ours));
        problems.extend(check_furniture(package));
    }
    problems.extend(check_names(&metadata)?);
    if problems.is_empty() {
        crate::say(&format!("tidy: {} crates in order", ours.len()))?;
        Ok(ExitCode::SUCCESS)
    } else {
        crate::say(&problems.join("\n"))?;
        Ok(ExitCode::FAILURE)
    }
}

/// What `package` may depend on; `None` if everything.
fn allowed<'a>(name: &str, ours: &BTreeMap<&'a str, &Package>) -> Option<BTreeSet<&'a str>> {
    if TOP.contains(&name) {
        return None;
    }
    if let Some((_, allowed)) = LAYERS.iter().find(|(layer, _)| *layer == name) {
        return Some(ours.keys().copied().filter(|k| allowed.contains(k)).collect());
    }
    let is_method =
        |k: &str| !TOP.contains(&k) && k != REGISTRY && !LAYERS.iter().any(|(layer, _)| *layer == k);
    if name == REGISTRY {
        let below = ["anomaly-core", "vit-backbone", "cnn-backbone"];
        return Some(ours.keys().copied().filter(|k| is_method(k) || below.contains(k)).collect());
    }
    Some(ours.keys().copied().filter(|k| METHOD_MAY.contains(k)).collect())
}

fn check_direction(package: &Package, ours: &BTreeMap<&str, &Package>) -> Vec<String> {
    let name = package.name.as_str();
    let Some(allowed) = allowed(name, ours) else { return Vec::new() };
    let default: BTreeSet<String> = default_dependencies(package);
    let mut problems = Vec::new();
    for dependency in &package.dependencies {
        let target = dependency.name.as_str();
        let tests_only = dependency.kind == DependencyKind::Development;
        if tests_only || !ours.contains_key(target) || allowed.contains(target) {
            continue;
        }
        let for_conformance = CONFORMANCE_MAY.contains(&target)
            && dependency.optional
            && !default.contains(target)
            && package.features.contains_key("conformance");
        if !for_conformance {
            problems.push(format!(
                "{name} must not depend on {target}; it may depend on {}",
                allowed.iter().copied().collect::<Vec<_>>().join(", ")
            ));
        }
    }
    problems
}

/// Optional dependencies that the default features turn on.
fn default_dependencies(package: &Package) -> BTreeSet<String> {
    let mut on = BTreeSet::new();
    let mut open = vec!["default".to_owned()];
    while let Some(feature) = open.pop() {
        for value in package.features.get(&feature).into_iter().flatten() {
            if let Some(dependency) = value.strip_prefix("dep:") {
                on.insert(dependency.to_owned());
            } else if let Some((dependency, _)) = value.split_once('/') {
                on.insert(dependency.trim_end_matches('?').to_owned());
            } else if on.insert(format!("feature {value}")) {
                open.push(value.clone());
            }
        }
    }
    on
}

/// A crate above one with a `cuda` feature has one too, and forwards it to each.
fn check_cuda(package: &Package, ours: &BTreeMap<&str, &Package>) -> Vec<String> {
    let name = package.name.as_str();
    let has_cuda = |target: &str| {
        target.starts_with("candle-") || ours.get(target).is_some_and(|p| p.features.contains_key("cuda"))
    };
    let forwarded = package.features.get("cuda");
    package
        .dependencies
        .iter()
        .filter(|d| d.kind == DependencyKind::Normal && !d.optional && has_cuda(&d.name))
        .filter(|d| !forwarded.is_some_and(|f| f.contains(&format!("{}/cuda", d.name))))
        .map(|d| format!("{name} does not forward the feature `cuda` to {}", d.name))
        .collect()
}

fn check_furniture(package: &Package) -> Vec<String> {
    let mut problems = Vec::new();
    let folder = package.manifest_path.parent();
    let is_library = !TOP.contains(&package.name.as_str());
    if is_library && !folder.is_some_and(|f| f.join("README.md").is_file()) {
        problems.push(format!("{} has no README.md", package.name));
    }
    let manifest = std::fs::read_to_string(&package.manifest_path).unwrap_or_default();
    if !manifest.contains("[lints]\nworkspace = true") {
        problems.push(format!("{} does not take the workspace's lints", package.manifest_path));
    }
    if package.rust_version.is_none() || package.license.is_none() {
        problems.push(format!("{} states no rust-version or no licence", package.manifest_path));
    }
    problems
}

/// No dependency asks for a newer compiler than ours do: what they state must hold for whoever depends on one crate.
fn check_rust_versions(metadata: &Metadata) -> Vec<String> {
    let Some(ours) = metadata.workspace_packages().iter().filter_map(|p| p.rust_version.clone()).min() else {
        return Vec::new();
    };
    metadata
        .packages
        .iter()
        .filter_map(|package| Some((package, package.rust_version.as_ref()?)))
        .filter(|(_, needed)| **needed > ours)
        .map(|(package, needed)| {
            format!(
                "{} {} needs Rust {needed}, the workspace states {ours}: raise `rust-version` or take another",
                package.name, package.version
            )
        })
        .collect()
}

fn check_names(metadata: &Metadata) -> Result<Vec<String>> {
    let mut problems = Vec::new();
    let root = metadata.workspace_root.as_std_path();
    for folder in ["crates", "xtask", "tests"] {
        walk(&root.join(folder), &mut |path| {
            let stem = path.file_stem().and_then(|s| s.to_str()).unwrap_or_default();
            if EMPTY_NAMES.contains(&stem) {
                problems.push(format!("{}: name it after what it holds", path.display()));
            }
        })?;
    }
    Ok(problems)
}

fn walk(folder: &Path, visit: &mut impl FnMut(&Path)) -> Result<()> {
    for entry in std::fs::read_dir(folder).with_context(|| format!("can't read {}", folder.display()))? {
        let path = entry.with_context(|| format!("can't read {}", folder.display()))?.path();
        visit(&path);
        if path.is_dir() && !path.ends_with("target") {
            walk(&path, visit)?;
        }
    }
    Ok(())
}
