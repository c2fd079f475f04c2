//! timm's registry, as far as its networks are this crate's.

use super::{Entry, hub};
use crate::described::timm::architecture;
use crate::{Normalisation, Recipe};

/// What most timm entries differ in.
struct Timm {
    licence: &'static str,
    fraction: f64,
    normalisation: Normalisation,
    note: &'static str,
}

const GOOGLE: Timm =
    Timm { licence: "Apache-2.0", fraction: 0.9, normalisation: Normalisation::Half, note: "" };
const GOOGLE_384: Timm = Timm { fraction: 1.0, ..GOOGLE };
const DINO: Timm = Timm { normalisation: Normalisation::Imagenet, note: "DINO v1", ..GOOGLE };
const DINOV2: Timm = Timm { fraction: 1.0, normalisation: Normalisation::Imagenet, ..GOOGLE };
const DINOV3: Timm = Timm { licence: "dinov3-license", ..DINOV2 };
const EVA02: Timm = Timm {
    licence: "MIT",
    normalisation: Normalisation::Clip,
    note: "no norm before the pooling: block outputs are as they are",
    ..GOOGLE
};
const EVA02_FINE: Timm = Timm { fraction: 1.0, ..EVA02 };
const CLIP: Timm = Timm {
    licence: "MIT",
    normalisation: Normalisation::Clip,
    note: "with OpenAI's quick GELU, which timm's plain architecture of this name leaves out",
    ..GOOGLE
};
const CLIP_QUICK: Timm = Timm { note: "", ..CLIP };

