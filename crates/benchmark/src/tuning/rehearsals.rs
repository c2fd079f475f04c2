//! Trials as cells of a rehearsal.

use std::collections::{BTreeMap, BTreeSet};

use anomaly_core::{Criterion, ValidationImages, write_atomic};
use candle_core::Device;
use tracking::Tracker;

use super::objective::{Objective, figures, means};
use super::pruner::Pruner;
use super::search::{Judge, search};
use super::space::{Space, set};
use super::study::{Rung, Study, StudySettings, Trial};
use super::tracked::StudyTracking;
use crate::methods::Methods;
use crate::{
    Error, Layout, Outcome, Plan, PlanOptions, Profile, PublishedFigures, Rehearsal, RunOptions, run_plan,
};

/// The share of training images that is held out where the profile holds out none.
const HELD_OUT: f64 = 0.2;

/// Where the cells of a search run.
pub trait RunCells {
    /// Runs the selected cells of `plan` that have no good result in `layout`; `None` if it was told to stop before they were
    /// over.
    ///
    /// # Errors
    /// What concerns the run as a whole; what goes wrong in a cell is in its record.
    fn run_cells(&mut self, plan: &Plan, layout: &Layout) -> Result<Option<Outcome>, Error>;

    /// Whether the output folder may be on a shared file system that can't be locked.
    fn is_shared(&self) -> bool;
}

/// On this machine.
impl RunCells for RunOptions {
    fn run_cells(&mut self, plan: &Plan, layout: &Layout) -> Result<Option<Outcome>, Error> {
        let outcome = run_plan(plan, layout, self)?;
        Ok((!self.cancellation.is_cancelled()).then_some(outcome))
    }

    fn is_shared(&self) -> bool {
        false
    }
}

/// A search, and where it goes.
#[derive(Debug, Clone, Copy)]
pub struct Search<'a> {
    /// What is tuned: one method, on whatever it is to be good at.
    pub profile: &'a Profile,
    /// How it is searched.
    pub settings: &'a StudySettings,
    /// How many trials there are to be in all.
    pub trials: usize,
    /// The output folder.
    pub layout: &'a Layout,
    /// How cells are planned; they are those of a rehearsal whatever it says.
    pub plan: &'a PlanOptions,
}

/// Searches for the settings with which the method of a profile does best in a rehearsal, and shows the search as a run with
/// `trackers`, each trial as a run within it, and the cells within the first trial that has them.
///
/// After every batch `tuning.json`, `tuning.md` and `tuning.html` in the output folder say how it stands. A search that was stopped
/// goes on with the same settings, and one that is done with more trials.
///
/// # Errors
/// [`Error::Unfit`] if the folder holds another search, the profile has several methods, or the objective is none that can be
/// had; otherwise as [`Plan::new`] and [`RunCells::run_cells`].
pub fn tune(
    wanted: &Search<'_>,
    run: &mut dyn RunCells,
    trackers: Vec<Box<dyn Tracker>>,
) -> Result<Study, Error> {
    let Search { profile, settings, trials, layout, plan } = *wanted;
    check(profile, settings)?;
    let root = layout.root();
    std::fs::create_dir_all(root).map_err(|e| Error::io(root, "can't make the folder", e))?;
    keep_settings(settings, layout)?;
    let objective = settings.objective()?;
    let rehearsal = Rehearsal { seed: settings.seed, by_loss: objective == Objective::Loss };
    let mut judge = Rehearsals {
        profile,
        settings,
        objective,
        space: Space { dimensions: settings.dimensions.clone() },
        layout,
        options: PlanOptions { rehearsal: Some(rehearsal), ..plan.clone() },
        tracking: StudyTracking::start(settings, layout, trackers, run.is_shared())?,
        run,
        checked: false,
    };
    let study = search(settings, trials, &mut judge)?;
    judge.tracking.finish(&study)?;
    Ok(study)
}

struct Rehearsals<'a> {
    profile: &'a Profile,
    settings: &'a StudySettings,
    objective: Objective<'a>,
    space: Space,
    layout: &'a Layout,
    options: PlanOptions,
    run: &'a mut dyn RunCells,
    tracking: StudyTracking,
    /// Whether the method was seen to tell what is searched for.
    checked: bool,
}

impl Judge for Rehearsals<'_> {
    fn judge(&mut self, trials: &[&Trial], budget: Option<u64>) -> Result<Option<Vec<Rung>>, Error> {
        let (profile, description) = (self.profile.name.clone(), self.profile.description.clone());
        let mut whole = Plan { profile, description, cells: Vec::new() };
        let mut cells_of: Vec<Vec<String>> = Vec::new();
        for trial in trials {
            let plan = self.plan(trial, budget)?;
            if !self.checked {
                self.check_loss(&plan)?;
                self.checked = true;
            }
            self.tracking.begin(trial, plan.cells.iter().map(|cell| &cell.spec))?;
            cells_of.push(plan.cells.iter().map(|cell| cell.spec.id()).collect());
            for cell in plan.cells {
                // Two trials with the same settings share their cells.
                if !whole.cells.iter().any(|known| known.spec.id() == cell.spec.id()) {
                    whole.cells.push(cell);
                }
            }
        }
        let Some(outcome) = self.run.run_cells(&whole, self.layout)? else { return Ok(None) };
        let rung = |cells: Vec<String>| {
            let figures = figures_of(&outcome, &cells);
            Rung { budget, value: figures.get(self.objective.name()).copied(), figures, cells }
        };
        let rungs: Vec<Rung> = cells_of.into_iter().map(rung).collect();
        self.check_figure(&rungs)?;
        for (trial, rung) in trials.iter().zip(&rungs) {
            self.tracking.judged(trial, rung);
        }
        Ok(Some(rungs))
    }

    fn over(&mut self, batch: &[Trial], study: &Study) -> Result<(), Error> {
        batch.iter().try_for_each(|trial| self.tracking.ended(trial))?;
        write(study, self.layout)
    }
}

