//! The description of everything between a decoded image and a network's input, and its execution.

use serde::{Deserialize, Serialize};

use crate::{Error, Planar, Rgb8, resize};

/// Channel means of `ImageNet`, for samples in 0..=1.
pub const IMAGENET_MEAN: [f32; 3] = [0.485, 0.456, 0.406];
/// Channel standard deviations of `ImageNet`, for samples in 0..=1.
pub const IMAGENET_STD: [f32; 3] = [0.229, 0.224, 0.225];
/// Mean and standard deviation that take 0..=1 to -1..=1.
pub const HALF: [f32; 3] = [0.5; 3];
/// Channel means of CLIP's training set.
pub const CLIP_MEAN: [f32; 3] = [0.481_454_66, 0.457_827_5, 0.408_210_73];
/// Channel standard deviations of CLIP's training set.
pub const CLIP_STD: [f32; 3] = [0.268_629_54, 0.261_302_6, 0.275_777_1];

/// The longest side this crate resizes to.
const MAX_SIDE: usize = 1 << 15;
/// The largest image, in pixels, this crate resizes to.
const MAX_AREA: usize = 1 << 28;

/// How an image becomes a network's input: resize, then crop, then `(x / 255 - mean) / std`.
///
/// One value describes every reference this project compares with:
///
/// | reference | description |
/// |---|---|
/// | Transformaly | `Preprocess::square(384, Filter::Bilinear, HALF, HALF)` |
/// | GeneralAD | `Preprocess::square(518, Filter::Lanczos, IMAGENET_MEAN, IMAGENET_STD)` |
/// | `ADViT`, VT-ADL | `Preprocess::square(550, Filter::Bilinear, [0.0; 3], [1.0; 3]).with_crop(Crop::square(512))` |
/// | VT-ADL with registers | `Preprocess::square(512, Filter::Nearest, [0.0; 3], [1.0; 3])` |
/// | timm evaluation | `Preprocess::timm(224, 0.9, Filter::Bicubic, HALF, HALF)` |
/// | anomalib | any of these with `.in_domain(Domain::Float)` |
/// | transformers: ViT, CLIP, DINOv2 | `.in_domain(Domain::TensorU8)`, crop with [`CropOffset::Truncated`] |
/// | transformers: DINOv3 | `.in_domain(Domain::Float)`, bilinear |
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Preprocess {
    /// The first step.
    pub resize: Resize,
    /// The second step; absent means none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub crop: Option<Crop>,
    /// Subtracted from each channel (red, green, blue) in 0..=1. Zeros for no normalisation.
    pub mean: [f32; 3],
    /// Divides each channel afterwards. Ones for no normalisation.
    pub std: [f32; 3],
}

/// The resize step of a [`Preprocess`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Resize {
    /// The size it aims at.
    pub to: ResizeTo,
    /// The kernel.
    pub filter: Filter,
    /// The arithmetic it is done in.
    #[serde(default)]
    pub domain: Domain,
    /// Whether the kernel widens when shrinking. Only [`Domain::Float`] can do without: bilinear then takes two taps
    /// and bicubic four (with a = -0.75), as torch's `interpolate` does and as exported anomalib models do.
    #[serde(default = "enabled")]
    pub antialias: bool,
}

/// The size a resize aims at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum ResizeTo {
    /// No resize.
    Keep,
    /// Exactly this size; the aspect ratio is not kept.
    Exact {
        /// Rows.
        height: usize,
        /// Columns.
        width: usize,
    },
    /// The shorter side becomes `edge`, the longer `edge * long / short`, truncated.
    ShorterEdge {
        /// The shorter side, in pixels.
        edge: usize,
    },
}

/// A resampling kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Filter {
    /// One source pixel: at half-pixel centres in [`Domain::Pillow`] (Pillow, TensorFlow), `floor(i * in / out)` in
    /// the tensor domains (torch).
    Nearest,
    /// The triangle, support 1.
    Bilinear,
    /// Keys' cubic with a = -0.5, support 2.
    Bicubic,
    /// The windowed sinc with three lobes. Not in the tensor domains, whose references lack it.
    Lanczos,
}

