//! The tensor names of published checkpoints, and the one set of names this crate uses inside.
//!
//! Inside, the tensors of a block carry timm's names with queries, keys and values fused and gates packed:
//! `norm1.{weight,bias}`, `attn.qkv.weight`, `attn.qkv.bias` (or `attn.q_bias`, `attn.v_bias`),
//! `attn.proj.{weight,bias}`, `ls1.gamma`, `norm2.{weight,bias}`, `mlp.fc1.{weight,bias}`, `mlp.fc2.{weight,bias}`,
//! `ls2.gamma`. Those outside of the blocks: `patch_embed.proj.{weight,bias}`, `cls_token`, `reg_token`, `pos_embed`,
//! `norm_pre.{weight,bias}`, `norm.{weight,bias}`, `fc_norm.{weight,bias}`, `pooler.dense.{weight,bias}`,
//! `head.{weight,bias}`.

use candle_core::Tensor;
use serde::{Deserialize, Serialize};

use crate::checkpoint::Checkpoint;
use crate::{Activation, BlockConfig, Error, QkvBias};

/// How a checkpoint file names its tensors.
///
/// A prefix in front of everything (`vit.`, `dinov2.`, `dinov2_with_registers.`, `dinov3_vit.`, `vision_model.`,
/// `module.`, `backbone.`) belongs to no scheme; [`NameScheme::detect`] finds it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum NameScheme {
    /// timm's `VisionTransformer`: ViT, DINO v1, `DINOv2`, CLIP.
    Timm,
    /// timm's `Eva`: `DINOv3`.
    TimmEva,
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
pub(crate) const PREFIXES: [&str; 8] =
    ["", "vit.", "dinov2.", "dinov2_with_registers.", "dinov3_vit.", "vision_model.", "module.", "backbone."];

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
    qkv: QkvNames,
    proj: &'static str,
    scales: Option<[&'static str; 2]>,
    mlp: [&'static str; 2],
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
        qkv: QkvNames::Fused("attn.qkv", ["attn.q_bias", "attn.v_bias"]),
        proj: "attn.proj",
        scales: Some(["ls1.gamma", "ls2.gamma"]),
        mlp: ["mlp.fc1", "mlp.fc2"],
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
        qkv: QkvNames::Split([
            "attention.attention.query",
            "attention.attention.key",
            "attention.attention.value",
        ]),
        proj: "attention.output.dense",
        scales: None,
        mlp: ["intermediate.dense", "output.dense"],
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
        qkv: QkvNames::Split(["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"]),
        proj: "self_attn.out_proj",
        scales: None,
        mlp: ["mlp.fc1", "mlp.fc2"],
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
        qkv: QkvNames::Split(["attention.q_proj", "attention.k_proj", "attention.v_proj"]),
        proj: "attention.o_proj",
        scales: Some(["layer_scale1.lambda1", "layer_scale2.lambda1"]),
        mlp: ["mlp.up_proj", "mlp.down_proj"],
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
        qkv: QkvNames::Split(["attn.proj_q", "attn.proj_k", "attn.proj_v"]),
        proj: "proj",
        scales: None,
        mlp: ["pwff.fc1", "pwff.fc2"],
        swiglu: &[],
        ignored: &[],
    },
};

impl NameScheme {
    /// Every scheme.
    pub const ALL: [Self; 8] = [
        Self::Timm,
        Self::TimmEva,
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
            Self::Original => &ORIGINAL,
            Self::HfVit => &HF_VIT,
            Self::HfDinov2 => &HF_DINOV2,
            Self::HfClip => &HF_CLIP,
            Self::HfDinov3 => &HF_DINOV3,
            Self::PytorchPretrainedVit => &PYTORCH_PRETRAINED_VIT,
        }
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

