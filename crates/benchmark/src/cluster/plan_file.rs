//! The plan file of one job array: written once, never changed.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use anomaly_core::hex;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use slurm_array::Shared;

use crate::{CellSpec, Error, Layout, Plan, PlannedCell};

/// Raised when the file's form changes.
const FORMAT: u32 = 1;
/// The list of the plans that count.
const CURRENT: &str = "current.json";
/// Cells that are expected to take less than this together share a task: the controller starts about one task a second.
const TASK_SECONDS: f64 = 60.0;

/// Which cells make up which task.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct PlanFile {
    format: u32,
    /// The job's name.
    pub(crate) name: String,
    /// The profile's name.
    pub(crate) profile: String,
    /// What it is for.
    pub(crate) description: String,
    /// The output folder.
    pub(crate) out: PathBuf,
    /// The program that tasks run: a copy that no build replaces.
    pub(crate) program: PathBuf,
    /// Its sha256 in hex.
    pub(crate) program_sha256: String,
    /// Seconds between two signs of life of a task.
    pub(crate) beat_seconds: f64,
    /// All cells of the profile, for the report.
    pub(crate) cells: Vec<CellSpec>,
    /// For each task, its cells.
    pub(crate) tasks: Vec<Vec<usize>>,
}

/// What a plan is made of.
pub(crate) struct Parts<'a> {
    pub(crate) profile: &'a str,
    pub(crate) description: &'a str,
    pub(crate) out: &'a Path,
    pub(crate) program: &'a Path,
    pub(crate) program_sha256: &'a str,
    pub(crate) beat_seconds: f64,
    pub(crate) cells: &'a [CellSpec],
}

impl PlanFile {
    /// A plan of these tasks. Its name hashes what the tasks are, so that the same call gives the same plan again.
    pub(crate) fn new(parts: &Parts<'_>, tasks: Vec<Vec<usize>>) -> Self {
        let mut hash = Sha256::new();
        hash.update(parts.program_sha256);
        hash.update(parts.out.as_os_str().as_encoded_bytes());
        for task in &tasks {
            hash.update("\ntask");
            for &cell in task {
                hash.update("\n");
                hash.update(parts.cells[cell].id());
            }
        }
        Self {
            format: FORMAT,
            name: format!("vitad-{}", &hex(&hash.finalize())[..16]),
            profile: parts.profile.to_owned(),
            description: parts.description.to_owned(),
            out: parts.out.to_owned(),
            program: parts.program.to_owned(),
            program_sha256: parts.program_sha256.to_owned(),
            beat_seconds: parts.beat_seconds,
            cells: parts.cells.to_vec(),
            tasks,
        }
    }

    /// The folder of the plans of an output folder.
    pub(crate) fn all(out: &Path) -> PathBuf {
        out.join("slurm")
    }

    /// The plan's own folder.
    pub(crate) fn shared(&self) -> Shared {
        Shared::new(&Self::all(&self.out).join(&self.name))
    }

    /// The file.
    pub(crate) fn path(&self) -> PathBuf {
        self.shared().root().join("plan.json")
    }

    /// Writes the file unless it is there, and gives its sha256.
    pub(crate) fn write(&self) -> Result<String, Error> {
        let path = self.path();
        if !path.exists() {
            let text = serde_json::to_vec_pretty(self)
                .map_err(|source| Error::Message { what: "plan.json", source })?;
            self.shared().put("plan.json", &text)?;
        }
        Ok(Self::read(&path)?.1)
    }

    /// Reads a plan file; also gives its sha256 in hex.
    pub(crate) fn read(path: &Path) -> Result<(Self, String), Error> {
        let bytes = std::fs::read(path).map_err(|e| Error::io(path, "can't read the plan", e))?;
        let plan: Self =
            serde_json::from_slice(&bytes).map_err(|source| Error::Message { what: "plan.json", source })?;
        if plan.format != FORMAT {
            let text = format!("{}: expected format {FORMAT}, found {}", path.display(), plan.format);
            return Err(Error::Cluster(text));
        }
        Ok((plan, hex(&Sha256::digest(&bytes))))
    }

