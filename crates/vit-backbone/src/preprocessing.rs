//! How each published checkpoint wants its images (timm's registry, the processors of transformers).

use image_prep::{
    CLIP_MEAN, CLIP_STD, Crop, CropOffset, Domain, Filter, HALF, IMAGENET_MEAN, IMAGENET_STD, Preprocess,
    Resize,
};
use serde::{Deserialize, Serialize};

use crate::{Family, VitConfig};

/// Channel statistics that published checkpoints were trained with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Normalisation {
    /// Mean and standard deviation 0.5: pixels in -1..=1.
    Half,
    /// `ImageNet`'s.
    Imagenet,
    /// CLIP's.
    Clip,
}

impl Normalisation {
    /// Mean and standard deviation of each channel, for pixels in 0..=1.
    pub const fn mean_std(self) -> ([f32; 3], [f32; 3]) {
        match self {
            Self::Half => (HALF, HALF),
            Self::Imagenet => (IMAGENET_MEAN, IMAGENET_STD),
            Self::Clip => (CLIP_MEAN, CLIP_STD),
        }
    }
}

/// How a family's own code resizes and crops, at any input size.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Recipe {
    /// timm's evaluation: shorter edge to `size / fraction` by Pillow's bicubic, centre crop.
    Timm {
        /// Crop size over resized size.
        fraction: f64,
    },
    /// Straight to a square by Pillow's bilinear (Transformaly).
    PillowSquare,
    /// Straight to a square by Pillow's bicubic: the whole image is seen.
    PillowSquareBicubic,
    /// transformers' ViT: straight to a square, bilinear on bytes.
    HfSquare,
    /// transformers' `DINOv2`: shorter edge to 256/224 of the size, bicubic on bytes, centre crop.
    HfDinov2,
    /// transformers' `DINOv3`: straight to a square, bilinear on floats.
    HfDinov3,
    /// transformers' CLIP: shorter edge to the size, bicubic on bytes, centre crop.
    HfClip,
}

impl Recipe {
    /// The description for a square input of `size` pixels.
    pub fn at(self, size: usize, normalisation: Normalisation) -> Preprocess {
        let (mean, std) = normalisation.mean_std();
        let cropped = |edge: usize| Preprocess {
            resize: Resize::shorter_edge(edge, Filter::Bicubic),
            crop: Some(Crop { height: size, width: size, offset: CropOffset::Truncated }),
            mean,
            std,
        };
        match self {
            Self::Timm { fraction } => Preprocess::timm(size, fraction, Filter::Bicubic, mean, std),
            Self::PillowSquare => Preprocess::square(size, Filter::Bilinear, mean, std),
            Self::PillowSquareBicubic => Preprocess::square(size, Filter::Bicubic, mean, std),
            Self::HfSquare => {
                Preprocess::square(size, Filter::Bilinear, mean, std).in_domain(Domain::TensorU8)
            }
            Self::HfDinov2 => cropped(size * 256 / 224).in_domain(Domain::TensorU8),
            Self::HfDinov3 => Preprocess::square(size, Filter::Bilinear, mean, std).in_domain(Domain::Float),
            Self::HfClip => cropped(size).in_domain(Domain::TensorU8),
        }
    }
}

/// What a family does where nothing says more.
pub(crate) const fn family_recipe(family: Family) -> (Recipe, Normalisation) {
    match family {
        Family::TimmVit => (Recipe::Timm { fraction: 0.9 }, Normalisation::Half),
        Family::FbDino => (Recipe::Timm { fraction: 0.875 }, Normalisation::Imagenet),
        Family::TimmClip | Family::TimmEva02 => (Recipe::Timm { fraction: 0.9 }, Normalisation::Clip),
        Family::TimmDinov2 | Family::TimmDinov2Reg | Family::TimmDinov3 | Family::FbDinov2 => {
            (Recipe::Timm { fraction: 1.0 }, Normalisation::Imagenet)
        }
        Family::HfVit => (Recipe::HfSquare, Normalisation::Half),
        Family::HfClipVision => (Recipe::HfClip, Normalisation::Clip),
        Family::HfDinov2 | Family::HfDinov2Reg => (Recipe::HfDinov2, Normalisation::Imagenet),
        Family::HfDinov3 => (Recipe::HfDinov3, Normalisation::Imagenet),
        Family::PytorchPretrainedVit => (Recipe::PillowSquare, Normalisation::Half),
    }
}

/// The input size a family's own preprocessing gives, for a network trained at `trained` pixels.
pub(crate) const fn family_size(family: Family, trained: usize) -> usize {
    match family {
        // Its processor crops to 224, whatever the position table was trained for.
        Family::HfDinov2 | Family::HfDinov2Reg => 224,
        _ => trained,
    }
}

/// The family's own preprocessing at its own size.
pub(crate) fn family_preprocess(config: &VitConfig) -> Preprocess {
    let (recipe, normalisation) = family_recipe(config.family);
    let trained = config.trained_size.0.min(config.trained_size.1);
    recipe.at(family_size(config.family, trained), normalisation)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn published_sizes_come_out() {
        let timm = Recipe::Timm { fraction: 0.9 }.at(224, Normalisation::Half);
        assert_eq!(timm.resize, Resize::shorter_edge(248, Filter::Bicubic));
        let dino = Recipe::Timm { fraction: 0.875 }.at(224, Normalisation::Imagenet);
        assert_eq!(dino.resize, Resize::shorter_edge(256, Filter::Bicubic));
        let hf = Recipe::HfDinov2.at(224, Normalisation::Imagenet);
        assert_eq!(hf.resize.to, Resize::shorter_edge(256, Filter::Bicubic).to);
        assert_eq!(hf.fixed_output_size(), Some((224, 224)));
        let luke = family_preprocess(&VitConfig::new(Family::PytorchPretrainedVit, (768, 12, 12), 16, 384));
        assert_eq!(luke, Preprocess::square(384, Filter::Bilinear, HALF, HALF));
    }
}
