//! Published checkpoints by name.
//!
//! timm's names are those of its registry, Hugging Face's are hub ids. Revisions are left open (`main`) where no
//! commit has been checked.

mod hugging_face;
mod timm;

use std::sync::LazyLock;

use crate::described::Described;
use crate::{Family, NameScheme, Normalisation, Recipe, VitConfig};

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
    /// A file that its authors publish themselves, to be fetched by hand: a file or directory of the entry's name is
    /// loaded as the entry.
    Elsewhere {
        /// Where they say how to get it.
        page: &'static str,
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
        entries.extend(timm::entries());
        entries.extend(ibot());
        entries.extend(hugging_face::entries());
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

/// The entry of a file or directory called like one that its authors publish themselves.
pub(crate) fn of_file(path: &std::path::Path) -> Option<&'static Entry> {
    let name = if path.is_dir() { path.file_name() } else { path.file_stem() }?.to_str()?;
    find(name).filter(|entry| matches!(entry.location, Location::Elsewhere { .. }))
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

/// The teachers of iBOT (Zhou et al. 2021, arXiv 2111.07832), whose code is DINO's with masks.
fn ibot() -> impl Iterator<Item = Entry> {
    let sizes = [("small", (384, 12, 6)), ("base", (768, 12, 12)), ("large", (1024, 24, 16))];
    sizes.into_iter().map(|(size, width)| Entry {
        name: format!("vit_{size}_patch16_224_ibot"),
        location: Location::Elsewhere { page: "https://github.com/bytedance/ibot" },
        names: NameScheme::Timm,
        config: VitConfig::new(Family::FbDino, width, 16, 224),
        recipe: Recipe::Timm { fraction: 0.875 },
        normalisation: Normalisation::Imagenet,
        image_size: 224,
        licence: "Apache-2.0",
        gated: false,
        note: "iBOT, the teacher's weights",
    })
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
            "eva02_base_patch14_448.mim_in22k_ft_in22k_in1k",
            "timm/eva02_large_patch14_448.mim_m38m_ft_in1k",
            "vit_base_patch16_224_ibot",
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
}
