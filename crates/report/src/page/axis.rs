//! From values to positions on a chart, and the round values an axis is marked with.

use crate::words;

/// A linear axis: `low..=high` in values onto `from..=to` in chart units.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Axis {
    pub(crate) low: f64,
    pub(crate) high: f64,
    pub(crate) from: f64,
    pub(crate) to: f64,
}

impl Axis {
    /// An axis over `values`, widened where they are all the same.
    pub(crate) fn over(values: impl IntoIterator<Item = f64>, from: f64, to: f64) -> Self {
        let (mut low, mut high) = (f64::INFINITY, f64::NEG_INFINITY);
        for value in values {
            low = low.min(value);
            high = high.max(value);
        }
        if low > high {
            (low, high) = (0.0, 1.0);
        }
        if high - low <= f64::EPSILON * high.abs().max(low.abs()) {
            let margin = if low == 0.0 { 0.5 } else { low.abs() * 0.05 };
            (low, high) = (low - margin, high + margin);
        }
        Self { low, high, from, to }
    }

    /// Where `value` lies; beyond the ends, at the end.
    pub(crate) fn at(&self, value: f64) -> f64 {
        // Halved before subtracting, so that the span of two huge values of different sign stays finite.
        let share = (value / 2.0 - self.low / 2.0) / (self.high / 2.0 - self.low / 2.0);
        self.from + share.clamp(0.0, 1.0) * (self.to - self.from)
    }

    /// About `count` round values between the ends, as value and label.
    pub(crate) fn ticks(&self, count: usize) -> Vec<(f64, String)> {
        let rough = (self.high / 2.0 - self.low / 2.0) * 2.0 / count as f64;
        if !(rough.is_finite() && rough > 0.0) {
            return Vec::new();
        }
        let power = 10f64.powf(rough.log10().floor());
        let step = [1.0, 2.0, 5.0, 10.0].map(|factor| factor * power).into_iter().find(|step| *step >= rough);
        let step = step.unwrap_or(rough);
        let first = (self.low / step).ceil();
        let last = (self.high / step).floor();
        (0..=(last - first).max(0.0) as usize)
            .map(|index| (first + index as f64) * step)
            .filter(|value| *value >= self.low && *value <= self.high)
            .map(|value| (value, label(value, step)))
            .collect()
    }
}

fn label(value: f64, step: f64) -> String {
    if value == 0.0 {
        return "0".to_owned();
    }
    let decimals = -step.log10().floor();
    if decimals > 5.0 || value.abs() >= 1e5 {
        return words::score(value);
    }
    let decimals = decimals.max(0.0) as usize;
    format!("{value:.decimals$}")
}

/// A chart coordinate with one decimal.
pub(crate) fn px(value: f64) -> String {
    let text = format!("{value:.1}");
    text.strip_suffix(".0").map_or_else(|| text.clone(), str::to_owned)
}

/// More points than this no screen shows apart.
const MOST_POINTS: usize = 1000;

/// The SVG path through `points`, without those that would not be seen: too close ones of very many, repeated ones,
/// and those on a straight horizontal or vertical run.
pub(crate) fn path(points: impl IntoIterator<Item = (f64, f64)>) -> String {
    let points: Vec<(f64, f64)> = points.into_iter().collect();
    let mut kept: Vec<(String, String)> = Vec::new();
    for (x, y) in metrics::thin(&points, MOST_POINTS, |&point| point) {
        let point = (px(x), px(y));
        if kept.last() == Some(&point) {
            continue;
        }
        if let [.., before, last] = kept.as_slice()
            && ((before.0 == last.0 && last.0 == point.0) || (before.1 == last.1 && last.1 == point.1))
        {
            kept.pop();
        }
        kept.push(point);
    }
    let mut path = String::new();
    for (index, (x, y)) in kept.iter().enumerate() {
        path.push(if index == 0 { 'M' } else { 'L' });
        path.push_str(x);
        path.push(' ');
        path.push_str(y);
    }
    path
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_round_and_inside() {
        let axis = Axis::over([0.0, 1.0], 0.0, 100.0);
        let labels: Vec<String> = axis.ticks(5).into_iter().map(|(_, label)| label).collect();
        assert_eq!(labels, ["0", "0.2", "0.4", "0.6", "0.8", "1.0"]);
        let axis = Axis::over([-3.1e7, 4.2e7], 0.0, 100.0);
        assert!(axis.ticks(4).iter().all(|(value, _)| (-3.1e7..=4.2e7).contains(value)));
    }

    #[test]
    fn extreme_and_equal_values_have_an_axis() {
        for values in [[f64::from(f32::MIN), f64::from(f32::MAX)], [5.0, 5.0], [0.0, 0.0], [1e-30, 2e-30]] {
            let axis = Axis::over(values, 10.0, 20.0);
            assert!((10.0..=20.0).contains(&axis.at(values[0])), "{values:?}");
            assert!(!axis.ticks(4).is_empty() && axis.ticks(4).len() < 12, "{values:?}");
        }
        assert_eq!(Axis::over([], 0.0, 1.0).at(0.5), 0.5);
    }

    #[test]
    fn paths_drop_what_is_not_seen() {
        assert_eq!(path([(0.0, 0.0), (0.0, 1.0), (0.0, 1.01), (0.0, 3.0), (2.0, 3.0)]), "M0 0L0 3L2 3");
        let zigzag = (0..100_000).map(|index| (f64::from(index) / 300.0, f64::from(index % 2) * 50.0));
        let long = path(zigzag);
        assert!(
            long.matches('L').count() < MOST_POINTS && long.starts_with("M0 0") && long.ends_with("333.3 50")
        );
    }
}
