//! What a search for settings came to: a table, and a page with pictures.

use maud::{DOCTYPE, Markup, PreEscaped, html};

use crate::markdown::escape;
use crate::words;

/// A search for settings.
#[derive(Debug, Clone, PartialEq)]
pub struct TuningReport {
    /// What was tuned.
    pub title: String,
    /// What trials were judged by.
    pub objective: TunedFigure,
    /// What else is shown of each.
    pub others: Vec<TunedFigure>,
    /// What was searched.
    pub dimensions: Vec<TunedDimension>,
    /// In the order of their numbers.
    pub trials: Vec<TunedTrial>,
    /// The number of the best.
    pub best: Option<usize>,
}

/// Something that trials can be judged by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TunedFigure {
    /// A figure that is to be high, one of [`crate::Evaluation::METRICS`]; or the name of a loss.
    pub name: String,
    /// Whether it is to be low: it is no fraction then.
    pub lower_is_better: bool,
}

impl TunedFigure {
    fn title(&self) -> &str {
        words::metric(&self.name)
    }

    /// The head of a column.
    fn head(&self) -> String {
        let unit = if self.lower_is_better { "" } else { ", %" };
        format!("{}{unit}", self.title())
    }

    /// A value in words: a percentage, or a loss with four significant digits.
    fn value(&self, value: Option<f64>) -> String {
        match value {
            Some(loss) if self.lower_is_better => format!("{loss:.3e}"),
            fraction => words::fraction(fraction),
        }
    }
}

/// One setting.
#[derive(Debug, Clone, PartialEq)]
pub struct TunedDimension {
    /// Its name.
    pub name: String,
    /// Its lowest and its highest value, or its first and last choice.
    pub ends: (String, String),
    /// The share of the trials' variance that goes with it alone, in `[0, 1]`; `None` where trials are too few.
    pub importance: Option<f64>,
}

/// One trial.
#[derive(Debug, Clone, PartialEq)]
pub struct TunedTrial {
    /// Counted from 0.
    pub number: usize,
    /// `complete`, `pruned` or `failed`.
    pub state: &'static str,
    /// The highest budget it got, where there is one.
    pub budget: Option<u64>,
    /// Its figure there, a fraction, or its loss; `None` if it failed.
    pub value: Option<f64>,
    /// Beside each of [`TuningReport::others`], where it has it.
    pub others: Vec<Option<f64>>,
    /// For each dimension where it lies between the ends, in `[0, 1]`.
    pub places: Vec<f64>,
    /// For each dimension its value, in words.
    pub settings: Vec<String>,
}

const STYLE: &str = "body{font:15px/1.5 system-ui,sans-serif;max-width:64rem;margin:2rem auto;padding:0 1rem;color-scheme:light dark}\
    table{border-collapse:collapse}td,th{padding:.15rem .7rem;text-align:right;border-bottom:1px solid #8884}\
    td:first-child,th:first-child{text-align:left}svg{width:100%;height:auto}text{font-size:12px;fill:currentColor}\
    .axis{stroke:currentColor;stroke-opacity:.5}.trial{fill:none;stroke-width:1.2;stroke-opacity:.65}.best{stroke-width:3;stroke-opacity:1}\
    .bar{fill:#3b7ea1}.scroll{overflow-x:auto}";

impl TuningReport {
    /// Best first: value, budget and settings of every trial, and what settings matter.
    pub fn markdown(&self) -> String {
        let mut lines = vec![
            format!("# Settings for {}", escape(&self.title)),
            String::new(),
            format!("{} No test image was looked at.", self.judged_by()),
            String::new(),
            "| setting | from | to | share of variance |".to_owned(),
            "|---|---|---|---:|".to_owned(),
        ];
        lines.extend(self.dimensions.iter().map(|dimension| {
            let (low, high) = &dimension.ends;
            let share = words::fraction(dimension.importance);
            format!("| {} | {} | {} | {share} |", escape(&dimension.name), escape(low), escape(high))
        }));
        lines.push(String::new());
        lines.push(
            "The share goes with one setting alone (correlation ratio); what settings do together is not in it.".to_owned(),
        );
        lines.push(String::new());
        let names = self.dimensions.iter().map(|dimension| escape(&dimension.name));
        let heads: Vec<String> = self.figures().map(|figure| escape(&figure.head())).chain(names).collect();
        lines.push(format!("| trial | state | budget | {} |", heads.join(" | ")));
        let (figures, settings) =
            ("---:|".repeat(1 + self.others.len()), "---|".repeat(self.dimensions.len()));
        lines.push(format!("|---:|---|---:|{figures}{settings}"));
        for trial in self.ranked() {
            let settings = trial.settings.iter().map(|value| escape(value));
            let values: Vec<String> = self.values(trial).into_iter().chain(settings).collect();
            let budget = trial.budget.map_or_else(|| words::DASH.to_owned(), |budget| budget.to_string());
            lines.push(format!("| {} | {} | {budget} | {} |", trial.number, trial.state, values.join(" | ")));
        }
        lines.join("\n") + "\n"
    }

