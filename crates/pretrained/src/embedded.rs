//! Weights that are compiled into the program.

use crate::{Embedded, Source};

/// The first nine blocks of a `DINOv2` ViT-S/14 with a plain final norm, 8-bit, under Apache-2.0.
///
/// Not Meta's published `DINOv2`: the weights come from a package that used the network for saliency, and may have been
/// tuned further. `assets/dinov2-small-b9` tells the whole origin and holds the script that made the file. Tensor
/// names are those of Hugging Face's Dinov2 files.
pub static DINOV2_SMALL_B9: Embedded = Embedded {
    name: "dinov2-small-b9",
    bytes: include_bytes!("../../../assets/dinov2-small-b9/dinov2-small-b9.gguf"),
    sha256: "d32b26816929a098df5cb1885a4fb855fa19a739693d5be35c20db2a923a93c5",
    config: include_str!("../../../assets/dinov2-small-b9/config.json"),
};

/// Every embedded set of weights.
pub static ALL: [&Embedded; 1] = [&DINOV2_SMALL_B9];

/// The embedded weights of this name.
pub fn find(name: &str) -> Option<Source> {
    ALL.into_iter().find(|embedded| embedded.name == name).map(Source::Embedded)
}