/// The arithmetic a resize is done in. References that name the same filter differ here.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Domain {
    /// Pillow's: 8-bit samples, weights in 22-bit fixed point, width pass first, rounded and clipped to 8 bits after
    /// each pass. Bit-exact.
    #[default]
    Pillow,
    /// torchvision's on uint8 tensors: as Pillow's, with 16-bit weights; within one level of it.
    TensorU8,
    /// torchvision's on float tensors: divided by 255 first, never rounded, never clamped (bicubic overshoots).
    Float,
}

/// A centre crop. An image smaller than the crop is padded with zeros first: `(c - n) / 2` rows or columns before it,
/// rounded down, the rest after it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Crop {
    /// Rows.
    pub height: usize,
    /// Columns.
    pub width: usize,
    /// How half a pixel of offset is rounded.
    #[serde(default)]
    pub offset: CropOffset,
}

/// How the offset `(n - c) / 2` of a centre crop is rounded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CropOffset {
    /// To the even neighbour: torchvision and timm.
    #[default]
    HalfToEven,
    /// Down: the processors of transformers.
    Truncated,
}

fn enabled() -> bool {
    true
}

impl Preprocess {
    /// Pillow's resize to `size` x `size`, no crop.
    pub fn square(size: usize, filter: Filter, mean: [f32; 3], std: [f32; 3]) -> Self {
        Self { resize: Resize::exact(size, size, filter), crop: None, mean, std }
    }

    /// timm's evaluation transform: shorter edge to `floor(size / crop_fraction)` by Pillow, centre crop of `size`.
    pub fn timm(size: usize, crop_fraction: f64, filter: Filter, mean: [f32; 3], std: [f32; 3]) -> Self {
        let edge = (size as f64 / crop_fraction).floor() as usize;
        Self { resize: Resize::shorter_edge(edge, filter), crop: Some(Crop::square(size)), mean, std }
    }

    /// The same with this crop.
    #[must_use]
    pub fn with_crop(mut self, crop: Crop) -> Self {
        self.crop = Some(crop);
        self
    }

    /// The same with the resize done in another arithmetic.
    #[must_use]
    pub fn in_domain(mut self, domain: Domain) -> Self {
        self.resize.domain = domain;
        self
    }

    /// The same for a square input of `size` pixels: a crop becomes `size` and the resize before it grows or shrinks
    /// in proportion (rounded down), so that the same part of the image is seen. Without a crop the resize becomes
    /// exact.
    #[must_use]
    pub fn with_output_size(&self, size: usize) -> Self {
        let mut changed = self.clone();
        match &mut changed.crop {
            Some(crop) => {
                let (height, width) = (crop.height.max(1), crop.width.max(1));
                changed.resize.to = match self.resize.to {
                    ResizeTo::Keep => ResizeTo::Keep,
                    ResizeTo::Exact { height: h, width: w } => {
                        ResizeTo::Exact { height: h * size / height, width: w * size / width }
                    }
                    ResizeTo::ShorterEdge { edge } => {
                        ResizeTo::ShorterEdge { edge: edge * size / height.min(width) }
                    }
                };
                (crop.height, crop.width) = (size, size);
            }
            None => changed.resize.to = ResizeTo::Exact { height: size, width: size },
        }
        changed
    }

    /// The `(height, width)` every image comes out with, if that does not depend on the image.
    pub fn fixed_output_size(&self) -> Option<(usize, usize)> {
        match (&self.crop, self.resize.to) {
            (Some(crop), _) => Some((crop.height, crop.width)),
            (None, ResizeTo::Exact { height, width }) => Some((height, width)),
            (None, ResizeTo::Keep | ResizeTo::ShorterEdge { .. }) => None,
        }
    }

    /// The `(height, width)` that an image of `height` x `width` comes out with.
    ///
    /// # Errors
    /// If the image is empty or its resized size would be beyond this crate's limits.
    pub fn output_size(&self, height: usize, width: usize) -> Result<(usize, usize), Error> {
        let resized = self.resize.output_size(height, width)?;
        Ok(self.crop.map_or(resized, |crop| (crop.height, crop.width)))
    }

