//! What the methods of this project do with images before their networks see them.

use conformance::{Case, HostTensor, Outputs, UnitError};
use serde::Deserialize;

use super::{image, put_planes, put_rgb};
use crate::{Crop, Filter, Mask, MaskResize, Preprocess, Rgb8, resize};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct GeneralAd {
    /// Said for people: there is one kind.
    #[serde(rename = "filter")]
    _filter: LanczosFilter,
    image_size: usize,
    /// Where the item came from makes no difference to it.
    #[serde(rename = "layout")]
    _layout: Layout,
    mean: [f32; 3],
    std: [f32; 3],
}

#[derive(Deserialize)]
enum LanczosFilter {
    #[serde(rename = "lanczos3_u8_horizontal_first")]
    HorizontalFirst,
}

#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
enum Layout {
    MvtecAd,
    MvtecLocoAd,
}

/// `generalad: preprocess`.
pub(super) fn generalad(case: &Case) -> Result<Outputs, UnitError> {
    let config: GeneralAd = case.config()?;
    let side = config.image_size;
    let preprocess = Preprocess::square(side, Filter::Lanczos, config.mean, config.std);
    let mut outputs = Outputs::new();
    if case.has("in.image") {
        let image = image(case, "in.image")?;
        let resized = resize::pillow(&image, side, side, Filter::Lanczos)?;
        put_rgb(&mut outputs, "out.image_resized_u8", &resized);
        put_planes(&mut outputs, "out.image", &preprocess.apply(&image)?);
    }
    if case.has("in.gray28") {
        let (height, width, samples) = plane(case, "in.gray28")?;
        let grey = Rgb8::from_grey(height, width, samples)?;
        put_planes(&mut outputs, "out.gray_image", &preprocess.apply(&grey)?);
    }
    if case.has("in.mask") {
        let (height, width, samples) = plane(case, "in.mask")?;
        // Its samples by the same filter, of which any that is left counts.
        let grey = Rgb8::from_grey(height, width, samples)?;
        let resized = resize::pillow(&grey, side, side, Filter::Lanczos)?;
        let levels = resized.data.iter().step_by(3).copied().collect();
        outputs.insert("out.mask_resized_u8".into(), HostTensor::u8([side, side], levels));
        let mask = Mask::new(height, width, samples.to_vec())?;
        let mask = preprocess.apply_to_mask(&mask, MaskResize::LanczosAnyNonzero)?;
        outputs.insert("out.mask".into(), HostTensor::u8([side, side], mask.data));
        let normal = Mask::empty(side, side);
        outputs.insert("out.mask_normal".into(), HostTensor::u8([side, side], normal.data));
    }
    Ok(outputs)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct AdVit {
    #[serde(rename = "module")]
    _module: AdVitModule,
    hw: [usize; 2],
    resize: usize,
    crop: usize,
    channels: usize,
}

#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
enum AdVitModule {
    Preprocess,
}

/// `advit-gmdn: preprocess`.
pub(super) fn advit_gmdn(case: &Case) -> Result<Outputs, UnitError> {
    let config: AdVit = case.config()?;
    let image = match config.channels {
        1 => {
            let (height, width, samples) = plane(case, "in.image")?;
            Rgb8::from_grey(height, width, samples)?
        }
        3 => image(case, "in.image")?,
        other => return Err(format!("config key `channels`: expected 1 or 3, found {other}").into()),
    };
    if [image.height, image.width] != config.hw {
        let found = format!("{} x {}", image.height, image.width);
        return Err(format!("config key `hw`: is {:?}, but in.image is {found}", config.hw).into());
    }
    let crop = Crop::square(config.crop);
    let preprocess = Preprocess::square(config.resize, Filter::Bilinear, [0.0; 3], [1.0; 3]).with_crop(crop);
    let mut outputs = Outputs::new();
    put_planes(&mut outputs, "out.image", &preprocess.apply(&image)?);
    if case.has("in.mask") {
        let (height, width, samples) = plane(case, "in.mask")?;
        let mask = Mask::new(height, width, samples.to_vec())?;
        let mask = preprocess.apply_to_mask(&mask, MaskResize::BilinearAnyNonzero)?;
        let values = mask.data.iter().map(|&v| f32::from(v)).collect();
        outputs.insert("out.mask".into(), HostTensor::f32([mask.height, mask.width], values));
    }
    Ok(outputs)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Registers {
    items: Vec<RegistersItem>,
    #[serde(rename = "resize")]
    _resize: NearestResize,
    #[serde(rename = "scale")]
    _scale: Scale,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RegistersItem {
    src: [usize; 2],
    dst: [usize; 2],
    mode: RegistersMode,
}

#[derive(Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
enum RegistersMode {
    Rgb,
    Grey,
    Mask,
}

#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
enum NearestResize {
    NearestHalfPixel,
}

#[derive(Deserialize)]
enum Scale {
    #[serde(rename = "div_255")]
    Div255,
}

/// `vtadl-registers: preprocess`.
pub(super) fn vtadl_registers(case: &Case) -> Result<Outputs, UnitError> {
    let config: Registers = case.config()?;
    let mut outputs = Outputs::new();
    for (number, item) in config.items.iter().enumerate() {
        let name = format!("in.image_{number}");
        let image = if item.mode == RegistersMode::Rgb { planes(case, &name)? } else { grey(case, &name)? };
        if [image.height, image.width] != item.src {
            let found = format!("{} x {}", image.height, image.width);
            return Err(format!(
                "config key `items[{number}].src`: is {:?}, but {name} is {found}",
                item.src
            )
            .into());
        }
        let mut preprocess = Preprocess::square(1, Filter::Nearest, [0.0; 3], [1.0; 3]);
        preprocess.resize.to = crate::ResizeTo::Exact { height: item.dst[0], width: item.dst[1] };
        put_planes(&mut outputs, &format!("out.image_{number}"), &preprocess.apply(&image)?);
    }
    Ok(outputs)
}

/// An image of shape `[3, H, W]`.
fn planes(case: &Case, name: &str) -> Result<Rgb8, UnitError> {
    let tensor = case.input(name)?;
    let &[3, height, width] = tensor.shape.as_slice() else {
        return Err(format!("{name}: expected shape [3, H, W], found {:?}", tensor.shape).into());
    };
    let (samples, area) = (tensor.as_u8()?, height * width);
    let data = (0..area).flat_map(|at| [0, 1, 2].map(|plane| samples[plane * area + at])).collect();
    Ok(Rgb8::new(height, width, data)?)
}

fn grey(case: &Case, name: &str) -> Result<Rgb8, UnitError> {
    let (height, width, samples) = plane(case, name)?;
    Ok(Rgb8::from_grey(height, width, samples)?)
}

/// Samples of shape `[H, W]`.
fn plane<'c>(case: &'c Case, name: &str) -> Result<(usize, usize, &'c [u8]), UnitError> {
    let tensor = case.input(name)?;
    let &[height, width] = tensor.shape.as_slice() else {
        return Err(format!("{name}: expected shape [H, W], found {:?}", tensor.shape).into());
    };
    Ok((height, width, tensor.as_u8()?))
}
