//! Sorted scores of both classes, and the figures that one pass over them gives.

use crate::Error;
use crate::gallop::taken_from_end;
use crate::score::{Score, check_labelled};
use crate::split::{Truth, by_class};

/// The scores of positives and negatives, each sorted: build it once, then ask for several figures.
///
/// An element is predicted positive if its score is at least the threshold, for each distinct score as the threshold;
/// equal scores are never split. Counts are integers, sums f64. Nothing squashes or rounds a score.
///
/// ```
/// let ranking = metrics::Ranking::new(&[0.1, 0.4, 0.35, 0.8], &[false, false, true, true])?;
/// assert_eq!(ranking.auroc()?, 0.75);
/// assert_eq!(ranking.f1_max()?.threshold, 0.35);
/// # Ok::<(), metrics::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Ranking<S: Score> {
    /// Ascending.
    positives: Vec<S::Key>,
    /// Ascending.
    negatives: Vec<S::Key>,
}

/// The largest F1 over all thresholds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct F1Max<S> {
    /// The largest F1, in [0, 1].
    pub value: f64,
    /// The lowest score that attains it as a threshold (positive if score >= threshold).
    pub threshold: S,
}

/// All elements of one score.
pub(crate) struct Group<K> {
    pub(crate) key: K,
    pub(crate) positives: u64,
    pub(crate) negatives: u64,
}

/// The groups of equal scores, from the highest score down.
pub(crate) struct Groups<'a, K> {
    positives: &'a [K],
    negatives: &'a [K],
}

impl<K: Ord + Copy> Iterator for Groups<'_, K> {
    type Item = Group<K>;

    fn next(&mut self) -> Option<Group<K>> {
        let key = self.positives.last().max(self.negatives.last()).copied()?;
        let positives = taken_from_end(&mut self.positives, |k| k == key);
        let negatives = taken_from_end(&mut self.negatives, |k| k == key);
        Some(Group { key, positives, negatives })
    }
}

/// A distinct score of positives. Most figures change there only, and positives are few among pixels.
pub(crate) struct PositiveStep<K> {
    pub(crate) key: K,
    /// Positives of this score.
    pub(crate) gained: u64,
    /// Positives of at least this score.
    pub(crate) true_positives: u64,
    /// Negatives above this score.
    pub(crate) above: u64,
    /// Negatives of at least this score.
    pub(crate) false_positives: u64,
}

/// The distinct scores of the positives, from the highest down.
pub(crate) struct PositiveSteps<'a, K> {
    positives: &'a [K],
    negatives: &'a [K],
    true_positives: u64,
    false_positives: u64,
}

impl<'a, K> PositiveSteps<'a, K> {
    /// Of keys in rising order.
    pub(crate) fn new(positives: &'a [K], negatives: &'a [K]) -> Self {
        Self { positives, negatives, true_positives: 0, false_positives: 0 }
    }
}

impl<K: Ord + Copy> Iterator for PositiveSteps<'_, K> {
    type Item = PositiveStep<K>;

    fn next(&mut self) -> Option<PositiveStep<K>> {
        let key = *self.positives.last()?;
        let gained = taken_from_end(&mut self.positives, |k| k == key);
        self.true_positives += gained;
        let above = self.false_positives + taken_from_end(&mut self.negatives, |k| k > key);
        self.false_positives = above + taken_from_end(&mut self.negatives, |k| k == key);
        let (true_positives, false_positives) = (self.true_positives, self.false_positives);
        Some(PositiveStep { key, gained, true_positives, above, false_positives })
    }
}

/// How many elements of each class have at least the score of a group.
#[derive(Clone, Copy)]
pub(crate) struct Step<S> {
    pub(crate) threshold: S,
    pub(crate) true_positives: u64,
    pub(crate) false_positives: u64,
}

impl<S: Score> Ranking<S> {
    /// Sorts `scores`; `labels` says which of them are positive (anomalous).
    ///
    /// # Errors
    /// [`Error::LengthMismatch`], [`Error::Empty`] or [`Error::NotFinite`].
    pub fn new(scores: &[S], labels: &[bool]) -> Result<Self, Error> {
        check_labelled(scores, labels)?;
        let (positives, negatives) = by_class(&[(scores, Truth::Labels(labels))]);
        Ok(Self::from_keys(positives, negatives))
    }

    /// At least one of the two is not empty.
    pub(crate) fn from_keys(positives: Vec<S::Key>, negatives: Vec<S::Key>) -> Self {
        Self { positives: S::sorted(positives), negatives: S::sorted(negatives) }
    }

