//! Sorting of many keys: by radix, on all cores.

/// Up to this many elements a comparison sort is as fast.
const FEW: usize = 1 << 13;
/// Up to this many elements two sorted runs are merged by one thread.
const MERGE_ALONE: usize = 1 << 16;
const DIGIT_BITS: u32 = 11;
const DIGITS: usize = 1 << DIGIT_BITS;
/// Of a 32-bit key.
const PASSES: usize = 3;

/// The elements by rising `key`; equal keys keep their order. Takes as much memory again while it runs.
pub(crate) fn by_key<T: Copy + Default + Send + Sync>(
    mut items: Vec<T>,
    key: impl Fn(T) -> u32 + Copy + Send + Sync,
) -> Vec<T> {
    if items.len() <= FEW {
        items.sort_by_key(|&item| key(item));
        return items;
    }
    let mut buffer = vec![T::default(); items.len()];
    // One run for each thread, as far as that gives runs worth having.
    let threads = rayon::current_num_threads().min(items.len() / FEW);
    let halvings = threads.next_power_of_two().trailing_zeros();
    if runs(&mut items, &mut buffer, halvings, key) { buffer } else { items }
}

/// Sorts `items` with the help of `buffer`, halving them `halvings` times; whether the result is in `buffer`.
fn runs<T: Copy + Send + Sync>(
    items: &mut [T],
    buffer: &mut [T],
    halvings: u32,
    key: impl Fn(T) -> u32 + Copy + Send + Sync,
) -> bool {
    if halvings == 0 {
        run(items, buffer, key);
        return true;
    }
    let middle = items.len() / 2;
    let (left, right) = items.split_at_mut(middle);
    let (left_buffer, right_buffer) = buffer.split_at_mut(middle);
    let (in_buffer, _) = rayon::join(
        || runs(left, left_buffer, halvings - 1, key),
        || runs(right, right_buffer, halvings - 1, key),
    );
    if in_buffer {
        merge(left_buffer, right_buffer, items, key);
    } else {
        merge(left, right, buffer, key);
    }
    !in_buffer
}

/// Sorts `items` into `buffer`, one digit after the other from the lowest.
fn run<T: Copy>(items: &mut [T], buffer: &mut [T], key: impl Fn(T) -> u32 + Copy) {
    let digit = |item: T, pass: usize| (key(item) >> (pass as u32 * DIGIT_BITS)) as usize & (DIGITS - 1);
    let mut counts = vec![[0_usize; DIGITS]; PASSES];
    for &item in items.iter() {
        for (pass, counts) in counts.iter_mut().enumerate() {
            counts[digit(item, pass)] += 1;
        }
    }
    let (mut from, mut to) = (&mut *items, &mut *buffer);
    let mut in_buffer = false;
    for (pass, counts) in counts.iter_mut().enumerate() {
        // A digit that all keys share orders nothing.
        if counts.contains(&from.len()) {
            continue;
        }
        let mut start = 0;
        for count in counts.iter_mut() {
            start += std::mem::replace(count, start);
        }
        for &item in from.iter() {
            let place = &mut counts[digit(item, pass)];
            to[*place] = item;
            *place += 1;
        }
        std::mem::swap(&mut from, &mut to);
        in_buffer = !in_buffer;
    }
    if !in_buffer {
        buffer.copy_from_slice(items);
    }
}

/// Merges two sorted runs into `into`, which has room for exactly both.
fn merge<T: Copy + Send + Sync>(
    left: &[T],
    right: &[T],
    into: &mut [T],
    key: impl Fn(T) -> u32 + Copy + Send + Sync,
) {
    if into.len() > MERGE_ALONE {
        let (a, b) = if left.len() >= right.len() {
            let middle = left.len() / 2;
            (middle, right.partition_point(|&item| key(item) < key(left[middle])))
        } else {
            let middle = right.len() / 2;
            (left.partition_point(|&item| key(item) <= key(right[middle])), middle)
        };
        let (low, high) = into.split_at_mut(a + b);
        rayon::join(
            || merge(&left[..a], &right[..b], low, key),
            || merge(&left[a..], &right[b..], high, key),
        );
        return;
    }
    let (mut a, mut b) = (0, 0);
    for place in into {
        let from_left = b == right.len() || (a < left.len() && key(left[a]) <= key(right[b]));
        if from_left {
            *place = left[a];
            a += 1;
        } else {
            *place = right[b];
            b += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Reproducible keys: multiples of an odd constant.
    fn scrambled(count: usize, mask: u32) -> Vec<u64> {
        (0..count as u64)
            .map(|i| u64::from((i as u32).wrapping_mul(2_654_435_761) & mask) << 32 | i)
            .collect()
    }

    fn key(item: u64) -> u32 {
        (item >> 32) as u32
    }

    #[test]
    fn many_elements_are_sorted_and_equal_ones_keep_their_order() {
        // Few distinct keys, keys that differ in one digit only, all kinds of keys.
        for mask in [0, 0b111, 0xff << 11, 0xff << 24, u32::MAX] {
            for count in [FEW + 1, 3 * MERGE_ALONE + 7] {
                let items = scrambled(count, mask);
                let mut expected = items.clone();
                expected.sort_unstable();
                assert_eq!(by_key(items, key), expected, "{mask:x}, {count}");
            }
        }
    }

    #[test]
    fn any_number_of_runs_gives_the_same() {
        let items = scrambled(200_001, 0x0003_ffff);
        let mut expected = items.clone();
        expected.sort_unstable();
        for halvings in 0..5 {
            let (mut items, mut buffer) = (items.clone(), vec![0; items.len()]);
            let in_buffer = runs(&mut items, &mut buffer, halvings, key);
            assert_eq!(if in_buffer { buffer } else { items }, expected, "{halvings}");
        }
    }

    proptest! {
        #[test]
        fn two_runs_become_one(
            mut left in prop::collection::vec(0_u32..20, 0..50),
            mut right in prop::collection::vec(0_u32..20, 0..50),
        ) {
            left.sort_unstable();
            right.sort_unstable();
            let mut merged = vec![0; left.len() + right.len()];
            merge(&left, &right, &mut merged, |k| k);
            let mut expected = [left, right].concat();
            expected.sort_unstable();
            prop_assert_eq!(merged, expected);
        }
    }
}