    /// The tensors of one block under this scheme's names (without the block's own prefix such as `blocks.0.`), from
    /// those under this crate's names; any other tensors of the same shapes (gradients) will do.
    ///
    /// Fused queries, keys and values are split where the scheme splits them, packed gates likewise. What `tensors`
    /// lacks is left out.
    ///
    /// # Errors
    /// [`Error::Unsupported`] if the scheme has no name for a tensor of the block.
    pub fn block_tensors(
        self,
        config: &BlockConfig,
        tensors: &[(String, Tensor)],
    ) -> Result<Vec<(String, Tensor)>, Error> {
        let names = &self.names().block;
        let mut out = Vec::with_capacity(tensors.len() + 8);
        let nameless = |what: &str| Error::Unsupported {
            what: format!("{what} under the names of {self:?}"),
            reason: "that naming scheme has no such tensor".to_owned(),
        };
        for (name, tensor) in tensors {
            let (layer, kind) = name.rsplit_once('.').unwrap_or((name, ""));
            match layer {
                "norm1" => out.push((format!("{}.{kind}", names.norm1), tensor.clone())),
                "norm2" => out.push((format!("{}.{kind}", names.norm2), tensor.clone())),
                "attn.proj" => out.push((format!("{}.{kind}", names.proj), tensor.clone())),
                "ls1" | "ls2" => {
                    let scales = names.scales.ok_or_else(|| nameless("LayerScale"))?;
                    out.push((scales[usize::from(layer == "ls2")].to_owned(), tensor.clone()));
                }
                "attn.qkv" => match names.qkv {
                    QkvNames::Fused(fused, _) => out.push((format!("{fused}.{kind}"), tensor.clone())),
                    QkvNames::Split(split) => {
                        for (part, layer) in split.iter().enumerate() {
                            let rows = tensor.narrow(0, part * config.dim, config.dim)?;
                            out.push((format!("{layer}.{kind}"), rows.contiguous()?));
                        }
                    }
                },
                "attn" => {
                    let part = if kind == "q_bias" { 0 } else { 1 };
                    match names.qkv {
                        QkvNames::Fused(_, biases) => out.push((biases[part].to_owned(), tensor.clone())),
                        QkvNames::Split(split) => {
                            out.push((format!("{}.bias", split[2 * part]), tensor.clone()))
                        }
                    }
                }
                "mlp.fc1" if config.activation == Activation::Swiglu => {
                    match names.swiglu.first().ok_or_else(|| nameless("a gated MLP"))? {
                        GateNames::Packed([input, _]) => {
                            out.push((format!("{input}.{kind}"), tensor.clone()))
                        }
                        GateNames::Split([gate, value, _]) => {
                            for (part, layer) in [gate, value].into_iter().enumerate() {
                                let rows = tensor.narrow(0, part * config.mlp_hidden, config.mlp_hidden)?;
                                out.push((format!("{layer}.{kind}"), rows.contiguous()?));
                            }
                        }
                    }
                }
                "mlp.fc2" if config.activation == Activation::Swiglu => {
                    let (GateNames::Packed([_, output]) | GateNames::Split([_, _, output])) =
                        names.swiglu.first().ok_or_else(|| nameless("a gated MLP"))?;
                    out.push((format!("{output}.{kind}"), tensor.clone()));
                }
                "mlp.fc1" => out.push((format!("{}.{kind}", names.mlp[0]), tensor.clone())),
                "mlp.fc2" => out.push((format!("{}.{kind}", names.mlp[1]), tensor.clone())),
                _ => return Err(nameless(name)),
            }
        }
        Ok(out)
    }
}

