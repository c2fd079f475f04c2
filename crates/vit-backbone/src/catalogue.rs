//! Published checkpoints by name.
//!
//! timm's names are those of its registry, Hugging Face's are hub ids. Revisions are left open (`main`) where no
//! commit has been checked.

use std::sync::LazyLock;

use crate::described::Described;
use crate::described::timm::architecture;
use crate::{Activation, Error, Family, NameScheme, Normalisation, Pooling, QkvBias, Recipe, VitConfig};

/// Where a checkpoint's files are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Location {
    /// Inside the program (feature `embedded`), under this name.
    Embedded(&'static str),
    /// A repository on the Hugging Face hub.
    Hub {
        /// `owner/name`.
        repo: String,
        /// The weight file; where it is not known to be one file, whichever the repository holds
        /// (`model.safetensors`, its sharded form, `pytorch_model.bin`).
        file: Option<&'static str>,
        /// Branch, tag or commit; `main` if none.
        revision: Option<&'static str>,
    },
}

/// One published checkpoint.
#[derive(Debug, Clone, PartialEq)]
pub struct Entry {
    /// The name it is loaded by.
    pub name: String,
    /// Where its files are.
    pub location: Location,
    /// How they name their tensors.
    pub names: NameScheme,
    /// Every size and option.
    pub config: VitConfig,
    /// How its images are resized.
    pub recipe: Recipe,
    /// How its pixels are normalised.
    pub normalisation: Normalisation,
    /// Side of its input where nothing else is asked for.
    pub image_size: usize,
    /// Licence of the weights: an SPDX identifier or the licence's own name.
    pub licence: &'static str,
    /// Whether the hub asks for an account that accepted the licence.
    pub gated: bool,
    /// What a user should know.
    pub note: &'static str,
}

impl Entry {
    pub(crate) fn described(&self) -> Described {
        Described {
            config: self.config.clone(),
            names: self.names,
            recipe: self.recipe,
            normalisation: self.normalisation,
            image_size: self.image_size,
            licence: Some(self.licence.to_owned()),
        }
    }
}

/// Every entry.
pub fn entries() -> &'static [Entry] {
    static ENTRIES: LazyLock<Vec<Entry>> = LazyLock::new(|| {
        let mut entries = vec![embedded()];
        entries.extend(timm_entries());
        entries.extend(hugging_face_entries());
        entries
    });
    &ENTRIES
}

/// The entry of this name; `timm/NAME` finds `NAME`.
pub fn find(name: &str) -> Option<&'static Entry> {
    let bare = name.strip_prefix("timm/").unwrap_or(name);
    entries().iter().find(|entry| entry.name == name || entry.name == bare)
}

/// The names that look most like `name`, nearest first; at most `count`.
pub fn nearest(name: &str, count: usize) -> Vec<String> {
    let wanted = name.to_lowercase();
    let mut all: Vec<(f64, &str)> = entries()
        .iter()
        .map(|entry| (strsim::jaro_winkler(&wanted, &entry.name.to_lowercase()), entry.name.as_str()))
        .collect();
    all.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(b.1)));
    all.into_iter().take(count).map(|(_, name)| name.to_owned()).collect()
}

/// Refuses names of published families that this crate does not implement, with the reason.
pub(crate) fn refuse_unsupported(name: &str) -> Result<(), Error> {
    let bare = name.rsplit('/').next().unwrap_or(name);
    if ["eva02", "eva-02", "eva_02"].iter().any(|start| bare.to_lowercase().starts_with(start)) {
        return architecture("eva02", "").map(|_| ());
    }
    Ok(())
}

const FILE: &str = "model.safetensors";

/// Large ones may be sharded, and the DINO v1 repositories may hold a pickle alone.
fn weight_file(repo: &str) -> Option<&'static str> {
    let unsure = ["giant", "7b", "/dino-vit"].iter().any(|part| repo.contains(part));
    (!unsure).then_some(FILE)
}

fn hub(repo: String) -> Location {
    Location::Hub { file: weight_file(&repo), repo, revision: None }
}

