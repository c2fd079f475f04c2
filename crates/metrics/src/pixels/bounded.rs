//! A figure with a guarantee.

/// A figure and how far from it the exact one can be.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Bounded {
    /// The middle of the interval that holds the exact figure.
    pub value: f64,
    /// Half the interval's length; 0 for an exact figure. Rounding in f64 (below 1e-12) is not in it.
    pub error: f64,
}

impl Bounded {
    /// A figure without error.
    pub fn exact(value: f64) -> Self {
        Self { value, error: 0.0 }
    }

    pub(crate) fn between(lowest: f64, highest: f64) -> Self {
        Self { value: f64::midpoint(lowest, highest), error: (highest - lowest).max(0.0) / 2.0 }
    }

    /// The lower end of the interval.
    pub fn lowest(&self) -> f64 {
        self.value - self.error
    }

    /// The upper end of the interval.
    pub fn highest(&self) -> f64 {
        self.value + self.error
    }

    /// Whether `exact` lies in the interval, up to rounding in f64.
    pub fn contains(&self, exact: f64) -> bool {
        (exact - self.value).abs() <= self.error + 1e-12
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_interval_holds_its_ends() {
        let figure = Bounded::between(0.25, 0.75);
        assert_eq!((figure.value, figure.error), (0.5, 0.25));
        assert_eq!((figure.lowest(), figure.highest()), (0.25, 0.75));
        assert!(figure.contains(0.25) && figure.contains(0.75) && !figure.contains(0.76));
        assert!(Bounded::exact(0.5).contains(0.5) && !Bounded::exact(0.5).contains(0.500_001));
    }
}
