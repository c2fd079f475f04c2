//! The tensor names of published checkpoints, and the one set of names this crate uses inside.
//!
//! Inside, the tensors of a block carry timm's names with queries, keys and values fused and gates packed:
//! `norm1.{weight,bias}`, `attn.qkv.weight`, `attn.qkv.bias` (or `attn.q_bias`, `attn.v_bias`),
//! `attn.proj.{weight,bias}`, `ls1.gamma`, `norm2.{weight,bias}`, `mlp.fc1.{weight,bias}`, `mlp.norm.{weight,bias}`,
//! `mlp.fc2.{weight,bias}`, `ls2.gamma`. Those outside of the blocks: `patch_embed.proj.{weight,bias}`, `cls_token`, `reg_token`, `pos_embed`,
//! `norm_pre.{weight,bias}`, `norm.{weight,bias}`, `fc_norm.{weight,bias}`, `pooler.dense.{weight,bias}`,
//! `head.{weight,bias}`.

mod blocks;

use serde::{Deserialize, Serialize};

use crate::Error;

pub(crate) use blocks::{count_blocks, read_block};

/// How a checkpoint file names its tensors.
///
/// A prefix in front of everything (`vit.`, `dinov2.`, `dinov2_with_registers.`, `dinov3_vit.`, `vision_model.`,
/// `module.`, `module.backbone.`, `backbone.`) belongs to no scheme; [`NameScheme::detect`] finds it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum NameScheme {
    /// timm's `VisionTransformer`: ViT, DINO v1, `DINOv2`, CLIP.
    Timm,
    /// timm's `Eva`: `DINOv3`.
    TimmEva,
    /// timm's `Eva`: EVA-02.
    TimmEva02,
    /// The authors' `.pth` files: DINO v1, `DINOv2`.
    Original,
    /// Hub files of `ViTModel`.
    HfVit,
    /// Hub files of `Dinov2Model` and `Dinov2WithRegistersModel`.
    HfDinov2,
    /// Hub files of CLIP.
    HfClip,
    /// Hub files of `DINOv3ViTModel`.
    HfDinov3,
    /// `pytorch_pretrained_vit`.
    PytorchPretrainedVit,
}

/// What may stand in front of every name of a checkpoint.
pub(crate) const PREFIXES: [&str; 9] = [
    "",
    "vit.",
    "dinov2.",
    "dinov2_with_registers.",
    "dinov3_vit.",
    "vision_model.",
    "module.",
    // DINO v1's full training checkpoints.
    "module.backbone.",
    "backbone.",
];

/// The names of one scheme. Bases of layers stand without `.weight` and `.bias`.
#[derive(Clone, Copy)]
pub(crate) struct Names {
    pub(crate) patch: &'static str,
    pub(crate) class_token: &'static str,
    /// The first is written; any is read.
    pub(crate) registers: &'static [&'static str],
    pub(crate) positions: Option<&'static str>,
    pub(crate) pre_norm: Option<&'static str>,
    pub(crate) blocks: &'static str,
    pub(crate) norm: &'static str,
    pub(crate) fc_norm: Option<&'static str>,
    pub(crate) pooler: Option<&'static str>,
    pub(crate) head: Option<&'static str>,
    block: BlockNames,
}

