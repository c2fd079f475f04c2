//! Giving Slurm what has no result and is not in its hands already.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::Duration;

use report::Status;
use slurm_array::{Dependency, Phase, Request, Resources, Slurm, Submission, array_script, single_script};

use super::plan_file::{Parts, PlanFile, bundle};
use super::program;
use crate::memory_needs::Kind;
use crate::{CellSpec, Error, Layout, Plan};

/// How cells are given to a cluster.
#[derive(Debug, Clone)]
pub struct ClusterOptions {
    /// What each task is given.
    pub resources: Resources,
    /// How many cells make up a task; if `None`, those that earlier runs into this folder show to be short share one.
    pub cells_per_task: Option<usize>,
    /// How often a task gives a sign of life.
    pub beat: Duration,
    /// Whether a dependent job writes the report.
    pub report: bool,
    /// This program: called with `cell --plan FILE --plan-sha256 HASH --index N` it calls [`super::run_task`], with
    /// `collect --out FOLDER` it follows to the end and concludes.
    pub program: PathBuf,
    /// Slurm's programs.
    pub slurm: Slurm,
}

/// What was submitted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Submitted {
    /// The arrays that were submitted now.
    pub arrays: Vec<u64>,
    /// How many tasks they have.
    pub tasks: usize,
    /// How many tasks were in Slurm's hands already.
    pub held: usize,
    /// The job that will write the report.
    pub report: Option<u64>,
    /// Why Slurm refused, if it did: what was accepted before stays.
    pub refused: Option<String>,
}

/// Submits the selected cells of `plan` that have no good result in `layout` and are not in Slurm's hands.
///
/// Calling it again is harmless: a plan of the same cells has the same name, under which the queue is asked first.
///
/// # Errors
/// If files can't be written or Slurm can't be asked; [`Error::Cluster`] if other arrays are at work on some of the cells.
/// A refusal is no error but a result, since its cells are recorded.
pub fn submit(plan: &Plan, layout: &Layout, options: &ClusterOptions) -> Result<Submitted, Error> {
    let root = layout.root();
    std::fs::create_dir_all(root).map_err(|e| Error::io(root, "can't make the folder", e))?;
    let out = root.canonicalize().map_err(|e| Error::io(root, "can't find the folder", e))?;
    let layout = &Layout::new(&out);
    let (mut wanted, mut missing) = (Vec::new(), BTreeSet::new());
    for (at, cell) in plan.cells.iter().enumerate().filter(|(_, cell)| cell.selected) {
        let id = cell.spec.id();
        match &cell.problem {
            Some(why) if !layout.is_done(&id)? => {
                layout.note(&cell.spec, Status::Failed, why, "submit")?;
            }
            Some(_) => {}
            None => {
                wanted.push(at);
                if !layout.is_done(&id)? {
                    missing.insert(id);
                }
            }
        }
    }
    if missing.is_empty() {
        return Ok(Submitted::default());
    }
    let mut plans = at_work(&out, &missing, &options.slurm)?;
    if plans.is_empty() {
        plans = new_plans(plan, &wanted, &out, options)?;
    }
    for plan in &plans {
        plan.write()?;
    }
    PlanFile::make_current(&out, &plans)?;
    let mut submitted = Submitted::default();
    let mut after = Vec::new();
    for plan in &plans {
        match submit_tasks(plan, layout, options, &after, &mut submitted) {
            Ok(arrays) => after = arrays,
            Err(Error::Slurm(
                e @ (slurm_array::Error::Refused { .. } | slurm_array::Error::Request { .. }),
            )) => {
                let why = e.to_string();
                for index in plan.open_tasks(layout)? {
                    note(plan.task(index), layout, &format!("refused: {why}"))?;
                }
                submitted.refused = Some(why);
                break;
            }
            Err(e) => return Err(e),
        }
    }
    if let Some(first) = plans.first()
        && options.report
        && !submitted.arrays.is_empty()
    {
        submitted.report = Some(submit_report(first, options, &submitted.arrays)?);
    }
    Ok(submitted)
}

fn note<'a>(cells: impl Iterator<Item = &'a CellSpec>, layout: &Layout, why: &str) -> Result<(), Error> {
    for cell in cells {
        if !layout.is_done(&cell.id())? {
            layout.note(cell, Status::Failed, why, "submit")?;
        }
    }
    Ok(())
}

/// The plans of earlier calls of which Slurm holds tasks with some of these cells; they must have all of them, as they
/// have if only the program is another one now.
fn at_work(out: &Path, missing: &BTreeSet<String>, slurm: &Slurm) -> Result<Vec<PlanFile>, Error> {
    let (mut found, mut known, mut held_cells) = (Vec::new(), BTreeSet::new(), 0);
    for plan in PlanFile::of_folder(out)? {
        let held = held_tasks(&plan, slurm)?;
        let here =
            held.keys().flat_map(|&task| plan.task(task)).filter(|cell| missing.contains(&cell.id())).count();
        if here > 0 {
            held_cells += here;
            let tasks: Vec<u32> = plan.indices().collect();
            known.extend(
                tasks.into_iter().flat_map(|task| plan.task(task).map(CellSpec::id).collect::<Vec<_>>()),
            );
            found.push(plan);
        }
    }
    if found.is_empty() || missing.is_subset(&known) {
        return Ok(found);
    }
    let names: Vec<&str> = found.iter().map(|plan| plan.name.as_str()).collect();
    Err(Error::Cluster(format!(
        "{held_cells} of these cells are in Slurm's hands already, in {}, and others are not part of that: wait for it \
         (`--follow`), or end it with `scancel --name={}`",
        names.join(" and "),
        names.join(",")
    )))
}

