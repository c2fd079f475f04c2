//! The nearest of the names that exist, for errors.

/// The known name that `name` most likely stands for, if any is near.
pub(crate) fn nearest<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    known
        .into_iter()
        .map(|k| (strsim::damerau_levenshtein(k, name), k))
        .min()
        .filter(|(distance, k)| *distance <= k.len().max(name.len()) / 2)
        .map(|(_, k)| k)
}

#[cfg(test)]
mod tests {
    use super::nearest;

    #[test]
    fn a_typo_has_a_nearest_name_and_nonsense_has_none() {
        assert_eq!(nearest("catgories", ["seed", "categories"]), Some("categories"));
        assert_eq!(nearest("zzzz", ["seed", "categories"]), None);
    }
}