    /// Keys in rising order; at least one of the two is not empty.
    pub(crate) fn from_sorted(positives: Vec<S::Key>, negatives: Vec<S::Key>) -> Self {
        Self { positives, negatives }
    }

    /// The keys of the negatives, rising.
    pub(crate) fn sorted_negatives(&self) -> &[S::Key] {
        &self.negatives
    }

    /// The keys of the positives, rising.
    pub(crate) fn sorted_positives(&self) -> &[S::Key] {
        &self.positives
    }

    /// How many elements are positive.
    pub fn positives(&self) -> u64 {
        self.positives.len() as u64
    }

    /// How many elements are negative.
    pub fn negatives(&self) -> u64 {
        self.negatives.len() as u64
    }

    fn needs_positives(&self, metric: &'static str) -> Result<(), Error> {
        if self.positives.is_empty() { Err(Error::NoPositives { metric }) } else { Ok(()) }
    }

    fn needs_both(&self, metric: &'static str) -> Result<(), Error> {
        self.needs_positives(metric)?;
        if self.negatives.is_empty() { Err(Error::NoNegatives { metric }) } else { Ok(()) }
    }

    fn groups(&self) -> Groups<'_, S::Key> {
        Groups { positives: &self.positives, negatives: &self.negatives }
    }

    fn positive_steps(&self) -> PositiveSteps<'_, S::Key> {
        PositiveSteps::new(&self.positives, &self.negatives)
    }

    /// One step per distinct score, from the highest down.
    pub(crate) fn steps(&self) -> impl Iterator<Item = Step<S>> {
        self.groups().scan((0, 0), |(true_positives, false_positives), group| {
            *true_positives += group.positives;
            *false_positives += group.negatives;
            Some(Step {
                threshold: S::from_key(group.key),
                true_positives: *true_positives,
                false_positives: *false_positives,
            })
        })
    }

    /// Area under the ROC curve: the share of pairs of a positive and a negative in which the positive has the higher
    /// score, a tie counting half (Hanley and `McNeil` 1982). In [0, 1]; 0.5 for constant scores.
    ///
    /// # Errors
    /// [`Error::NoPositives`], [`Error::NoNegatives`].
    pub fn auroc(&self) -> Result<f64, Error> {
        self.needs_both("AUROC")?;
        // A pair counts 2 if the positive is higher, 1 if both are equal.
        let half_pairs: u128 = self
            .positive_steps()
            .map(|step| {
                let not_above = 2 * self.negatives() - step.above - step.false_positives;
                u128::from(step.gained) * u128::from(not_above)
            })
            .sum();
        let all = 2 * u128::from(self.positives()) * u128::from(self.negatives());
        Ok(half_pairs as f64 / all as f64)
    }

    /// Average precision: precision at each distinct score, weighted by the recall gained there (a step function,
    /// nothing is interpolated). In (0, 1]; 1 without negatives; the share of positives for constant scores.
    ///
    /// # Errors
    /// [`Error::NoPositives`].
    pub fn average_precision(&self) -> Result<f64, Error> {
        self.needs_positives("average precision")?;
        let gains = self.positive_steps().map(|step| {
            let predicted = step.true_positives + step.false_positives;
            step.gained as f64 * (step.true_positives as f64 / predicted as f64)
        });
        Ok(gains.sum::<f64>() / self.positives() as f64)
    }

    /// Area under the precision-recall curve by the trapezoid rule, from (recall 0, precision 1). Another number than
    /// [`Ranking::average_precision`], and too high where few scores are distinct; only to compare with results that
    /// were made this way.
    ///
    /// # Errors
    /// [`Error::NoPositives`].
    pub fn aupr_trapezoid(&self) -> Result<f64, Error> {
        self.needs_positives("AUPR (trapezoid)")?;
        let precision = |true_positives: u64, false_positives: u64| match true_positives + false_positives {
            0 => 1.0,
            predicted => true_positives as f64 / predicted as f64,
        };
        let pieces = self.positive_steps().map(|step| {
            let before = precision(step.true_positives - step.gained, step.above);
            step.gained as f64 * f64::midpoint(before, precision(step.true_positives, step.false_positives))
        });
        Ok(pieces.sum::<f64>() / self.positives() as f64)
    }

    /// The largest F1 over all thresholds and the lowest threshold that attains it (fractions are compared exactly).
    ///
    /// # Errors
    /// [`Error::NoPositives`].
    pub fn f1_max(&self) -> Result<F1Max<S>, Error> {
        self.needs_positives("F1-max")?;
        let positives = self.positives();
        // F1 = 2 TP / (P + TP + FP); the denominator of no step is 0 since P > 0.
        let denominator =
            |step: &PositiveStep<S::Key>| positives + step.true_positives + step.false_positives;
        let is_less = |a: &PositiveStep<S::Key>, b: &PositiveStep<S::Key>| {
            u128::from(a.true_positives) * u128::from(denominator(b))
                < u128::from(b.true_positives) * u128::from(denominator(a))
        };
        // A score of negatives only adds false positives.
        let best = self.positive_steps().reduce(|best, step| if is_less(&step, &best) { best } else { step });
        let best = best.ok_or(Error::NoPositives { metric: "F1-max" })?;
        let value = 2.0 * best.true_positives as f64 / denominator(&best) as f64;
        Ok(F1Max { value, threshold: S::from_key(best.key) })
    }

    /// The false positive rate at the highest threshold whose true positive rate is at least `true_positive_rate`;
    /// nothing is interpolated. 0.95 gives FPR95.
    ///
    /// # Errors
    /// [`Error::NoPositives`], [`Error::NoNegatives`]; [`Error::Option`] for a rate outside (0, 1].
    pub fn fpr_at_tpr(&self, true_positive_rate: f64) -> Result<f64, Error> {
        if !(true_positive_rate > 0.0 && true_positive_rate <= 1.0) {
            return Err(Error::Option {
                name: "true_positive_rate",
                expected: "more than 0 and at most 1",
                found: true_positive_rate,
            });
        }
        self.needs_both("FPR at TPR")?;
        let (positives, negatives) = (self.positives() as f64, self.negatives() as f64);
        let reached =
            self.positive_steps().find(|step| step.true_positives as f64 / positives >= true_positive_rate);
        // The last step has every positive.
        Ok(reached.map_or(1.0, |step| step.false_positives as f64 / negatives))
    }

    /// The lowest score that, as a threshold (positive if score >= threshold), has a false positive rate of at most
    /// `limit`; none if even the highest score has more.
    ///
    /// # Errors
    /// [`Error::NoNegatives`]; [`Error::Option`] for a limit outside [0, 1].
    pub fn lowest_within_fpr(&self, limit: f64) -> Result<Option<S>, Error> {
        if !(0.0..=1.0).contains(&limit) {
            return Err(Error::Option { name: "limit", expected: "from 0 to 1", found: limit });
        }
        if self.negatives.is_empty() {
            return Err(Error::NoNegatives { metric: "a threshold by false positive rate" });
        }
        let negatives = self.negatives() as f64;
        let within = self.steps().take_while(|step| step.false_positives as f64 / negatives <= limit);
        Ok(within.last().map(|step| step.threshold))
    }

    /// The rate at which false positives and false negatives are equally frequent, linearly interpolated between the
    /// two neighbouring points of the ROC curve.
    ///
    /// # Errors
    /// [`Error::NoPositives`], [`Error::NoNegatives`].
    pub fn equal_error_rate(&self) -> Result<f64, Error> {
        self.needs_both("equal error rate")?;
        let (positives, negatives) = (self.positives() as f64, self.negatives() as f64);
        let (mut rate_before, mut gap_before) = (0.0, 1.0);
        for step in self.steps() {
            let rate = step.false_positives as f64 / negatives;
            let gap = 1.0 - step.true_positives as f64 / positives - rate;
            if gap <= 0.0 {
                return Ok(rate_before + gap_before / (gap_before - gap) * (rate - rate_before));
            }
            (rate_before, gap_before) = (rate, gap);
        }
        // The last step has a rate of 1 and a gap of -1, so this is not reached.
        Ok(rate_before)
    }

    /// A threshold for deciding, fitted on validation scores: that of [`Ranking::f1_max`], or the highest score
    /// without positives, or the lowest without negatives. Decide with score > threshold.
    ///
    /// # Errors
    /// None for a ranking of at least one element, which every constructor ensures.
    pub fn adaptive_threshold(&self) -> Result<S, Error> {
        match (self.positives.first(), self.negatives.last()) {
            (None, Some(&highest)) => Ok(S::from_key(highest)),
            (Some(&lowest), None) => Ok(S::from_key(lowest)),
            _ => Ok(self.f1_max()?.threshold),
        }
    }
}