    /// Checks that the description means something.
    ///
    /// # Errors
    /// If a side is zero or beyond the limits, a value is not finite, a standard deviation is not above zero, or the
    /// filter does not exist in the domain.
    pub fn validate(&self) -> Result<(), Error> {
        let wrong = |field, expected: &str, found: String| {
            Err(Error::Config { field, expected: expected.to_owned(), found })
        };
        let side = |n: usize| (1..=MAX_SIDE).contains(&n);
        match self.resize.to {
            ResizeTo::Exact { height, width } if !side(height) || !side(width) => {
                return wrong("resize.to", "sides of 1 to 32768", format!("{height} x {width}"));
            }
            ResizeTo::ShorterEdge { edge } if !side(edge) => {
                return wrong("resize.to", "an edge of 1 to 32768", edge.to_string());
            }
            _ => {}
        }
        if self.resize.filter == Filter::Lanczos && self.resize.domain != Domain::Pillow {
            return wrong(
                "resize.filter",
                "nearest, bilinear or bicubic in a tensor domain",
                "lanczos".into(),
            );
        }
        let interpolates = matches!(self.resize.filter, Filter::Bilinear | Filter::Bicubic | Filter::Lanczos);
        if !self.resize.antialias && interpolates && self.resize.domain != Domain::Float {
            return wrong("resize.antialias", "true unless the domain is float", "false".into());
        }
        if let Some(crop) = self.crop.filter(|crop| !side(crop.height) || !side(crop.width)) {
            return wrong("crop", "sides of 1 to 32768", format!("{} x {}", crop.height, crop.width));
        }
        if self.mean.iter().any(|v| !v.is_finite()) {
            return wrong("mean", "finite values", format!("{:?}", self.mean));
        }
        if self.std.iter().any(|v| !v.is_finite() || *v <= 0.0) {
            return wrong("std", "finite values above 0", format!("{:?}", self.std));
        }
        Ok(())
    }

    /// The network's input `(3, h, w)` for one image.
    ///
    /// # Errors
    /// If the description is not valid, the image is malformed, or its resized size is beyond the limits.
    pub fn apply(&self, image: &Rgb8) -> Result<Planar, Error> {
        self.validate()?;
        image.check()?;
        let (height, width) = self.resize.output_size(image.height, image.width)?;
        if self.resize.domain == Domain::Float {
            let unit = image.to_unit_planes();
            let resized = resize::float(&unit, height, width, self.resize.filter, self.resize.antialias)?;
            let mut planes = self.crop.map_or_else(|| resized.clone(), |crop| crop.planes(&resized));
            self.normalise(&mut planes);
            return Ok(planes);
        }
        // Borrowed as long as no step changes it: a network often gets images of its own size.
        let resized;
        let mut seen = image;
        if (height, width) != (image.height, image.width) {
            resized = match self.resize.domain {
                Domain::TensorU8 => resize::tensor_u8(image, height, width, self.resize.filter)?,
                Domain::Pillow | Domain::Float => resize::pillow(image, height, width, self.resize.filter)?,
            };
            seen = &resized;
        }
        let cropped;
        if let Some(crop) = &self.crop {
            cropped = crop.image(seen);
            seen = &cropped;
        }
        Ok(seen.to_planes(|c, v| (f32::from(v) / 255.0 - self.mean[c]) / self.std[c]))
    }

    /// `(x - mean) / std` on planes `(3, H, W)` in 0..=1, in place.
    pub fn normalise(&self, planes: &mut Planar) {
        let area = (planes.height * planes.width).max(1);
        for ((plane, mean), std) in planes.data.chunks_exact_mut(area).zip(self.mean).zip(self.std) {
            for value in plane {
                *value = (*value - mean) / std;
            }
        }
    }
}

impl Resize {
    /// To exactly `height` x `width`, by Pillow.
    pub fn exact(height: usize, width: usize, filter: Filter) -> Self {
        Self { to: ResizeTo::Exact { height, width }, filter, domain: Domain::Pillow, antialias: true }
    }

    /// The shorter side to `edge`, by Pillow.
    pub fn shorter_edge(edge: usize, filter: Filter) -> Self {
        Self { to: ResizeTo::ShorterEdge { edge }, filter, domain: Domain::Pillow, antialias: true }
    }

    /// No resize.
    pub fn keep() -> Self {
        Self { to: ResizeTo::Keep, filter: Filter::Nearest, domain: Domain::Pillow, antialias: true }
    }

