//! At which size, and against which mask, maps are evaluated.

use std::num::NonZeroUsize;

use serde::{Deserialize, Serialize};

/// Where maps and masks meet. Papers differ here, and their numbers with them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Resolution {
    /// Maps are enlarged (bilinear, half-pixel centres) to the size of the image file.
    #[default]
    Original,
    /// Masks are shrunk to the network's input, as the method's preprocessing shrinks the image.
    Network,
}

/// Which mask samples count as anomalous, and how a mask is brought to another size.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum MaskRule {
    /// Every sample above 0; resized by nearest neighbour as `torch` does it (source index `floor(i * in / out)`).
    #[default]
    NonzeroNearest,
    /// GeneralAD's: resized with Lanczos, then every sample above 0. It grows the regions.
    LanczosNonzero,
}

/// How pixel metrics are to be computed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct EvalSpec {
    /// Where maps and masks meet.
    pub resolution: Resolution,
    /// What counts as anomalous.
    pub mask: MaskRule,
    /// The side in pixels of the square by which GeneralAD's and SimpleNet's references enlarge what they found before they
    /// compute their PRO: the backbone's patches have it in GeneralAD, 5 in SimpleNet. Their figure is reported beside
    /// AU-PRO then; it is higher, and not to be compared with it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reference_pro_square: Option<NonZeroUsize>,
}
