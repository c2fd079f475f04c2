//! Patterns over tensor names.

/// Whether `name` matches `pattern`, in which `*` stands for any run of characters (dots and slashes too, none at all
/// too) and nothing else is special.
///
/// ```
/// assert!(conformance::matches("w_after.*.bias", "w_after.blocks.0.fc1.bias"));
/// assert!(!conformance::matches("out.?", "out.x"));
/// ```
pub fn matches(pattern: &str, name: &str) -> bool {
    let (pattern, name) = (pattern.as_bytes(), name.as_bytes());
    let (mut p, mut n) = (0, 0);
    // Where the last star was seen and how much of the name it has swallowed: on a mismatch it swallows one more.
    let mut star: Option<(usize, usize)> = None;
    while n < name.len() {
        if pattern.get(p) == Some(&b'*') {
            star = Some((p, n));
            p += 1;
        } else if pattern.get(p) == Some(&name[n]) {
            p += 1;
            n += 1;
        } else if let Some((at, swallowed)) = star {
            star = Some((at, swallowed + 1));
            p = at + 1;
            n = swallowed + 1;
        } else {
            return false;
        }
    }
    pattern[p..].iter().all(|&c| c == b'*')
}

#[cfg(test)]
mod tests {
    use super::matches;
    use proptest::prelude::*;

    /// The definition itself, exponential and obviously right.
    fn slow(pattern: &[char], name: &[char]) -> bool {
        match pattern.split_first() {
            None => name.is_empty(),
            Some(('*', rest)) => (0..=name.len()).any(|k| slow(rest, &name[k..])),
            Some((c, rest)) => name.first() == Some(c) && slow(rest, &name[1..]),
        }
    }

    #[test]
    fn star_crosses_dots_and_slashes_and_may_be_empty() {
        assert!(matches("*", ""));
        assert!(matches("out.*", "out."));
        assert!(matches("out.*", "out.a/b.c"));
        assert!(matches("*_threshold", "out.pixel_f1_threshold"));
        assert!(matches("a*b*c", "a.b.b.c"));
        assert!(!matches("out.*", "grad.out.x"));
        assert!(!matches("out.x", "out.x1"));
        assert!(!matches("*x", "out.y"));
    }

    #[test]
    fn other_special_characters_are_plain() {
        assert!(matches("out.[a]?", "out.[a]?"));
        assert!(!matches("out.[a]", "out.a"));
        assert!(!matches("out.?", "out.x"));
    }

    proptest! {
        #[test]
        fn agrees_with_the_definition(pattern in "[ab.*é]{0,8}", name in "[ab.é]{0,12}") {
            let (p, n): (Vec<char>, Vec<char>) = (pattern.chars().collect(), name.chars().collect());
            prop_assert_eq!(matches(&pattern, &name), slow(&p, &n));
        }
    }
}