    /// The plans that were made for the output folder `out`, by name.
    pub(crate) fn of_folder(out: &Path) -> Result<Vec<Self>, Error> {
        let Ok(listing) = std::fs::read_dir(Self::all(out)) else { return Ok(Vec::new()) };
        let mut plans = BTreeMap::new();
        for item in listing {
            let path =
                item.map_err(|e| Error::io(&Self::all(out), "can't list", e))?.path().join("plan.json");
            if path.exists() {
                let (plan, _) = Self::read(&path)?;
                plans.insert(plan.name.clone(), plan);
            }
        }
        Ok(plans.into_values().collect())
    }

    /// Notes the plans that the output folder `out` is now computed by; older ones stay as they are.
    pub(crate) fn make_current(out: &Path, plans: &[Self]) -> Result<(), Error> {
        let names: Vec<&str> = plans.iter().map(|plan| plan.name.as_str()).collect();
        let text = serde_json::to_vec(&names).map_err(|source| Error::Message { what: CURRENT, source })?;
        Ok(Shared::new(&Self::all(out)).put(CURRENT, &text)?)
    }

    /// The plans that the output folder `out` is computed by.
    pub(crate) fn current(out: &Path) -> Result<Vec<Self>, Error> {
        let path = Self::all(out).join(CURRENT);
        let bytes = std::fs::read(&path).map_err(|e| Error::io(&path, "can't read what was submitted", e))?;
        let names: Vec<String> =
            serde_json::from_slice(&bytes).map_err(|source| Error::Message { what: CURRENT, source })?;
        names.iter().map(|name| Ok(Self::read(&Self::all(out).join(name).join("plan.json"))?.0)).collect()
    }

    /// The cells of a task; none if there is no such task.
    pub(crate) fn task(&self, index: u32) -> impl Iterator<Item = &CellSpec> {
        self.tasks.get(index as usize).into_iter().flatten().filter_map(|&cell| self.cells.get(cell))
    }

    /// The indices of all tasks.
    pub(crate) fn indices(&self) -> std::ops::Range<u32> {
        0..self.tasks.len() as u32
    }

    /// The tasks with a cell that has no good result.
    pub(crate) fn open_tasks(&self, layout: &Layout) -> Result<BTreeSet<u32>, Error> {
        let mut open = BTreeSet::new();
        for index in self.indices() {
            for cell in self.task(index) {
                if !layout.is_done(&cell.id())? {
                    open.insert(index);
                }
            }
        }
        Ok(open)
    }
}

/// What was last submitted from the output folder of `layout`, as a plan: all cells of the profile, of which those are
/// selected that are part of a task. Whoever watches has nothing else.
///
/// # Errors
/// If the shared folder can't be read, or nothing was submitted from it.
pub fn submitted_plan(layout: &Layout) -> Result<Plan, Error> {
    let mut whole = Plan { profile: String::new(), description: String::new(), cells: Vec::new() };
    let mut known = BTreeMap::new();
    for plan in PlanFile::current(layout.root())? {
        let in_tasks: BTreeSet<usize> = plan.tasks.iter().flatten().copied().collect();
        for (at, spec) in plan.cells.into_iter().enumerate() {
            let selected = in_tasks.contains(&at);
            let place = *known.entry(spec.id()).or_insert(whole.cells.len());
            if place == whole.cells.len() {
                whole.cells.push(PlannedCell { spec, problem: None, images: None, selected: false });
            }
            whole.cells[place].selected |= selected;
        }
        (whole.profile, whole.description) = (plan.profile, plan.description);
    }
    Ok(whole)
}

