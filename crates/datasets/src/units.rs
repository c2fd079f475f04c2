//! Numeric cases that are about who is normal as well as about pixels.

use conformance::{Case, HostTensor, Outputs, Unit, UnitError};
use image_prep::{Crop, Filter, Preprocess, Resize, Rgb8};
use serde::Deserialize;

use crate::{Part, one_class_abnormal};

/// The units of this crate: the data of the transformer GAN.
pub fn conformance_units() -> Vec<Unit> {
    vec![Unit { method: "anogan-trans", unit: "preprocess", run: preprocess }]
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct CaseConfig {
    gray: Option<Pipeline>,
    rgb: Option<Pipeline>,
    folder: Option<Pipeline>,
    #[serde(rename = "interpolation")]
    _interpolation: Interpolation,
    abnormal_class: Option<usize>,
    test_id_offset: Option<usize>,
    /// How the inputs were drawn.
    #[serde(rename = "seed")]
    _seed: Option<i64>,
}

#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
enum Interpolation {
    BilinearU8Antialias,
}

#[derive(Clone, Copy, Deserialize)]
#[serde(deny_unknown_fields)]
struct Pipeline {
    isize: usize,
    mean: f32,
    std: f32,
    crop: Option<bool>,
}

impl Pipeline {
    fn described(self) -> Preprocess {
        let Self { isize: side, mean, std, crop } = self;
        let (resize, crop) = if crop == Some(true) {
            (Resize::shorter_edge(side, Filter::Bilinear), Some(Crop::square(side)))
        } else {
            (Resize::exact(side, side, Filter::Bilinear), None)
        };
        Preprocess { resize, crop, mean: [mean; 3], std: [std; 3] }
    }
}

fn preprocess(case: &Case) -> Result<Outputs, UnitError> {
    let config: CaseConfig = case.config()?;
    let mut outputs = Outputs::new();
    if let Some(gray) = config.gray {
        if gray.crop.is_some() {
            return Err("config key `gray.crop`: expected none".into());
        }
        let tensor = case.input("in.gray")?;
        let &[count, height, width] = tensor.shape.as_slice() else {
            return Err(format!("in.gray: expected shape [n, H, W], found {:?}", tensor.shape).into());
        };
        let mut values = Vec::new();
        for grey in tensor.as_u8()?.chunks_exact((height * width).max(1)) {
            let planes = gray.described().apply(&Rgb8::from_grey(height, width, grey)?)?;
            // One channel; the three are equal.
            values.extend_from_slice(&planes.data[..planes.height * planes.width]);
        }
        outputs.insert("out.gray".into(), HostTensor::f32([count, 1, gray.isize, gray.isize], values));
    }
    for (name, pipeline) in [("rgb", config.rgb), ("folder", config.folder)] {
        let Some(pipeline) = pipeline else { continue };
        let tensor = case.input(&format!("in.{name}"))?;
        let &[height, width, 3] = tensor.shape.as_slice() else {
            return Err(format!("in.{name}: expected shape [H, W, 3], found {:?}", tensor.shape).into());
        };
        let image = Rgb8::new(height, width, tensor.as_u8()?.to_vec())?;
        let planes = pipeline.described().apply(&image)?;
        let shape = [planes.channels, planes.height, planes.width];
        outputs.insert(format!("out.{name}"), HostTensor::f32(shape, planes.data));
    }
    if let Some(class) = config.abnormal_class {
        let offset = config.test_id_offset.ok_or("config key `test_id_offset` is missing")?;
        let labels = |name: &str| case.input(name)?.to_usize_vec();
        let chosen = one_class_abnormal(&labels("in.train_label")?, &labels("in.test_label")?, class);
        let integers = |values: Vec<usize>| {
            HostTensor::i64([values.len()], values.into_iter().map(|v| v as i64).collect())
        };
        let id = |&(part, at): &(Part, usize)| if part == Part::Test { offset + at } else { at };
        let anomalous = (0..chosen.test.len()).map(|at| usize::from(at >= chosen.normal)).collect();
        outputs.insert("out.test_id".into(), integers(chosen.test.iter().map(id).collect()));
        outputs.insert("out.train_id".into(), integers(chosen.train));
        outputs.insert("out.test_anomaly".into(), integers(anomalous));
    }
    Ok(outputs)
}
