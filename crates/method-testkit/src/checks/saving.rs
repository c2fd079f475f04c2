//! What is saved is what is loaded.

use std::path::Path;

use crate::Suite;
use crate::checks::prediction::difference;
use crate::failure::{Problem, problem};
use crate::fitting::{Files, SEED, files, save};

pub(crate) fn check(suite: &Suite<'_>) -> Result<(), Problem> {
    let reference = suite.reference()?;
    let folder = tempfile::tempdir()?;
    let directory = folder.path().join("detector");
    save(&directory, &*reference.method, &reference.training, &*reference.detector, SEED)?;
    let loaded = (suite.load)(&directory).map_err(|e| Problem(format!("loading failed: {e}")))?;
    if loaded.info() != reference.detector.info() {
        return problem(format!("saved {:?}, loaded {:?}", reference.detector.info(), loaded.info()));
    }

    let images = reference.tests.all()?;
    if let Some(what) = difference(&reference.detector.score(&images)?, &loaded.score(&images)?)? {
        return problem(format!("the loaded detector does not score as the saved one: {what}"));
    }
    let again = files(&*reference.method, &reference.training, &*loaded, SEED)?;
    if let Some(what) = Files::read(&directory)?.difference(&again)? {
        return problem(format!("saving the loaded detector again gave other bits in {what}"));
    }

    refused(suite, &directory, "/method", "a detector of another method")?;
    if reference.method.info().default_backbone.is_some()
        || manifest(&directory)?.pointer("/backbone/sha256").is_some()
    {
        refused(suite, &directory, "/backbone/sha256", "a detector of another backbone")?;
    }
    Ok(())
}

fn manifest(directory: &Path) -> Result<serde_json::Value, Problem> {
    Ok(serde_json::from_slice(&std::fs::read(directory.join("detector.json"))?)?)
}

/// Loading must refuse a manifest with another word at `pointer`.
fn refused(suite: &Suite<'_>, directory: &Path, pointer: &str, what: &str) -> Result<(), Problem> {
    let whole = manifest(directory)?;
    let mut changed = whole.clone();
    match changed.pointer_mut(pointer) {
        Some(word) if word.is_string() => *word = "0other".into(),
        _ => return problem(format!("detector.json must name `{pointer}`")),
    }
    let path = directory.join("detector.json");
    std::fs::write(&path, changed.to_string())?;
    let taken = (suite.load)(directory).is_ok();
    std::fs::write(&path, whole.to_string())?;
    if taken { problem(format!("{what} was loaded without a word")) } else { Ok(()) }
}