    /// The `(height, width)` that an image of `height` x `width` is resized to.
    ///
    /// # Errors
    /// If the image is empty or the size is beyond this crate's limits (a side of 32768, 2^28 pixels).
    pub fn output_size(&self, height: usize, width: usize) -> Result<(usize, usize), Error> {
        if height == 0 || width == 0 {
            return Err(Error::Shape {
                what: "image to resize",
                expected: "every side at least 1".into(),
                found: format!("{height} x {width}"),
            });
        }
        let size = match self.to {
            ResizeTo::Keep => return Ok((height, width)),
            ResizeTo::Exact { height, width } => (height, width),
            ResizeTo::ShorterEdge { edge } => {
                let longer = edge.saturating_mul(height.max(width)) / height.min(width);
                if height <= width { (edge, longer) } else { (longer, edge) }
            }
        };
        check_target(size.0, size.1)?;
        Ok(size)
    }
}

/// Refuses sizes that no image should have, before memory is asked for.
pub(crate) fn check_target(height: usize, width: usize) -> Result<(), Error> {
    let side = |n: usize| (1..=MAX_SIDE).contains(&n);
    if side(height) && side(width) && height * width <= MAX_AREA {
        return Ok(());
    }
    Err(Error::Shape {
        what: "resized image",
        expected: format!("sides of 1 to {MAX_SIDE} and at most {MAX_AREA} pixels"),
        found: format!("{height} x {width}"),
    })
}

impl Crop {
    /// A square crop with torchvision's offsets.
    pub fn square(side: usize) -> Self {
        Self { height: side, width: side, offset: CropOffset::HalfToEven }
    }

    /// The crop of an image.
    pub fn image(&self, image: &Rgb8) -> Rgb8 {
        let data = self.samples(&image.data, image.height, image.width, 3);
        Rgb8 { height: self.height, width: self.width, data }
    }

    /// The crop of planes `(C, H, W)`.
    pub fn planes(&self, planes: &Planar) -> Planar {
        let area = (planes.height * planes.width).max(1);
        let data = planes
            .data
            .chunks_exact(area)
            .flat_map(|plane| self.samples(plane, planes.height, planes.width, 1))
            .collect();
        Planar { channels: planes.channels, height: self.height, width: self.width, data }
    }

    /// The crop of interleaved samples `(H, W, channels)`.
    pub(crate) fn samples<T: Copy + Default>(
        &self,
        data: &[T],
        height: usize,
        width: usize,
        channels: usize,
    ) -> Vec<T> {
        let (top, from_row, rows) = self.offset.place(height, self.height);
        let (left, from_column, columns) = self.offset.place(width, self.width);
        let mut cropped = vec![T::default(); self.height * self.width * channels];
        for row in 0..rows {
            let to = ((top + row) * self.width + left) * channels;
            let from = ((from_row + row) * width + from_column) * channels;
            let run = columns * channels;
            cropped[to..to + run].copy_from_slice(&data[from..from + run]);
        }
        cropped
    }
}

