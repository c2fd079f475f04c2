//! Lists of array indices as `sbatch` takes them.

use std::collections::BTreeSet;

/// `1,4,7-9` for 1, 4, 7, 8 and 9.
pub(crate) fn index_list(indices: &BTreeSet<u32>) -> String {
    let mut runs: Vec<(u32, u32)> = Vec::new();
    for &index in indices {
        match runs.last_mut() {
            Some((_, last)) if index == *last + 1 => *last = index,
            _ => runs.push((index, index)),
        }
    }
    let words: Vec<String> = runs
        .into_iter()
        .map(|(first, last)| if first == last { first.to_string() } else { format!("{first}-{last}") })
        .collect();
    words.join(",")
}

#[cfg(test)]
mod tests {
    use super::index_list;

    #[test]
    fn runs_are_joined_and_gaps_kept() {
        assert_eq!(index_list(&[9, 1, 4, 7, 8].into()), "1,4,7-9");
        assert_eq!(index_list(&[0].into()), "0");
        assert_eq!(index_list(&[0, 1].into()), "0-1");
    }
}
