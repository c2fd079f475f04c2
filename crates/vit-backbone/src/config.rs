//! Every size and option of a network, and what each family does by default.

use serde::{Deserialize, Serialize};

use crate::Error;

/// The reference implementation whose conventions a network follows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Family {
    /// timm's `VisionTransformer` (also the JAX weights and DINO v1 as timm carries them).
    TimmVit,
    /// timm's CLIP image towers.
    TimmClip,
    /// timm's `DINOv2` without registers.
    TimmDinov2,
    /// timm's `DINOv2` with registers (positions for the patches only).
    TimmDinov2Reg,
    /// timm's `DINOv3` (class `Eva`, rotary positions).
    TimmDinov3,
    /// timm's EVA-02 (class `Eva`, a position table and rotary positions).
    TimmEva02,
    /// `transformers` `ViTModel` (also DINO v1 as the hub carries it).
    HfVit,
    /// `transformers` `CLIPVisionModel`.
    HfClipVision,
    /// `transformers` `Dinov2Model`.
    HfDinov2,
    /// `transformers` `Dinov2WithRegistersModel`.
    HfDinov2Reg,
    /// `transformers` `DINOv3ViTModel`.
    HfDinov3,
    /// The authors' DINO v1 code.
    FbDino,
    /// The authors' `DINOv2` code, with or without registers.
    FbDinov2,
    /// L. Melas' `pytorch_pretrained_vit`, the backbone of Transformaly.
    PytorchPretrainedVit,
}

/// The non-linearity of the feed-forward part.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Activation {
    /// `x/2 (1 + erf(x/√2))`: every family but the two below.
    GeluErf,
    /// `x sigmoid(1.702 x)`: `OpenAI`'s CLIP.
    QuickGelu,
    /// `silu(gate) * value`, then the output layer: the giant `DINOv2`, the larger `DINOv3` and EVA-02.
    Swiglu,
}

/// Which of the query, key and value projections have a bias.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum QkvBias {
    /// All three.
    All,
    /// Query and value, not the key (`DINOv3`, EVA-02).
    QueryValue,
    /// None.
    None,
}

/// How a position table is brought to another grid of patches.
///
/// The row of the class token, where there is one, is never touched. Source coordinates, kernels and edges:
/// `torch.nn.functional.interpolate` without and with `antialias`, and `scipy.ndimage.zoom` of order 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Resampling {
    /// Another grid is refused.
    None,
    /// Cubic with a = -0.75, four taps, clamped at the edge, step old/new (`transformers`; anomalib with timm).
    Bicubic,
    /// Cubic with a = -0.5, widened when shrinking, normalised at the edge (timm; `DINOv2` with registers).
    BicubicAntialias,
    /// As [`Resampling::Bicubic`] with step old/(new + 0.1) (the authors' DINO and `DINOv2`).
    BicubicScaleFactorOffset,
    /// Linear, step old/new, no antialias (timm reading Google's `.npz` files).
    Bilinear,
    /// Linear with aligned corners, step (old - 1)/(new - 1) (`pytorch_pretrained_vit`).
    LinearAlignCorners,
}

/// How a network knows where a patch lies.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Positions {
    /// A learned table, added before block 0. Its length says whether its first row is the class token's.
    Table(Resampling),
    /// Rotary positions on the queries and keys of the patches (`DINOv3`), with this base.
    Rope {
        /// Base of the geometric series of frequencies (100 in every published checkpoint).
        base: f64,
    },
    /// Both: a table before block 0, and rotary positions on neighbouring channels by whole patches, counted as on the
    /// reference's grid whatever the image's own (EVA-02).
    TableAndRope {
        /// How the table is brought to another grid.
        resampling: Resampling,
        /// Base of the geometric series of frequencies (10 000 in every published checkpoint).
        base: f64,
        /// Side of the square grid that the rotary positions were trained on (16 in every published checkpoint).
        reference: usize,
    },
}

impl Positions {
    /// How the learned table is resampled, where there is one.
    pub fn table(&self) -> Option<Resampling> {
        match self {
            Self::Table(resampling) | Self::TableAndRope { resampling, .. } => Some(*resampling),
            Self::Rope { .. } => None,
        }
    }
}