impl CropOffset {
    /// Along one axis: samples of padding before, samples skipped, samples taken.
    fn place(self, length: usize, wanted: usize) -> (usize, usize, usize) {
        if length < wanted {
            return ((wanted - length) / 2, 0, length);
        }
        let spare = length - wanted;
        let skipped = match self {
            Self::Truncated => spare / 2,
            // Half of an odd number lies between two integers; the even one is the one divisible by two.
            Self::HalfToEven => spare / 2 + usize::from(spare % 4 == 3),
        };
        (0, skipped, wanted)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn crop_offsets_follow_their_rules() {
        let skipped = |rule: CropOffset, spare: usize| rule.place(10 + spare, 10).1;
        let even: Vec<_> = (0..8usize).map(|spare| skipped(CropOffset::HalfToEven, spare)).collect();
        assert_eq!(even, [0, 0, 1, 2, 2, 2, 3, 4]);
        let truncated: Vec<_> = (0..8usize).map(|spare| skipped(CropOffset::Truncated, spare)).collect();
        assert_eq!(truncated, [0, 0, 1, 1, 2, 2, 3, 3]);
        assert_eq!(skipped(CropOffset::HalfToEven, 15), 8);
    }

    #[test]
    fn a_crop_beyond_the_image_pads_with_zeros() {
        let image = Rgb8::filled(1, 2, [9, 9, 9]);
        let cropped = Crop { height: 2, width: 5, offset: CropOffset::HalfToEven }.image(&image);
        let red: Vec<u8> = cropped.data.iter().step_by(3).copied().collect();
        assert_eq!(red, [0, 9, 9, 0, 0, 0, 0, 0, 0, 0]);
    }

    #[test]
    fn the_shorter_edge_rule_truncates() {
        let resize = Resize::shorter_edge(30, Filter::Bicubic);
        assert_eq!(resize.output_size(50, 71).unwrap(), (30, 42));
        assert_eq!(resize.output_size(71, 50).unwrap(), (42, 30));
        assert!(resize.output_size(1, 100_000).is_err());
        assert_eq!(
            Preprocess::timm(224, 0.9, Filter::Bicubic, HALF, HALF).resize.to,
            ResizeTo::ShorterEdge { edge: 248 }
        );
    }

    #[test]
    fn the_output_size_can_be_changed_in_proportion() {
        let vtadl =
            Preprocess::square(550, Filter::Bilinear, [0.0; 3], [1.0; 3]).with_crop(Crop::square(512));
        let half = vtadl.with_output_size(256);
        assert_eq!(half.resize.to, ResizeTo::Exact { height: 275, width: 275 });
        assert_eq!(half.fixed_output_size(), Some((256, 256)));
        let plain = Preprocess::square(224, Filter::Bicubic, HALF, HALF).with_output_size(84);
        assert_eq!(plain.output_size(28, 28).unwrap(), (84, 84));
    }

    #[test]
    fn wrong_descriptions_name_their_field() {
        let good = Preprocess::square(8, Filter::Lanczos, HALF, HALF);
        good.validate().unwrap();
        let message = |p: Preprocess| p.validate().unwrap_err().to_string();
        assert!(message(good.clone().in_domain(Domain::Float)).contains("resize.filter"));
        assert!(message(Preprocess { std: [0.5, 0.0, 0.5], ..good.clone() }).contains("`std`"));
        assert!(message(Preprocess { mean: [f32::NAN, 0.0, 0.5], ..good.clone() }).contains("`mean`"));
        assert!(message(good.clone().with_crop(Crop::square(0))).contains("`crop`"));
        assert!(message(good.with_output_size(0)).contains("resize.to"));
        let mut hard = Preprocess::square(8, Filter::Bilinear, HALF, HALF);
        hard.resize.antialias = false;
        assert!(message(hard).contains("resize.antialias"));
    }

    #[test]
    fn a_description_is_stored_and_read_strictly() {
        let described =
            Preprocess::timm(224, 0.9, Filter::Bicubic, CLIP_MEAN, CLIP_STD).in_domain(Domain::TensorU8);
        let text = serde_json::to_string(&described).unwrap();
        assert_eq!(serde_json::from_str::<Preprocess>(&text).unwrap(), described);
        let value = serde_json::to_value(&described).unwrap();
        assert_eq!(serde_json::from_value::<Preprocess>(value).unwrap(), described);
        let short = r#"{"resize":{"to":{"exact":{"height":8,"width":8}},"filter":"lanczos"},"mean":[0,0,0],"std":[1,1,1]}"#;
        let read: Preprocess = serde_json::from_str(short).unwrap();
        assert_eq!(read, Preprocess::square(8, Filter::Lanczos, [0.0; 3], [1.0; 3]));
        let unknown = short.replace("\"mean\"", "\"means\"");
        assert!(serde_json::from_str::<Preprocess>(&unknown).unwrap_err().to_string().contains("means"));
    }

    #[test]
    fn no_normalisation_gives_samples_over_255() {
        let image = Rgb8::filled(2, 2, [0, 51, 255]);
        let planes = Preprocess::square(2, Filter::Nearest, [0.0; 3], [1.0; 3]).apply(&image).unwrap();
        assert_eq!(planes.data[..4], [0.0; 4]);
        assert_eq!(planes.data[4..8], [0.2; 4]);
        assert_eq!(planes.data[8..], [1.0; 4]);
    }
}
