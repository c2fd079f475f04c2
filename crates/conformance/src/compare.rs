//! Computed tensors against expected ones, by the file's own rules.

use std::collections::BTreeMap;

use crate::rule::{Pooled, fill_in};
use crate::tensor::Number;
use crate::{Case, HostData, HostTensor, Rule, SignFree};

/// What a unit produced, by full names: `out.x`, `grad.w`, `w_after.w`.
pub type Outputs = BTreeMap<String, HostTensor>;

/// How a case's expected tensors fared.
#[derive(Clone, Debug, Default)]
pub struct Comparison {
    /// One verdict per expected tensor, in the order of their names.
    pub verdicts: Vec<Verdict>,
    /// One entry per rule with a `fraction` that applied to some tensor.
    pub pools: Vec<Pool>,
}

/// How one expected tensor fared.
#[derive(Clone, Debug)]
pub struct Verdict {
    /// Its full name.
    pub name: String,
    /// How many of its elements count.
    pub counted: usize,
    /// The largest |g - w| as a share of what is allowed; infinite where nothing is allowed or a value is not finite.
    pub worst_share: f64,
    /// Why it fails, in words.
    pub failure: Option<String>,
}

/// How the elements of all tensors of one rule with a `fraction` fared together.
#[derive(Clone, Debug)]
pub struct Pool {
    /// Position of the rule in the case's list.
    pub rule: usize,
    /// How many elements count.
    pub counted: usize,
    /// How many of them are within the tolerance.
    pub within: usize,
    /// The share of misses as a share of what is allowed.
    pub worst_share: f64,
    /// Why it fails, in words.
    pub failure: Option<String>,
}

impl Comparison {
    /// Whether nothing failed.
    pub fn passed(&self) -> bool {
        self.failures().next().is_none()
    }

    /// Everything that failed, in words.
    pub fn failures(&self) -> impl Iterator<Item = String> {
        let tensors = self
            .verdicts
            .iter()
            .filter_map(|v| v.failure.as_ref().map(|reason| format!("{}: {reason}", v.name)));
        let pools = self
            .pools
            .iter()
            .filter_map(|p| p.failure.as_ref().map(|reason| format!("rule {}: {reason}", p.rule)));
        tensors.chain(pools)
    }

    /// The largest share of a tolerance that was used; 0 if nothing counts.
    pub fn worst_share(&self) -> f64 {
        let tensors = self.verdicts.iter().map(|v| v.worst_share);
        tensors.chain(self.pools.iter().map(|p| p.worst_share)).fold(0.0, f64::max)
    }
}

/// Compares what a unit produced with the expected tensors of its case. It is these that are gone through: an output
/// that is missing or has another shape fails, an output that nobody expects is passed over.
pub fn compare(case: &Case, outputs: &Outputs) -> Comparison {
    let mut comparison = Comparison::default();
    let mut pools: BTreeMap<usize, (Pooled, usize, usize)> = BTreeMap::new();
    for (name, wanted) in case.expected() {
        let found = case.rules.iter().enumerate().find(|(_, rule)| rule.applies_to(name));
        let verdict = match found {
            None => failed(name, "no rule of `compare` is for it".to_owned()),
            Some((index, rule)) => match tally_tensor(case, outputs, name, wanted, rule) {
                Err(reason) => failed(name, reason),
                Ok(tally) => {
                    if let Some(pooled) = rule.pooled {
                        let entry = pools.entry(index).or_insert((pooled, 0, 0));
                        entry.1 += tally.counted;
                        entry.2 += tally.within;
                    }
                    tally.verdict(name, wanted, rule)
                }
            },
        };
        comparison.verdicts.push(verdict);
    }
    comparison.pools = pools
        .into_iter()
        .map(|(rule, (pooled, counted, within))| pool(rule, pooled, counted, within))
        .collect();
    comparison
}

fn failed(name: &str, reason: String) -> Verdict {
    Verdict { name: name.to_owned(), counted: 0, worst_share: f64::INFINITY, failure: Some(reason) }
}

