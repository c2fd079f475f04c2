//! In which arithmetic a run's matrix products are done.

use serde::{Deserialize, Serialize};

/// The resolved arithmetic of a run; part of a cell's id, of every record and of every detector.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Precision {
    /// 32-bit floats throughout (fits and metrics in 64 bits).
    #[default]
    F32,
    /// Products as three bf16 products with f32 sums: a relative error of about 4e-6.
    Bf16x3,
    /// Products in bf16 with f32 sums: a relative error of about 2e-3.
    Bf16,
}

impl Precision {
    /// The name used in records and on command lines.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::Bf16x3 => "bf16x3",
            Self::Bf16 => "bf16",
        }
    }
}

impl std::fmt::Display for Precision {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}
