//! Whether a deviation would be seen at all.

use std::path::Path;

use crate::compare::{Allowance, computed_name};
use crate::runner::{CaseLine, Outcome, Summary, each_case};
use crate::{Case, Error, HostData, HostTensor, Outputs, compare};

/// Checks every case below `paths` (see [`crate::case_files`]) without any unit: with the expected tensors themselves
/// as outputs it must pass; with every element that counts shifted by three times its tolerance (to a different value
/// of its type where the tolerance is zero) it must fail, and so must each of its tensors with such an element. A case
/// without one is skipped.
///
/// # Errors
/// As [`crate::case_files`].
pub fn self_test(paths: &[impl AsRef<Path>], out: &mut dyn FnMut(&CaseLine)) -> Result<Summary, Error> {
    each_case(paths, out, |case| (judge(case), None))
}

fn judge(case: &Case) -> Outcome {
    let (same, shifted) = match (outputs(case, false), outputs(case, true)) {
        (Ok(same), Ok(shifted)) => (same, shifted),
        (Err(reason), _) | (_, Err(reason)) => return Outcome::Failed(vec![reason]),
    };
    let same = compare(case, &same);
    let mut failures: Vec<String> =
        same.failures().map(|reason| format!("its own values fail: {reason}")).collect();
    if failures.is_empty() && same.verdicts.iter().all(|verdict| verdict.counted == 0) {
        return Outcome::Skipped("no element counts".to_owned());
    }
    let shifted = compare(case, &shifted);
    if shifted.passed() {
        failures.push("it passes although every element that counts is shifted".to_owned());
    }
    for verdict in &shifted.verdicts {
        let pooled = case.rule_for(&verdict.name).is_some_and(|rule| rule.pooled.is_some());
        if verdict.counted > 0 && !pooled && verdict.failure.is_none() {
            failures.push(format!("{}: passes although it is shifted", verdict.name));
        }
    }
    for pool in &shifted.pools {
        let hard = |name: &str| case.rule_for(name).is_some_and(|rule| *rule == case.rules[pool.rule]);
        let seen =
            pool.failure.is_some() || shifted.verdicts.iter().any(|v| v.failure.is_some() && hard(&v.name));
        if pool.counted > 0 && !seen {
            failures.push(format!("rule {}: passes although its tensors are shifted", pool.rule));
        }
    }
    if failures.is_empty() { Outcome::Passed } else { Outcome::Failed(failures) }
}

/// The expected tensors as a unit would produce them, as they are or shifted.
fn outputs(case: &Case, shift: bool) -> Result<Outputs, String> {
    let mut outputs = Outputs::new();
    for (name, wanted) in case.expected() {
        let Some(rule) = case.rule_for(name) else { continue };
        let allowance =
            Allowance::new(case, name, wanted, rule).map_err(|reason| format!("{name}: {reason}"))?;
        let tolerance = |index| {
            allowance.counts(index).then(|| match rule.pooled {
                // With a fraction of 0 it is the hard limit alone that an element has to keep.
                Some(pooled) if pooled.fraction == 0.0 => pooled.hard_atol,
                _ => allowance.tolerance(index),
            })
        };
        let data = if shift { shifted(&wanted.data, &tolerance) } else { wanted.data.clone() };
        let computed = computed_name(name, rule);
        let tensor = HostTensor::new(wanted.shape.clone(), data);
        if outputs.insert(computed.clone(), tensor).is_some() {
            return Err(format!("two expected tensors are compared with `{computed}`"));
        }
    }
    Ok(outputs)
}

/// `data` with every element for which `tolerance` gives one shifted.
fn shifted(data: &HostData, tolerance: &dyn Fn(usize) -> Option<f64>) -> HostData {
    macro_rules! each {
        ($variant:ident, $values:expr, $shift:expr) => {
            HostData::$variant(
                $values.iter().enumerate().map(|(i, &x)| tolerance(i).map_or(x, |t| $shift(x, t))).collect(),
            )
        };
    }
    macro_rules! each_integer {
        ($variant:ident, $type:ty, $values:expr) => {
            each!($variant, $values, |x: $type, t| {
                let range = (<$type>::MIN.into(), <$type>::MAX.into());
                // The shift keeps to the range, so nothing is lost on the way back.
                shifted_integer(x.into(), t, range) as $type
            })
        };
    }
    match data {
        HostData::Bool(v) => each!(Bool, v, |x: bool, _| !x),
        HostData::U8(v) => each_integer!(U8, u8, v),
        HostData::U16(v) => each_integer!(U16, u16, v),
        HostData::U32(v) => each_integer!(U32, u32, v),
        HostData::I32(v) => each_integer!(I32, i32, v),
        HostData::I64(v) => each_integer!(I64, i64, v),
        HostData::F32(v) => each!(F32, v, shifted_f32),
        HostData::F64(v) => each!(F64, v, shifted_f64),
    }
}