fn pool(rule: usize, pooled: Pooled, counted: usize, within: usize) -> Pool {
    if counted == 0 {
        return Pool { rule, counted, within, worst_share: 0.0, failure: None };
    }
    let reached = within as f64 / counted as f64;
    let failure = (reached < pooled.fraction).then(|| {
        format!(
            "{within} of {counted} elements are within the tolerance, a share of {reached}; expected at least {}",
            pooled.fraction
        )
    });
    Pool { rule, counted, within, worst_share: share(1.0 - reached, 1.0 - pooled.fraction), failure }
}

/// `distance` as a share of `allowed`; nothing is a share of 0 of nothing.
fn share(distance: f64, allowed: f64) -> f64 {
    if distance == 0.0 {
        0.0
    } else if !distance.is_finite() || allowed.is_nan() || allowed <= 0.0 {
        f64::INFINITY
    } else {
        distance / allowed
    }
}

/// Which elements of an expected tensor count, and how far each may be off.
pub(crate) struct Allowance<'a> {
    rule: &'a Rule,
    wanted: &'a HostTensor,
    mask: Option<&'a [u8]>,
    scale: f64,
}

impl<'a> Allowance<'a> {
    pub(crate) fn new(
        case: &'a Case,
        name: &str,
        wanted: &'a HostTensor,
        rule: &'a Rule,
    ) -> Result<Self, String> {
        let mask = match &rule.mask {
            None => None,
            Some(template) => {
                let mask_name = fill_in(template, name);
                let mask = case
                    .input(&mask_name)
                    .map_err(|_| format!("its mask `{mask_name}` is not in the file"))?;
                if mask.shape != wanted.shape {
                    return Err(format!("its mask has shape {:?}, expected {:?}", mask.shape, wanted.shape));
                }
                Some(mask.as_u8().map_err(|error| format!("its mask: {error}"))?)
            }
        };
        let largest = |most: f64, index| most.max(wanted.data.number(index).as_f64().abs());
        let scale = if rule.max_scale > 0.0 { (0..wanted.len()).fold(0.0, largest) } else { 0.0 };
        Ok(Self { rule, wanted, mask, scale })
    }

    pub(crate) fn counts(&self, index: usize) -> bool {
        let skipped = self.rule.skip.iter().any(|&(start, end)| (start..end).contains(&index));
        !skipped && self.mask.is_none_or(|mask| mask[index] == 1)
    }

    pub(crate) fn tolerance(&self, index: usize) -> f64 {
        let wanted = self.wanted.data.number(index).as_f64().abs();
        self.rule.atol + self.rule.rtol * wanted + self.rule.max_scale * self.scale
    }

    /// |g - w|, infinite where g is not finite. An exact f32 value is compared after rounding g to f32.
    fn distance(&self, index: usize, computed: Number) -> f64 {
        let wanted = self.wanted.data.number(index);
        let computed = match (computed, &self.wanted.data) {
            (Number::Float(g), HostData::F32(_)) if self.rule.exact => Number::Float((g as f32).into()),
            (g, _) => g,
        };
        let distance = computed.distance(wanted);
        if computed.as_f64().is_finite() && !distance.is_nan() { distance } else { f64::INFINITY }
    }
}

/// What was seen over some elements of a tensor.
#[derive(Clone, Debug, Default)]
struct Tally {
    counted: usize,
    within: usize,
    /// The largest |g - w|.
    farthest: f64,
    worst: Option<Worst>,
}

/// The element that used the largest share of its tolerance.
#[derive(Clone, Debug)]
struct Worst {
    share: f64,
    index: usize,
    computed: Number,
    tolerance: f64,
}

impl Tally {
    fn over(
        indices: impl Iterator<Item = usize>,
        allowance: &Allowance<'_>,
        computed: &HostData,
        negate: bool,
    ) -> Self {
        let mut tally = Self::default();
        for index in indices.filter(|&index| allowance.counts(index)) {
            let number = computed.number(index);
            let number = if negate { number.negated() } else { number };
            let distance = allowance.distance(index, number);
            let tolerance = allowance.tolerance(index);
            tally.counted += 1;
            tally.within += usize::from(distance <= tolerance);
            tally.farthest = tally.farthest.max(distance);
            let share = share(distance, tolerance);
            if tally.worst.as_ref().is_none_or(|worst| share > worst.share) {
                tally.worst = Some(Worst { share, index, computed: number, tolerance });
            }
        }
        tally
    }