/// An architecture's name, its pretrained tags, and what they have in common.
type Row = (&'static str, &'static [&'static str], Timm);

const EVA02_ROWS: &[Row] = &[
    ("eva02_tiny_patch14_224", &["mim_in22k"], EVA02),
    ("eva02_small_patch14_224", &["mim_in22k"], EVA02),
    ("eva02_base_patch14_224", &["mim_in22k"], EVA02),
    ("eva02_large_patch14_224", &["mim_in22k", "mim_m38m"], EVA02),
    ("eva02_tiny_patch14_336", &["mim_in22k_ft_in1k"], EVA02_FINE),
    ("eva02_small_patch14_336", &["mim_in22k_ft_in1k"], EVA02_FINE),
    (
        "eva02_base_patch14_448",
        &["mim_in22k_ft_in1k", "mim_in22k_ft_in22k", "mim_in22k_ft_in22k_in1k"],
        EVA02_FINE,
    ),
    (
        "eva02_large_patch14_448",
        &[
            "mim_in22k_ft_in1k",
            "mim_in22k_ft_in22k",
            "mim_in22k_ft_in22k_in1k",
            "mim_m38m_ft_in1k",
            "mim_m38m_ft_in22k",
            "mim_m38m_ft_in22k_in1k",
        ],
        EVA02_FINE,
    ),
];

pub(super) fn entries() -> Vec<Entry> {
    let rows: &[Row] = &[
        ("vit_small_patch16_224", &["augreg_in21k", "augreg_in21k_ft_in1k"], GOOGLE),
        (
            "vit_base_patch16_224",
            &[
                "augreg_in21k",
                "augreg_in21k_ft_in1k",
                "augreg2_in21k_ft_in1k",
                "orig_in21k",
                "orig_in21k_ft_in1k",
            ],
            GOOGLE,
        ),
        ("vit_large_patch16_224", &["augreg_in21k", "augreg_in21k_ft_in1k", "orig_in21k"], GOOGLE),
        ("vit_base_patch8_224", &["augreg_in21k", "augreg_in21k_ft_in1k"], GOOGLE),
        ("vit_base_patch32_224", &["augreg_in21k", "augreg_in21k_ft_in1k", "orig_in21k"], GOOGLE),
        ("vit_large_patch32_224", &["orig_in21k"], GOOGLE),
        ("vit_small_patch16_384", &["augreg_in21k_ft_in1k"], GOOGLE_384),
        ("vit_base_patch16_384", &["augreg_in21k_ft_in1k", "orig_in21k_ft_in1k"], GOOGLE_384),
        ("vit_large_patch16_384", &["augreg_in21k_ft_in1k"], GOOGLE_384),
        ("vit_small_patch8_224", &["dino"], DINO),
        ("vit_small_patch16_224", &["dino"], DINO),
        ("vit_base_patch8_224", &["dino"], DINO),
        ("vit_base_patch16_224", &["dino"], DINO),
        ("vit_small_patch14_dinov2", &["lvd142m"], DINOV2),
        ("vit_base_patch14_dinov2", &["lvd142m"], DINOV2),
        ("vit_large_patch14_dinov2", &["lvd142m"], DINOV2),
        ("vit_giant_patch14_dinov2", &["lvd142m"], DINOV2),
        ("vit_small_patch14_reg4_dinov2", &["lvd142m"], DINOV2),
        ("vit_base_patch14_reg4_dinov2", &["lvd142m"], DINOV2),
        ("vit_large_patch14_reg4_dinov2", &["lvd142m"], DINOV2),
        ("vit_giant_patch14_reg4_dinov2", &["lvd142m"], DINOV2),
        ("vit_small_patch16_dinov3", &["lvd1689m"], DINOV3),
        ("vit_small_plus_patch16_dinov3", &["lvd1689m"], DINOV3),
        ("vit_base_patch16_dinov3", &["lvd1689m"], DINOV3),
        ("vit_large_patch16_dinov3", &["lvd1689m"], DINOV3),
        ("vit_huge_plus_patch16_dinov3", &["lvd1689m"], DINOV3),
        ("vit_7b_patch16_dinov3", &["lvd1689m"], DINOV3),
        ("vit_small_patch16_dinov3_qkvb", &["lvd1689m"], DINOV3),
        ("vit_small_plus_patch16_dinov3_qkvb", &["lvd1689m"], DINOV3),
        ("vit_base_patch16_dinov3_qkvb", &["lvd1689m"], DINOV3),
        ("vit_large_patch16_dinov3_qkvb", &["lvd1689m"], DINOV3),
        ("vit_huge_plus_patch16_dinov3_qkvb", &["lvd1689m"], DINOV3),
        ("vit_base_patch32_clip_quickgelu_224", &["openai"], CLIP_QUICK),
        ("vit_base_patch16_clip_quickgelu_224", &["openai"], CLIP_QUICK),
        ("vit_large_patch14_clip_quickgelu_224", &["openai"], Timm { fraction: 1.0, ..CLIP_QUICK }),
        ("vit_base_patch32_clip_224", &["openai"], CLIP),
        ("vit_base_patch16_clip_224", &["openai"], CLIP),
        ("vit_large_patch14_clip_224", &["openai"], Timm { fraction: 1.0, ..CLIP }),
        ("vit_large_patch14_clip_336", &["openai"], Timm { fraction: 1.0, ..CLIP }),
        (
            "vit_base_patch16_clip_224",
            &["laion2b"],
            Timm { fraction: 1.0, note: "LAION's weights, exact GELU", ..CLIP },
        ),
    ];
    let mut entries = Vec::new();
    for (name, tags, timm) in rows.iter().chain(EVA02_ROWS) {
        for tag in *tags {
            // Every row parses: a test walks through them.
            let Ok((config, names)) = architecture(name, tag) else { continue };
            let full = format!("{name}.{tag}");
            entries.push(Entry {
                // Two architectures, one file: the activation is no part of the weights.
                location: hub(format!("timm/{}", full.replace("_quickgelu", ""))),
                image_size: config.trained_size.0,
                name: full,
                names,
                config,
                // Those of EVA-02 that went through ImageNet-22k take the whole image, squashed.
                recipe: if name.starts_with("eva02_") && tag.contains("ft_in22k") {
                    Recipe::PillowSquareBicubic
                } else {
                    Recipe::Timm { fraction: timm.fraction }
                },
                normalisation: timm.normalisation,
                licence: timm.licence,
                // Whether the mirrors of DINOv3 are gated is not known; a refusal by the hub says so itself.
                gated: false,
                note: timm.note,
            });
        }
    }
    entries
}
