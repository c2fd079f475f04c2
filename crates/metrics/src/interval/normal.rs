//! The standard normal distribution.

/// The probability of less than `x`, by the series of Marsaglia (2004), "Evaluating the normal distribution".
fn below(x: f64) -> f64 {
    if x.abs() > 8.0 {
        return if x > 0.0 { 1.0 } else { 0.0 };
    }
    let (mut sum, mut term, mut odd) = (x, x, 1.0);
    while term.abs() > 1e-18 * sum.abs() {
        odd += 2.0;
        term *= x * x / odd;
        sum += term;
    }
    0.5 + sum * (-x * x / 2.0).exp() / (2.0 * std::f64::consts::PI).sqrt()
}

/// The value below which a standard normal variable is with probability `p`, in (0, 1); between -8 and 8.
pub(super) fn quantile(p: f64) -> f64 {
    let (mut low, mut high) = (-8.0, 8.0);
    // Each step halves the interval; after 60 it is as narrow as f64 allows.
    for _ in 0..60 {
        let middle = f64::midpoint(low, high);
        if below(middle) < p { low = middle } else { high = middle }
    }
    f64::midpoint(low, high)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_values() {
        for (p, x) in [
            (0.5, 0.0),
            (0.975, 1.959_963_984_540_054),
            (0.95, 1.644_853_626_951_472_2),
            (0.001, -3.090_232_306_167_813_5),
        ] {
            assert!((quantile(p) - x).abs() < 1e-12, "{p}");
        }
        assert!((below(1.0) - 0.841_344_746_068_542_9).abs() < 1e-15);
        assert_eq!((below(9.0), below(-9.0)), (1.0, 0.0));
    }
}