#[derive(Clone, Copy)]
struct BlockNames {
    norm1: &'static str,
    norm2: &'static str,
    /// The first is written; any is read.
    qkv: &'static [QkvNames],
    proj: &'static str,
    scales: Option<[&'static str; 2]>,
    mlp: [&'static str; 2],
    /// In front of the output layer.
    mlp_norm: Option<&'static str>,
    /// The first is written; any is read.
    swiglu: &'static [GateNames],
    /// Buffers that hold nothing.
    ignored: &'static [&'static str],
}

#[derive(Clone, Copy)]
enum QkvNames {
    /// The layer, then the biases of query and value where they stand alone.
    Fused(&'static str, [&'static str; 2]),
    Split([&'static str; 3]),
}

#[derive(Clone, Copy)]
enum GateNames {
    /// Input layer (gate first, then value), output layer.
    Packed([&'static str; 2]),
    /// Gate, value, output layer.
    Split([&'static str; 3]),
}

const TIMM_SWIGLU: &[GateNames] =
    &[GateNames::Packed(["mlp.fc1", "mlp.fc2"]), GateNames::Split(["mlp.fc1_g", "mlp.fc1_x", "mlp.fc2"])];

const TIMM: Names = Names {
    patch: "patch_embed.proj",
    class_token: "cls_token",
    registers: &["reg_token", "register_tokens"],
    positions: Some("pos_embed"),
    pre_norm: Some("norm_pre"),
    blocks: "blocks.",
    norm: "norm",
    fc_norm: Some("fc_norm"),
    // Not in timm's files: the place of `ViTModel`'s pooler among this crate's own names.
    pooler: Some("pooler.dense"),
    head: Some("head"),
    block: BlockNames {
        norm1: "norm1",
        norm2: "norm2",
        qkv: &[QkvNames::Fused("attn.qkv", ["attn.q_bias", "attn.v_bias"])],
        proj: "attn.proj",
        scales: Some(["ls1.gamma", "ls2.gamma"]),
        mlp: ["mlp.fc1", "mlp.fc2"],
        mlp_norm: Some("mlp.norm"),
        swiglu: TIMM_SWIGLU,
        ignored: &[],
    },
};

const TIMM_EVA: Names = Names {
    registers: &["reg_token"],
    positions: None,
    pre_norm: None,
    pooler: None,
    block: BlockNames {
        scales: Some(["gamma_1", "gamma_2"]),
        swiglu: &[
            GateNames::Split(["mlp.fc1_g", "mlp.fc1_x", "mlp.fc2"]),
            GateNames::Packed(["mlp.fc1", "mlp.fc2"]),
        ],
        // A zero that stands for the key's missing bias.
        ignored: &["attn.k_bias"],
        ..TIMM.block
    },
    ..TIMM
};

const TIMM_EVA02: Names = Names {
    registers: &[],
    positions: Some("pos_embed"),
    block: BlockNames {
        qkv: &[
            QkvNames::Fused("attn.qkv", ["attn.q_bias", "attn.v_bias"]),
            // The larger ones have three layers.
            QkvNames::Split(["attn.q_proj", "attn.k_proj", "attn.v_proj"]),
        ],
        scales: None,
        ..TIMM_EVA.block
    },
    ..TIMM_EVA
};

const ORIGINAL: Names = Names {
    registers: &["register_tokens"],
    pre_norm: None,
    fc_norm: None,
    pooler: None,
    block: BlockNames { swiglu: &[GateNames::Packed(["mlp.w12", "mlp.w3"])], ..TIMM.block },
    ..TIMM
};

const HF_VIT: Names = Names {
    patch: "embeddings.patch_embeddings.projection",
    class_token: "embeddings.cls_token",
    registers: &[],
    positions: Some("embeddings.position_embeddings"),
    pre_norm: None,
    blocks: "encoder.layer.",
    norm: "layernorm",
    fc_norm: None,
    pooler: Some("pooler.dense"),
    head: Some("classifier"),
    block: BlockNames {
        norm1: "layernorm_before",
        norm2: "layernorm_after",
        qkv: &[QkvNames::Split([
            "attention.attention.query",
            "attention.attention.key",
            "attention.attention.value",
        ])],
        proj: "attention.output.dense",
        scales: None,
        mlp: ["intermediate.dense", "output.dense"],
        mlp_norm: None,
        swiglu: &[],
        ignored: &[],
    },
};

const HF_DINOV2: Names = Names {
    registers: &["embeddings.register_tokens"],
    pooler: None,
    // Its classifier reads class token and mean together, which is no head of this crate.
    head: None,
    block: BlockNames {
        norm1: "norm1",
        norm2: "norm2",
        scales: Some(["layer_scale1.lambda1", "layer_scale2.lambda1"]),
        mlp: ["mlp.fc1", "mlp.fc2"],
        swiglu: &[GateNames::Packed(["mlp.weights_in", "mlp.weights_out"])],
        ..HF_VIT.block
    },
    ..HF_VIT
};

const HF_CLIP: Names = Names {
    patch: "embeddings.patch_embedding",
    class_token: "embeddings.class_embedding",
    registers: &[],
    positions: Some("embeddings.position_embedding.weight"),
    // Spelled so in every file.
    pre_norm: Some("pre_layrnorm"),
    blocks: "encoder.layers.",
    norm: "post_layernorm",
    fc_norm: None,
    pooler: None,
    head: None,
    block: BlockNames {
        norm1: "layer_norm1",
        norm2: "layer_norm2",
        qkv: &[QkvNames::Split(["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"])],
        proj: "self_attn.out_proj",
        scales: None,
        mlp: ["mlp.fc1", "mlp.fc2"],
        mlp_norm: None,
        swiglu: &[],
        ignored: &[],
    },
};

const HF_DINOV3: Names = Names {
    patch: "embeddings.patch_embeddings",
    class_token: "embeddings.cls_token",
    registers: &["embeddings.register_tokens"],
    positions: None,
    pre_norm: None,
    blocks: "layer.",
    norm: "norm",
    fc_norm: None,
    pooler: None,
    head: None,
    block: BlockNames {
        norm1: "norm1",
        norm2: "norm2",
        qkv: &[QkvNames::Split(["attention.q_proj", "attention.k_proj", "attention.v_proj"])],
        proj: "attention.o_proj",
        scales: Some(["layer_scale1.lambda1", "layer_scale2.lambda1"]),
        mlp: ["mlp.up_proj", "mlp.down_proj"],
        mlp_norm: None,
        swiglu: &[GateNames::Split(["mlp.gate_proj", "mlp.up_proj", "mlp.down_proj"])],
        ignored: &[],
    },
};

const PYTORCH_PRETRAINED_VIT: Names = Names {
    patch: "patch_embedding",
    class_token: "class_token",
    registers: &[],
    positions: Some("positional_embedding.pos_embedding"),
    pre_norm: None,
    blocks: "transformer.blocks.",
    norm: "norm",
    fc_norm: None,
    pooler: None,
    head: Some("fc"),
    block: BlockNames {
        norm1: "norm1",
        norm2: "norm2",
        qkv: &[QkvNames::Split(["attn.proj_q", "attn.proj_k", "attn.proj_v"])],
        proj: "proj",
        scales: None,
        mlp: ["pwff.fc1", "pwff.fc2"],
        mlp_norm: None,
        swiglu: &[],
        ignored: &[],
    },
};

impl NameScheme {
    /// Every scheme.
    pub const ALL: [Self; 9] = [
        Self::Timm,
        Self::TimmEva,
        Self::TimmEva02,
        Self::Original,
        Self::HfVit,
        Self::HfDinov2,
        Self::HfClip,
        Self::HfDinov3,
        Self::PytorchPretrainedVit,
    ];

    pub(crate) fn names(self) -> &'static Names {
        match self {
            Self::Timm => &TIMM,
            Self::TimmEva => &TIMM_EVA,
            Self::TimmEva02 => &TIMM_EVA02,
            Self::Original => &ORIGINAL,
            Self::HfVit => &HF_VIT,
            Self::HfDinov2 => &HF_DINOV2,
            Self::HfClip => &HF_CLIP,
            Self::HfDinov3 => &HF_DINOV3,
            Self::PytorchPretrainedVit => &PYTORCH_PRETRAINED_VIT,
        }
    }

    /// A name the scheme has to have for `what`.
    pub(crate) fn require<T>(self, name: Option<T>, what: &str) -> Result<T, Error> {
        name.ok_or_else(|| Error::Unsupported {
            what: format!("{what} under the names of {self:?}"),
            reason: "that naming scheme has no such tensors".to_owned(),
        })
    }

    /// The scheme of a checkpoint and the prefix in front of its names, from the names alone.
    ///
    /// The authors' files are told from timm's only where they differ (registers, gates); both read the same
    /// otherwise.
    pub fn detect<'a>(names: impl IntoIterator<Item = &'a str>) -> Option<(Self, &'static str)> {
        let names: std::collections::BTreeSet<&str> = names.into_iter().collect();
        let has = |prefix: &str, name: &str| names.contains(format!("{prefix}{name}").as_str());
        for prefix in PREFIXES {
            if has(prefix, "patch_embed.proj.weight") {
                let scheme = if has(prefix, "register_tokens") || has(prefix, "blocks.0.mlp.w12.weight") {
                    Self::Original
                } else if has(prefix, "pos_embed")
                    && (has(prefix, "blocks.0.attn.q_bias") || has(prefix, "blocks.0.attn.q_proj.bias"))
                {
                    Self::TimmEva02
                } else if has(prefix, "pos_embed") {
                    Self::Timm
                } else {
                    Self::TimmEva
                };
                return Some((scheme, prefix));
            }
            for (scheme, block_name) in [
                (Self::HfVit, "layernorm_before.weight"),
                (Self::HfDinov2, "norm1.weight"),
                (Self::HfClip, "layer_norm1.weight"),
                (Self::HfDinov3, "norm1.weight"),
                (Self::PytorchPretrainedVit, "attn.proj_q.weight"),
            ] {
                let names = scheme.names();
                if has(prefix, &format!("{}.weight", names.patch))
                    && has(prefix, &format!("{}0.{block_name}", names.blocks))
                {
                    return Some((scheme, prefix));
                }
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn schemes_are_told_apart_and_prefixes_found() {
        let detect = |names: &[&str]| NameScheme::detect(names.iter().copied());
        assert_eq!(
            detect(&["patch_embed.proj.weight", "pos_embed", "blocks.0.norm1.weight"]),
            Some((NameScheme::Timm, ""))
        );
        assert_eq!(
            detect(&["module.patch_embed.proj.weight", "module.pos_embed"]),
            Some((NameScheme::Timm, "module."))
        );
        assert_eq!(
            detect(&["module.backbone.patch_embed.proj.weight", "module.backbone.pos_embed"]),
            Some((NameScheme::Timm, "module.backbone."))
        );
        assert_eq!(detect(&["patch_embed.proj.weight", "blocks.0.gamma_1"]), Some((NameScheme::TimmEva, "")));
        for query in ["blocks.0.attn.q_bias", "blocks.0.attn.q_proj.bias"] {
            assert_eq!(
                detect(&["patch_embed.proj.weight", "pos_embed", query]),
                Some((NameScheme::TimmEva02, ""))
            );
        }
        assert_eq!(
            detect(&["patch_embed.proj.weight", "pos_embed", "register_tokens"]),
            Some((NameScheme::Original, ""))
        );
        assert_eq!(
            detect(&[
                "vit.embeddings.patch_embeddings.projection.weight",
                "vit.encoder.layer.0.layernorm_before.weight"
            ]),
            Some((NameScheme::HfVit, "vit."))
        );
        assert_eq!(
            detect(&[
                "dinov2.embeddings.patch_embeddings.projection.weight",
                "dinov2.encoder.layer.0.norm1.weight"
            ]),
            Some((NameScheme::HfDinov2, "dinov2."))
        );
        assert_eq!(
            detect(&["embeddings.patch_embeddings.weight", "layer.0.norm1.weight"]),
            Some((NameScheme::HfDinov3, ""))
        );
        assert_eq!(
            detect(&[
                "text_model.encoder.layers.0.layer_norm1.weight",
                "vision_model.embeddings.patch_embedding.weight",
                "vision_model.encoder.layers.0.layer_norm1.weight"
            ]),
            Some((NameScheme::HfClip, "vision_model."))
        );
        assert_eq!(
            detect(&["patch_embedding.weight", "transformer.blocks.0.attn.proj_q.weight"]),
            Some((NameScheme::PytorchPretrainedVit, ""))
        );
        assert_eq!(detect(&["conv1.weight"]), None);
    }
}