    /// The same as one page that needs nothing else, with the shares as bars and the trials in parallel coordinates.
    pub fn page(&self) -> String {
        let page = html! {
            (DOCTYPE)
            html lang="en" {
                head {
                    meta charset="utf-8";
                    meta name="viewport" content="width=device-width, initial-scale=1";
                    meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'; img-src data:";
                    link rel="icon" href="data:,";
                    title { (self.title) " · settings · vitad" }
                    style { (PreEscaped(STYLE)) }
                }
                body {
                    h1 { "Settings for " (self.title) }
                    p { (self.judged_by()) " No test image was looked at." }
                    h2 { "What matters" }
                    p { "The share of the trials' variance that goes with one setting alone (correlation ratio)." }
                    (self.bars())
                    h2 { "Trials" }
                    p { "One line a trial, from blue (low) to red (high); the best is the broad one." }
                    (self.coordinates())
                    div.scroll { table {
                        tr {
                            th { "trial" } th { "state" } th { "budget" } @for figure in self.figures() { th { (figure.head()) } }
                            @for dimension in &self.dimensions { th { (dimension.name) } }
                        }
                        @for trial in self.ranked() {
                            tr {
                                td { (trial.number) } td { (trial.state) }
                                td { (trial.budget.map_or_else(|| words::DASH.to_owned(), |budget| budget.to_string())) }
                                @for value in self.values(trial) { td { (value) } }
                                @for value in &trial.settings { td { (value) } }
                            }
                        }
                    } }
                }
            }
        };
        page.into_string()
    }

    /// The objective, then the others.
    fn figures(&self) -> impl Iterator<Item = &TunedFigure> {
        std::iter::once(&self.objective).chain(&self.others)
    }

    /// What a trial came to, beside [`Self::figures`], in words.
    fn values(&self, trial: &TunedTrial) -> Vec<String> {
        let values = std::iter::once(trial.value).chain(trial.others.iter().copied());
        self.figures().zip(values).map(|(figure, value)| figure.value(value)).collect()
    }

    /// What trials were judged by, as a sentence.
    fn judged_by(&self) -> String {
        let title = self.objective.title();
        if self.objective.lower_is_better {
            return format!(
                "{title}, on normal images held out of the training images; the lower the better."
            );
        }
        format!(
            "{title} in a rehearsal, in %: normal images held out of the training images against the same with pasted defects."
        )
    }

    /// The complete trials from the best on, then the others likewise.
    fn ranked(&self) -> Vec<&TunedTrial> {
        let mut trials: Vec<&TunedTrial> = self.trials.iter().collect();
        let badness = |value: f64| if self.objective.lower_is_better { value } else { -value };
        let rank =
            |trial: &TunedTrial| (trial.state != "complete", trial.value.map_or(f64::INFINITY, badness));
        trials.sort_by(|a, b| {
            let (a, b) = (rank(a), rank(b));
            a.0.cmp(&b.0).then(a.1.total_cmp(&b.1))
        });
        trials
    }

    fn bars(&self) -> Markup {
        let height = 24 * self.dimensions.len();
        html! {
            svg viewBox=(format!("0 0 600 {height}")) role="img" aria-label="Share of variance of each setting" {
                @for (at, dimension) in self.dimensions.iter().enumerate() {
                    @let share = dimension.importance.unwrap_or(0.0).clamp(0.0, 1.0);
                    text x="0" y=(24 * at + 16) { (dimension.name) }
                    rect.bar x="200" y=(24 * at + 5) height="14" width=(format!("{:.1}", 320.0 * share)) {}
                    text x="530" y=(24 * at + 16) { (words::fraction(dimension.importance)) " %" }
                }
            }
        }
    }

