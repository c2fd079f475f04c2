//! The charts: ROC curves, score histograms, training curves.

use maud::{Markup, html};

use super::axis::{Axis, path, px};
use super::operating::Operating;

/// Where the plotting area of a chart lies inside its drawing.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Frame {
    pub(crate) left: f64,
    pub(crate) top: f64,
    pub(crate) right: f64,
    pub(crate) bottom: f64,
}

const WIDTH: f64 = 400.0;
const HEIGHT: f64 = 260.0;
/// The frame of every chart.
pub(crate) const FRAME: Frame = Frame { left: 44.0, top: 14.0, right: 388.0, bottom: 214.0 };
/// How many series have a look of their own.
const LOOKS: usize = 6;

/// A named line.
pub(crate) struct Series<'a> {
    pub(crate) name: &'a str,
    pub(crate) note: String,
    pub(crate) points: Vec<(f64, f64)>,
}

/// ROC curves in one square of rates.
pub(crate) fn roc(series: &[Series], at: &Operating) -> Markup {
    let x = Axis { low: 0.0, high: 1.0, from: FRAME.left, to: FRAME.right };
    let y = Axis { low: 0.0, high: 1.0, from: FRAME.bottom, to: FRAME.top };
    let names: Vec<&str> = series.iter().map(|series| series.name).collect();
    html! {
        figure.chart {
            figcaption { "ROC curve" }
            svg viewBox=(view()) role="img" aria-label=(format!("ROC curves of {}", names.join(", "))) {
                (grid(&x, &y, "false-positive rate", "true-positive rate"))
                path.chance d=(path([(x.at(0.0), y.at(0.0)), (x.at(1.0), y.at(1.0))])) {}
                // The first series is the most important one and is drawn last, on top.
                @for (index, series) in series.iter().enumerate().rev() {
                    path class=(format!("line look{}", index % LOOKS))
                        d=(path(series.points.iter().map(|point| (x.at(point.0), y.at(point.1))))) {}
                }
                circle.at.roc-at cx=(px(x.at(at.false_positive_rate()))) cy=(px(y.at(at.true_positive_rate()))) r="5" {}
            }
            (legend(series))
        }
    }
}

/// The axis of scores of a histogram. Where a few scores lie far away from the rest, it leaves them out: the central
/// 99 % then fill it, and the outer bins hold what lies beyond.
pub(crate) fn score_axis(scores: &[f32]) -> Axis {
    let mut sorted: Vec<f64> = scores.iter().map(|&score| f64::from(score)).collect();
    sorted.sort_by(f64::total_cmp);
    let whole = Axis::over(sorted.iter().copied(), FRAME.left, FRAME.right);
    let Some(last) = sorted.len().checked_sub(1) else { return whole };
    let quantile = |share: f64| sorted[(last as f64 * share).round() as usize];
    let (low, high) = (quantile(0.005), quantile(0.995));
    if high > low && whole.high - whole.low > 3.0 * (high - low) {
        Axis { low, high, ..whole }
    } else {
        whole
    }
}

/// The scores of normal and anomalous images, each class as shares of itself.
pub(crate) fn histogram(axis: &Axis, normal: &[f32], anomalous: &[f32], at: Option<&Operating>) -> Markup {
    let bins = bins(normal.len() + anomalous.len());
    let shares = [shares(axis, normal, bins), shares(axis, anomalous, bins)];
    let highest = shares.iter().flatten().copied().fold(0.0, f64::max);
    let y = Axis { low: 0.0, high: highest.max(1.0) * 1.05, from: FRAME.bottom, to: FRAME.top };
    let beyond = normal
        .iter()
        .chain(anomalous)
        .filter(|&&score| f64::from(score) < axis.low || f64::from(score) > axis.high)
        .count();
    let classes = [("normal", normal.len()), ("anomalous", anomalous.len())];
    html! {
        figure.chart {
            figcaption { "Scores of the test images" }
            svg viewBox=(view()) role="img" aria-label="Histogram of the scores of normal and anomalous test images" {
                (grid(axis, &y, "score", "share of the class, %"))
                @for (shares, (class, count)) in shares.iter().zip(classes) {
                    @if count > 0 {
                        path class=(format!("bars {class}")) d=(outline(axis, &y, shares)) {}
                    }
                }
                @if let Some(at) = at {
                    @let x = px(axis.at(at.threshold));
                    line.at.histogram-at x1=(x) x2=(x) y1=(px(FRAME.top)) y2=(px(FRAME.bottom)) {}
                }
            }
            ul.legend {
                @for (class, count) in classes {
                    li { span class=(format!("swatch {class}")) {} (class) " (" (count) ")" }
                }
            }
            @if beyond > 0 {
                p.note { (beyond) @if beyond == 1 { " score lies" } @else { " scores lie" } " beyond the axis, counted in the outer bars." }
            }
        }
    }
}

