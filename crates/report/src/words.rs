//! How figures are written for people. A missing one is a dash, never zero.

use crate::tables::{Figure, PublishedFigure, Row};

/// What stands where nothing is known.
pub(crate) const DASH: &str = "–";

/// A fraction as a percentage with two decimals, with the deviation over seeds where there is one.
pub(crate) fn percent(figure: Option<Figure>) -> String {
    figure.map_or_else(
        || DASH.to_owned(),
        |figure| match figure.sd {
            Some(sd) => format!("{} ± {}", hundredths(figure.mean), hundredths(sd)),
            None => hundredths(figure.mean),
        },
    )
}

/// One fraction as a percentage with two decimals.
pub(crate) fn fraction(value: Option<f64>) -> String {
    value.map_or_else(|| DASH.to_owned(), hundredths)
}

/// A difference of fractions in percentage points, always with its sign.
pub(crate) fn points(difference: Option<f64>) -> String {
    difference.map_or_else(
        || DASH.to_owned(),
        |difference| {
            let text = hundredths(difference);
            if text.starts_with('-') || text == "0.00" { text } else { format!("+{text}") }
        },
    )
}

fn hundredths(value: f64) -> String {
    let text = format!("{:.2}", value * 100.0);
    // What rounds to nothing has no sign.
    if text == "-0.00" { "0.00".to_owned() } else { text }
}

/// The name of a metric for people.
pub(crate) fn metric(name: &str) -> &str {
    match name {
        "image_auroc" => "image AUROC",
        "image_ap" => "image AP",
        "f1_max" => "F1-max",
        "fpr_at_95_tpr" => "FPR at 95 % TPR",
        "pixel_auroc" => "pixel AUROC",
        "pixel_ap" => "pixel AP",
        "pixel_f1_max" => "pixel F1-max",
        "au_pro" => "AU-PRO",
        "au_pro_05" => "AU-PRO 5 %",
        "reference_pro" => "reference PRO",
        "au_spro_05" => "AU-sPRO 5 %",
        "held_out_loss" => "held-out loss",
        other => other,
    }
}

/// A published figure, with its metric where that is not the tables' image AUROC.
pub(crate) fn published(published: &PublishedFigure) -> String {
    let value = hundredths(published.value);
    if published.metric == "image_auroc" { value } else { format!("{value} {}", metric(&published.metric)) }
}

/// The terms of a row with their image AUROCs.
pub(crate) fn terms(row: &Row) -> String {
    if row.terms.is_empty() {
        return DASH.to_owned();
    }
    let parts: Vec<String> =
        row.terms.iter().map(|(name, figure)| format!("{name} {}", fraction(Some(figure.mean)))).collect();
    parts.join(" · ")
}

/// A span of time: milliseconds below a second, then seconds, minutes, hours.
pub(crate) fn seconds(value: Option<f64>) -> String {
    let Some(value) = value else { return DASH.to_owned() };
    if value < 0.9995 {
        format!("{:.0} ms", value * 1000.0)
    } else if value < 99.95 {
        format!("{value:.1} s")
    } else if value < 3599.5 {
        let whole = value.round() as u64;
        format!("{} min {:02} s", whole / 60, whole % 60)
    } else {
        let minutes = (value / 60.0).round() as u64;
        format!("{} h {:02} min", minutes / 60, minutes % 60)
    }
}

/// An amount of memory in binary units.
pub(crate) fn bytes(value: Option<u64>) -> String {
    let Some(value) = value else { return DASH.to_owned() };
    let mut amount = value as f64;
    let mut unit = "B";
    for larger in ["KiB", "MiB", "GiB", "TiB"] {
        if amount < 1024.0 {
            break;
        }
        amount /= 1024.0;
        unit = larger;
    }
    if unit == "B" || amount >= 100.0 { format!("{amount:.0} {unit}") } else { format!("{amount:.1} {unit}") }
}

/// A raw score in few digits: four significant ones, with an exponent outside the usual range.
pub(crate) fn score(value: f64) -> String {
    let size = value.abs();
    if size == 0.0 {
        return "0".to_owned();
    }
    if !(1e-3..1e6).contains(&size) {
        return format!("{value:.3e}");
    }
    let decimals = (3 - size.log10().floor() as i32).clamp(0, 6) as usize;
    format!("{value:.decimals$}")
}

/// One line of plain text: control characters, line ends among them, become spaces, so that a name or an error can
/// neither break a table nor steer a terminal. Invisible marks that turn the direction of writing go the same way.
pub(crate) fn one_line(text: &str) -> String {
    text.chars().map(|c| if is_steering(c) { ' ' } else { c }).collect()
}

fn is_steering(c: char) -> bool {
    c.is_control() || matches!(c, '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentages_have_two_decimals_and_a_deviation() {
        assert_eq!(percent(Some(Figure { mean: 0.983_14, sd: None })), "98.31");
        assert_eq!(percent(Some(Figure { mean: 0.983_14, sd: Some(0.001_25) })), "98.31 ± 0.12");
        assert_eq!(percent(None), DASH);
        assert_eq!(fraction(Some(0.0)), "0.00");
    }

    #[test]
    fn differences_carry_their_sign_unless_they_are_nothing() {
        assert_eq!(points(Some(0.012_34)), "+1.23");
        assert_eq!(points(Some(-0.012_34)), "-1.23");
        assert_eq!(points(Some(-0.000_001)), "0.00");
        assert_eq!(points(Some(0.000_001)), "0.00");
        assert_eq!(points(None), DASH);
    }

    #[test]
    fn amounts_are_short() {
        assert_eq!(seconds(Some(0.0412)), "41 ms");
        assert_eq!(seconds(Some(21.37)), "21.4 s");
        assert_eq!(seconds(Some(252.0)), "4 min 12 s");
        assert_eq!(seconds(Some(7_500.0)), "2 h 05 min");
        assert_eq!(bytes(Some(512)), "512 B");
        assert_eq!(bytes(Some(188_000_000)), "179 MiB");
        assert_eq!(bytes(Some(1 << 31)), "2.0 GiB");
        assert_eq!((seconds(None), bytes(None)), (DASH.to_owned(), DASH.to_owned()));
    }

    #[test]
    fn scores_keep_four_digits() {
        assert_eq!(score(364.51), "364.5");
        assert_eq!(score(0.012_345_6), "0.01235");
        assert_eq!(score(-123_456.0), "-123456");
        assert_eq!(score(3.4e38), "3.400e38");
        assert_eq!(score(0.0), "0");
    }

    #[test]
    fn steering_characters_become_spaces() {
        assert_eq!(one_line("a\u{1b}[31mb\nc\u{202e}d"), "a [31mb c d");
    }
}