/// What the pooled vector `(B, D)` of a network is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Pooling {
    /// Class token of the normed tokens.
    ClassToken,
    /// `tanh` of a linear layer on the class token of the normed tokens (`ViTModel`).
    TanhPooler,
    /// Mean of the normed patch tokens.
    Mean,
    /// Mean of the patch tokens, then its own norm; there is no norm before it.
    MeanThenNorm,
}

/// Sizes and options of one block.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[allow(clippy::struct_excessive_bools)] // independent facts about a block
pub struct BlockConfig {
    /// Token width D.
    pub dim: usize,
    /// Attention heads; divides `dim`.
    pub heads: usize,
    /// Hidden width of the feed-forward part; of one half where it is gated.
    pub mlp_hidden: usize,
    /// Its non-linearity.
    pub activation: Activation,
    /// Added to the variance inside each norm's square root.
    pub norm_eps: f64,
    /// Whether each branch is multiplied by a learned vector before it is added.
    pub layer_scale: bool,
    /// Biases of the query, key and value projections.
    pub qkv_bias: QkvBias,
    /// Bias of the attention's output projection.
    pub proj_bias: bool,
    /// Biases of the feed-forward layers.
    pub mlp_bias: bool,
    /// Whether a layer norm stands in front of the feed-forward part's output layer.
    pub mlp_norm: bool,
}

/// Sizes and options of a whole network.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(clippy::struct_excessive_bools)] // independent facts about a network, stored under these names
pub struct VitConfig {
    /// Whose conventions it follows.
    pub family: Family,
    /// Token width D.
    pub dim: usize,
    /// Number of blocks.
    pub depth: usize,
    /// Attention heads; divides `dim`.
    pub heads: usize,
    /// Height and width of a patch in pixels.
    pub patch: (usize, usize),
    /// Height and width in pixels of the images the position table was trained for.
    pub trained_size: (usize, usize),
    /// Hidden width of the feed-forward part; of one half where it is gated.
    pub mlp_hidden: usize,
    /// Its non-linearity.
    pub activation: Activation,
    /// Added to the variance inside each norm's square root.
    pub norm_eps: f64,
    /// Whether the blocks have `LayerScale`.
    pub layer_scale: bool,
    /// Whether there is a class token, in front of everything else.
    pub class_token: bool,
    /// Register tokens between the class token and the patches.
    pub registers: usize,
    /// Whether a layer norm stands before block 0 (CLIP).
    pub pre_norm: bool,
    /// Whether the patch projection has a bias.
    pub patch_bias: bool,
    /// Biases of the query, key and value projections.
    pub qkv_bias: QkvBias,
    /// Bias of the attention's output projection.
    pub proj_bias: bool,
    /// Biases of the feed-forward layers.
    pub mlp_bias: bool,
    /// Whether a layer norm stands in front of each feed-forward part's output layer (the larger EVA-02).
    #[serde(default)]
    pub mlp_norm: bool,
    /// Position table or rotary positions.
    pub positions: Positions,
    /// What the pooled vector is.
    pub pooling: Pooling,
    /// Width of the classification head, where one is to be read.
    pub classes: Option<usize>,
}

