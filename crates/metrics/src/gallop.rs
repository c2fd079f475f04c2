//! Searching near the end of a sorted list, in steps that double: cheap for short and for long ways.

/// Takes the elements off the end of `sorted` for which `is_taken` holds, and says how many there were. Those for
/// which it holds are the last ones.
pub(crate) fn taken_from_end<K: Copy>(sorted: &mut &[K], is_taken: impl Fn(K) -> bool) -> u64 {
    let len = sorted.len();
    // Everything from `end` on is taken.
    let (mut end, mut step) = (len, 1);
    let start = loop {
        if step > end {
            break 0;
        }
        if !is_taken(sorted[end - step]) {
            break end - step + 1;
        }
        end -= step;
        step *= 2;
    };
    let kept = start + sorted[start..end].partition_point(|&k| !is_taken(k));
    *sorted = &sorted[..kept];
    (len - kept) as u64
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn takes_as_many_as_there_are(mut all in prop::collection::vec(0_u8..30, 0..200), bound in 0_u8..31) {
            all.sort_unstable();
            let expected = all.iter().filter(|&&k| k >= bound).count();
            let mut rest = &all[..];
            prop_assert_eq!(taken_from_end(&mut rest, |k| k >= bound), expected as u64);
            prop_assert_eq!(rest, &all[..all.len() - expected]);
        }
    }
}
