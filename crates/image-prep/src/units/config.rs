//! The configuration of a case: every key of the cases' table and no other.

use conformance::UnitError;
use serde::{Deserialize, Deserializer};

use crate::{Crop, Filter};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct CaseConfig {
    size: Option<[usize; 2]>,
    filter: Option<CaseFilter>,
    pub(super) mean: Option<[f32; 3]>,
    pub(super) std: Option<[f32; 3]>,
    crop: Option<CaseCrop>,
    pub(super) resize_shorter_edge: Option<usize>,
    /// Said for people: `resize_shorter_edge` is what comes out of it.
    #[serde(rename = "crop_fraction")]
    _crop_fraction: Option<f64>,
    orientation: Option<u8>,
    pub(super) sets: Option<Vec<Mode>>,
    pub(super) processors: Option<Processors>,
}

#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum CaseFilter {
    Bilinear,
    Bicubic,
    Lanczos,
}

#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum ProcessorFilter {
    Bilinear,
    Bicubic,
}

#[derive(Clone, Copy, Deserialize)]
#[serde(untagged)]
enum CaseCrop {
    Side(usize),
    Sides([usize; 2]),
}

#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Mode {
    Grey,
    GreyAlpha,
    Rgba,
    Palette,
    Bilevel,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Processors {
    vit: Option<Processor>,
    dinov2: Option<Processor>,
    clip: Option<Processor>,
    dinov3: Option<Processor>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Processor {
    pub(super) size: Option<[usize; 2]>,
    pub(super) crop: Option<[usize; 2]>,
    pub(super) shorter_edge: Option<usize>,
    pub(super) filter: ProcessorFilter,
    pub(super) mean: [f32; 3],
    pub(super) std: [f32; 3],
    #[serde(default, deserialize_with = "only_true")]
    pub(super) rescale_before_resize: Option<()>,
}

/// A key whose absence means no, and whose only value is `true`.
fn only_true<'de, D: Deserializer<'de>>(from: D) -> Result<Option<()>, D::Error> {
    if bool::deserialize(from)? {
        Ok(Some(()))
    } else {
        Err(serde::de::Error::custom("expected true, found false"))
    }
}

impl CaseConfig {
    pub(super) fn size(&self) -> Result<(usize, usize), UnitError> {
        let [height, width] = self.size.ok_or("config key `size` is missing")?;
        Ok((height, width))
    }

    pub(super) fn filter(&self) -> Result<Filter, UnitError> {
        Ok(match self.filter.ok_or("config key `filter` is missing")? {
            CaseFilter::Bilinear => Filter::Bilinear,
            CaseFilter::Bicubic => Filter::Bicubic,
            CaseFilter::Lanczos => Filter::Lanczos,
        })
    }

    /// The crop, with torchvision's offsets.
    pub(super) fn crop(&self) -> Result<Crop, UnitError> {
        let (height, width) = match self.crop.ok_or("config key `crop` is missing")? {
            CaseCrop::Side(side) => (side, side),
            CaseCrop::Sides([height, width]) => (height, width),
        };
        Ok(Crop { height, width, ..Crop::square(0) })
    }

    pub(super) fn check_orientation(&self) -> Result<(), UnitError> {
        match self.orientation {
            None | Some(1..=8) => Ok(()),
            Some(other) => Err(format!("config key `orientation`: expected 1 to 8, found {other}").into()),
        }
    }
}

impl From<ProcessorFilter> for Filter {
    fn from(filter: ProcessorFilter) -> Self {
        match filter {
            ProcessorFilter::Bilinear => Self::Bilinear,
            ProcessorFilter::Bicubic => Self::Bicubic,
        }
    }
}

impl Mode {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Grey => "grey",
            Self::GreyAlpha => "grey_alpha",
            Self::Rgba => "rgba",
            Self::Palette => "palette",
            Self::Bilevel => "bilevel",
        }
    }
}

impl Processors {
    pub(super) fn named(&self) -> impl Iterator<Item = (&'static str, &Processor)> {
        [("vit", &self.vit), ("dinov2", &self.dinov2), ("clip", &self.clip), ("dinov3", &self.dinov3)]
            .into_iter()
            .filter_map(|(name, processor)| Some((name, processor.as_ref()?)))
    }
}