impl VitConfig {
    /// What `family` does by default, for square patches and images.
    ///
    /// `mlp_hidden` is `4 dim` (two thirds of that for EVA-02); change any field afterwards. [`VitConfig::validate`] is called when a network is built.
    pub const fn new(
        family: Family,
        (dim, depth, heads): (usize, usize, usize),
        patch: usize,
        trained_size: usize,
    ) -> Self {
        let (dinov3, clip) = (
            matches!(family, Family::TimmDinov3 | Family::HfDinov3),
            matches!(family, Family::TimmClip | Family::HfClipVision),
        );
        let eva02 = matches!(family, Family::TimmEva02);
        Self {
            family,
            dim,
            depth,
            heads,
            patch: (patch, patch),
            trained_size: (trained_size, trained_size),
            mlp_hidden: if eva02 { 8 * dim / 3 } else { 4 * dim },
            activation: match family {
                Family::TimmClip | Family::HfClipVision => Activation::QuickGelu,
                Family::TimmEva02 => Activation::Swiglu,
                _ => Activation::GeluErf,
            },
            norm_eps: match family {
                Family::HfVit => 1e-12,
                Family::TimmClip | Family::HfClipVision | Family::TimmDinov3 | Family::HfDinov3 => 1e-5,
                _ => 1e-6,
            },
            layer_scale: family.has_layer_scale(),
            class_token: true,
            registers: match family {
                Family::TimmDinov2Reg | Family::HfDinov2Reg | Family::TimmDinov3 | Family::HfDinov3 => 4,
                _ => 0,
            },
            pre_norm: clip,
            patch_bias: !clip,
            qkv_bias: match family {
                Family::HfDinov3 | Family::TimmEva02 => QkvBias::QueryValue,
                Family::TimmDinov3 => QkvBias::None,
                _ => QkvBias::All,
            },
            proj_bias: true,
            mlp_bias: true,
            mlp_norm: false,
            positions: if dinov3 {
                Positions::Rope { base: 100.0 }
            } else if eva02 {
                Positions::TableAndRope { resampling: family.resampling(), base: 10_000.0, reference: 16 }
            } else {
                Positions::Table(family.resampling())
            },
            pooling: match family {
                Family::HfVit => Pooling::TanhPooler,
                Family::TimmDinov3 => Pooling::Mean,
                Family::TimmEva02 => Pooling::MeanThenNorm,
                _ => Pooling::ClassToken,
            },
            classes: None,
        }
    }

    /// Refuses what no network can be built from, naming the field.
    ///
    /// # Errors
    /// [`Error::Config`] for a zero size, heads that do not divide the width, rotary positions on a head width that
    /// is no multiple of 4, pooling of a class token that is not there.
    pub fn validate(&self) -> Result<(), Error> {
        let refuse = |field: &str, expected: &str, found: String| {
            Err(Error::Config { field: field.to_owned(), expected: expected.to_owned(), found })
        };
        for (field, value) in [
            ("dim", self.dim),
            ("depth", self.depth),
            ("heads", self.heads),
            ("patch[0]", self.patch.0),
            ("patch[1]", self.patch.1),
            ("mlp_hidden", self.mlp_hidden),
        ] {
            if value == 0 {
                return refuse(field, "at least 1", "0".to_owned());
            }
        }
        if !self.dim.is_multiple_of(self.heads) {
            return refuse(
                "heads",
                "a divisor of dim",
                format!("{} for a width of {}", self.heads, self.dim),
            );
        }
        if !(self.norm_eps.is_finite() && self.norm_eps > 0.0) {
            return refuse("norm_eps", "a positive number", self.norm_eps.to_string());
        }
        let grid = self.trained_grid();
        if grid.0 == 0 || grid.1 == 0 {
            return refuse("trained_size", "at least one patch", format!("{:?}", self.trained_size));
        }
        if let Positions::Rope { base } | Positions::TableAndRope { base, .. } = self.positions {
            if !(self.dim / self.heads).is_multiple_of(4) {
                let found = format!("a head width of {}", self.dim / self.heads);
                return refuse(
                    "positions",
                    "a head width that is a multiple of 4 for rotary positions",
                    found,
                );
            }
            if !(base.is_finite() && base > 0.0) {
                return refuse("positions.rope.base", "a positive number", base.to_string());
            }
        }
        if let Positions::TableAndRope { reference: 0, .. } = self.positions {
            return refuse("positions.table_and_rope.reference", "at least 1", "0".to_owned());
        }
        if !self.class_token && matches!(self.pooling, Pooling::ClassToken | Pooling::TanhPooler) {
            return refuse(
                "pooling",
                "mean or mean_then_norm without a class token",
                format!("{:?}", self.pooling),
            );
        }
        Ok(())
    }

    /// Tokens in front of the patches: class token, then registers.
    pub fn prefix_tokens(&self) -> usize {
        usize::from(self.class_token) + self.registers
    }

    /// Rows and columns of patches of an image of `height` by `width` pixels; a remainder is left out.
    pub fn grid(&self, height: usize, width: usize) -> (usize, usize) {
        (height / self.patch.0.max(1), width / self.patch.1.max(1))
    }