/// Training curves that share a unit, with the steps of the chosen detectors.
pub(crate) fn training(title: &str, series: &[Series], marks: &[(String, u64)]) -> Markup {
    let points = || series.iter().flat_map(|series| series.points.iter());
    let x = Axis::over(points().map(|point| point.0), FRAME.left, FRAME.right);
    let y = Axis::over(points().map(|point| point.1), FRAME.bottom, FRAME.top + 16.0);
    let inside: Vec<&(String, u64)> =
        marks.iter().filter(|mark| mark.1 as f64 >= x.low && mark.1 as f64 <= x.high).collect();
    html! {
        figure.chart {
            figcaption { (title) }
            svg viewBox=(view()) role="img" aria-label=(format!("Training curve: {title}")) {
                (grid(&x, &y, "step", ""))
                @for mark in inside {
                    @let at = x.at(mark.1 as f64);
                    line.mark x1=(px(at)) x2=(px(at)) y1=(px(FRAME.top + 4.0)) y2=(px(FRAME.bottom)) {}
                    @let right = at > f64::midpoint(FRAME.left, FRAME.right);
                    text.mark x=(px(if right { at - 4.0 } else { at + 4.0 })) y=(px(FRAME.top + 8.0))
                        text-anchor=(if right { "end" } else { "start" }) { (mark.0) }
                }
                @for (index, series) in series.iter().enumerate().rev() {
                    @if let [point] = series.points.as_slice() {
                        circle class=(format!("dot look{}", index % LOOKS)) cx=(px(x.at(point.0))) cy=(px(y.at(point.1))) r="3.5" {}
                    } @else {
                        path class=(format!("line look{}", index % LOOKS))
                            d=(path(series.points.iter().map(|point| (x.at(point.0), y.at(point.1))))) {}
                    }
                }
            }
            (legend(series))
        }
    }
}

fn view() -> String {
    format!("0 0 {WIDTH} {HEIGHT}")
}

fn grid(x: &Axis, y: &Axis, x_title: &str, y_title: &str) -> Markup {
    html! {
        g.grid {
            @for (value, label) in y.ticks(5) {
                @let at = px(y.at(value));
                line x1=(px(FRAME.left)) x2=(px(FRAME.right)) y1=(at) y2=(at) {}
                text x=(px(FRAME.left - 6.0)) y=(at) dy="0.35em" text-anchor="end" { (label) }
            }
            @for (value, label) in x.ticks(5) {
                @let at = px(x.at(value));
                line.tick x1=(at) x2=(at) y1=(px(FRAME.bottom)) y2=(px(FRAME.bottom + 4.0)) {}
                text x=(at) y=(px(FRAME.bottom + 17.0)) text-anchor="middle" { (label) }
            }
            line.base x1=(px(FRAME.left)) x2=(px(FRAME.right)) y1=(px(FRAME.bottom)) y2=(px(FRAME.bottom)) {}
            text.title x=(px(f64::midpoint(FRAME.left, FRAME.right))) y=(px(FRAME.bottom + 36.0)) text-anchor="middle" { (x_title) }
            @if !y_title.is_empty() {
                @let middle = px(f64::midpoint(FRAME.top, FRAME.bottom));
                text.title transform=(format!("translate(11 {middle}) rotate(-90)")) text-anchor="middle" { (y_title) }
            }
        }
    }
}

fn legend(series: &[Series]) -> Markup {
    html! {
        ul.legend {
            @for (index, series) in series.iter().enumerate() {
                li {
                    svg.swatch viewBox="0 0 22 8" aria-hidden="true" {
                        path class=(format!("line look{}", index % LOOKS)) d="M0 4L22 4" {}
                    }
                    (series.name) @if !series.note.is_empty() { " " b { (series.note) } }
                }
            }
        }
    }
}

/// As many bins as `count` scores can fill.
fn bins(count: usize) -> usize {
    (2.0 * (count as f64).sqrt()).clamp(10.0, 40.0) as usize
}

/// The percentage of `scores` in each bin.
fn shares(axis: &Axis, scores: &[f32], bins: usize) -> Vec<f64> {
    let mut counts = vec![0_usize; bins];
    let unit = Axis { from: 0.0, to: bins as f64, ..*axis };
    for &score in scores {
        counts[(unit.at(f64::from(score)).floor() as usize).min(bins - 1)] += 1;
    }
    counts.into_iter().map(|count| 100.0 * count as f64 / scores.len().max(1) as f64).collect()
}

fn outline(axis: &Axis, y: &Axis, shares: &[f64]) -> String {
    let width = (axis.to - axis.from) / shares.len() as f64;
    let mut points = vec![(axis.from, y.from)];
    for (index, share) in shares.iter().enumerate() {
        let left = axis.from + index as f64 * width;
        points.extend([(left, y.at(*share)), (left + width, y.at(*share))]);
    }
    points.push((axis.to, y.from));
    path(points) + "Z"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_score_is_in_a_bin() {
        let scores = [0.0, 0.1, 0.5, 1.0];
        let axis = score_axis(&scores);
        let shares = shares(&axis, &scores, 10);
        assert_eq!(shares.iter().sum::<f64>(), 100.0);
        assert_eq!((shares[0], shares[1], shares[9]), (25.0, 25.0, 25.0));
    }

    #[test]
    fn a_far_score_does_not_squeeze_the_rest() {
        let mut scores: Vec<f32> = (0..1000).map(|index| index as f32 / 1000.0).collect();
        scores.push(1e6);
        let axis = score_axis(&scores);
        assert!(axis.high < 1.1);
        assert_eq!(axis.at(1e6), FRAME.right);
    }
}