impl Rehearsals<'_> {
    /// The cells of a trial.
    fn plan(&self, trial: &Trial, budget: Option<u64>) -> Result<Plan, Error> {
        let mut own = self.profile.clone();
        // Each entry has its own, since profiles include others.
        own.seeds.truncate(1);
        for entry in &mut own.entries {
            entry.seeds.truncate(1);
            entry.config = self.space.applied(&entry.config, &trial.point);
            if let (Some(setting), Some(budget)) = (&self.settings.budget, budget) {
                set(&mut entry.config, &setting.setting, budget.into());
            }
            if entry.held_out == 0.0 {
                entry.held_out = HELD_OUT;
            }
        }
        Plan::new(&own, &PublishedFigures::default(), &self.options)
    }

    /// Refuses to search for a loss that the method does not tell.
    fn check_loss(&self, plan: &Plan) -> Result<(), Error> {
        if self.objective != Objective::Loss {
            return Ok(());
        }
        let Some(cell) = plan.cells.iter().find(|cell| cell.problem.is_none()) else { return Ok(()) };
        let identity = &cell.spec.identity;
        let method = Methods::reaching(Device::Cpu, self.options.offline).build(identity)?;
        match method.selection().honest {
            Criterion::LowestValidationLoss { on: ValidationImages::HeldOut, .. } => Ok(()),
            _ => Err(Error::unfit(
                "the metric",
                "a figure that the method has",
                format!("{}, and {} tells no loss on held-out images", self.settings.metric, identity.method),
            )),
        }
    }

    /// Refuses to search for a figure that no finished trial has.
    fn check_figure(&self, rungs: &[Rung]) -> Result<(), Error> {
        let has: BTreeSet<&str> =
            rungs.iter().flat_map(|rung| rung.figures.keys().map(String::as_str)).collect();
        if has.is_empty() || has.contains(self.objective.name()) {
            return Ok(());
        }
        let has: Vec<&str> = has.into_iter().collect();
        Err(Error::unfit(
            "the metric",
            format!("one that {} has everywhere: {}", self.profile.entries[0].method, has.join(", ")),
            self.objective.name(),
        ))
    }
}

/// The means of what cells came to; nothing if one of them came to nothing.
fn figures_of(outcome: &Outcome, ids: &[String]) -> BTreeMap<String, f64> {
    let cell =
        |id: &String| outcome.cells.iter().find(|cell| cell.cell == *id).map(figures).unwrap_or_default();
    means(&ids.iter().map(cell).collect::<Vec<_>>())
}

fn check(profile: &Profile, settings: &StudySettings) -> Result<(), Error> {
    let mut methods: Vec<&str> = profile.entries.iter().map(|entry| entry.method.as_str()).collect();
    methods.dedup();
    if methods.len() != 1 {
        return Err(Error::unfit(
            format!("profile {}", profile.name),
            "one method to tune",
            methods.join(", "),
        ));
    }
    settings.objective()?;
    let searched = settings.dimensions.iter().map(|dimension| &dimension.name);
    match &settings.budget {
        Some(budget) if searched.clone().any(|name| *name == budget.setting) => {
            Err(Error::unfit("the budget", "a setting that is not searched", &budget.setting))
        }
        None if settings.pruner.is_some_and(|pruner| pruner != Pruner::None) => {
            Err(Error::unfit("the pruner", "a budget, since trials are judged at its lower values", "none"))
        }
        _ => Ok(()),
    }
}

/// Sees that the folder is of this search.
fn keep_settings(settings: &StudySettings, layout: &Layout) -> Result<(), Error> {
    let path = layout.root().join("study.json");
    let text = serde_json::to_string_pretty(settings)
        .map_err(|source| Error::Message { what: "study.json", source })?;
    match std::fs::read_to_string(&path) {
        Ok(before) if before == text => Ok(()),
        Ok(before) => Err(Error::unfit(path.display().to_string(), before, text)),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(write_atomic(&path, text.as_bytes())?),
        Err(e) => Err(Error::io(&path, "can't read", e)),
    }
}

fn write(study: &Study, layout: &Layout) -> Result<(), Error> {
    let json = serde_json::to_string_pretty(study)
        .map_err(|source| Error::Message { what: "tuning.json", source })?;
    let shown = study.report();
    for (name, text) in
        [("tuning.json", json), ("tuning.md", shown.markdown()), ("tuning.html", shown.page())]
    {
        write_atomic(&layout.root().join(name), text.as_bytes())?;
    }
    Ok(())
}