    /// Rows and columns of patches the position table was trained for.
    pub fn trained_grid(&self) -> (usize, usize) {
        self.grid(self.trained_size.0, self.trained_size.1)
    }

    /// Whether the last block is followed by a layer norm over all tokens.
    pub fn final_norm(&self) -> bool {
        self.pooling != Pooling::MeanThenNorm
    }

    /// Sizes and options of each block.
    pub fn block(&self) -> BlockConfig {
        BlockConfig {
            dim: self.dim,
            heads: self.heads,
            mlp_hidden: self.mlp_hidden,
            activation: self.activation,
            norm_eps: self.norm_eps,
            layer_scale: self.layer_scale,
            qkv_bias: self.qkv_bias,
            proj_bias: self.proj_bias,
            mlp_bias: self.mlp_bias,
            mlp_norm: self.mlp_norm,
        }
    }
}

impl Family {
    /// How the family's own code resamples its position table.
    ///
    /// The authors' `DINOv2` hub entries with registers differ from those without: set
    /// [`Resampling::BicubicAntialias`] for them.
    pub const fn resampling(self) -> Resampling {
        match self {
            Self::TimmVit
            | Self::TimmClip
            | Self::TimmDinov2
            | Self::TimmDinov2Reg
            | Self::TimmEva02
            | Self::HfDinov2Reg => Resampling::BicubicAntialias,
            Self::HfVit | Self::HfClipVision | Self::HfDinov2 => Resampling::Bicubic,
            Self::FbDino | Self::FbDinov2 => Resampling::BicubicScaleFactorOffset,
            Self::PytorchPretrainedVit => Resampling::LinearAlignCorners,
            // No table to resample.
            Self::TimmDinov3 | Self::HfDinov3 => Resampling::None,
        }
    }

    const fn has_layer_scale(self) -> bool {
        matches!(
            self,
            Self::TimmDinov2
                | Self::TimmDinov2Reg
                | Self::TimmDinov3
                | Self::HfDinov2
                | Self::HfDinov2Reg
                | Self::HfDinov3
                | Self::FbDinov2
        )
    }
}

/// Hidden width of `DINOv2`'s gated feed-forward part: two thirds of `ratio * dim`, rounded up to a multiple of 8.
pub fn dinov2_swiglu_hidden(dim: usize, ratio: f64) -> usize {
    let full = (dim as f64 * ratio) as usize;
    (full * 2 / 3).next_multiple_of(8)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn giant_has_the_published_hidden_width() {
        assert_eq!(dinov2_swiglu_hidden(1536, 4.0), 4096);
    }

    #[test]
    fn a_bad_field_is_named() {
        let good = VitConfig::new(Family::TimmVit, (48, 2, 4), 8, 32);
        good.validate().unwrap();
        let mut bad = good.clone();
        bad.heads = 5;
        assert!(bad.validate().unwrap_err().to_string().contains("heads"));
        let mut bad = good.clone();
        bad.class_token = false;
        assert!(bad.validate().unwrap_err().to_string().contains("pooling"));
        let mut bad = good.clone();
        bad.trained_size = (4, 32);
        assert!(bad.validate().unwrap_err().to_string().contains("trained_size"));
        let mut bad = good;
        bad.positions = Positions::Rope { base: 100.0 };
        bad.heads = 8;
        assert!(bad.validate().unwrap_err().to_string().contains("positions"));
    }

    #[test]
    fn a_config_survives_json() {
        for family in [Family::HfDinov3, Family::PytorchPretrainedVit, Family::TimmClip, Family::TimmEva02] {
            let config = VitConfig::new(family, (48, 2, 4), 8, 32);
            let text = serde_json::to_string(&config).unwrap();
            assert_eq!(serde_json::from_str::<VitConfig>(&text).unwrap(), config);
        }
        let text = serde_json::to_string(&VitConfig::new(Family::TimmVit, (48, 2, 4), 8, 32)).unwrap();
        assert!(serde_json::from_str::<VitConfig>(&text.replace("\"dim\"", "\"width\"")).is_err());
        // Descriptions from before there was this field.
        let older = text.replace("\"mlp_norm\":false,", "");
        assert_ne!(older, text);
        serde_json::from_str::<VitConfig>(&older).unwrap();
    }
}