fn embedded() -> Entry {
    let mut config = VitConfig::new(Family::HfDinov2, (384, 9, 6), 14, 518);
    config.depth = 9;
    Entry {
        name: "dinov2-small-b9".to_owned(),
        location: Location::Embedded("dinov2-small-b9"),
        names: NameScheme::HfDinov2,
        config,
        recipe: Recipe::PillowSquareBicubic,
        normalisation: Normalisation::Imagenet,
        image_size: 224,
        licence: "Apache-2.0",
        gated: false,
        note: "first nine blocks of a DINOv2 ViT-S/14 as a saliency package ships it, plain final norm, 8-bit; not \
               Meta's published DINOv2",
    }
}

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
const CLIP: Timm = Timm {
    licence: "MIT",
    normalisation: Normalisation::Clip,
    note: "with OpenAI's quick GELU, which timm's plain architecture of this name leaves out",
    ..GOOGLE
};

fn timm_entries() -> Vec<Entry> {
    let rows: &[(&str, &[&str], Timm)] = &[
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
    for (name, tags, timm) in rows {
        for tag in *tags {
            // Every row parses: a test walks through them.
            let Ok((config, names)) = architecture(name, tag) else { continue };
            let full = format!("{name}.{tag}");
            entries.push(Entry {
                location: hub(format!("timm/{full}")),
                image_size: config.trained_size.0,
                name: full,
                names,
                config,
                recipe: Recipe::Timm { fraction: timm.fraction },
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

fn hugging_face_entries() -> Vec<Entry> {
    let mut entries = Vec::new();
    let sizes = [
        ("small", (384, 12, 6)),
        ("base", (768, 12, 12)),
        ("large", (1024, 24, 16)),
        ("giant", (1536, 40, 24)),
    ];
    let (small, base, large) = (sizes[0].1, sizes[1].1, sizes[2].1);
    let mut add = |repo: String, config: VitConfig, normalisation, licence, gated, note| {
        let names = match config.family {
            Family::HfDinov2 | Family::HfDinov2Reg => NameScheme::HfDinov2,
            Family::HfDinov3 => NameScheme::HfDinov3,
            Family::HfClipVision => NameScheme::HfClip,
            _ => NameScheme::HfVit,
        };
        let family = Described::of_family(config, names);
        entries.push(Entry {
            name: repo.clone(),
            location: hub(repo),
            names,
            config: family.config,
            recipe: family.recipe,
            normalisation,
            image_size: family.image_size,
            licence,
            gated,
            note,
        });
    };

    for (name, width, patch, image, pooler) in [
        ("base-patch16-224-in21k", base, 16, 224, true),
        ("large-patch16-224-in21k", large, 16, 224, true),
        ("huge-patch14-224-in21k", (1280, 32, 16), 14, 224, true),
        ("base-patch16-224", base, 16, 224, false),
        ("base-patch16-384", base, 16, 384, false),
        ("large-patch16-224", large, 16, 224, false),
        ("large-patch16-384", large, 16, 384, false),
    ] {
        let mut config = VitConfig::new(Family::HfVit, width, patch, image);
        if !pooler {
            config.pooling = Pooling::ClassToken;
        }
        add(format!("google/vit-{name}"), config, Normalisation::Half, "Apache-2.0", false, "");
    }
    for (name, width, patch) in
        [("vits8", small, 8), ("vits16", small, 16), ("vitb8", base, 8), ("vitb16", base, 16)]
    {
        let mut config = VitConfig::new(Family::HfVit, width, patch, 224);
        config.pooling = Pooling::ClassToken;
        add(format!("facebook/dino-{name}"), config, Normalisation::Imagenet, "Apache-2.0", false, "DINO v1");
    }
    for (size, width) in sizes {
        for (prefix, family) in [("dinov2", Family::HfDinov2), ("dinov2-with-registers", Family::HfDinov2Reg)]
        {
            let mut config = VitConfig::new(family, width, 14, 518);
            if size == "giant" {
                config.activation = Activation::Swiglu;
                config.mlp_hidden = 4096;
            }
            add(
                format!("facebook/{prefix}-{size}"),
                config,
                Normalisation::Imagenet,
                "Apache-2.0",
                false,
                "",
            );
        }
    }
    for (name, width, hidden) in [
        ("vits16", small, None),
        ("vits16plus", small, Some(1536)),
        ("vitb16", base, None),
        ("vitl16", large, None),
        ("vith16plus", (1280, 32, 20), Some(5120)),
        ("vit7b16", (4096, 40, 32), Some(8192)),
    ] {
        let mut config = VitConfig::new(Family::HfDinov3, width, 16, 224);
        config.qkv_bias = QkvBias::QueryValue;
        if let Some(hidden) = hidden {
            config.activation = Activation::Swiglu;
            config.mlp_hidden = hidden;
        }
        let repo = format!("facebook/dinov3-{name}-pretrain-lvd1689m");
        add(
            repo,
            config,
            Normalisation::Imagenet,
            "dinov3-license",
            true,
            "accept the licence on the hub first",
        );
    }
    for (name, width, patch, image) in [
        ("base-patch32", base, 32, 224),
        ("base-patch16", base, 16, 224),
        ("large-patch14", large, 14, 224),
        ("large-patch14-336", large, 14, 336),
    ] {
        let config = VitConfig::new(Family::HfClipVision, width, patch, image);
        let note = "image tower alone";
        add(format!("openai/clip-vit-{name}"), config, Normalisation::Clip, "MIT", false, note);
    }
    entries
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn entries_are_valid_and_named_once() {
        let mut seen = std::collections::BTreeSet::new();
        for entry in entries() {
            entry.config.validate().unwrap();
            entry.recipe.at(entry.image_size, entry.normalisation).validate().unwrap();
            assert!(seen.insert(entry.name.clone()), "{} comes twice", entry.name);
            assert!(!entry.licence.is_empty());
        }
    }

    #[test]
    fn the_checkpoints_methods_were_published_with_are_there() {
        for name in [
            "dinov2-small-b9",
            "vit_base_patch16_384.orig_in21k_ft_in1k",
            "timm/vit_base_patch16_224.augreg_in21k",
            "vit_base_patch16_224.orig_in21k",
            "vit_small_patch16_224.augreg_in21k",
            "vit_large_patch16_224.augreg_in21k",
            "vit_small_patch8_224.dino",
            "vit_base_patch16_224.dino",
            "facebook/dino-vits16",
            "vit_small_patch14_dinov2.lvd142m",
            "vit_base_patch14_reg4_dinov2.lvd142m",
            "vit_giant_patch14_dinov2.lvd142m",
            "facebook/dinov2-large",
            "facebook/dinov2-with-registers-giant",
            "vit_base_patch16_dinov3_qkvb.lvd1689m",
            "vit_7b_patch16_dinov3.lvd1689m",
            "facebook/dinov3-vits16-pretrain-lvd1689m",
            "openai/clip-vit-base-patch16",
            "vit_base_patch16_clip_224.openai",
            "vit_large_patch14_clip_336.openai",
        ] {
            assert!(find(name).is_some(), "{name}");
        }
        let published = find("vit_base_patch16_384.orig_in21k_ft_in1k").unwrap();
        assert_eq!((published.config.dim, published.config.trained_grid()), (768, (24, 24)));
        assert!(find("facebook/dinov3-vitb16-pretrain-lvd1689m").unwrap().gated);
    }

    #[test]
    fn a_misspelt_name_finds_its_neighbours() {
        assert!(find("dinov2-smal-b9").is_none());
        assert_eq!(nearest("dinov2-smal-b9", 3)[0], "dinov2-small-b9");
        assert_eq!(
            nearest("vit_base_patch16_384.orig_in21k_ft_in1", 1),
            ["vit_base_patch16_384.orig_in21k_ft_in1k"]
        );
    }

    #[test]
    fn eva02_is_refused_with_a_reason() {
        for name in [
            "eva02_base_patch14_448.mim_in22k_ft_in22k_in1k",
            "timm/eva02_large_patch14_448.mim_m38m_ft_in1k",
        ] {
            assert!(refuse_unsupported(name).unwrap_err().to_string().contains("EVA-02"), "{name}");
        }
        refuse_unsupported("vit_base_patch16_224.dino").unwrap();
    }
}
