//! Names for places that don't take every character.

/// `name` as MLflow accepts it for parameters, metrics and tags: letters, digits, `_`, `-`, `.`, space, `:` and `/`, at most 250
/// characters, and nothing that would be another name as a path.
pub(crate) fn mlflow_key(name: &str) -> String {
    let plain = |c: char| if c.is_ascii_alphanumeric() || "_-. :/".contains(c) { c } else { '_' };
    let part = |part: &str| if matches!(part, "" | "." | "..") { "_".to_owned() } else { part.to_owned() };
    let parts = |key: &str| key.split('/').map(part).collect::<Vec<_>>().join("/");
    let key = parts(&name.chars().map(plain).collect::<String>());
    // The cut may leave an empty last part, which takes one character more.
    if key.len() > 250 { parts(&key[..249]) } else { key }
}

/// `name` as one folder's name, the same everywhere: letters, digits, `_`, `-` and `.`, at most 120 characters, not hidden.
pub(crate) fn folder_name(name: &str) -> String {
    let plain: String = name
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() || "_-.".contains(c) { c } else { '-' })
        .take(120)
        .collect();
    if plain.is_empty() || plain.starts_with('.') { format!("_{plain}") } else { plain }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{folder_name, mlflow_key};

    proptest! {
        #[test]
        fn no_name_leaves_its_folder(name in ".{0,300}") {
            for key in [mlflow_key(&name), folder_name(&name)] {
                let allowed = |c: char| c.is_ascii_alphanumeric() || "_-. :/".contains(c);
                prop_assert!(!key.is_empty() && key.len() <= 250 && key.chars().all(allowed), "{}", key);
                prop_assert!(!key.split('/').any(|part| matches!(part, "" | "." | "..")), "{}", key);
            }
            prop_assert!(!folder_name(&name).contains(['/', ' ', ':']));
        }
    }

    #[test]
    fn usual_names_stay_as_they_are() {
        for name in ["loss on normal test images", "train/lr", "config.loss.weight"] {
            assert_eq!(mlflow_key(name), name);
        }
        assert_eq!(mlflow_key("a//../b (c)"), "a/_/_/b _c_");
        assert_eq!(folder_name("pixel-knn/x/seed0"), "pixel-knn-x-seed0");
    }
}