/// The tasks of `plan` that Slurm holds, and in which array.
pub(crate) fn held_tasks(plan: &PlanFile, slurm: &Slurm) -> Result<BTreeMap<u32, u64>, Error> {
    let queue = slurm.queue(&plan.name)?;
    let held = queue.iter().filter(|entry| entry.phase() != Phase::Ended);
    Ok(held.filter_map(|entry| Some((entry.task?, entry.array))).collect())
}

/// Plans for the cells at `wanted`: one, or more if an array can't have so many tasks.
fn new_plans(
    plan: &Plan,
    wanted: &[usize],
    out: &Path,
    options: &ClusterOptions,
) -> Result<Vec<PlanFile>, Error> {
    let specs: Vec<CellSpec> =
        plan.cells.iter().map(|cell| on_cluster(&cell.spec)).collect::<Result<_, _>>()?;
    let seconds = known_seconds(&specs, &Layout::new(out))?;
    let tasks = bundle(wanted, options.cells_per_task, &|cell| seconds.get(&Kind::of(&specs[cell])).copied());
    let most = options.slurm.max_array_size()? as usize;
    let hash = program::sha256(&options.program)?;
    let parts = Parts {
        profile: &plan.profile,
        description: &plan.description,
        out,
        program: &program::keep(&options.program, &hash, out)?,
        program_sha256: &hash,
        beat_seconds: options.beat.as_secs_f64(),
        cells: &specs,
    };
    Ok(tasks.chunks(most).map(|tasks| PlanFile::new(&parts, tasks.to_vec())).collect())
}

/// The cell as a task is told: it runs in another folder.
fn on_cluster(spec: &CellSpec) -> Result<CellSpec, Error> {
    let absolute = |path: &PathBuf| std::path::absolute(path).map_err(|e| Error::io(path, "can't find", e));
    Ok(CellSpec { root: spec.root.as_ref().map(absolute).transpose()?, ..spec.clone() })
}

/// How long cells took that are finished: the longest of each kind.
fn known_seconds(specs: &[CellSpec], layout: &Layout) -> Result<BTreeMap<Kind, f64>, Error> {
    let mut known: BTreeMap<_, f64> = BTreeMap::new();
    for spec in specs {
        if let Some(seconds) = layout.record(&spec.id())?.and_then(|record| record.seconds) {
            let longest = known.entry(Kind::of(spec)).or_default();
            *longest = longest.max(seconds.fit + seconds.score);
        }
    }
    Ok(known)
}

/// Submits the tasks of `plan` that are open and not held; gives the arrays that are now at work on it.
fn submit_tasks(
    plan: &PlanFile,
    layout: &Layout,
    options: &ClusterOptions,
    after: &[u64],
    submitted: &mut Submitted,
) -> Result<Vec<u64>, Error> {
    let hash = plan.write()?;
    let shared = plan.shared();
    let held = held_tasks(plan, &options.slurm)?;
    let mut indices = plan.open_tasks(layout)?;
    submitted.held += indices.iter().filter(|index| held.contains_key(index)).count();
    indices.retain(|index| !held.contains_key(index));
    let mut arrays: BTreeSet<u64> = held.values().copied().collect();
    let noted = shared.submissions()?;
    for &array in arrays.iter().filter(|array| !noted.contains_key(array)) {
        // Whoever submitted it did not live to note it.
        let indices = held.iter().filter(|(_, of)| **of == array).map(|(&index, _)| index).collect();
        shared.submitted(&Submission { array, indices, arguments: Vec::new() })?;
    }
    if indices.is_empty() {
        return Ok(arrays.into_iter().collect());
    }
    let path = plan.path();
    let command = [
        plan.program.as_os_str(),
        "cell".as_ref(),
        "--plan".as_ref(),
        path.as_os_str(),
        "--plan-sha256".as_ref(),
        hash.as_ref(),
    ];
    shared.put("run.sh", array_script(&command)?.as_bytes())?;
    let request = Request {
        name: &plan.name,
        indices: &indices,
        script: &shared.root().join("run.sh"),
        logs: &shared.logs()?,
        resources: &options.resources,
        dependency: Dependency::Singleton { after: after.to_vec() },
    };
    let (array, arguments) = options.slurm.submit(&request)?;
    submitted.tasks += indices.len();
    submitted.arrays.push(array);
    shared.submitted(&Submission { array, indices, arguments })?;
    arrays.insert(array);
    Ok(arrays.into_iter().collect())
}

/// Submits the job that writes the report when `arrays` are over, however they ended.
fn submit_report(plan: &PlanFile, options: &ClusterOptions, arrays: &[u64]) -> Result<u64, Error> {
    let shared = plan.shared();
    let command = [plan.program.as_os_str(), "collect".as_ref(), "--out".as_ref(), plan.out.as_os_str()];
    shared.put("report.sh", single_script(&command)?.as_bytes())?;
    let request = Request {
        name: &format!("{}-report", plan.name),
        indices: &BTreeSet::new(),
        script: &shared.root().join("report.sh"),
        logs: &shared.logs()?,
        resources: &Resources { gpus: None, cpus: None, max_parallel: None, ..options.resources.clone() },
        dependency: Dependency::After(arrays.to_vec()),
    };
    Ok(options.slurm.submit(&request)?.0)
}
