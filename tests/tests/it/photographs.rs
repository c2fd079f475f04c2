//! `GeneralAD` finds anomalies where they are, on photographs of surfaces (`assets/textures`).

use std::sync::Arc;

use anomaly_core::{FitContext, Method, Stream, Streams, TrainingData};
use candle_core::Device;
use end_to_end::root;
use generalad::{Config, GeneralAd};
use image_prep::{DecodeOptions, Rgb8, decode_file};
use method_testkit::InMemoryData;
use vit_backbone::{LoadOptions, Vit};

/// Side of an image cut from a photograph: eight patches of the embedded backbone.
const SIDE: usize = 112;
/// Columns that normal images to learn from are cut from; test images come from those beyond.
const TRAINING_COLUMNS: usize = 288;
/// Sides of the pieces pasted in, in pixels.
const PIECES: std::ops::Range<usize> = 24..48;

fn photograph(name: &str) -> Rgb8 {
    decode_file(root().join(format!("assets/textures/{name}.jpg")), &DecodeOptions::default()).unwrap()
}

/// A square of `side` pixels at a place drawn among those whose columns are in `columns`.
fn cut(photograph: &Rgb8, side: usize, columns: std::ops::Range<usize>, stream: &mut Stream) -> Rgb8 {
    let left = columns.start + stream.below(columns.len() - side + 1);
    let top = stream.below(photograph.height - side + 1);
    let mut data = Vec::with_capacity(3 * side * side);
    for row in top..top + side {
        let start = 3 * (row * photograph.width + left);
        data.extend_from_slice(&photograph.data[start..start + 3 * side]);
    }
    Rgb8 { height: side, width: side, data }
}

/// Pastes a square cut from `other` into `image`; returns which pixels it covers.
fn paste(image: &mut Rgb8, other: &Rgb8, stream: &mut Stream) -> Vec<bool> {
    let side = PIECES.start + stream.below(PIECES.len());
    let piece = cut(other, side, 0..other.width, stream);
    let (top, left) = (stream.below(SIDE - side + 1), stream.below(SIDE - side + 1));
    let mut covered = vec![false; SIDE * SIDE];
    for row in 0..side {
        let to = (top + row) * SIDE + left;
        covered[to..to + side].fill(true);
        image.data[3 * to..3 * (to + side)]
            .copy_from_slice(&piece.data[3 * row * side..3 * (row + 1) * side]);
    }
    covered
}

/// Pixel AUROC on images of `name` with pieces of `other`.
fn pixel_auroc(name: &str, other: &str, vit: &Arc<Vit>) -> f64 {
    let (photograph, other) = (photograph(name), photograph(other));
    let streams = Streams::new(0);
    let mut stream = streams.stream("training images");
    let normal: Vec<Rgb8> =
        (0..32).map(|_| cut(&photograph, SIDE, 0..TRAINING_COLUMNS, &mut stream)).collect();
    let mut stream = streams.stream("test images");
    let (mut images, mut labels) = (Vec::new(), Vec::new());
    for index in 0..20 {
        let mut image = cut(&photograph, SIDE, TRAINING_COLUMNS..photograph.width, &mut stream);
        labels.extend(match index % 2 {
            0 => vec![false; SIDE * SIDE],
            _ => paste(&mut image, &other, &mut stream),
        });
        images.push(image);
    }

    let config = Config {
        image_size: SIDE,
        epochs: 30,
        batch_size: 8,
        learning_rate: 1e-3,
        hidden_dim: 256,
        // About the spread of the embedded backbone's features: in so few steps nothing is learned from less.
        noise_std: 1.0,
        top_k: generalad::Amount::Of(5),
        smoothing_sigma: 4.0,
        smoothing_radius: 8,
        ..Config::default()
    };
    let method = GeneralAd::new(config, Arc::clone(vit)).unwrap();
    let mut data = InMemoryData::new(&normal, method.preprocess()).unwrap();
    let detector = method.fit(&mut data, &mut FitContext::new(Device::Cpu, 0)).unwrap();
    let tests = InMemoryData::new(&images, method.preprocess()).unwrap();
    let maps = detector.score(&tests.get(&(0..20).collect::<Vec<_>>()).unwrap()).unwrap().maps.unwrap();
    assert_eq!((maps.height, maps.width), (SIDE, SIDE));
    metrics::auroc(&maps.data, &labels).unwrap()
}

#[test]
fn pieces_pasted_into_photographs_are_found() {
    let vit = Arc::new(Vit::load("dinov2-small-b9", &LoadOptions::default()).unwrap());
    for (name, other) in [("brick", "gravel"), ("grass", "brick"), ("gravel", "brick")] {
        let found = pixel_auroc(name, other, &vit);
        assert!(found > 0.85, "pieces of {other} in {name}: pixel AUROC {found:.3}, expected above 0.85");
    }
}