    fn coordinates(&self) -> Markup {
        let count = self.dimensions.len() + 1;
        let x = |at: usize| 60.0 + 480.0 * at as f64 / (count - 1).max(1) as f64;
        let y = |place: f64| 220.0 - 190.0 * place.clamp(0.0, 1.0);
        let values: Vec<f64> = self.trials.iter().filter_map(|trial| trial.value).collect();
        let low = values.iter().copied().fold(f64::INFINITY, f64::min);
        let high = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let share = |value: f64| if high > low { (value - low) / (high - low) } else { 0.5 };
        let names: Vec<(&str, &str, &str)> =
            self.dimensions.iter().map(|d| (d.name.as_str(), d.ends.0.as_str(), d.ends.1.as_str())).collect();
        let (lowest, highest) = (
            self.objective.value(values.first().map(|_| low)),
            self.objective.value(values.first().map(|_| high)),
        );
        html! {
            svg viewBox="0 0 600 260" role="img" aria-label="Trials in parallel coordinates" {
                @for (at, (name, from, to)) in names.into_iter().chain([(self.objective.title(), lowest.as_str(), highest.as_str())]).enumerate() {
                    line.axis x1=(format!("{:.1}", x(at))) x2=(format!("{:.1}", x(at))) y1="30" y2="220" {}
                    text x=(format!("{:.1}", x(at))) y="12" text-anchor="middle" { (name) }
                    text x=(format!("{:.1}", x(at))) y="26" text-anchor="middle" { (to) }
                    text x=(format!("{:.1}", x(at))) y="236" text-anchor="middle" { (from) }
                }
                @for trial in self.trials.iter().filter(|trial| trial.value.is_some()) {
                    @let value = share(trial.value.unwrap_or(low));
                    @let places = trial.places.iter().copied().chain([value]);
                    @let points: Vec<String> = places.enumerate().map(|(at, place)| format!("{:.1},{:.1}", x(at), y(place))).collect();
                    polyline class=(if self.best == Some(trial.number) { "trial best" } else { "trial" })
                        stroke=(format!("hsl({:.0} 70% 50%)", 220.0 * (1.0 - value))) points=(points.join(" ")) {}
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{TunedDimension, TunedFigure, TunedTrial, TuningReport};

    fn report() -> TuningReport {
        let trial = |number, state, value, place| TunedTrial {
            number,
            state,
            budget: Some(3),
            value,
            others: vec![value.map(|value| value / 100.0)],
            places: vec![place],
            settings: vec![format!("<{place}>")],
        };
        TuningReport {
            title: "a|b".into(),
            objective: TunedFigure { name: "image_auroc".into(), lower_is_better: false },
            others: vec![TunedFigure { name: "normal_mean/pixel".into(), lower_is_better: true }],
            dimensions: vec![TunedDimension {
                name: "rate".into(),
                ends: ("1e-4".into(), "1e-2".into()),
                importance: Some(0.25),
            }],
            trials: vec![
                trial(0, "complete", Some(0.5), 0.0),
                trial(1, "failed", None, 0.5),
                trial(2, "pruned", Some(0.9), 1.0),
                trial(3, "complete", Some(0.75), 0.25),
            ],
            best: Some(3),
        }
    }

    #[test]
    fn complete_trials_come_first_and_the_best_before_all() {
        let text = report().markdown();
        let place = |needle: &str| text.find(needle).unwrap_or(usize::MAX);
        assert!(place("| 3 | complete") < place("| 0 | complete"), "{text}");
        assert!(
            place("| 0 | complete") < place("| 2 | pruned") && place("| 2 | pruned") < place("| 1 | failed"),
            "{text}"
        );
        assert!(text.contains("75.00") && text.contains("25.00") && text.contains("No test image"), "{text}");
        assert!(!text.contains("a|b"), "{text}");
        assert!(text.contains("| image AUROC, % | normal_mean/pixel |"), "{text}");
        assert!(text.contains("| 75.00 | 7.500e-3 |"), "{text}");
    }

    #[test]
    fn of_a_loss_the_lowest_comes_first_and_is_no_percentage() {
        let objective = TunedFigure { name: "held_out_loss".into(), lower_is_better: true };
        let report = TuningReport { objective, ..report() };
        let text = report.markdown();
        let place = |needle: &str| text.find(needle).unwrap_or(usize::MAX);
        assert!(place("| 0 | complete") < place("| 3 | complete"), "{text}");
        assert!(place("| 3 | complete") < place("| 2 | pruned"), "{text}");
        assert!(
            text.contains("5.000e-1") && text.contains("the lower the better") && !text.contains("50.00"),
            "{text}"
        );
        assert!(report.page().contains("held-out loss</th>"), "{}", report.page());
    }

    #[test]
    fn the_page_draws_every_trial_with_a_figure_and_escapes() {
        let page = report().page();
        assert_eq!(page.matches("<polyline").count(), 3);
        assert_eq!(page.matches("trial best").count(), 1);
        assert!(
            page.contains("&lt;0.25&gt;") && !page.contains("<script") && !page.contains("src="),
            "{page}"
        );
    }
}