    fn worst_share(&self) -> f64 {
        self.worst.as_ref().map_or(0.0, |worst| worst.share)
    }

    fn merge(&mut self, other: Self) {
        if other.worst_share() > self.worst_share() || self.worst.is_none() {
            self.worst = other.worst;
        }
        self.counted += other.counted;
        self.within += other.within;
        self.farthest = self.farthest.max(other.farthest);
    }

    /// The one of two with fewer misses, or else with the smaller worst share.
    fn better(self, other: Self) -> Self {
        let better = (other.within, -other.worst_share()) > (self.within, -self.worst_share());
        if better { other } else { self }
    }

    fn verdict(&self, name: &str, wanted: &HostTensor, rule: &Rule) -> Verdict {
        let (worst_share, missed) = match rule.pooled {
            None => (self.worst_share(), self.counted - self.within),
            Some(pooled) => {
                (share(self.farthest, pooled.hard_atol), usize::from(self.farthest > pooled.hard_atol))
            }
        };
        let failure = (missed > 0).then(|| {
            let at = self.worst.as_ref().map_or_else(String::new, |worst| {
                format!(
                    "; worst at {:?}: computed {}, wanted {}, tolerance {:e}",
                    position(worst.index, &wanted.shape),
                    worst.computed,
                    wanted.data.number(worst.index),
                    worst.tolerance
                )
            });
            match rule.pooled {
                None => format!("{missed} of {} elements are off{at}", self.counted),
                Some(pooled) => {
                    format!("|g - w| reaches {:e}, at most {:e}{at}", self.farthest, pooled.hard_atol)
                }
            }
        });
        Verdict { name: name.to_owned(), counted: self.counted, worst_share, failure }
    }
}

/// The index along each axis of a flat row-major index.
fn position(mut index: usize, shape: &[usize]) -> Vec<usize> {
    let mut position = vec![0; shape.len()];
    for (axis, &size) in shape.iter().enumerate().rev() {
        position[axis] = index % size;
        index /= size;
    }
    position
}

/// The computed tensor that an expected one is compared with.
pub(crate) fn computed_name(name: &str, rule: &Rule) -> String {
    rule.prefix_of.as_ref().map_or_else(|| name.to_owned(), |template| fill_in(template, name))
}

