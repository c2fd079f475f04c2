//! The sizes of a residual network.

use serde::{Deserialize, Serialize};

use crate::Error;

/// What a stage is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BlockKind {
    /// Two convolutions of 3 x 3.
    Basic,
    /// Convolutions of 1 x 1, 3 x 3 and 1 x 1; the last widens four times.
    Bottleneck,
}

/// The sizes of a residual network. The stem halves the image twice; stages 2 to 4 halve it once more each.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ResNetConfig {
    /// What a stage is made of.
    pub kind: BlockKind,
    /// Blocks of stages 1 to 4.
    pub blocks: [usize; 4],
    /// Channels after the stem; 64 in every published network.
    pub stem: usize,
    /// Channels of the 3 x 3 convolutions in stage 1, doubled from stage to stage: `stem`, or twice that in a wide
    /// network. Basic blocks are never wide.
    pub width: usize,
}

impl ResNetConfig {
    /// `ResNet-18`.
    pub const RESNET18: Self = Self { kind: BlockKind::Basic, blocks: [2, 2, 2, 2], stem: 64, width: 64 };
    /// `ResNet-50`.
    pub const RESNET50: Self =
        Self { kind: BlockKind::Bottleneck, blocks: [3, 4, 6, 3], stem: 64, width: 64 };
    /// `WideResNet-50-2`.
    pub const WIDE_RESNET50_2: Self = Self { width: 128, ..Self::RESNET50 };

    /// Refuses what no network can be built from.
    ///
    /// # Errors
    /// [`Error::Config`] with the field.
    pub fn validate(&self) -> Result<(), Error> {
        let least = self.blocks.into_iter().min().unwrap_or(0);
        for (field, found) in [("blocks", least), ("stem", self.stem), ("width", self.width)] {
            if found == 0 {
                return Err(Error::Config { field, expected: "at least 1", found });
            }
        }
        if self.kind == BlockKind::Basic && self.width != self.stem {
            let expected = "the stem's channels, for basic blocks are never wide";
            return Err(Error::Config { field: "width", expected, found: self.width });
        }
        Ok(())
    }

    /// Channels of the map of `stage`, 1 to 4.
    pub fn channels(&self, stage: usize) -> usize {
        let planes = self.stem << stage.saturating_sub(1);
        if self.kind == BlockKind::Bottleneck { 4 * planes } else { planes }
    }

    /// Height and width of the map of `stage` (1 to 4) of an image of `height` by `width` pixels.
    pub fn map_size(&self, stage: usize, (height, width): (usize, usize)) -> (usize, usize) {
        let halved = |mut side: usize| {
            for _ in 0..=stage {
                side = side.div_ceil(2);
            }
            side
        };
        (halved(height), halved(width))
    }

    /// Channels of the 3 x 3 convolutions in `stage`.
    pub(crate) fn inner(&self, stage: usize) -> usize {
        self.width << stage.saturating_sub(1)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::{BlockKind, ResNetConfig};

    #[test]
    fn published_widths_and_sizes() {
        let wide = ResNetConfig::WIDE_RESNET50_2;
        assert_eq!([1, 2, 3, 4].map(|stage| wide.channels(stage)), [256, 512, 1024, 2048]);
        assert_eq!([1, 4].map(|stage| wide.inner(stage)), [128, 1024]);
        assert_eq!(
            [1, 2, 3, 4].map(|stage| wide.map_size(stage, (224, 225))),
            [(56, 57), (28, 29), (14, 15), (7, 8)]
        );
        assert_eq!([1, 4].map(|stage| ResNetConfig::RESNET18.channels(stage)), [64, 512]);
        for config in [wide, ResNetConfig::RESNET18, ResNetConfig::RESNET50] {
            config.validate().unwrap();
        }
    }

    #[test]
    fn a_bad_field_is_named() {
        let none = ResNetConfig { blocks: [1, 0, 1, 1], ..ResNetConfig::RESNET50 };
        assert!(none.validate().unwrap_err().to_string().contains("blocks"));
        let wide = ResNetConfig { kind: BlockKind::Basic, ..ResNetConfig::WIDE_RESNET50_2 };
        assert!(wide.validate().unwrap_err().to_string().contains("width"));
    }
}
