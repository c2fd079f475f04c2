//! A number of something, or all of it.

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// How many of N: a number, or all. In files `"all"` or the number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Amount {
    /// All N.
    All,
    /// So many, at least 1; all if there are fewer.
    Of(usize),
}

impl Amount {
    /// How many that is of `n`.
    pub fn of(self, n: usize) -> usize {
        match self {
            Self::All => n,
            Self::Of(count) => count.min(n),
        }
    }
}

impl std::fmt::Display for Amount {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::All => f.write_str("all"),
            Self::Of(count) => write!(f, "{count}"),
        }
    }
}

impl Serialize for Amount {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::All => serializer.serialize_str("all"),
            Self::Of(count) => serializer.serialize_u64(*count as u64),
        }
    }
}

impl<'de> Deserialize<'de> for Amount {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Written {
            Number(usize),
            Word(String),
        }
        let wrong = || D::Error::custom("expected \"all\" or a whole number from 1 on");
        match Written::deserialize(deserializer).map_err(|_| wrong())? {
            Written::Number(count) if count > 0 => Ok(Self::Of(count)),
            Written::Word(word) if word == "all" => Ok(Self::All),
            _ => Err(wrong()),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::Amount;

    #[test]
    fn amounts_are_read_and_written_and_others_refused() {
        for (text, amount) in [("\"all\"", Amount::All), ("7", Amount::Of(7))] {
            assert_eq!(serde_json::from_str::<Amount>(text).unwrap(), amount);
            assert_eq!(serde_json::to_string(&amount).unwrap(), text);
        }
        for wrong in ["0", "-1", "\"most\"", "1.5", "null"] {
            let message = serde_json::from_str::<Amount>(wrong).unwrap_err().to_string();
            assert!(message.contains("\"all\""), "{message}");
        }
        assert_eq!((Amount::All.of(4), Amount::Of(3).of(4), Amount::Of(9).of(4)), (4, 3, 4));
    }
}