fn tally_tensor(
    case: &Case,
    outputs: &Outputs,
    name: &str,
    wanted: &HostTensor,
    rule: &Rule,
) -> Result<Tally, String> {
    let computed_name = computed_name(name, rule);
    let computed =
        outputs.get(&computed_name).ok_or_else(|| format!("the unit produced no `{computed_name}`"))?;
    if computed.shape.iter().product::<usize>() != computed.len() {
        return Err(format!("shape {:?} was given with {} elements", computed.shape, computed.len()));
    }
    if rule.prefix_of.is_some() {
        if computed.len() < wanted.len() {
            return Err(format!(
                "`{computed_name}` has {} elements, expected at least {}",
                computed.len(),
                wanted.len()
            ));
        }
    } else if computed.shape != wanted.shape {
        return Err(format!("expected shape {:?}, found {:?}", wanted.shape, computed.shape));
    }
    let allowance = Allowance::new(case, name, wanted, rule)?;
    let data = &computed.data;
    let Some(sign_free) = rule.sign_free else {
        return Ok(Tally::over(0..wanted.len(), &allowance, data, false));
    };
    let &[rows, columns] = &wanted.shape[..] else {
        return Err(format!("`sign_free` is for matrices, found shape {:?}", wanted.shape));
    };
    let (lines, length, stride, step) = match sign_free {
        SignFree::Rows => (rows, columns, columns, 1),
        SignFree::Columns => (columns, rows, 1, columns),
    };
    let mut tally = Tally::default();
    for line in 0..lines {
        let over = |negate| {
            let indices = (0..length).map(|k| line * stride + k * step);
            Tally::over(indices, &allowance, data, negate)
        };
        tally.merge(over(false).better(over(true)));
    }
    Ok(tally)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::case::tests::case;
    use serde_json::{Value, json};

    fn outputs<const N: usize>(tensors: [(&str, HostTensor); N]) -> Outputs {
        tensors.into_iter().map(|(name, tensor)| (name.to_owned(), tensor)).collect()
    }

    fn f32s(values: &[f32]) -> HostTensor {
        HostTensor::f32([values.len()], values.to_vec())
    }

    /// One expected tensor `out.x` of `wanted`, computed as `computed`, under one rule.
    fn one(wanted: HostTensor, computed: HostTensor, rule: &Value) -> Comparison {
        compare(&case([("out.x", wanted)], &json!([rule])), &outputs([("out.x", computed)]))
    }

    #[test]
    fn tolerances_add_up() {
        let rule = json!({"tensors": ["*"], "atol": 0.5, "rtol": 0.25, "max_scale": 0.125});
        // 0.5 + 0.25 * 2 + 0.125 * 8 = 2 at the first element
        let wanted = f32s(&[2.0, -8.0]);
        let at_the_limit = one(wanted.clone(), f32s(&[4.0, -8.0]), &rule);
        assert!(at_the_limit.passed());
        assert_eq!(at_the_limit.worst_share(), 1.0);
        let beyond = one(wanted, f32s(&[4.001, -8.0]), &rule);
        assert!(!beyond.passed());
        assert!(
            beyond.failures().next().unwrap().starts_with("out.x: 1 of 2 elements are off; worst at [0]")
        );
    }

    #[test]
    fn without_a_tolerance_values_are_equal() {
        let rule = json!({"tensors": ["*"]});
        assert!(one(f32s(&[1.0]), f32s(&[1.0]), &rule).passed());
        assert!(!one(f32s(&[1.0]), f32s(&[1.0_f32.next_up()]), &rule).passed());
    }

    #[test]
    fn exact_floats_are_compared_in_single_precision() {
        let rule = json!({"tensors": ["*"], "exact": true});
        let wide = HostTensor::f64([1], vec![0.1]);
        assert!(one(f32s(&[0.1]), wide.clone(), &rule).passed());
        assert!(!one(f32s(&[0.1]), wide, &json!({"tensors": ["*"]})).passed());
        assert!(!one(f32s(&[0.1]), f32s(&[0.1_f32.next_up()]), &rule).passed());
        assert!(one(f32s(&[0.0]), f32s(&[-0.0]), &rule).passed());
    }

    #[test]
    fn integers_are_compared_without_wrapping() {
        let near = json!({"tensors": ["*"], "atol": 1});
        assert!(!one(HostTensor::u8([1], vec![0]), HostTensor::u8([1], vec![255]), &near).passed());
        assert!(one(HostTensor::u8([1], vec![254]), HostTensor::u8([1], vec![255]), &near).passed());
        let exact = json!({"tensors": ["*"], "exact": true});
        let big = i64::MAX - 1;
        assert!(!one(HostTensor::i64([1], vec![big]), HostTensor::i64([1], vec![i64::MAX]), &exact).passed());
        assert!(one(HostTensor::i64([1], vec![7]), HostTensor::u32([1], vec![7]), &exact).passed());
        assert!(!one(HostTensor::i64([1], vec![-1]), HostTensor::u32([1], vec![u32::MAX]), &exact).passed());
    }

    #[test]
    fn nan_and_infinity_never_pass() {
        for rule in [
            json!({"tensors": ["*"], "atol": 1e300}),
            json!({"tensors": ["*"], "exact": true}),
            json!({"tensors": ["*"], "atol": 1e300, "fraction": 0.0, "hard_atol": 1e300}),
            json!({"tensors": ["*"], "atol": 1e300, "sign_free": "rows"}),
        ] {
            for value in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
                for wanted in [1.0, value] {
                    let comparison = one(
                        HostTensor::f32([1, 1], vec![wanted]),
                        HostTensor::f32([1, 1], vec![value]),
                        &rule,
                    );
                    assert!(!comparison.passed(), "{value} for {wanted} under {rule}");
                    assert_eq!(comparison.worst_share(), f64::INFINITY);
                }
            }
        }
    }

    #[test]
    fn the_first_rule_with_a_matching_pattern_applies() {
        let rules = json!([{"tensors": ["out.x*"], "atol": 1}, {"tensors": ["*"], "exact": true}]);
        let case = case([("out.x1", f32s(&[0.0])), ("out.y", f32s(&[0.0]))], &rules);
        assert!(compare(&case, &outputs([("out.x1", f32s(&[0.5])), ("out.y", f32s(&[0.0]))])).passed());
        let comparison = compare(&case, &outputs([("out.x1", f32s(&[0.5])), ("out.y", f32s(&[0.5]))]));
        assert_eq!(comparison.failures().count(), 1);
        assert!(comparison.verdicts[1].failure.is_some());
    }

    #[test]
    fn a_tensor_without_a_rule_fails() {
        let case = case([("out.x", f32s(&[0.0]))], &json!([{"tensors": ["out.y"], "atol": 1}]));
        let comparison = compare(&case, &outputs([("out.x", f32s(&[0.0]))]));
        assert_eq!(comparison.failures().next().unwrap(), "out.x: no rule of `compare` is for it");
    }

    #[test]
    fn missing_outputs_and_other_shapes_fail() {
        let rule = json!({"tensors": ["*"], "atol": 1});
        let case =
            case([("out.x", HostTensor::f32([1, 2], vec![0.0; 2])), ("in.y", f32s(&[0.0]))], &json!([rule]));
        let missing = compare(&case, &Outputs::new());
        assert_eq!(missing.failures().next().unwrap(), "out.x: the unit produced no `out.x`");
        let other = compare(&case, &outputs([("out.x", f32s(&[0.0, 0.0])), ("out.more", f32s(&[f32::NAN]))]));
        assert_eq!(other.failures().collect::<Vec<_>>(), ["out.x: expected shape [1, 2], found [2]"]);
        let short = compare(&case, &outputs([("out.x", HostTensor::f32([1, 2], vec![0.0]))]));
        assert!(short.failures().next().unwrap().contains("with 1 elements"));
        assert!(compare(&case, &outputs([("out.x", HostTensor::f32([1, 2], vec![0.0; 2]))])).passed());
    }

    #[test]
    fn empty_tensors_need_their_shape() {
        let rule = json!({"tensors": ["*"], "exact": true});
        let empty = |shape: [usize; 2]| HostTensor::i64(shape, vec![]);
        assert!(one(empty([0, 3]), empty([0, 3]), &rule).passed());
        assert!(!one(empty([0, 3]), empty([0, 2]), &rule).passed());
    }

    #[test]
    fn a_fraction_pools_all_tensors_of_its_rule() {
        let rules = json!([{"tensors": ["out.*"], "atol": 1, "fraction": 0.75, "hard_atol": 10}]);
        let case = case([("out.a", f32s(&[0.0; 6])), ("out.b", f32s(&[0.0; 2]))], &rules);
        // both of the two elements of b miss, but only 2 of 8 in all
        let good = compare(&case, &outputs([("out.a", f32s(&[1.0; 6])), ("out.b", f32s(&[2.0, 10.0]))]));
        assert!(good.passed());
        assert_eq!((good.pools[0].counted, good.pools[0].within), (8, 6));
        assert_eq!(good.worst_share(), 1.0);
        let one_more = compare(
            &case,
            &outputs([("out.a", f32s(&[2.0, 0.0, 0.0, 0.0, 0.0, 0.0])), ("out.b", f32s(&[2.0, 2.0]))]),
        );
        assert!(!one_more.passed());
        assert!(one_more.failures().next().unwrap().starts_with("rule 0: 5 of 8 elements"));
        let too_far = compare(&case, &outputs([("out.a", f32s(&[0.0; 6])), ("out.b", f32s(&[0.0, 10.5]))]));
        assert_eq!(too_far.failures().count(), 1);
        assert!(too_far.verdicts[1].failure.is_some());
    }

    #[test]
    fn a_mask_says_which_elements_count() {
        let rules = json!([{"tensors": ["w_after.*"], "atol": 1, "mask": "mask.{name}"}]);
        let with_mask = |mask| case([("w_after.a.b", f32s(&[0.0; 3])), ("mask.a.b", mask)], &rules);
        let case_ = with_mask(HostTensor::u8([3], vec![1, 0, 1]));
        let passes = |values: &[f32]| compare(&case_, &outputs([("w_after.a.b", f32s(values))])).passed();
        assert!(passes(&[1.0, f32::NAN, 0.0]));
        assert!(!passes(&[0.0, 0.0, 1.5]));
        let computed = outputs([("w_after.a.b", f32s(&[0.0; 3]))]);
        for (wrong, says) in [
            (with_mask(HostTensor::u8([2], vec![1, 1])), "its mask has shape [2], expected [3]"),
            (with_mask(f32s(&[1.0; 3])), "its mask: expected elements of type u8, found f32"),
            (case([("w_after.a.b", f32s(&[0.0; 3]))], &rules), "its mask `mask.a.b` is not in the file"),
        ] {
            assert_eq!(compare(&wrong, &computed).failures().next().unwrap(), format!("w_after.a.b: {says}"));
        }
    }

    #[test]
    fn skipped_ranges_do_not_count() {
        let rule = json!({"tensors": ["*"], "atol": 1, "skip": [[0, 1], [2, 9]]});
        let wanted = f32s(&[0.0; 3]);
        let good = one(wanted.clone(), f32s(&[9.0, 1.0, f32::NAN]), &rule);
        assert!(good.passed());
        assert_eq!(good.verdicts[0].counted, 1);
        assert!(!one(wanted.clone(), f32s(&[0.0, 2.0, 0.0]), &rule).passed());
        let all = json!({"tensors": ["*"], "exact": true, "skip": [[0, 3]]});
        assert!(one(wanted.clone(), f32s(&[1.0, 2.0, 3.0]), &all).passed());
        assert!(!one(wanted, f32s(&[0.0; 2]), &all).passed());
    }

    #[test]
    fn a_prefix_is_compared_with_the_start() {
        let rules = json!([{"tensors": ["grad_head.*"], "atol": 1, "prefix_of": "grad.{name}", "mask": "mask_head.{name}"}]);
        let case = case(
            [("grad_head.a", f32s(&[0.0, 5.0, 0.0])), ("mask_head.a", HostTensor::u8([3], vec![1, 1, 0]))],
            &rules,
        );
        let passes = |tensor| compare(&case, &outputs([("grad.a", tensor)])).passed();
        assert!(passes(HostTensor::f32([2, 2], vec![0.0, 5.0, 9.0, 9.0])));
        assert!(passes(f32s(&[1.0, 5.0, 9.0])));
        assert!(!passes(HostTensor::f32([2, 2], vec![5.0, 0.0, 0.0, 0.0])));
        assert!(!passes(f32s(&[0.0, 5.0])));
        assert!(!compare(&case, &outputs([("grad_head.a", f32s(&[0.0, 5.0, 0.0]))])).passed());
    }

    #[test]
    fn the_sign_of_whole_lines_may_be_free() {
        let rows = json!({"tensors": ["*"], "atol": 0.125, "sign_free": "rows"});
        let columns = json!({"tensors": ["*"], "atol": 0.125, "sign_free": "columns"});
        let matrix = |values: [f32; 4]| HostTensor::f32([2, 2], values.to_vec());
        let wanted = matrix([1.0, 2.0, 3.0, -4.0]);
        assert!(one(wanted.clone(), matrix([-1.0, -2.0, 3.0, -4.0]), &rows).passed());
        assert!(!one(wanted.clone(), matrix([-1.0, -2.0, 3.0, -4.0]), &columns).passed());
        assert!(one(wanted.clone(), matrix([-1.0, 2.0, -3.0, -4.0]), &columns).passed());
        assert!(!one(wanted.clone(), matrix([-1.0, 2.0, 3.0, -4.0]), &rows).passed());
        let near = one(wanted, matrix([-1.125, -2.0, 3.0, -4.0]), &rows);
        assert!(near.passed());
        assert_eq!(near.worst_share(), 1.0);
        assert!(!one(f32s(&[1.0]), f32s(&[1.0]), &rows).passed());
    }
}