/// Reads one block under this crate's names; `start` is the block's own prefix, for instance `blocks.0.`.
///
/// Every tensor below `start` has to find its place: one left over would mean another network than the
/// configuration's.
pub(crate) fn read_block(
    scheme: NameScheme,
    config: &BlockConfig,
    checkpoint: &mut Checkpoint,
    start: &str,
) -> Result<Vec<(String, Tensor)>, Error> {
    use crate::checkpoint::Axis::Is;

    let names = &scheme.names().block;
    let dim = config.dim;
    let mut block = Vec::with_capacity(14);

    // Layers of one tensor each, under the file's name and ours.
    let plain = |checkpoint: &mut Checkpoint, theirs: &str, ours: &str, shape: [usize; 2], bias: bool| {
        let mut read = vec![(
            format!("{ours}.weight"),
            checkpoint.get(&format!("{start}{theirs}.weight"), &[Is(shape[0]), Is(shape[1])])?,
        )];
        if bias {
            read.push((
                format!("{ours}.bias"),
                checkpoint.get(&format!("{start}{theirs}.bias"), &[Is(shape[0])])?,
            ));
        }
        Ok::<_, Error>(read)
    };
    // Several layers whose rows are joined into one.
    let joined = |checkpoint: &mut Checkpoint, theirs: &[&str], ours: &str, shape: [usize; 2], bias: bool| {
        let mut read = Vec::with_capacity(2);
        let mut parts = Vec::with_capacity(theirs.len());
        for layer in theirs {
            parts.push(checkpoint.get(&format!("{start}{layer}.weight"), &[Is(shape[0]), Is(shape[1])])?);
        }
        read.push((format!("{ours}.weight"), Tensor::cat(&parts, 0)?));
        if bias {
            parts.clear();
            for layer in theirs {
                parts.push(checkpoint.get(&format!("{start}{layer}.bias"), &[Is(shape[0])])?);
            }
            read.push((format!("{ours}.bias"), Tensor::cat(&parts, 0)?));
        }
        Ok::<_, Error>(read)
    };
    let norm = |checkpoint: &mut Checkpoint, theirs: &str, ours: &str| {
        Ok::<_, Error>([
            (format!("{ours}.weight"), checkpoint.get(&format!("{start}{theirs}.weight"), &[Is(dim)])?),
            (format!("{ours}.bias"), checkpoint.get(&format!("{start}{theirs}.bias"), &[Is(dim)])?),
        ])
    };

    block.extend(norm(checkpoint, names.norm1, "norm1")?);
    let all = config.qkv_bias == QkvBias::All;
    match names.qkv {
        QkvNames::Fused(layer, _) => block.extend(plain(checkpoint, layer, "attn.qkv", [3 * dim, dim], all)?),
        QkvNames::Split(layers) => block.extend(joined(checkpoint, &layers, "attn.qkv", [dim, dim], all)?),
    }
    if config.qkv_bias == QkvBias::QueryValue {
        let biases = match names.qkv {
            QkvNames::Fused(_, biases) => biases.map(str::to_owned),
            QkvNames::Split([query, _, value]) => [format!("{query}.bias"), format!("{value}.bias")],
        };
        for (theirs, ours) in biases.iter().zip(["attn.q_bias", "attn.v_bias"]) {
            block.push((ours.to_owned(), checkpoint.get(&format!("{start}{theirs}"), &[Is(dim)])?));
        }
    }
    block.extend(plain(checkpoint, names.proj, "attn.proj", [dim, dim], config.proj_bias)?);
    let scale = |checkpoint: &mut Checkpoint, which: usize| {
        let Some(scales) = names.scales else {
            return Err(Error::Unsupported {
                what: format!("LayerScale under the names of {scheme:?}"),
                reason: "that naming scheme has no such tensor; set layer_scale to false".to_owned(),
            });
        };
        let tensor = checkpoint.get(&format!("{start}{}", scales[which]), &[Is(dim)])?;
        Ok((format!("ls{}.gamma", which + 1), tensor))
    };
    if config.layer_scale {
        block.push(scale(checkpoint, 0)?);
    }
    block.extend(norm(checkpoint, names.norm2, "norm2")?);

    let (hidden, bias) = (config.mlp_hidden, config.mlp_bias);
    if config.activation == Activation::Swiglu {
        // The way to store gates that this file uses; the scheme's own where neither is there, for the message.
        let stored = names.swiglu.iter().find(|gate| {
            let (GateNames::Packed([first, _]) | GateNames::Split([first, ..])) = gate;
            checkpoint.contains(&format!("{start}{first}.weight"))
        });
        let output = match stored.or_else(|| names.swiglu.first()) {
            Some(GateNames::Packed([input, output])) => {
                block.extend(plain(checkpoint, input, "mlp.fc1", [2 * hidden, dim], bias)?);
                output
            }
            Some(GateNames::Split([gate, value, output])) => {
                block.extend(joined(checkpoint, &[gate, value], "mlp.fc1", [hidden, dim], bias)?);
                output
            }
            None => {
                return Err(Error::Unsupported {
                    what: format!("a gated MLP under the names of {scheme:?}"),
                    reason: "that naming scheme has no such tensors".to_owned(),
                });
            }
        };
        block.extend(plain(checkpoint, output, "mlp.fc2", [dim, hidden], bias)?);
    } else {
        block.extend(plain(checkpoint, names.mlp[0], "mlp.fc1", [hidden, dim], bias)?);
        block.extend(plain(checkpoint, names.mlp[1], "mlp.fc2", [dim, hidden], bias)?);
    }
    if config.layer_scale {
        block.push(scale(checkpoint, 1)?);
    }

    let left = checkpoint.unread(start).into_iter().find(|name| {
        let within = name.strip_prefix(start).unwrap_or(name);
        !names.ignored.contains(&within)
    });
    match left {
        Some(tensor) => Err(Error::UnexpectedTensor {
            tensor,
            checkpoint: checkpoint.label().to_owned(),
            reason: format!(
                "a block here has {:?}, layer_scale {}, qkv bias {:?}, proj_bias {}, mlp_bias {}",
                config.activation, config.layer_scale, config.qkv_bias, config.proj_bias, config.mlp_bias
            ),
        }),
        None => Ok(block),
    }
}

/// How many blocks a checkpoint holds: one more than the highest number behind `start`.
pub(crate) fn count_blocks(checkpoint: &Checkpoint, start: &str) -> usize {
    checkpoint
        .names()
        .into_iter()
        .filter_map(|name| name.strip_prefix(start)?.split('.').next()?.parse::<usize>().ok())
        .max()
        .map_or(0, |highest| highest + 1)
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
        assert_eq!(detect(&["patch_embed.proj.weight", "blocks.0.gamma_1"]), Some((NameScheme::TimmEva, "")));
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