/// Away from zero, or where the range ends before that, towards it; at most to the far end of the range.
fn shifted_integer(x: i128, tolerance: f64, (low, high): (i128, i128)) -> i128 {
    let step = ((3.0 * tolerance).ceil() as i128).max(1);
    let (first, second) = if x < 0 {
        (x.saturating_sub(step), x.saturating_add(step))
    } else {
        (x.saturating_add(step), x.saturating_sub(step))
    };
    if (low..=high).contains(&first) {
        first
    } else if (low..=high).contains(&second) {
        second
    } else if x - low > high - x {
        low
    } else {
        high
    }
}

macro_rules! shifted_float {
    ($name:ident, $type:ty) => {
        /// Away from zero, so that a free sign cannot undo it; by one step of the type where three times the tolerance
        /// is too little to leave it.
        fn $name(x: $type, tolerance: f64) -> $type {
            let wide: f64 = x.into();
            let away = if x < 0.0 { -1.0 } else { 1.0 };
            let far = |sign: f64| {
                let moved = (wide + sign * 3.0 * tolerance) as $type;
                if (f64::from(moved) - wide).abs() > tolerance {
                    moved
                } else if sign > 0.0 {
                    x.next_up()
                } else {
                    x.next_down()
                }
            };
            let moved = far(away);
            if moved.is_finite() { moved } else { far(-away) }
        }
    };
}
shifted_float!(shifted_f32, f32);
shifted_float!(shifted_f64, f64);

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::case::tests::case;
    use proptest::prelude::*;
    use serde_json::json;

    #[test]
    fn every_kind_of_rule_sees_its_shift() {
        let floats = || HostTensor::f32([2, 2], vec![1.0, -0.5, 0.0, f32::MAX]);
        for rule in [
            json!({"tensors": ["*"], "exact": true}),
            json!({"tensors": ["*"], "atol": 1e-30}),
            json!({"tensors": ["*"], "rtol": 1e-3, "max_scale": 1e-5}),
            json!({"tensors": ["*"], "atol": 0.75, "sign_free": "rows"}),
            json!({"tensors": ["*"], "atol": 0.75, "sign_free": "columns"}),
            json!({"tensors": ["*"], "atol": 1, "fraction": 0.01, "hard_atol": 100}),
            json!({"tensors": ["*"], "fraction": 0, "hard_atol": 100}),
            json!({"tensors": ["*"], "atol": 1, "skip": [[0, 3]]}),
            json!({"tensors": ["*"], "atol": 1, "prefix_of": "out.whole"}),
        ] {
            assert_eq!(judge(&case([("out.x", floats())], &json!([rule]))), Outcome::Passed, "{rule}");
        }
        let tensors = [
            ("out.b", HostTensor::bool([2], vec![true, false])),
            ("out.u", HostTensor::u8([3], vec![0, 128, 255])),
            ("out.i", HostTensor::i64([3], vec![i64::MIN, 0, i64::MAX])),
        ];
        assert_eq!(judge(&case(tensors, &json!([{"tensors": ["*"], "exact": true}]))), Outcome::Passed);
    }

    #[test]
    fn cases_that_see_nothing_are_reported() {
        let x = || [("out.x", HostTensor::u8([1], vec![3]))];
        let blind = judge(&case(x(), &json!([{"tensors": ["*"], "atol": 300}])));
        assert!(matches!(&blind, Outcome::Failed(reasons) if reasons[0].contains("although")), "{blind:?}");
        let nan = [("out.x", HostTensor::f32([1], vec![f32::NAN]))];
        assert!(matches!(judge(&case(nan, &json!([{"tensors": ["*"], "atol": 1}]))), Outcome::Failed(_)));
        assert!(matches!(judge(&case(x(), &json!([]))), Outcome::Failed(_)));
        let skipped = judge(&case(x(), &json!([{"tensors": ["*"], "exact": true, "skip": [[0, 1]]}])));
        assert_eq!(skipped, Outcome::Skipped("no element counts".to_owned()));
    }

    proptest! {
        #[test]
        fn a_shift_leaves_the_tolerance(bits in any::<u32>(), exponent in -45_i32..30) {
            let (x, t) = (f32::from_bits(bits), 10.0_f64.powi(exponent));
            prop_assume!(x.is_finite());
            let moved = shifted_f32(x, t);
            prop_assert!(moved.is_finite());
            prop_assert!((f64::from(moved) - f64::from(x)).abs() > t);
            prop_assert!(shifted_f32(x, 0.0) != x);
        }

        #[test]
        fn integers_stay_in_range(x in any::<u8>(), t in 0.0_f64..42.0) {
            let moved = shifted_integer(x.into(), t, (0, 255));
            prop_assert!((0..=255).contains(&moved));
            prop_assert!((moved - i128::from(x)).unsigned_abs() as f64 > t);
        }
    }
}
