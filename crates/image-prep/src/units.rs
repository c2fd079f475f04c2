//! The cases of method `datasets`, and the `preprocess` cases of the methods, for the conformance runner.

mod config;
mod methods;

use conformance::{Case, HostTensor, Outputs, Unit, UnitError};

use self::config::{CaseConfig, Processor};
use crate::{
    Crop, CropOffset, DecodeOptions, Domain, Filter, MapFilter, Mask, MaskResize, Planar, Preprocess, Resize,
    ResizeTo, Rgb8, decode, resize, upsample_maps,
};

/// Every unit of the `datasets` cases, and how the methods prepare their images.
pub fn conformance_units() -> Vec<Unit> {
    type Run = fn(&Case) -> Result<Outputs, UnitError>;
    let units: [(&'static str, Run); 16] = [
        ("pil_bilinear", pil),
        ("pil_bicubic", pil),
        ("pil_lanczos", pil),
        ("pil_bilinear_enlarge_one_axis", pil),
        ("pil_bicubic_enlarge_one_axis", pil),
        ("pil_pass_order", pil),
        ("tensor_bilinear", tensor),
        ("tensor_bicubic", tensor),
        ("tensor_uint8", tensor_uint8),
        ("shorter_edge_center_crop", shorter_edge_center_crop),
        ("center_crop_pads", center_crop_pads),
        ("modes_to_rgb", modes_to_rgb),
        ("sixteen_bit_grey", sixteen_bit_grey),
        ("exif_orientation", exif_orientation),
        ("mask_resize", mask_resize),
        ("map_upsample", map_upsample),
    ];
    let mut units: Vec<Unit> =
        units.into_iter().map(|(unit, run)| Unit { method: "datasets", unit, run }).collect();
    units.push(Unit { method: "datasets", unit: "hf_processors", run: hf_processors });
    let methods: [(&'static str, Run); 3] = [
        ("advit-gmdn", methods::advit_gmdn),
        ("generalad", methods::generalad),
        ("vtadl-registers", methods::vtadl_registers),
    ];
    units.extend(methods.map(|(method, run)| Unit { method, unit: "preprocess", run }));
    units
}

fn pil(case: &Case) -> Result<Outputs, UnitError> {
    let config: CaseConfig = case.config()?;
    let (height, width) = config.size()?;
    let image = image(case, "in.image")?;
    let filter = config.filter()?;
    let mut outputs = Outputs::new();
    put_rgb(&mut outputs, "out.resized", &resize::pillow(&image, height, width, filter)?);
    if config.mean.is_some() {
        let preprocess = preprocess(&config, Resize::exact(height, width, filter))?;
        put_planes(&mut outputs, "out.normalised", &preprocess.apply(&image)?);
    }
    Ok(outputs)
}

fn tensor(case: &Case) -> Result<Outputs, UnitError> {
    let config: CaseConfig = case.config()?;
    let (height, width) = config.size()?;
    let image = image(case, "in.image")?;
    let filter = config.filter()?;
    let unit = image.to_unit_planes();
    let mut outputs = Outputs::new();
    put_planes(&mut outputs, "out.resized_float", &resize::float(&unit, height, width, filter, true)?);
    let hard = resize::float(&unit, height, width, filter, false)?;
    put_planes(&mut outputs, "out.resized_float_no_antialias", &hard);
    let preprocess = preprocess(&config, Resize::exact(height, width, filter))?.in_domain(Domain::Float);
    put_planes(&mut outputs, "out.normalised", &preprocess.apply(&image)?);
    Ok(outputs)
}

fn tensor_uint8(case: &Case) -> Result<Outputs, UnitError> {
    let config: CaseConfig = case.config()?;
    let (height, width) = config.size()?;
    let image = image(case, "in.image")?;
    let mut outputs = Outputs::new();
    for (name, filter) in
        [("out.resized_bilinear", Filter::Bilinear), ("out.resized_bicubic", Filter::Bicubic)]
    {
        put_rgb(&mut outputs, name, &resize::tensor_u8(&image, height, width, filter)?);
    }
    Ok(outputs)
}

fn shorter_edge_center_crop(case: &Case) -> Result<Outputs, UnitError> {
    let config: CaseConfig = case.config()?;
    let image = image(case, "in.image")?;
    let edge = config.resize_shorter_edge.ok_or("config key `resize_shorter_edge` is missing")?;
    let resize = Resize::shorter_edge(edge, config.filter()?);
    let crop = config.crop()?;
    let (height, width) = resize.output_size(image.height, image.width)?;
    let resized = resize::pillow(&image, height, width, resize.filter)?;
    let mut outputs = Outputs::new();
    put_rgb(&mut outputs, "out.resized", &resized);
    put_rgb(&mut outputs, "out.cropped", &crop.image(&resized));
    if config.mean.is_some() {
        let preprocess = preprocess(&config, resize)?.with_crop(crop);
        put_planes(&mut outputs, "out.normalised", &preprocess.apply(&image)?);
    }
    Ok(outputs)
}

fn center_crop_pads(case: &Case) -> Result<Outputs, UnitError> {
    let config: CaseConfig = case.config()?;
    let image = image(case, "in.image")?;
    let crop = config.crop()?;
    // The planes hold whole levels, so the way back to 8 bits loses nothing.
    let cropped = crop.planes(&image.to_planes(|_, level| f32::from(level)));
    let area = cropped.height * cropped.width;
    let interleaved = (0..area).flat_map(|at| (0..3).map(move |c| c * area + at));
    let data = interleaved.map(|at| cropped.data[at] as u8).collect();
    let mut outputs = Outputs::new();
    put_rgb(&mut outputs, "out.cropped", &crop.image(&image));
    put_rgb(&mut outputs, "out.cropped_tensor", &Rgb8::new(cropped.height, cropped.width, data)?);
    Ok(outputs)
}

fn modes_to_rgb(case: &Case) -> Result<Outputs, UnitError> {
    let config: CaseConfig = case.config()?;
    let mut outputs = Outputs::new();
    for mode in config.sets.ok_or("config key `sets` is missing")? {
        let name = mode.name();
        let rgb = decode(case.input(&format!("in.{name}.file"))?.as_u8()?, &DecodeOptions::default())?;
        put_rgb(&mut outputs, &format!("out.{name}.rgb"), &rgb);
        let luma = HostTensor::u8([rgb.height, rgb.width], rgb.luma());
        outputs.insert(format!("out.{name}.luma"), luma);
    }
    Ok(outputs)
}

fn sixteen_bit_grey(case: &Case) -> Result<Outputs, UnitError> {
    let _: CaseConfig = case.config()?;
    let rgb = decode(case.input("in.file")?.as_u8()?, &DecodeOptions::default())?;
    let mut outputs = Outputs::new();
    put_rgb(&mut outputs, "out.rgb_high_byte", &rgb);
    Ok(outputs)
}

fn exif_orientation(case: &Case) -> Result<Outputs, UnitError> {
    let config: CaseConfig = case.config()?;
    config.check_orientation()?;
    let bytes = case.input("in.file")?.as_u8()?;
    let mut outputs = Outputs::new();
    for (name, apply_orientation) in [("out.rgb_tag_ignored", false), ("out.rgb_tag_applied", true)] {
        put_rgb(&mut outputs, name, &decode(bytes, &DecodeOptions { apply_orientation })?);
    }
    Ok(outputs)
}

fn mask_resize(case: &Case) -> Result<Outputs, UnitError> {
    let config: CaseConfig = case.config()?;
    let (height, width) = config.size()?;
    let tensor = case.input("in.mask")?;
    let &[rows, columns] = tensor.shape.as_slice() else {
        return Err(format!("in.mask: expected shape [H, W], found {:?}", tensor.shape).into());
    };
    let stored = Mask::new(rows, columns, tensor.as_u8()?.to_vec())?;
    let binary = stored.binary(0);
    let mut outputs = Outputs::new();
    let mut put = |name: &str, mask: Mask| {
        outputs.insert(name.to_owned(), HostTensor::u8([mask.height, mask.width], mask.data));
    };
    put("out.nearest_tensor", binary.resize(height, width, MaskResize::NearestTensor)?);
    put("out.nearest_pil", binary.resize(height, width, MaskResize::NearestPil)?);
    put("out.lanczos_any_nonzero", stored.resize(height, width, MaskResize::LanczosAnyNonzero)?);
    put("out.binary", binary);
    Ok(outputs)
}

fn hf_processors(case: &Case) -> Result<Outputs, UnitError> {
    let config: CaseConfig = case.config()?;
    let image = image(case, "in.image")?;
    let processors = config.processors.ok_or("config key `processors` is missing")?;
    let mut outputs = Outputs::new();
    for (name, processor) in processors.named() {
        let planes = described(processor)?.apply(&image)?;
        put_planes(&mut outputs, &format!("out.{name}.pixel_values"), &planes);
    }
    Ok(outputs)
}

/// What a processor of transformers does, as a description.
fn described(processor: &Processor) -> Result<Preprocess, UnitError> {
    let to = match (processor.size, processor.shorter_edge) {
        (Some([height, width]), None) => ResizeTo::Exact { height, width },
        (None, Some(edge)) => ResizeTo::ShorterEdge { edge },
        _ => return Err("a processor has either `size` or `shorter_edge`".into()),
    };
    let domain = if processor.rescale_before_resize.is_some() { Domain::Float } else { Domain::TensorU8 };
    let crop = processor.crop.map(|[height, width]| Crop { height, width, offset: CropOffset::Truncated });
    let resize = Resize { to, filter: processor.filter.into(), domain, antialias: true };
    Ok(Preprocess { resize, crop, mean: processor.mean, std: processor.std })
}

fn map_upsample(case: &Case) -> Result<Outputs, UnitError> {
    let config: CaseConfig = case.config()?;
    let (height, width) = config.size()?;
    let tensor = case.input("in.map")?;
    let &[count, 1, rows, columns] = tensor.shape.as_slice() else {
        return Err(format!("in.map: expected shape [n, 1, h, w], found {:?}", tensor.shape).into());
    };
    let maps = tensor.to_f32_vec()?;
    let mut outputs = Outputs::new();
    for (name, filter) in [
        ("out.bilinear", MapFilter::Bilinear),
        ("out.bilinear_corners_aligned", MapFilter::BilinearAligned),
        ("out.bicubic", MapFilter::Bicubic),
        ("out.nearest", MapFilter::Nearest),
    ] {
        let up = upsample_maps(&maps, (rows, columns), (height, width), filter)?;
        outputs.insert(name.to_owned(), HostTensor::f32([count, 1, height, width], up));
    }
    Ok(outputs)
}

fn preprocess(config: &CaseConfig, resize: Resize) -> Result<Preprocess, UnitError> {
    let mean = config.mean.ok_or("config key `mean` is missing")?;
    let std = config.std.ok_or("config key `std` is missing")?;
    Ok(Preprocess { resize, crop: None, mean, std })
}

fn image(case: &Case, name: &str) -> Result<Rgb8, UnitError> {
    let tensor = case.input(name)?;
    let &[height, width, 3] = tensor.shape.as_slice() else {
        return Err(format!("{name}: expected shape [H, W, 3], found {:?}", tensor.shape).into());
    };
    Ok(Rgb8::new(height, width, tensor.as_u8()?.to_vec())?)
}

fn put_rgb(outputs: &mut Outputs, name: &str, image: &Rgb8) {
    outputs.insert(name.to_owned(), HostTensor::u8([image.height, image.width, 3], image.data.clone()));
}

fn put_planes(outputs: &mut Outputs, name: &str, planes: &Planar) {
    let shape = [planes.channels, planes.height, planes.width];
    outputs.insert(name.to_owned(), HostTensor::f32(shape, planes.data.clone()));
}
