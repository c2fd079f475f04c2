//! Repositories of Google, Facebook and `OpenAI` on the Hugging Face hub.

use super::{Entry, hub};
use crate::described::Described;
use crate::{Activation, Family, NameScheme, Normalisation, Pooling, QkvBias, VitConfig};

/// Width, depth, heads.
type Size = (usize, usize, usize);
const SMALL: Size = (384, 12, 6);
const BASE: Size = (768, 12, 12);
const LARGE: Size = (1024, 24, 16);
const GIANT: Size = (1536, 40, 24);

pub(super) fn entries() -> Vec<Entry> {
    let mut entries = vit();
    entries.extend(dinov2());
    entries.extend(dinov3());
    entries.extend(clip());
    entries
}

/// An open one under Apache-2.0; callers change what differs.
fn entry(repo: String, config: VitConfig, names: NameScheme, normalisation: Normalisation) -> Entry {
    let family = Described::of_family(config, names);
    Entry {
        name: repo.clone(),
        location: hub(repo),
        names,
        config: family.config,
        recipe: family.recipe,
        normalisation,
        image_size: family.image_size,
        licence: "Apache-2.0",
        gated: false,
        note: "",
    }
}

/// `ViTModel`: Google's own, and DINO v1.
fn vit() -> Vec<Entry> {
    let google = [
        ("base-patch16-224-in21k", BASE, 16, 224, Pooling::TanhPooler),
        ("large-patch16-224-in21k", LARGE, 16, 224, Pooling::TanhPooler),
        ("huge-patch14-224-in21k", (1280, 32, 16), 14, 224, Pooling::TanhPooler),
        ("base-patch16-224", BASE, 16, 224, Pooling::ClassToken),
        ("base-patch16-384", BASE, 16, 384, Pooling::ClassToken),
        ("large-patch16-224", LARGE, 16, 224, Pooling::ClassToken),
        ("large-patch16-384", LARGE, 16, 384, Pooling::ClassToken),
    ];
    let google = google.into_iter().map(|(name, size, patch, image, pooling)| {
        let config = VitConfig { pooling, ..VitConfig::new(Family::HfVit, size, patch, image) };
        entry(format!("google/vit-{name}"), config, NameScheme::HfVit, Normalisation::Half)
    });
    let dino = [("vits8", SMALL, 8), ("vits16", SMALL, 16), ("vitb8", BASE, 8), ("vitb16", BASE, 16)];
    let dino = dino.into_iter().map(|(name, size, patch)| {
        let config =
            VitConfig { pooling: Pooling::ClassToken, ..VitConfig::new(Family::HfVit, size, patch, 224) };
        let repo = format!("facebook/dino-{name}");
        Entry { note: "DINO v1", ..entry(repo, config, NameScheme::HfVit, Normalisation::Imagenet) }
    });
    google.chain(dino).collect()
}

fn dinov2() -> Vec<Entry> {
    let mut entries = Vec::new();
    for (size, width) in [("small", SMALL), ("base", BASE), ("large", LARGE), ("giant", GIANT)] {
        for (start, family) in [("dinov2", Family::HfDinov2), ("dinov2-with-registers", Family::HfDinov2Reg)]
        {
            let mut config = VitConfig::new(family, width, 14, 518);
            if size == "giant" {
                config.activation = Activation::Swiglu;
                config.mlp_hidden = 4096;
            }
            let repo = format!("facebook/{start}-{size}");
            entries.push(entry(repo, config, NameScheme::HfDinov2, Normalisation::Imagenet));
        }
    }
    entries
}

fn dinov3() -> Vec<Entry> {
    let sizes = [
        ("vits16", SMALL, None),
        ("vits16plus", SMALL, Some(1536)),
        ("vitb16", BASE, None),
        ("vitl16", LARGE, None),
        ("vith16plus", (1280, 32, 20), Some(5120)),
        ("vit7b16", (4096, 40, 32), Some(8192)),
    ];
    let entries = sizes.into_iter().map(|(name, size, gated_hidden)| {
        let mut config = VitConfig::new(Family::HfDinov3, size, 16, 224);
        config.qkv_bias = QkvBias::QueryValue;
        if let Some(hidden) = gated_hidden {
            config.activation = Activation::Swiglu;
            config.mlp_hidden = hidden;
        }
        let repo = format!("facebook/dinov3-{name}-pretrain-lvd1689m");
        Entry {
            licence: "dinov3-license",
            gated: true,
            note: "accept the licence on the hub first",
            ..entry(repo, config, NameScheme::HfDinov3, Normalisation::Imagenet)
        }
    });
    entries.collect()
}

fn clip() -> Vec<Entry> {
    let towers = [
        ("base-patch32", BASE, 32, 224),
        ("base-patch16", BASE, 16, 224),
        ("large-patch14", LARGE, 14, 224),
        ("large-patch14-336", LARGE, 14, 336),
    ];
    let entries = towers.into_iter().map(|(name, size, patch, image)| {
        let config = VitConfig::new(Family::HfClipVision, size, patch, image);
        let repo = format!("openai/clip-vit-{name}");
        Entry {
            licence: "MIT",
            note: "image tower alone",
            ..entry(repo, config, NameScheme::HfClip, Normalisation::Clip)
        }
    });
    entries.collect()
}