/// Divides cells into tasks: `per_task` cells each, or, if that is not given, as many as are known to be short. `seconds`
/// gives a cell's expected time, if one is known.
pub(crate) fn bundle(
    cells: &[usize],
    per_task: Option<usize>,
    seconds: &dyn Fn(usize) -> Option<f64>,
) -> Vec<Vec<usize>> {
    if let Some(per_task) = per_task {
        return cells.chunks(per_task.max(1)).map(<[usize]>::to_vec).collect();
    }
    let mut tasks: Vec<Vec<usize>> = Vec::new();
    let mut room = 0.0;
    for &cell in cells {
        let expected = seconds(cell).unwrap_or(TASK_SECONDS);
        match tasks.last_mut() {
            Some(task) if expected <= room => {
                room -= expected;
                task.push(cell);
            }
            _ => {
                room = TASK_SECONDS - expected;
                tasks.push(vec![cell]);
            }
        }
    }
    tasks
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::path::Path;

    use super::{Parts, PlanFile, bundle, submitted_plan};
    use crate::Layout;
    use crate::spec::tests::spec;

    #[test]
    fn short_cells_share_a_task_and_unknown_ones_don_t() {
        let cells = [0, 1, 2, 3, 4, 5];
        let seconds = |cell: usize| [Some(25.0), Some(25.0), Some(25.0), None, Some(400.0), Some(1.0)][cell];
        assert_eq!(bundle(&cells, None, &seconds), [vec![0, 1], vec![2], vec![3], vec![4], vec![5]]);
        assert_eq!(bundle(&cells, Some(4), &seconds), [vec![0, 1, 2, 3], vec![4, 5]]);
        assert!(bundle(&[], None, &seconds).is_empty());
    }

    #[test]
    fn the_same_cells_and_program_give_the_same_plan_and_a_file_is_written_once() {
        let out = tempfile::tempdir().unwrap();
        let (mut other, first) = (spec(), spec());
        other.identity.seed = 1;
        let cells = [first, other];
        let plan = |program_sha256: &str, tasks: Vec<Vec<usize>>| {
            let parts = Parts {
                profile: "p",
                description: "d",
                out: out.path(),
                program: Path::new("/bin/true"),
                program_sha256,
                beat_seconds: 1.0,
                cells: &cells,
            };
            PlanFile::new(&parts, tasks)
        };
        let one = plan("ab", vec![vec![0, 1]]);
        assert_eq!(one, plan("ab", vec![vec![0, 1]]));
        let others =
            [plan("ac", vec![vec![0, 1]]), plan("ab", vec![vec![0], vec![1]]), plan("ab", vec![vec![0]])];
        assert!(others.iter().all(|other| other.name != one.name));

        let hash = one.write().unwrap();
        assert_eq!(PlanFile { beat_seconds: 9.0, ..one.clone() }.write().unwrap(), hash);
        let (read, same) = PlanFile::read(&one.path()).unwrap();
        assert_eq!((&read, same), (&one, hash));
        assert_eq!(PlanFile::of_folder(out.path()).unwrap(), std::slice::from_ref(&one));
        assert!(PlanFile::current(out.path()).is_err());
        PlanFile::make_current(out.path(), std::slice::from_ref(&one)).unwrap();
        assert_eq!(PlanFile::current(out.path()).unwrap(), std::slice::from_ref(&one));
        assert_eq!((read.task(0).count(), read.task(1).count(), read.indices()), (2, 0, 0..1));
        // As a plan, also where an array could not have so many tasks.
        let parts = [plan("ab", vec![vec![1]]), plan("ac", vec![vec![1]])];
        parts[0].write().unwrap();
        parts[1].write().unwrap();
        PlanFile::make_current(out.path(), &parts).unwrap();
        let whole = submitted_plan(&Layout::new(out.path())).unwrap();
        let cells: Vec<_> = whole.cells.iter().map(|cell| (cell.spec.id(), cell.selected)).collect();
        assert_eq!(cells, [(cells[0].0.clone(), false), (cells[1].0.clone(), true)]);
        assert_eq!((whole.profile.as_str(), &cells[1].0), ("p", &one.cells[1].id()));
        std::fs::write(
            one.path(),
            std::fs::read_to_string(one.path()).unwrap().replace("\"format\": 1", "\"format\": 9"),
        )
        .unwrap();
        let message = PlanFile::read(&one.path()).unwrap_err().to_string();
        assert!(message.contains("expected format 1, found 9"), "{message}");
    }
}
